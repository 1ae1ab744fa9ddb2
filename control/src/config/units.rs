//! Strict units: durations, sizes and rates as an operator writes them.
//!
//! A number without a unit, or with one that people read in two ways ("10mb": megabit or
//! megabyte?), is refused with what to write instead. Bits are always decimal and per second
//! (`kbit`, `mbit`, `gbit`), bytes are always binary (`KiB`, `MiB`, `GiB`), times are `ms`, `s`,
//! `m`, `h`, `d`. One number, one unit, no fractions, no spaces inside the number.

use std::time::Duration;

/// Why a value with a unit was refused; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A length of time: `"250ms"`, `"25s"`, `"5m"`, `"24h"`, `"7d"`.
///
/// # Errors
/// A missing, unknown or ambiguous unit, a fraction, a sign, or more than 2^64 ms.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, "a time such as \"25s\", \"5m\" or \"24h\"")?;
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(missing(number, "s", "seconds")),
        other => {
            let hint = match other {
                "min" | "mins" | "minute" | "minutes" => format!("\"{number}m\""),
                "sec" | "secs" | "second" | "seconds" | "S" => format!("\"{number}s\""),
                "hr" | "hrs" | "hour" | "hours" | "H" => format!("\"{number}h\""),
                "day" | "days" | "D" => format!("\"{number}d\""),
                "M" => format!("\"{number}m\" for minutes; months are not a unit here"),
                _ => "ms, s, m, h or d after the number".to_owned(),
            };
            return Err(unknown(other, "time", &hint));
        }
    };
    let ms = number.checked_mul(ms_per_unit).ok_or_else(|| too_large(text))?;
    Ok(Duration::from_millis(ms))
}

/// A size in bytes: `"512B"`, `"64KiB"`, `"16MiB"`, `"2GiB"`.
///
/// # Errors
/// A missing, unknown or ambiguous unit, a fraction, a sign, or more than 2^64 bytes.
pub fn size_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, "a size such as \"64KiB\" or \"16MiB\"")?;
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "" => return Err(missing(number, "KiB", "kibibytes")),
        other => {
            let hint = match other.to_ascii_lowercase().as_str() {
                "k" | "kb" | "kib" => format!("\"{number}KiB\" (1,024 bytes each)"),
                "m" | "mb" | "mib" => format!("\"{number}MiB\" (1,048,576 bytes each)"),
                "g" | "gb" | "gib" => format!("\"{number}GiB\" (1,073,741,824 bytes each)"),
                "t" | "tb" | "tib" => format!("\"{number}TiB\""),
                "b" | "byte" | "bytes" => format!("\"{number}B\" for bytes"),
                _ => "B, KiB, MiB, GiB or TiB after the number".to_owned(),
            };
            return Err(ambiguous_or_unknown(other, "size", &hint));
        }
    };
    number.checked_mul(bytes_per_unit).ok_or_else(|| too_large(text))
}

/// A rate in bits per second: `"500kbit"`, `"10mbit"`, `"1gbit"`.
///
/// The spellings `kbps`, `mbps` and `gbps` are accepted and mean bits (never bytes), as network
/// people use them.
///
/// # Errors
/// A missing, unknown or ambiguous unit, a fraction, a sign, or more than 2^64 bit/s.
pub fn rate_bits_per_s(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, "a rate such as \"500kbit\" or \"10mbit\"")?;
    let bits_per_unit: u64 = match unit {
        "bit" => 1,
        "kbit" | "kbps" => 1_000,
        "mbit" | "mbps" => 1_000_000,
        "gbit" | "gbps" => 1_000_000_000,
        "" => return Err(missing(number, "mbit", "megabits per second")),
        other => {
            let hint = match other.to_ascii_lowercase().as_str() {
                "m" | "mb" | "mb/s" | "mib" | "mbit/s" | "mbit" | "mbps" => either(number, "mbit"),
                "k" | "kb" | "kb/s" | "kib" | "kbit/s" | "kbit" | "kbps" => either(number, "kbit"),
                "g" | "gb" | "gb/s" | "gib" | "gbit/s" | "gbit" | "gbps" => either(number, "gbit"),
                "b" | "bps" => format!("\"{number}bit\" for bits per second"),
                _ => "bit, kbit, mbit or gbit after the number".to_owned(),
            };
            return Err(ambiguous_or_unknown(other, "rate", &hint));
        }
    };
    number.checked_mul(bits_per_unit).ok_or_else(|| too_large(text))
}

/// Writes a rate in bits per second with the largest unit that loses nothing.
#[must_use]
pub fn show_rate(bits_per_s: u64) -> String {
    for (unit, size) in [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000)] {
        if bits_per_s >= size && bits_per_s.is_multiple_of(size) {
            return format!("{}{unit}", bits_per_s / size);
        }
    }
    format!("{bits_per_s}bit")
}

/// Writes a duration with the largest unit that loses nothing.
#[must_use]
pub fn show_duration(value: Duration) -> String {
    let ms = value.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

fn either(number: u64, unit: &str) -> String {
    format!(
        "\"{number}{unit}\" for bits per second, or \"{}{unit}\" if you meant bytes",
        number.saturating_mul(8)
    )
}

/// Splits `text` into its number and its unit.
fn split<'a>(text: &'a str, wanted: &str) -> Result<(u64, &'a str), UnitError> {
    let refused = |why: &str| UnitError(format!("\"{text}\" {why}: write {wanted}"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        let why = match text.bytes().next() {
            None => "is empty",
            Some(b'-' | b'+') => "has a sign",
            Some(_) => "does not begin with a number",
        };
        return Err(refused(why));
    }
    let (number, unit) = text.split_at(digits);
    let number = number.parse().map_err(|_| too_large(text))?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    match unit.bytes().next() {
        Some(b'.' | b',' | b'_') => Err(refused("is not a whole number with one unit")),
        Some(b'0'..=b'9') => Err(refused("has a space inside the number")),
        _ => Ok((number, unit)),
    }
}

fn missing(number: u64, unit: &str, name: &str) -> UnitError {
    UnitError(format!("\"{number}\" has no unit: write \"{number}{unit}\" if you mean {name}"))
}

fn unknown(unit: &str, what: &str, instead: &str) -> UnitError {
    UnitError(format!("\"{unit}\" is not a unit of {what}: write {instead}"))
}

fn ambiguous_or_unknown(unit: &str, what: &str, instead: &str) -> UnitError {
    let lower = unit.to_ascii_lowercase();
    if matches!(lower.as_str(), "k" | "kb" | "m" | "mb" | "g" | "gb" | "t" | "tb" | "b") {
        UnitError(format!(
            "\"{unit}\" can be read as bits or bytes, decimal or binary: write {instead}"
        ))
    } else {
        unknown(unit, what, instead)
    }
}

fn too_large(text: &str) -> UnitError {
    UnitError(format!("\"{text}\" is larger than can be counted: write a smaller value"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_unit_of_time_means_what_it_says() {
        for (text, ms) in
            [("0s", 0), ("250ms", 250), ("25s", 25_000), ("5m", 300_000), ("24h", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
    }

    #[test]
    fn each_unit_of_size_is_binary() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("16 MiB", 16 << 20), ("2GiB", 2 << 30)]
        {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn each_unit_of_rate_is_decimal_bits() {
        for (text, bits) in
            [("9bit", 9), ("500kbit", 500_000), ("10mbps", 10_000_000), ("1gbit", 1_000_000_000)]
        {
            assert_eq!(rate_bits_per_s(text), Ok(bits), "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused_with_what_to_write_instead() {
        for (error, parts) in [
            (rate_bits_per_s("10mb").unwrap_err(), ["bits or bytes", "\"10mbit\"", "\"80mbit\""]),
            (rate_bits_per_s("10").unwrap_err(), ["no unit", "\"10mbit\"", "megabits"]),
            (rate_bits_per_s("10MiB").unwrap_err(), ["not a unit", "\"10mbit\"", "\"80mbit\""]),
            (size_bytes("64K").unwrap_err(), ["bits or bytes", "\"64KiB\"", "1,024"]),
            (size_bytes("64").unwrap_err(), ["no unit", "\"64KiB\"", "kibibytes"]),
            (size_bytes("1GB").unwrap_err(), ["bits or bytes", "\"1GiB\"", "1,073,741,824"]),
            (duration("25").unwrap_err(), ["no unit", "\"25s\"", "seconds"]),
            (duration("5min").unwrap_err(), ["not a unit of time", "\"5m\"", "min"]),
            (duration("2M").unwrap_err(), ["not a unit of time", "\"2m\"", "months"]),
            (duration("1.5h").unwrap_err(), ["whole number", "one unit", "\"25s\""]),
            (duration("-1s").unwrap_err(), ["sign", "write", "\"25s\""]),
            (duration("").unwrap_err(), ["empty", "write", "\"25s\""]),
            (duration("1 000s").unwrap_err(), ["space inside", "write", "\"25s\""]),
            (size_bytes("99999999999999999999B").unwrap_err(), ["larger", "smaller", "99999"]),
            (size_bytes("99999999999999TiB").unwrap_err(), ["larger", "smaller", "99999"]),
        ] {
            for part in parts {
                assert!(error.to_string().contains(part), "\"{error}\" lacks {part}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back_as_itself(ms in 0_u64..u64::MAX / 2) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
            let _ = (duration(&text), size_bytes(&text), rate_bits_per_s(&text));
        }

        #[test]
        fn a_number_without_a_unit_is_never_accepted(number in any::<u64>()) {
            let text = number.to_string();
            prop_assert!(duration(&text).is_err());
            prop_assert!(size_bytes(&text).is_err());
            prop_assert!(rate_bits_per_s(&text).is_err());
        }
    }
}
