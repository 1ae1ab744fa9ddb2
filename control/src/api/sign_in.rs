//! The API's side of signing in: what it asks the authentication for.
//!
//! `auth` implements [`SignIn`]; the API never sees how a password is checked, and learns the true
//! reason of a refusal only as much as the client may be told: nothing.

use std::future::Future;
use std::pin::Pin;

use zeroize::Zeroizing;

use super::caller::Source;
use crate::store::ids::UserId;

/// What a call that takes a while gives back.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What somebody presents.
pub struct SignInAttempt {
    /// User name as typed.
    pub name: String,
    /// Password, if one was given.
    pub password: Option<Zeroizing<String>>,
    /// One-time password or recovery code, if one was given.
    pub totp: Option<Zeroizing<String>>,
    /// What an earlier challenge of this sign-in gave.
    pub continuation: Option<String>,
    /// Where from.
    pub source: Source,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignInOutcome {
    /// Signed in.
    Accepted {
        /// Who.
        user: UserId,
        /// Its name as stored.
        name: String,
    },
    /// One more factor is asked for.
    Challenge {
        /// What to ask the person for.
        prompt: String,
        /// To be given back with the answer.
        continuation: String,
    },
    /// Wrong, or may not: which is not told.
    Refused,
    /// Too many attempts; try again after so many seconds.
    TooMany {
        /// Seconds.
        retry_after_s: u32,
    },
    /// Nobody can be signed in now; try again after so many seconds.
    Unavailable {
        /// Seconds.
        retry_after_s: u32,
    },
}

/// Signs people in.
pub trait SignIn: Send + Sync {
    /// Judges one attempt.
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome>;
}
