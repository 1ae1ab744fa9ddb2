//! The API's side of signing in: what it asks the authentication for.
//!
//! `auth` implements [`SignIn`]; the API never sees how a password is checked, and learns the true
//! reason of a refusal only as much as the client may be told: nothing.

use std::future::Future;
use std::pin::Pin;

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::caller::Source;
use crate::directory::Proved;
use crate::store::ids::UserId;
use crate::store::records::Factor;

/// What a call that takes a while gives back.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What somebody presents.
pub struct SignInAttempt {
    /// User name as typed; none if a token or certificate says it.
    pub name: Option<String>,
    /// Password, if one was given.
    pub password: Option<Zeroizing<String>>,
    /// One-time password or recovery code, if one was given.
    pub totp: Option<Zeroizing<String>>,
    /// Access token (JWT), if one was given.
    pub token: Option<Zeroizing<String>>,
    /// The chain that the client presented to TLS, its own certificate first. TLS has made sure
    /// that it holds the key, and of nothing else.
    pub certificates: Vec<CertificateDer<'static>>,
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
        /// What was proved, and how long access by it may last.
        proved: Proved,
    },
    /// One more factor is asked for.
    Challenge {
        /// What the answer is.
        factor: Factor,
        /// What to ask the person for.
        prompt: String,
        /// To be given back with the answer.
        continuation: String,
    },
    /// Wrong, or may not: which is not told.
    Refused,
    /// A client certificate is asked for, and that is what is wrong.
    Certificate(CertificateFault),
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

/// What is wrong with a client certificate. It says nothing about users, so it may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// None was presented.
    Missing,
    /// It does not convince: by whom, for what and when it was made is not told apart.
    Invalid,
    /// Its authority has taken it back.
    Revoked,
}

/// Signs people in.
pub trait SignIn: Send + Sync {
    /// Judges one attempt.
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome>;

    /// Lets an address in again that is kept out and stored nowhere; whether it was.
    fn lift_unstored(&self, subject: &str) -> bool {
        let _ = subject;
        false
    }
}
