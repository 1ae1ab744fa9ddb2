//! Limits as the cores know them: numbered accounts, each below the next larger one.
//!
//! A session draws on the account of its device, that on its user's, that on its group's, that on
//! the gateway's. Numbers are dense, because the cores keep them in tables, and are used again.
//! This module must not know why a limit is what it is.

use std::collections::BTreeMap;

use crate::store::records::{DeviceId, GroupId, Rate, UserId};

/// The number of an account.
pub type Number = u32;

/// Bits in a byte.
const BITS: u64 = 8;

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Everybody.
    Gateway,
    /// The users of a group together.
    Group(GroupId),
    /// The sessions of a user together.
    User(UserId),
    /// The session of a device.
    Device(DeviceId),
}

/// What the cores do when a volume is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Nothing passes.
    Drop,
    /// This many bytes per second pass each way.
    Throttle(u64),
    /// Everything passes.
    Pass,
}

/// What an account should know of the bytes that are left to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// What it knows already: use alone changes it.
    Keep,
    /// There is no end.
    Endless,
    /// So many, from now on.
    Left(u64),
}

/// An account as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountPlan {
    /// Its number.
    pub number: Number,
    /// The account that its bytes are charged to as well.
    pub parent: Option<Number>,
    /// From clients, in bytes per second.
    pub up: Option<u64>,
    /// To clients, in bytes per second.
    pub down: Option<u64>,
    /// Bytes that may pass at once, if not what fits the rate.
    pub burst: Option<u64>,
    /// Bytes left, both directions together.
    pub volume: Volume,
    /// What happens at their end.
    pub exhausted: Exhausted,
    /// Whose counters these are, for whoever finds them after a crash; 0 where nothing is counted,
    /// because what counts is below.
    pub tag: u64,
}

impl AccountPlan {
    /// An account with these rates and without an end.
    #[must_use]
    pub fn of(number: Number, parent: Option<Number>, rate: Rate, tag: u64) -> Self {
        // Less than a byte per second is a byte: zero would mean that nothing ever passes.
        let bytes = |bits: u64| (bits / BITS).max(1);
        Self {
            number,
            parent,
            up: rate.up_bps.map(bytes),
            down: rate.down_bps.map(bytes),
            burst: rate.burst_bytes,
            volume: Volume::Endless,
            exhausted: Exhausted::Pass,
            tag,
        }
    }
}

/// Whose number is whose.
#[derive(Debug, Default)]
pub struct Numbers {
    of: BTreeMap<Subject, Number>,
    subjects: Vec<Option<Subject>>,
    /// Numbers below the length of `subjects` that nobody has.
    free: Vec<Number>,
}

impl Numbers {
    /// The subject's number, and whether it is new.
    pub fn take(&mut self, subject: Subject) -> (Number, bool) {
        if let Some(number) = self.of.get(&subject) {
            return (*number, false);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.subjects.push(None);
            (self.subjects.len() - 1) as Number
        });
        self.subjects[number as usize] = Some(subject);
        self.of.insert(subject, number);
        (number, true)
    }

    /// Gives the subject this number, if neither has another one.
    pub fn adopt(&mut self, subject: Subject, number: Number) -> bool {
        if self.of.contains_key(&subject) || self.subject(number).is_some() {
            return self.get(subject) == Some(number);
        }
        while self.subjects.len() <= number as usize {
            self.free.push(self.subjects.len() as Number);
            self.subjects.push(None);
        }
        self.free.retain(|free| *free != number);
        self.subjects[number as usize] = Some(subject);
        self.of.insert(subject, number);
        true
    }

    /// The subject's number, if it has one.
    #[must_use]
    pub fn get(&self, subject: Subject) -> Option<Number> {
        self.of.get(&subject).copied()
    }

    /// Gives the subject another number. The old one stays known as its own until it is released.
    pub fn replace(&mut self, subject: Subject) -> (Option<Number>, Number) {
        let old = self.of.remove(&subject);
        (old, self.take(subject).0)
    }

    /// Takes a number back.
    pub fn release(&mut self, number: Number) {
        let Some(subject) = self.subjects.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        if self.of.get(&subject) == Some(&number) {
            self.of.remove(&subject);
        }
        self.free.push(number);
    }

    /// Who has a number.
    #[must_use]
    pub fn subject(&self, number: Number) -> Option<Subject> {
        self.subjects.get(number as usize).copied().flatten()
    }
}

/// A tag of 64 bits for an identifier: two of a million are the same once in 37 million times.
#[must_use]
pub const fn tag(id: uuid::Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    // Zero means nobody.
    let folded = high.rotate_left(32) ^ low;
    if folded == 0 { 1 } else { folded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_used_again() {
        let mut numbers = Numbers::default();
        let ids: Vec<DeviceId> = (0..100).map(|_| DeviceId::fresh()).collect();
        for (expected, id) in ids.iter().enumerate() {
            assert_eq!(numbers.take(Subject::Device(*id)), (expected as Number, true));
            assert_eq!(numbers.take(Subject::Device(*id)), (expected as Number, false));
        }
        numbers.release(40);
        numbers.release(40);
        assert_eq!((numbers.subject(40), numbers.get(Subject::Device(ids[40]))), (None, None));
        let user = Subject::User(UserId::fresh());
        assert_eq!(numbers.take(user), (40, true));
        assert_eq!(numbers.subject(40), Some(user));
        assert_eq!(numbers.get(user), Some(40));
        // Another number is another one, and the old one stays its own until it is released.
        assert_eq!(numbers.replace(user), (Some(40), 100));
        assert_eq!((numbers.subject(40), numbers.subject(100)), (Some(user), Some(user)));
        numbers.release(40);
        assert_eq!((numbers.get(user), numbers.subject(40)), (Some(100), None));
    }

    #[test]
    fn a_rate_below_a_byte_per_second_lets_a_byte_pass() {
        let rate = Rate { up_bps: Some(3), down_bps: Some(80), burst_bytes: None };
        let plan = AccountPlan::of(7, None, rate, 1);
        assert_eq!((plan.up, plan.down), (Some(1), Some(10)));
    }
}
