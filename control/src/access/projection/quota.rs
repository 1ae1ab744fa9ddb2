//! Quotas: when they are used up, and when they begin anew.
//!
//! The cores enforce what is left by themselves; here it is known what that means for the user. A
//! period is a day, week or month of the calendar in UTC.

use super::{Entry, Note, Projection};
use crate::access::clock::Moment;
use crate::store::records::{Period, Timestamp, UserId};

const DAY_MS: i64 = 86_400_000;
/// The epoch was a Thursday.
const MONDAY_OFFSET_DAYS: i64 = 3;

/// The first moment of the period that `at` lies in, and of the one after it, if there is one.
#[must_use]
pub(crate) fn bounds(period: Period, at: Timestamp) -> (Timestamp, Option<Timestamp>) {
    let day = at.0.div_euclid(DAY_MS);
    let days = |first: i64, next: i64| {
        (Timestamp(first.saturating_mul(DAY_MS)), Some(Timestamp(next.saturating_mul(DAY_MS))))
    };
    match period {
        Period::Day => days(day, day + 1),
        Period::Week => {
            let first = (day + MONDAY_OFFSET_DAYS).div_euclid(7) * 7 - MONDAY_OFFSET_DAYS;
            days(first, first + 7)
        }
        Period::Month => month(at).unwrap_or_else(|| days(day, day + 31)),
        Period::Total => (Timestamp(0), None),
    }
}

fn month(at: Timestamp) -> Option<(Timestamp, Option<Timestamp>)> {
    let utc = jiff::tz::TimeZone::UTC;
    let date = jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(utc.clone()).date();
    let first = date.first_of_month();
    let next = first.checked_add(jiff::Span::new().months(1)).ok()?;
    let moment = |date: jiff::civil::Date| {
        date.to_zoned(utc.clone()).ok().map(|zoned| Timestamp(zoned.timestamp().as_millisecond()))
    };
    Some((moment(first)?, Some(moment(next)?)))
}

impl Projection {
    /// How much of its quota a user has used in this period, and when that ends.
    #[must_use]
    pub fn used(&self, id: UserId) -> Option<(u64, Option<Timestamp>)> {
        self.users.get(&id).map(|entry| (entry.used, entry.period_ends))
    }

    /// A core says that the volume of a user's account is used up, or bytes were counted.
    pub fn quota_may_be_reached(&mut self, id: UserId, exhausted: bool, now: Moment) {
        let Some(entry) = self.users.get_mut(&id) else { return };
        if exhausted && let Some(quota) = entry.person.rules.quota {
            // The core counts to the byte; what was not counted here yet is on its way.
            entry.used = entry.used.max(quota.bytes);
        }
        if self.follow_quota(id, now) {
            self.refresh(id, now);
        }
    }

    /// Brings the state of a quota in line with time, use and its size. Returns whether it changed.
    pub(super) fn follow_quota(&mut self, id: UserId, now: Moment) -> bool {
        let Some(entry) = self.users.get_mut(&id) else { return false };
        let renewed = entry.renew_period(now);
        let reached = entry.person.rules.quota.is_some_and(|quota| entry.used >= quota.bytes);
        let before = std::mem::replace(&mut entry.exhausted, reached);
        if reached
            && !before
            && let Some(quota) = entry.person.rules.quota
        {
            self.notes.push(Note::QuotaReached { user: id, action: quota.action });
        }
        if before && !reached {
            self.notes.push(Note::QuotaRenewed { user: id });
        }
        if renewed {
            self.tell_user_account(id, true);
        }
        before != reached
    }
}

impl Entry {
    /// Begins the next period if the last one is over. Returns whether what is left is new.
    fn renew_period(&mut self, now: Moment) -> bool {
        let Some(quota) = self.person.rules.quota else {
            self.period_ends = None;
            return false;
        };
        let (_, end) = bounds(quota.period, now.wall);
        match self.period_ends {
            Some(before) if now.wall >= before => {
                (self.used, self.period_ends) = (0, end);
                true
            }
            // A calendar that was set back, by less than a period, does not give one twice.
            Some(before)
                if end.is_some_and(|end| end < before)
                    && before.since(now.wall) <= 2 * longest(quota.period) =>
            {
                false
            }
            Some(_) | None => {
                self.period_ends = end;
                false
            }
        }
    }
}

/// The longest that a period lasts, in milliseconds.
const fn longest(period: Period) -> i64 {
    DAY_MS
        * match period {
            Period::Day => 1,
            Period::Week => 7,
            Period::Month => 31,
            Period::Total => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_begin_at_midnight_on_mondays_and_on_the_first() {
        let cases = [
            (Period::Day, "2026-11-30T20:07:00Z", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
            (Period::Week, "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"),
            (Period::Week, "2026-11-29T23:59:59Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Period::Week, "1970-01-01T00:00:00Z", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"),
        ];
        for (period, now, first, next) in cases {
            assert_eq!(bounds(period, at(now)), (at(first), Some(at(next))), "{period:?} {now}");
        }
        assert_eq!(bounds(Period::Total, at("2026-11-30T00:00:00Z")), (Timestamp(0), None));
    }

    #[test]
    fn every_moment_lies_in_its_period() {
        let mut moment = at("2024-01-01T00:00:00Z");
        while moment < at("2029-01-01T00:00:00Z") {
            for period in [Period::Day, Period::Week, Period::Month] {
                let (first, next) = bounds(period, moment);
                let next = next.unwrap();
                assert!(first <= moment && moment < next, "{period:?} {moment}");
                assert!(next.since(first) <= longest(period));
                assert_eq!(bounds(period, next).0, next);
            }
            moment = moment.plus_ms(7_777_777);
        }
    }
}
