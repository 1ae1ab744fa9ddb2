//! How a user stands with a quota: what was used since the period began, what is left, when it
//! begins anew.
//!
//! Usage is kept by day, so a period begins at midnight UTC. A reset in the middle of one remembers
//! how much had been used by then; when the period ends the memory means nothing any more. The
//! arithmetic is pure, time is an argument.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::Refusal;
use crate::store::records::{Period, Quota, QuotaAction, Timestamp, UserId};
use crate::store::{Db, StoreError};

const DAY_MS: i64 = 86_400_000;

/// Bytes into which no full packet fits. The cores let pass what fits and drop the first packet
/// that does not, so a quota ends within a packet of its last byte.
const REST_BYTES: u64 = 1_500;

/// Whether a quota is used up by so many bytes.
#[must_use]
pub fn is_used_up(quota: &Quota, used_bytes: u64) -> bool {
    // Of the smallest quota that there may be (1 MiB) the rest is a packet still.
    let rest = REST_BYTES.min(quota.bytes / 512);
    used_bytes.saturating_add(rest) > quota.bytes || used_bytes >= quota.bytes
}

/// How a user stands with a quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Standing {
    /// The quota itself.
    pub quota: Quota,
    /// Inner bytes since the period began or since the last reset, whichever is later.
    pub used_bytes: u64,
    /// What is left.
    pub left_bytes: u64,
    /// Whether it is used up.
    pub exceeded: bool,
    /// What is done about it now; none while something is left.
    pub action: Option<QuotaAction>,
    /// First day of the period, in days since the Unix epoch (UTC).
    pub from_day: i32,
    /// When it begins anew; none for a total.
    pub resets_at: Option<Timestamp>,
}

/// What had been used when a quota was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Forgiven {
    from_day: i32,
    bytes: u64,
}

/// First day of the period of `now`, and the moment at which the next one begins.
#[must_use]
pub fn period(period: Period, now: Timestamp) -> (i32, Option<Timestamp>) {
    let today = day_of(now);
    let begins = |day: i32| Timestamp(i64::from(day).saturating_mul(DAY_MS));
    let date = jiff::Timestamp::from_millisecond(now.0)
        .map(|moment| moment.to_zoned(TimeZone::UTC).date())
        .unwrap_or(Date::ZERO);
    match period {
        Period::Day => (today, Some(begins(today + 1))),
        Period::Week => {
            let monday = today - i32::from(date.weekday().to_monday_zero_offset());
            (monday, Some(begins(monday + 7)))
        }
        Period::Month => {
            let first = today - i32::from(date.day()) + 1;
            (first, Some(begins(first + i32::from(date.days_in_month()))))
        }
        Period::Total => (0, None),
    }
}

/// Days since the Unix epoch.
#[must_use]
pub fn day_of(moment: Timestamp) -> i32 {
    i32::try_from(moment.0.div_euclid(DAY_MS)).unwrap_or(i32::MAX - 366)
}

impl Standing {
    /// From the bytes used since the period began, less what a reset forgave.
    #[must_use]
    pub fn new(quota: Quota, used_bytes: u64, now: Timestamp) -> Self {
        let (from_day, resets_at) = period(quota.period, now);
        let exceeded = is_used_up(&quota, used_bytes);
        Self {
            quota,
            used_bytes,
            left_bytes: quota.bytes.saturating_sub(used_bytes),
            exceeded,
            action: exceeded.then_some(quota.action),
            from_day,
            resets_at,
        }
    }
}

/// How `user` stands with `quota`, from the usage in the store.
///
/// # Errors
/// Those of the store.
pub fn standing(
    db: &mut Db<'_>,
    user: UserId,
    quota: Quota,
    now: Timestamp,
) -> Result<Standing, Refusal> {
    let (from_day, _) = period(quota.period, now);
    let sum = db.usage_sum(user, from_day)?;
    let used = sum.saturating_sub(forgiven(db, user, from_day)?);
    Ok(Standing::new(quota, used, now))
}

/// Bytes of the period that began with `from_day` which a reset forgave.
///
/// # Errors
/// Those of the store.
pub fn forgiven(db: &mut Db<'_>, user: UserId, from_day: i32) -> Result<u64, StoreError> {
    // What does not read forgives nothing: a quota errs on the side of counting.
    let kept = db.setting(&key(user))?;
    let forgiven = kept.and_then(|bytes| serde_json::from_slice::<Forgiven>(&bytes).ok());
    Ok(forgiven.filter(|one| one.from_day == from_day).map_or(0, |one| one.bytes))
}

/// Remembers that what `user` used so far does not count; returns how much that was.
///
/// # Errors
/// Those of the store.
pub fn forgive(
    db: &mut Db<'_>,
    user: UserId,
    quota: Quota,
    now: Timestamp,
) -> Result<u64, Refusal> {
    let (from_day, _) = period(quota.period, now);
    let bytes = db.usage_sum(user, from_day)?;
    let text = format!("{{\"from_day\":{from_day},\"bytes\":{bytes}}}");
    db.put_setting(&key(user), text.as_bytes())?;
    Ok(bytes)
}

/// Under which name the store keeps what a reset forgave.
pub(super) fn key(user: UserId) -> String {
    format!("quota-reset/{user}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_begin_at_midnight_on_mondays_and_on_the_first() {
        let now = at("2028-02-29T13:14:15Z");
        for (word, begins, ends) in [
            (Period::Day, "2028-02-29T00:00:00Z", Some("2028-03-01T00:00:00Z")),
            (Period::Week, "2028-02-28T00:00:00Z", Some("2028-03-06T00:00:00Z")),
            (Period::Month, "2028-02-01T00:00:00Z", Some("2028-03-01T00:00:00Z")),
            (Period::Total, "1970-01-01T00:00:00Z", None),
        ] {
            let (day, next) = period(word, now);
            assert_eq!(i64::from(day) * DAY_MS, at(begins).0, "{word:?}");
            assert_eq!(next, ends.map(at), "{word:?}");
        }
    }

    #[test]
    fn a_quota_is_used_up_when_no_full_packet_fits_any_more() {
        let quota = Quota {
            bytes: 1 << 20,
            period: Period::Day,
            action: QuotaAction::Disconnect,
            throttle_bps: None,
        };
        let now = at("2026-11-30T20:00:00Z");
        let almost = Standing::new(quota, (1 << 20) - 1_500, now);
        assert_eq!((almost.left_bytes, almost.exceeded, almost.action), (1_500, false, None));
        let rest = Standing::new(quota, (1 << 20) - 1_499, now);
        assert_eq!((rest.left_bytes, rest.exceeded), (1_499, true));
        let full = Standing::new(quota, 1 << 20, now);
        assert_eq!((full.left_bytes, full.action), (0, Some(QuotaAction::Disconnect)));
        assert_eq!(Standing::new(quota, u64::MAX, now).left_bytes, 0);
    }

    proptest! {
        #[test]
        fn now_is_always_inside_its_period(ms in 0_i64..4_000_000_000_000, which in 0_usize..4) {
            let (day, next) = period(Period::ALL[which], Timestamp(ms));
            prop_assert!(i64::from(day) * DAY_MS <= ms);
            if let Some(next) = next {
                prop_assert!(next.0 > ms && next.0 - i64::from(day) * DAY_MS <= 31 * DAY_MS);
                prop_assert_eq!(period(Period::ALL[which], next).0, (next.0 / DAY_MS) as i32);
            }
        }
    }
}
