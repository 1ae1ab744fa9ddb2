//! People in memory, for tests: what the store does, without a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::backend::Eventually;
use super::people::{Found, People, Person, Trouble};
use crate::store::records::{Ban, Factor, OtpKind, Timestamp, UserId, UserSecrets, UserState};

/// A user that may come in with a password, and has none yet.
pub(super) fn person(name: &str) -> Person {
    Person {
        id: UserId::fresh(),
        name: name.to_owned(),
        state: UserState::Active,
        expires_at: None,
        factors: vec![Factor::Password],
        secrets: UserSecrets::default(),
    }
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    people: BTreeMap<String, Person>,
    codes: BTreeSet<(UserId, [u8; 32])>,
    bans: Vec<Ban>,
    default_factors: Option<Vec<Factor>>,
    is_down: bool,
    look_ups: usize,
    codes_asked: usize,
}

impl Kept {
    fn accept(&mut self, user: UserId, kind: OtpKind, to: u64) -> bool {
        self.codes_asked += 1;
        let is_it = |person: &&mut Person| person.id == user && person.secrets.totp_kind == kind;
        let Some(person) = self.people.values_mut().find(is_it) else { return false };
        let last = &mut person.secrets.totp_last_step;
        std::mem::replace(last, to.max(*last)) < to
    }
}

impl Memory {
    /// What the default policy asks for.
    pub(super) fn ask_by_default(&self, factors: &[Factor]) {
        self.0.lock().unwrap().default_factors = Some(factors.to_vec());
    }

    pub(super) fn put(&self, person: Person) {
        self.0.lock().unwrap().people.insert(person.name.clone(), person);
    }

    pub(super) fn person(&self, name: &str) -> Option<Person> {
        self.0.lock().unwrap().people.get(name).cloned()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Person)) {
        change(self.0.lock().unwrap().people.get_mut(name).unwrap());
    }

    pub(super) fn break_down(&self, is_down: bool) {
        self.0.lock().unwrap().is_down = is_down;
    }

    pub(super) fn look_ups(&self) -> usize {
        self.0.lock().unwrap().look_ups
    }

    /// How often a one-time password or recovery code was to be taken.
    pub(super) fn codes_asked(&self) -> usize {
        self.0.lock().unwrap().codes_asked
    }

    pub(super) fn kept_bans(&self) -> Vec<Ban> {
        self.0.lock().unwrap().bans.clone()
    }

    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> T,
    ) -> Eventually<Result<T, Trouble>> {
        let mut kept = self.0.lock().unwrap();
        let result = if kept.is_down {
            Err(Trouble("broken on purpose".to_owned()))
        } else {
            Ok(work(&mut kept))
        };
        Box::pin(std::future::ready(result))
    }
}

impl People for Memory {
    fn find(&self, name: String) -> Eventually<Result<Found, Trouble>> {
        self.with(|kept| {
            kept.look_ups += 1;
            Found {
                person: kept.people.get(&name).cloned(),
                default_factors: kept
                    .default_factors
                    .clone()
                    .unwrap_or_else(|| vec![Factor::Password]),
            }
        })
    }

    fn accept_totp_step(&self, user: UserId, step: u64) -> Eventually<Result<bool, Trouble>> {
        self.with(|kept| kept.accept(user, OtpKind::Time, step))
    }

    fn accept_hotp_counter(&self, user: UserId, counter: u64) -> Eventually<Result<bool, Trouble>> {
        self.with(|kept| kept.accept(user, OtpKind::Counter, counter + 1))
    }

    fn take_recovery_code(
        &self,
        user: UserId,
        hash: [u8; 32],
    ) -> Eventually<Result<bool, Trouble>> {
        self.with(|kept| {
            kept.codes_asked += 1;
            kept.codes.remove(&(user, hash))
        })
    }

    fn put_recovery_codes(
        &self,
        user: UserId,
        hashes: Vec<[u8; 32]>,
    ) -> Eventually<Result<(), Trouble>> {
        self.with(|kept| {
            kept.codes.retain(|(owner, _)| *owner != user);
            kept.codes.extend(hashes.into_iter().map(|hash| (user, hash)));
        })
    }

    fn rehash(&self, user: UserId, old: String, new: String) -> Eventually<Result<(), Trouble>> {
        self.with(|kept| {
            for person in kept.people.values_mut().filter(|person| person.id == user) {
                if person.secrets.password_hash.as_ref() == Some(&old) {
                    person.secrets.password_hash = Some(new.clone());
                }
            }
        })
    }

    fn bans(&self, now: Timestamp) -> Eventually<Result<Vec<Ban>, Trouble>> {
        self.with(|kept| kept.bans.iter().filter(|ban| ban.until > now).cloned().collect())
    }

    fn put_ban(&self, ban: Ban) -> Eventually<Result<(), Trouble>> {
        self.with(|kept| {
            kept.bans.retain(|other| other.subject != ban.subject);
            kept.bans.push(ban);
        })
    }

    fn remove_ban(&self, subject: String) -> Eventually<Result<(), Trouble>> {
        self.with(|kept| kept.bans.retain(|ban| ban.subject != subject))
    }
}
