//! Quotas: when they are used up, and when they begin anew.
//!
//! The cores enforce what is left by themselves; here it is known what that means for the user. A
//! period is a day, week or month of the calendar in UTC.

use super::{Entry, Note, Projection};
use crate::access::clock::Moment;
use crate::directory::quota::{is_used_up, period};
use crate::store::records::{Period, Timestamp, UserId};

const DAY_MS: i64 = 86_400_000;

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
        let reached = entry.person.rules.quota.is_some_and(|quota| is_used_up(&quota, entry.used));
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
        let (_, end) = period(quota.period, now.wall);
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
