//! Whom there is to sign in: what the gate asks of the store, as a trait.
//!
//! All of it waits without a thread: the store has threads and a deadline of its own. For a name
//! that nobody has, an implementation does the same number of look-ups as for one that somebody
//! has. This module must not know SQL.

use crate::store::records::{Ban, Factor, Timestamp, UserId, UserSecrets, UserState};

use super::backend::Eventually;

/// The store did not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

/// A user, as far as signing in is concerned.
#[derive(Clone)]
pub struct Person {
    /// Its identifier.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// Whether it may come in.
    pub state: UserState,
    /// From when on it may not.
    pub expires_at: Option<Timestamp>,
    /// What its policy asks for, in order.
    pub factors: Vec<Factor>,
    /// What is secret about it.
    pub secrets: UserSecrets,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Person").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the store says about a name.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who has it.
    pub person: Option<Person>,
    /// What the default policy asks for: what a name that nobody has is asked for too.
    pub default_factors: Vec<Factor>,
}

/// Who is there, and what is remembered about them.
pub trait People: Send + Sync + 'static {
    /// Who has `name`, which is in lower case.
    fn find(&self, name: String) -> Eventually<Result<Found, Trouble>>;

    /// Takes a time step of one-time passwords: true only if it is later than the last one taken.
    fn accept_totp_step(&self, user: UserId, step: u64) -> Eventually<Result<bool, Trouble>>;

    /// Takes a counter of one-time passwords, and with it all before: true only if it is later than
    /// the last one taken.
    fn accept_hotp_counter(&self, user: UserId, counter: u64) -> Eventually<Result<bool, Trouble>>;

    /// Takes a recovery code by its hash: true only if it was there, and then it is there no more.
    fn take_recovery_code(&self, user: UserId, hash: [u8; 32])
    -> Eventually<Result<bool, Trouble>>;

    /// Keeps the hashes of new recovery codes instead of all before.
    fn put_recovery_codes(
        &self,
        user: UserId,
        hashes: Vec<[u8; 32]>,
    ) -> Eventually<Result<(), Trouble>>;

    /// Replaces a password's hash, unless the password was changed meanwhile.
    fn rehash(&self, user: UserId, old: String, new: String) -> Eventually<Result<(), Trouble>>;

    /// Who is kept out now.
    fn bans(&self, now: Timestamp) -> Eventually<Result<Vec<Ban>, Trouble>>;

    /// Keeps somebody out.
    fn put_ban(&self, ban: Ban) -> Eventually<Result<(), Trouble>>;

    /// Lets somebody in again.
    fn remove_ban(&self, subject: String) -> Eventually<Result<(), Trouble>>;
}
