//! Local passwords: how they are hashed, checked and chosen.
//!
//! Argon2id in PHC strings. Every check costs the same: for a user who does not exist or has no
//! password a dummy is checked that was made at start with the same parameters. Memory is bounded
//! by how many hashes are computed at once, by whoever asks. Passwords are taken as the bytes that
//! came: Unicode is not normalised, because a client that writes another form than the one the
//! password was set with is rare, and a table of Unicode that changes with its version would lock
//! users out with an upgrade.
//!
//! This module must not know users beyond the hash that it is given.

mod rules;

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use sha2::{Digest as _, Sha256};

use super::backend::{Answer, BackEnd, Proof, Request, Secret, Work};
use super::people::People;
use super::reason::Reason;

pub use rules::{BYTES_MAX, BYTES_MIN, RuleBroken, check};

/// What a hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordSettings {
    /// KiB of memory per hash, 8 to 1,048,576. Default 19,456 (19 MiB): with two passes it is what
    /// OWASP asks for at least; 20 ms of one core here, and a guesser's graphics card is bound by
    /// its memory.
    pub memory_kib: u32,
    /// Passes over that memory, 1 to 100. Default 2.
    pub passes: u32,
    /// Lanes, 1 to 16. Default 1: hashes of different users run side by side anyway.
    pub lanes: u32,
    /// Hashes at the same time. Default 4: 76 MiB at the most.
    pub at_once: usize,
}

impl Default for PasswordSettings {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1, at_once: 4 }
    }
}

/// Parameters of a stored hash beyond which it is not computed: whoever can write hashes into the
/// store must not be able to take the machine's memory. Four times what the settings may ask for
/// would be too much; the largest settings are enough.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 100;
const LANES_MAX: u32 = 16;

/// Hashes passwords.
#[derive(Clone)]
pub struct Hasher(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    dummy: String,
    free: Mutex<usize>,
    freed: Condvar,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("params", self.0.argon2.params()).finish_non_exhaustive()
    }
}

/// Why nothing can be hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Parameters out of range.
    #[error("password hashing: {0}; see the defaults in the manual")]
    Parameters(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes for a salt: {0}")]
    Random(String),
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether the password is right.
    pub is_right: bool,
    /// Whether the hash was made with other parameters than those of now.
    pub is_outdated: bool,
}

impl Hasher {
    /// With these parameters. Computes one hash.
    ///
    /// # Errors
    ///
    /// Parameters out of range.
    pub fn new(settings: PasswordSettings) -> Result<Self, HashError> {
        let PasswordSettings { memory_kib, passes, lanes, at_once } = settings;
        let parameters = |why: String| HashError::Parameters(why);
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return Err(parameters(format!(
                "{memory_kib} KiB, {passes} passes and {lanes} lanes are more than {MEMORY_KIB_MAX}, {PASSES_MAX} and {LANES_MAX}"
            )));
        }
        let params = Params::new(memory_kib, passes, lanes, None)
            .map_err(|error| parameters(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon2, b"no password of anybody")?;
        let (free, freed) = (Mutex::new(at_once.max(1)), Condvar::new());
        Ok(Self(Arc::new(Inner { argon2, dummy, free, freed })))
    }

    /// Hashes a password that obeys the rules ([`check`]). Blocks: it takes tens of milliseconds.
    ///
    /// # Errors
    ///
    /// No random bytes.
    pub fn hash(&self, password: &Secret) -> Result<String, HashError> {
        let _permit = self.permit();
        hash(&self.0.argon2, password.expose().as_bytes())
    }

    /// Checks a password against a stored hash, or against the dummy if there is none. Blocks. A
    /// hash that cannot be read is checked like none.
    #[must_use]
    pub fn check(&self, password: &Secret, stored: Option<&str>) -> Checked {
        let _permit = self.permit();
        let password = password.expose().as_bytes();
        // The dummy takes the very same way as a stored hash.
        let read = stored.map_or_else(|| readable(&self.0.dummy), readable);
        let is_readable = read.is_some();
        let Some((parsed, params)) = read.or_else(|| readable(&self.0.dummy)) else {
            return Checked { is_right: false, is_outdated: false };
        };
        let current = self.0.argon2.params();
        let is_outdated = parsed.algorithm != Algorithm::Argon2id.ident()
            || parsed.version != Some(Version::V0x13.into())
            || (params.m_cost(), params.t_cost(), params.p_cost())
                != (current.m_cost(), current.t_cost(), current.p_cost());
        let is_verified = self.0.argon2.verify_password(password, &parsed).is_ok();
        let is_right = is_verified && is_readable && stored.is_some();
        Checked { is_right, is_outdated: is_right && is_outdated }
    }

    fn permit(&self) -> Permit<'_> {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.0.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(&self.0)
    }
}

/// The right to compute one hash.
struct Permit<'a>(&'a Inner);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, HashError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| HashError::Random(error.to_string()))?;
    let salt =
        SaltString::encode_b64(&bytes).map_err(|error| HashError::Parameters(error.to_string()))?;
    let hash = argon2.hash_password(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| HashError::Parameters(error.to_string()))
}

/// What tells two stored passwords apart without showing either: SHA-256 of the stored hash, of
/// nothing if there is none.
#[must_use]
pub fn print(stored: Option<&str>) -> [u8; 32] {
    Sha256::digest(stored.unwrap_or_default()).into()
}

/// A hash and its parameters, unless these are beyond any bound.
fn readable(hash: &str) -> Option<(PasswordHash<'_>, Params)> {
    let hash = PasswordHash::new(hash).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let is_bounded = params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX;
    is_bounded.then_some((hash, params))
}

fn proved(print: [u8; 32]) -> Answer {
    Answer::Accepted(Proof { password_print: Some(print), ..Proof::default() })
}

/// The back end of local passwords.
pub struct LocalPasswords {
    hasher: Hasher,
    people: Arc<dyn People>,
    runtime: Option<tokio::runtime::Handle>,
}

impl std::fmt::Debug for LocalPasswords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPasswords").finish_non_exhaustive()
    }
}

impl LocalPasswords {
    /// Checks against the hashes that `people` keeps. With `runtime`, outdated hashes are replaced
    /// before a success is told, so that what was proved is what is stored; without one they stay.
    #[must_use]
    pub fn new(
        hasher: Hasher,
        people: Arc<dyn People>,
        runtime: Option<tokio::runtime::Handle>,
    ) -> Self {
        Self { hasher, people, runtime }
    }
}

impl BackEnd for LocalPasswords {
    fn name(&self) -> &'static str {
        "password"
    }

    fn refusals_last(&self) -> bool {
        true
    }

    fn begin(&self, request: Request) -> Work {
        let (hasher, people) = (self.hasher.clone(), Arc::clone(&self.people));
        let runtime = self.runtime.clone();
        Work::blocking(move |_| {
            let Some(password) = &request.credentials.password else {
                return Answer::Refused(Reason::CredentialMissing);
            };
            let person = request.person.as_deref();
            let stored = person.and_then(|person| person.secrets.password_hash.as_deref());
            let checked = hasher.check(password, stored);
            match (person, stored) {
                (None, _) => return Answer::Refused(Reason::UserUnknown),
                (Some(_), None) => return Answer::Refused(Reason::PasswordMissing),
                (Some(_), Some(_)) if !checked.is_right => {
                    return Answer::Refused(Reason::PasswordWrong);
                }
                (Some(person), Some(stored)) if checked.is_outdated => {
                    if let (Some(runtime), Ok(new)) = (runtime, hasher.hash(password)) {
                        let (user, old) = (person.id, stored.to_owned());
                        let renewed = print(Some(&new));
                        match runtime.block_on(people.rehash(user, old, new)) {
                            // Unless the password was changed meanwhile: then neither is stored.
                            Ok(()) => return proved(renewed),
                            Err(error) => {
                                tracing::warn!(%user, %error, "password hash stays as it was");
                            }
                        }
                    }
                }
                (Some(_), Some(_)) => {}
            }
            // Only now: for who is refused it would take a time that depends on what is stored.
            proved(print(stored))
        })
    }
}

#[cfg(test)]
#[path = "../password_tests.rs"]
pub(super) mod tests;
