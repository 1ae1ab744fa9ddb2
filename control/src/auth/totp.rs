//! One-time passwords that go by time (RFC 6238), the recovery codes for when the phone is lost,
//! and the back end of all of them; those that go by a counter are in [`hotp`](super::hotp).
//!
//! Six digits, steps of 30 s, one step early or late. A step counts once: the store takes a step
//! only if it is later than the last one taken, so what was seen over a shoulder is worth nothing.
//! The length of a secret says its hash function, as the RFC recommends: 20 bytes SHA-1, which
//! every authenticator knows, 32 bytes SHA-256. Recovery codes carry 80 random bits, so that a
//! plain hash of them is enough; each works once. This module must not know passwords.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use totp_rs::{Algorithm, TOTP};
use zeroize::Zeroizing;

use super::backend::{Answer, BackEnd, Proof, Request, Secret, Work};
use super::hotp::Codes;
use super::people::{People, Person};
use super::reason::Reason;
use crate::store::records::{OtpKind, Timestamp, UserId, UserSecrets};

/// Digits of a code.
pub(super) const DIGITS: usize = 6;
/// Digits of two codes in a row.
const DIGITS_OF_TWO: usize = 2 * DIGITS;
/// Seconds of a step.
const STEP_S: u64 = 30;
/// Steps that count: the one before, the present one and the next.
const STEPS: u64 = 3;
/// Recovery codes that are handed out at once.
const RECOVERY_CODES: usize = 10;
/// Digits of a recovery code, five bits each. Letters that are read as another are not among them,
/// and count as that other when somebody types them.
const RECOVERY_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of a recovery code: 16 of five bits are 80 bits.
const RECOVERY_LETTERS: usize = 16;

/// Which hash function an enrolment uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    /// Every authenticator knows it.
    #[default]
    Sha1,
    /// Some authenticators ignore that it was asked for and show wrong codes.
    Sha256,
}

/// A secret that somebody is about to confirm.
pub struct Enrolment {
    /// To be kept once it is confirmed.
    pub secret: Zeroizing<Vec<u8>>,
    /// What an authenticator reads, as `otpauth://…`; a QR code shows it.
    pub url: Zeroizing<String>,
    /// The secret as people type it.
    pub base32: Zeroizing<String>,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Enrolment")
    }
}

/// Begins an enrolment of `user` at `issuer`, which is what the authenticator shows. It is not kept
/// before [`confirm`].
///
/// # Errors
///
/// No random bytes from the operating system, as a text.
pub fn enrol(issuer: &str, user: &str, hash: Hash) -> Result<Enrolment, String> {
    let mut secret = Zeroizing::new(match hash {
        Hash::Sha1 => vec![0; 20],
        Hash::Sha256 => vec![0; 32],
    });
    getrandom::fill(&mut secret).map_err(|error| format!("no random bytes: {error}"))?;
    // A colon separates the two in the URL.
    let plain = |text: &str| text.replace(':', " ");
    let mut totp = totp(&secret);
    totp.issuer = Some(plain(issuer));
    totp.account_name = plain(user);
    let (url, base32) = (totp.get_url(), totp.get_secret_base32());
    Ok(Enrolment { secret, url: Zeroizing::new(url), base32: Zeroizing::new(base32) })
}

/// Whether `code` shows that an authenticator has `secret`; if so, the step to keep as the last one
/// taken, together with the secret.
#[must_use]
pub fn confirm(secret: &[u8], code: &Secret, now: Timestamp) -> Option<u64> {
    step_of(secret, &digits(code), now)
}

/// What was typed, without spaces.
pub(super) fn digits(code: &Secret) -> Zeroizing<String> {
    Zeroizing::new(code.expose().chars().filter(|c| !c.is_whitespace()).collect())
}

/// New recovery codes: what to show once, and the hashes to keep.
///
/// # Errors
///
/// No random bytes from the operating system, as a text.
pub fn recovery_codes(user: UserId) -> Result<Vec<(Secret, [u8; 32])>, String> {
    let one = || {
        let mut bytes = Zeroizing::new([0; RECOVERY_LETTERS]);
        getrandom::fill(bytes.as_mut()).map_err(|error| format!("no random bytes: {error}"))?;
        let letter = |byte: &u8| RECOVERY_ALPHABET.get(usize::from(byte % 32)).map(|b| *b as char);
        let letters: Zeroizing<String> = Zeroizing::new(bytes.iter().filter_map(letter).collect());
        let hash = recovery_hash(user, &letters);
        let groups: Vec<&str> =
            [0, 4, 8, 12].iter().filter_map(|at| letters.get(*at..at + 4)).collect();
        Ok((Secret::new(groups.join(" ")), hash))
    };
    (0..RECOVERY_CODES).map(|_| one()).collect()
}

/// What is kept of a recovery code: a hash under the user's identifier, so that equal codes of two
/// users look different. Spaces and case do not count.
#[must_use]
pub fn recovery_hash(user: UserId, code: &str) -> [u8; 32] {
    let letters = code.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase);
    let letters = letters.map(|letter| match letter {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    });
    let letters: Zeroizing<String> = Zeroizing::new(letters.collect());
    let mut hash = Sha256::new();
    hash.update(b"ringway recovery code");
    hash.update(user.0.as_bytes());
    hash.update(letters.as_bytes());
    hash.finalize().into()
}

fn totp(secret: &[u8]) -> TOTP {
    TOTP::new_unchecked(algorithm(secret), DIGITS, 1, STEP_S, secret.to_vec(), None, String::new())
}

const fn algorithm(secret: &[u8]) -> Algorithm {
    if secret.len() >= 32 { Algorithm::SHA256 } else { Algorithm::SHA1 }
}

/// The step that `code` belongs to, among the current one and its neighbours. Takes the same time
/// for any code of the right length.
fn step_of(secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
    let step = u64::try_from(now.0).unwrap_or(0) / 1000 / STEP_S;
    Codes::with(algorithm(secret), secret).find_one(code, step.saturating_sub(1), STEPS)
}

/// The back end of one-time passwords.
pub struct OneTimePasswords {
    people: Arc<dyn People>,
    /// What is computed with for whoever has no secret. Nobody can know its codes.
    dummy: Arc<Zeroizing<[u8; 20]>>,
}

impl std::fmt::Debug for OneTimePasswords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneTimePasswords").finish_non_exhaustive()
    }
}

impl OneTimePasswords {
    /// Checks against the secrets of `people`.
    ///
    /// # Errors
    ///
    /// No random bytes from the operating system, as a text.
    pub fn new(people: Arc<dyn People>) -> Result<Self, String> {
        let mut dummy = Zeroizing::new([0; 20]);
        getrandom::fill(dummy.as_mut()).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Self { people, dummy: Arc::new(dummy) })
    }
}

impl BackEnd for OneTimePasswords {
    fn name(&self) -> &'static str {
        "totp"
    }

    fn begin(&self, request: Request) -> Work {
        let Some(code) = request.credentials.code.clone() else {
            return Work::Done(Answer::Refused(Reason::CredentialMissing));
        };
        let (people, dummy) = (Arc::clone(&self.people), Arc::clone(&self.dummy));
        let (person, now) = (request.person, request.now);
        Work::waiting(async move {
            let digits = digits(&code);
            Work::Done(look_at(&*people, person.as_deref(), &digits, &dummy[..], now).await)
        })
    }
}

/// For nobody the same is computed as for somebody, and the same is asked of the store unless what
/// was presented is right.
async fn look_at(
    people: &dyn People,
    person: Option<&Person>,
    digits: &str,
    dummy: &[u8],
    now: Timestamp,
) -> Answer {
    let refused = Answer::Refused;
    let id = person.map_or_else(|| UserId(uuid::Uuid::nil()), |person| person.id);
    let secret = person.and_then(|person| person.secrets.totp_secret.as_deref());
    let is_code = matches!(digits.len(), DIGITS | DIGITS_OF_TWO);
    let taken = if is_code {
        let found = match person.filter(|_| secret.is_some()) {
            Some(person) => number_of(&person.secrets, digits, now),
            None => {
                // Whatever comes of it.
                std::hint::black_box(Codes::of(dummy).find(digits, 0));
                None
            }
        };
        match found {
            None => return refused(missing(person, secret).unwrap_or(Reason::CodeWrong)),
            Some(Number::Step(step)) => people.accept_totp_step(id, step).await,
            Some(Number::Counter(counter)) => people.accept_hotp_counter(id, counter).await,
        }
    } else {
        people.take_recovery_code(id, recovery_hash(id, digits)).await
    };
    let is_taken = match taken {
        Ok(is_taken) => is_taken,
        Err(error) => {
            tracing::warn!(%error, "one-time password cannot be taken");
            return refused(Reason::StoreUnavailable);
        }
    };
    match missing(person, secret) {
        Some(reason) => refused(reason),
        None if is_taken => Answer::Accepted(Proof::default()),
        None if is_code => refused(Reason::CodeReused),
        None => refused(Reason::CodeWrong),
    }
}

/// What a code is the code of.
enum Number {
    Step(u64),
    Counter(u64),
}

/// Which step or counter of somebody's secret `digits` belong to: one code, or two in a row, which
/// say something of a counter only.
fn number_of(secrets: &UserSecrets, digits: &str, now: Timestamp) -> Option<Number> {
    let secret = secrets.totp_secret.as_deref().unwrap_or_default();
    match secrets.totp_kind {
        OtpKind::Time if digits.len() == DIGITS => step_of(secret, digits, now).map(Number::Step),
        OtpKind::Time => {
            std::hint::black_box(Codes::of(secret).find(digits, 0));
            None
        }
        OtpKind::Counter => {
            Codes::of(secret).find(digits, secrets.totp_last_step).map(Number::Counter)
        }
    }
}

fn missing(person: Option<&Person>, secret: Option<&[u8]>) -> Option<Reason> {
    match (person, secret) {
        (None, _) => Some(Reason::UserUnknown),
        (Some(_), None) => Some(Reason::CodeMissing),
        (Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
#[path = "totp_tests.rs"]
pub(super) mod tests;
