//! Refusals that are remembered for some seconds, so that a client which sends the same wrong
//! credential over and over costs a hash of a few microseconds instead of a look at it.
//!
//! What is remembered is a hash of back end, user and credential under a secret of this process: no
//! credential can be read out of it. A refusal of an unknown user is remembered just as one of a
//! known user, so that the second try tells nothing either. Changes to a user make us forget.
//!
//! There is no cache of what was right. An accepted password that is remembered is a password in
//! memory that goes on to work after it was changed elsewhere; it would save one hash per sign-in,
//! which a session pays once in hours.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};

use super::backend::{Credentials, Secret};
use super::reason::Reason;
use crate::store::records::Timestamp;

/// How much is remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Refusals remembered, 0 for none. Default 8192: about 1 MB.
    pub entries_max: usize,
    /// Seconds, 0 to 60. Default 10: a client that retries hits it; a user whose password was
    /// changed by another gateway waits no longer than this.
    pub seconds: u32,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { entries_max: 8192, seconds: 10 }
    }
}

/// What a try is remembered as: the user's part and the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    user: [u8; 16],
    whole: [u8; 16],
}

/// The memory.
pub struct NegativeCache {
    settings: CacheSettings,
    secret: [u8; 32],
    entries: BTreeMap<Key, (Timestamp, Reason)>,
    /// In the order of their ends.
    order: VecDeque<(Timestamp, Key)>,
}

impl std::fmt::Debug for NegativeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NegativeCache").field("len", &self.entries.len()).finish_non_exhaustive()
    }
}

impl NegativeCache {
    /// An empty one. `secret` is random and of this process only.
    #[must_use]
    pub const fn new(settings: CacheSettings, secret: [u8; 32]) -> Self {
        Self { settings, secret, entries: BTreeMap::new(), order: VecDeque::new() }
    }

    /// What a try of `user` at `back_end` is called.
    #[must_use]
    pub fn key(&self, back_end: &str, user: &str, credentials: &Credentials) -> Key {
        let mut hash = Sha256::new_with_prefix(self.secret);
        put(&mut hash, back_end.as_bytes());
        for secret in [&credentials.password, &credentials.code, &credentials.token] {
            put(&mut hash, secret.as_ref().map_or("", Secret::expose).as_bytes());
            hash.update([u8::from(secret.is_some())]);
        }
        for certificate in &credentials.certificates {
            put(&mut hash, certificate);
        }
        let user = self.user(user);
        hash.update(user);
        Key { user, whole: half(hash) }
    }

    /// Why this try was refused, if it was lately.
    #[must_use]
    pub fn get(&self, key: &Key, now: Timestamp) -> Option<Reason> {
        self.entries.get(key).filter(|(until, _)| *until > now).map(|(_, reason)| *reason)
    }

    /// Remembers a refusal.
    pub fn put(&mut self, key: Key, reason: Reason, now: Timestamp) {
        let until = now.plus_ms(i64::from(self.settings.seconds.min(60)) * 1000);
        if self.settings.entries_max == 0 || until <= now {
            return;
        }
        while let Some((end, oldest)) = self.order.front().copied() {
            let is_current = self.entries.get(&oldest).is_some_and(|(until, _)| *until == end);
            if end > now && self.order.len() < self.settings.entries_max {
                break;
            }
            self.order.pop_front();
            if is_current {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, (until, reason));
        self.order.push_back((until, key));
    }

    /// Something about `user` has changed.
    pub fn forget(&mut self, user: &str) {
        let user = self.user(user);
        let first = Key { user, whole: [0; 16] };
        let last = Key { user, whole: [0xff; 16] };
        let keys: Vec<Key> = self.entries.range(first..=last).map(|(key, _)| *key).collect();
        for key in keys {
            self.entries.remove(&key);
        }
    }

    fn user(&self, user: &str) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(self.secret);
        put(&mut hash, user.as_bytes());
        half(hash)
    }
}

/// With its length, so that what belongs to one part cannot pass for another.
fn put(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

fn half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn with(password: &str) -> Credentials {
        Credentials { password: Some(Secret::new(password)), ..Credentials::default() }
    }

    fn cache(entries_max: usize) -> NegativeCache {
        NegativeCache::new(CacheSettings { entries_max, seconds: 10 }, [7; 32])
    }

    #[test]
    fn a_refusal_is_remembered_for_that_try_alone_and_for_some_seconds() {
        let mut cache = cache(100);
        let key = cache.key("password", "ann", &with("wrong"));
        cache.put(key, Reason::PasswordWrong, NOW);
        assert_eq!(cache.get(&key, NOW.plus_ms(9_999)), Some(Reason::PasswordWrong));
        assert_eq!(cache.get(&key, NOW.plus_ms(10_000)), None);
        let token = Credentials { token: Some(Secret::new("wrong")), ..Credentials::default() };
        for other in [
            cache.key("radius", "ann", &with("wrong")),
            cache.key("password", "bob", &with("wrong")),
            cache.key("password", "ann", &with("Wrong")),
            cache.key("password", "ann", &token),
            cache.key("password", "ann", &Credentials::default()),
        ] {
            assert_eq!(cache.get(&other, NOW), None);
        }
    }

    #[test]
    fn a_change_to_a_user_makes_us_forget_that_user() {
        let mut cache = cache(100);
        let keys: Vec<Key> = (0..10)
            .flat_map(|number| ["ann", "bob"].map(|user| (user, number)))
            .map(|(user, number)| cache.key("password", user, &with(&number.to_string())))
            .collect();
        for key in &keys {
            cache.put(*key, Reason::PasswordWrong, NOW);
        }
        cache.forget("ann");
        let left = keys.iter().filter(|key| cache.get(key, NOW).is_some()).count();
        assert_eq!(left, 10);
    }

    #[test]
    fn a_flood_of_wrong_credentials_takes_bounded_memory() {
        let mut cache = cache(50);
        for number in 0..5000 {
            let key = cache.key("password", "ann", &with(&number.to_string()));
            let now = NOW.plus_ms(number / 7);
            cache.put(key, Reason::PasswordWrong, now);
            cache.put(key, Reason::PasswordWrong, now);
            assert!(cache.entries.len() <= 50 && cache.order.len() <= 50);
            assert!(cache.get(&key, now).is_some());
        }
    }

    #[test]
    fn another_process_calls_the_same_try_something_else() {
        let (one, other) = (cache(1), NegativeCache::new(CacheSettings::default(), [8; 32]));
        assert_ne!(one.key("a", "b", &with("c")), other.key("a", "b", &with("c")));
    }
}
