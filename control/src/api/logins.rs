//! Who is signed in with a browser: cookie sessions.
//!
//! The cookie is 256 random bits; kept is only its hash, so that what leaks from memory cannot be
//! sent as a cookie. A login ends after [`IDLE_MS_MAX`] without a request, after [`AGE_MS_MAX`] in
//! any case, when the user signs out, when the password it was made with is no longer the user's,
//! and when a token or certificate it was made with ends or is revoked. Pure: time and randomness
//! are arguments.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::auth::backend::CertificateId;
use crate::directory::Proved;
use crate::store::ids::{Timestamp, UserId};

/// A login that nobody uses ends: somebody may have left the desk.
pub const IDLE_MS_MAX: i64 = 30 * 60_000;

/// A login ends in any case: one sign-in per working day.
pub const AGE_MS_MAX: i64 = 12 * 3_600_000;

/// Logins of one user at the same time; one more ends the one that was idle longest. A person has
/// few browsers.
pub const PER_USER_MAX: usize = 8;

/// Logins of all; one more is refused. At 200 bytes each this is 2 MB.
pub const LOGINS_MAX: usize = 10_000;

/// Bytes of the cookie's secret.
const SECRET_BYTES: usize = 32;

/// A secret that a client is given once: the cookie, or the CSRF token.
pub type Secret = [u8; SECRET_BYTES];

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub user: UserId,
    /// The name at sign-in.
    pub name: String,
    /// Hash of what the password was stored as at sign-in: a change ends the login.
    pub password_print: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    pub used_at: Timestamp,
    /// What an unsafe request must repeat in its header.
    csrf: Secret,
    /// What was proved at sign-in; the login does not outlast it.
    pub proved: Proved,
}

impl Login {
    /// Whether `given`, as hex, is what an unsafe request must repeat. Takes as long whatever is
    /// wrong.
    #[must_use]
    pub fn csrf_matches(&self, given: &str) -> bool {
        let wanted = hex(&self.csrf);
        wanted.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// What an unsafe request must repeat, as hex.
    #[must_use]
    pub fn csrf(&self) -> String {
        hex(&self.csrf)
    }

    /// When it ends if nothing happens.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        let end = self.used_at.plus_ms(IDLE_MS_MAX).min(self.created_at.plus_ms(AGE_MS_MAX));
        self.proved.until.map_or(end, |until| end.min(until))
    }
}

/// All logins.
#[derive(Debug)]
pub struct Logins {
    by_hash: BTreeMap<[u8; 32], Login>,
    room: usize,
}

impl Default for Logins {
    fn default() -> Self {
        Self { by_hash: BTreeMap::new(), room: LOGINS_MAX }
    }
}

impl Logins {
    /// Signs `user` in; `cookie` and `csrf` are fresh random bytes.
    ///
    /// # Errors
    /// There are [`LOGINS_MAX`] of other users already.
    pub fn begin(
        &mut self,
        user: (UserId, String, [u8; 32]),
        proved: Proved,
        cookie: &Secret,
        csrf: Secret,
        now: Timestamp,
    ) -> Result<&Login, TooManyLogins> {
        let (user, name, password_print) = user;
        if self.by_hash.len() >= self.room {
            self.by_hash.retain(|_, login| now < login.ends_at());
        }
        let own = self.by_hash.iter().filter(|(_, login)| login.user == user);
        let mut own: Vec<(Timestamp, [u8; 32])> =
            own.map(|(key, login)| (login.used_at, *key)).collect();
        own.sort_unstable();
        for (_, key) in own.iter().rev().skip(PER_USER_MAX - 1) {
            self.by_hash.remove(key);
        }
        if self.by_hash.len() >= self.room {
            return Err(TooManyLogins);
        }
        let (created_at, used_at) = (now, now);
        let login = Login { user, name, password_print, created_at, used_at, csrf, proved };
        Ok(self.by_hash.entry(hash(cookie)).insert_entry(login).into_mut())
    }

    /// The login of a cookie, marked as used. Whether its user still may is not looked at.
    pub fn find(&mut self, cookie: &str, now: Timestamp) -> Option<Login> {
        let key = hash(&from_hex(cookie)?);
        let login = self.by_hash.get_mut(&key)?;
        if now >= login.ends_at() {
            self.by_hash.remove(&key);
            return None;
        }
        login.used_at = login.used_at.max(now);
        Some(login.clone())
    }

    /// Signs out.
    pub fn end(&mut self, cookie: &str) -> Option<Login> {
        self.by_hash.remove(&hash(&from_hex(cookie)?))
    }

    /// Ends all logins of a user.
    pub fn end_all(&mut self, user: UserId) {
        self.by_hash.retain(|_, login| login.user != user);
    }

    /// The client certificates that logins were made with, and those above them.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateId> {
        let all = self.by_hash.values().flat_map(|login| login.proved.certificates.iter().cloned());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Ends the logins that were made with one of these.
    pub fn end_revoked(&mut self, revoked: &[CertificateId]) {
        self.by_hash
            .retain(|_, login| !login.proved.certificates.iter().any(|one| revoked.contains(one)));
    }

    /// How many there are, some perhaps over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

/// There are as many logins as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LOGINS_MAX} people are signed in; try again when some have left")]
pub struct TooManyLogins;

/// SHA-256: by it secrets are looked up, so that the time of a look-up says nothing about them.
#[must_use]
pub fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Bytes as lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret as [`hex`] wrote it.
fn from_hex(text: &str) -> Option<Secret> {
    let mut secret = [0; SECRET_BYTES];
    let right = text.len() == 2 * SECRET_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !right {
        return None;
    }
    for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(logins: &mut Logins, user: UserId, secret: u8, now: i64) -> String {
        let cookie = [secret; 32];
        let who = (user, "anna".to_owned(), [0; 32]);
        logins.begin(who, Proved::default(), &cookie, [secret ^ 0xff; 32], Timestamp(now)).unwrap();
        hex(&cookie)
    }

    #[test]
    fn a_login_lives_while_it_is_used_but_not_for_ever() {
        let (mut logins, user) = (Logins::default(), UserId::fresh());
        let cookie = begin(&mut logins, user, 1, 0);
        let mut now = 0;
        while now + IDLE_MS_MAX - 1 < AGE_MS_MAX {
            now += IDLE_MS_MAX - 1;
            assert!(logins.find(&cookie, Timestamp(now)).is_some(), "at {now}");
        }
        assert!(logins.find(&cookie, Timestamp(AGE_MS_MAX)).is_none(), "absolute end");
        let cookie = begin(&mut logins, user, 2, 0);
        assert!(logins.find(&cookie, Timestamp(IDLE_MS_MAX)).is_none(), "idle end");
        assert!(logins.is_empty(), "what is over is forgotten");
    }

    #[test]
    fn one_login_too_many_ends_the_one_that_was_idle_longest() {
        let (mut logins, user) = (Logins::default(), UserId::fresh());
        let cookies: Vec<String> = (0..=PER_USER_MAX as u8)
            .map(|at| begin(&mut logins, user, at, i64::from(at)))
            .collect();
        assert_eq!(logins.len(), PER_USER_MAX);
        assert!(logins.find(&cookies[0], Timestamp(10)).is_none());
        assert!(logins.find(&cookies[1], Timestamp(10)).is_some());
    }

    #[test]
    fn all_logins_of_a_user_end_together_and_others_stay() {
        let mut logins = Logins::default();
        let (anna, bert) = (UserId::fresh(), UserId::fresh());
        let first = begin(&mut logins, anna, 1, 0);
        begin(&mut logins, anna, 2, 0);
        let other = begin(&mut logins, bert, 3, 0);
        logins.end_all(anna);
        assert!(logins.find(&first, Timestamp(1)).is_none());
        assert!(logins.find(&other, Timestamp(1)).is_some());
        assert!(logins.end(&other).is_some() && logins.end(&other).is_none());
    }

    #[test]
    fn there_is_an_end_to_the_number_of_logins() {
        let mut logins = Logins { room: 100, ..Logins::default() };
        for number in 0..100u64 {
            let mut cookie = [0; 32];
            cookie[..8].copy_from_slice(&number.to_be_bytes());
            let who = (UserId::fresh(), String::new(), [0; 32]);
            logins.begin(who, Proved::default(), &cookie, [0; 32], Timestamp(0)).unwrap();
        }
        let who = (UserId::fresh(), String::new(), [0; 32]);
        assert!(
            logins.begin(who.clone(), Proved::default(), &[9; 32], [0; 32], Timestamp(1)).is_err()
        );
        assert!(
            logins.begin(who, Proved::default(), &[9; 32], [0; 32], Timestamp(IDLE_MS_MAX)).is_ok()
        );
        assert_eq!(logins.len(), 1, "what was over made room");
    }

    #[test]
    fn only_the_exact_cookie_and_csrf_token_count() {
        let (mut logins, user) = (Logins::default(), UserId::fresh());
        let cookie = begin(&mut logins, user, 0xab, 0);
        for wrong in
            ["", "ab", &cookie[1..], &format!("{cookie}0"), &"ä".repeat(32), &"+1".repeat(32)]
        {
            assert!(logins.find(wrong, Timestamp(1)).is_none(), "{wrong}");
        }
        let login = logins.find(&cookie, Timestamp(1)).unwrap();
        assert!(login.csrf_matches(&login.csrf()));
        for wrong in ["", &cookie, &login.csrf()[1..]] {
            assert!(!login.csrf_matches(wrong), "{wrong}");
        }
    }
}
