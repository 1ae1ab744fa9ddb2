//! Values as people write them on the command line: moments, rates, sizes, quotas, or `none`.
//!
//! Units are those of the configuration (`config/units.rs`). A moment is a date, a time of RFC 3339
//! or a distance from now; which one it is, is decided when it is used, with the time as argument.
//! What is read here is well formed; whether it is allowed is the gateway's to say. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::config::units;
use crate::store::ids::Timestamp;
use crate::store::records::Period;

/// A value, or the wish that there be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish<T> {
    /// `none`.
    Clear,
    /// A value.
    Set(T),
}

impl<T: Clone> Wish<T> {
    /// The value for JSON: `null` for none.
    pub(crate) fn json(&self, show: impl Fn(T) -> Value) -> Value {
        match self {
            Self::Clear => Value::Null,
            Self::Set(value) => show(value.clone()),
        }
    }
}

/// A moment as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// This one.
    At(Timestamp),
    /// So far from now.
    Distance(Duration),
}

impl When {
    /// The moment, if distances are meant ahead.
    pub(crate) fn ahead(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Distance(distance) => now.plus_ms(ms(distance)),
        }
    }

    /// The moment, if distances are meant back.
    pub(crate) fn back(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Distance(distance) => now.plus_ms(-ms(distance)),
        }
    }
}

/// How much in which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Per.
    pub(crate) period: Period,
}

/// `none`, or what `read` reads.
fn wish<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Wish<T>, String> {
    match text {
        "none" | "never" => Ok(Wish::Clear),
        other => read(other).map(Wish::Set),
    }
}

/// A rate, or `none`.
pub(crate) fn rate(text: &str) -> Result<Wish<u64>, String> {
    wish(text, bps)
}

/// A rate.
pub(crate) fn bps(text: &str) -> Result<u64, String> {
    units::rate_bits_per_s(text).map_err(|error| error.to_string())
}

/// A size, or `none`.
pub(crate) fn size(text: &str) -> Result<Wish<u64>, String> {
    wish(text, |text| units::size_bytes(text).map_err(|error| error.to_string()))
}

/// A word, or `none`.
pub(crate) fn word(text: &str) -> Result<Wish<String>, String> {
    wish(text, |text| Ok(text.to_owned()))
}

/// Words separated by commas, or `none`.
pub(crate) fn words(text: &str) -> Result<Wish<Vec<String>>, String> {
    wish(text, |text| Ok(text.split(',').map(|word| word.trim().to_owned()).collect()))
}

/// A number, or `none` for 0: a time without end.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    match wish(text, |text| units::duration(text).map_err(|error| error.to_string()))? {
        Wish::Clear => Ok(0),
        Wish::Set(time) if time.subsec_nanos() > 0 => {
            Err(format!("\"{text}\" is no whole number of seconds"))
        }
        Wish::Set(time) => u32::try_from(time.as_secs())
            .map_err(|_| format!("\"{text}\" is longer than can be counted")),
    }
}

/// A moment, or `never`.
pub(crate) fn when_or_never(text: &str) -> Result<Wish<When>, String> {
    wish(text, when)
}

/// A date, a time of RFC 3339, or a distance.
pub(crate) fn when(text: &str) -> Result<When, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(When::At(moment));
    }
    let utc = jiff::tz::TimeZone::UTC;
    let civil = text
        .parse::<jiff::civil::Date>()
        .map(|date| date.at(0, 0, 0, 0))
        .ok()
        .filter(|_| text.len() == 10)
        .or_else(|| text.parse::<jiff::civil::DateTime>().ok().filter(|_| text.len() > 10));
    if let Some(moment) = civil.and_then(|civil| civil.to_zoned(utc).ok()) {
        return Ok(When::At(Timestamp(moment.timestamp().as_millisecond())));
    }
    units::duration(text).map(When::Distance).map_err(|error| {
        let like_a_date = text.contains('-') || text.contains(':');
        let why = if like_a_date { format!("\"{text}\" is no moment") } else { error.to_string() };
        format!(
            "{why}; write a date (2027-01-31), a time in UTC (2027-01-31T12:00:00Z), or a distance \
             from now (30d)"
        )
    })
}

/// `SIZE/PERIOD`, or `none`.
pub(crate) fn volume_or_none(text: &str) -> Result<Wish<Volume>, String> {
    wish(text, volume)
}

/// `SIZE/PERIOD`.
pub(crate) fn volume(text: &str) -> Result<Volume, String> {
    let (size, period) = text.split_once('/').ok_or_else(|| {
        format!("\"{text}\" has no period: write for example 50GiB/month, or 1TiB/total")
    })?;
    let bytes = units::size_bytes(size.trim()).map_err(|error| error.to_string())?;
    let period = Period::from_word(period.trim()).ok_or_else(|| {
        let words: Vec<&str> = Period::ALL.iter().map(|period| period.word()).collect();
        format!("\"{period}\" is no period of a quota: write {}", words.join(", "))
    })?;
    Ok(Volume { bytes, period })
}

fn ms(distance: Duration) -> i64 {
    i64::try_from(distance.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_796_000_000_000);

    #[test]
    fn a_moment_is_a_date_a_time_or_a_distance() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (text, expected) in [
            ("2027-01-31", at("2027-01-31T00:00:00Z")),
            ("2027-01-31T12:00:00Z", at("2027-01-31T12:00:00Z")),
            ("2027-01-31T12:00:00+02:00", at("2027-01-31T10:00:00Z")),
            ("2027-01-31 12:30", at("2027-01-31T12:30:00Z")),
            ("30d", NOW.plus_ms(30 * 86_400_000)),
        ] {
            assert_eq!(when(text).unwrap().ahead(NOW), expected, "{text}");
        }
        assert_eq!(when("7d").unwrap().back(NOW), NOW.plus_ms(-7 * 86_400_000));
        assert_eq!(when_or_never("never"), Ok(Wish::Clear));
        for (text, part) in
            [("2027-13-01", "no moment"), ("tomorrow", "2027-01-31"), ("30", "no unit")]
        {
            let why = when(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_quota_is_a_size_per_period() {
        let month = Volume { bytes: 50 << 30, period: Period::Month };
        assert_eq!(volume_or_none("50GiB/month"), Ok(Wish::Set(month)));
        assert_eq!(volume_or_none("none"), Ok(Wish::Clear));
        for (text, part) in
            [("50GiB", "no period"), ("50GB/day", "50GiB"), ("1GiB/year", "day, week, month")]
        {
            let why = volume_or_none(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn none_is_a_wish_and_times_without_end_are_zero() {
        assert_eq!(rate("none"), Ok(Wish::Clear));
        assert_eq!(rate("20mbit"), Ok(Wish::Set(20_000_000)));
        assert!(rate("20mb").unwrap_err().contains("bits or bytes"));
        assert_eq!(seconds("never"), Ok(0));
        assert_eq!(seconds("8h"), Ok(28_800));
        assert!(seconds("10ms").is_err() && seconds("99999999d").is_err());
        assert_eq!(words("a, b"), Ok(Wish::Set(vec!["a".to_owned(), "b".to_owned()])));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,30}") {
            let _ = (when_or_never(&text), volume_or_none(&text), rate(&text), size(&text));
            let _ = (seconds(&text), words(&text));
        }

        #[test]
        fn a_distance_ahead_and_back_is_the_same(seconds in 0_u64..1 << 40) {
            let when = When::Distance(Duration::from_secs(seconds));
            prop_assert_eq!(when.ahead(NOW).since(NOW), NOW.since(when.back(NOW)));
        }
    }
}
