//! The API's doors to authentication: signing in, and judging a new password.
//!
//! Words of the API here, words of `auth` there; what is decided is decided there.

use super::accounts::{PasswordRefused, Passwords};
use super::caller::Source;
use super::sign_in::{CertificateFault, Later, SignIn, SignInAttempt, SignInOutcome};
use crate::auth::gate::Refusal;
use crate::auth::password::{self, Hasher};
use crate::auth::{self, Attempt, Credentials, Gate, Outcome, Priority, Protocol, Secret, Told};
use crate::directory::Proved;

/// When to come back if nothing better is known.
const RETRY_S: u32 = 5;

impl SignIn for Gate {
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome> {
        let gate = self.clone();
        Box::pin(async move {
            let ticket = match attempt.continuation.as_deref().map(str::parse) {
                // Whatever is not ours is as good as one that is over.
                Some(Err(_)) => return SignInOutcome::Refused,
                Some(Ok(ticket)) => Some(ticket),
                None => None,
            };
            let secret = |text: &String| Secret::new(text.as_str());
            let credentials = Credentials {
                password: attempt.password.as_deref().map(secret),
                code: attempt.totp.as_deref().map(secret),
                token: attempt.token.as_deref().map(secret),
                certificates: attempt.certificates,
            };
            let (source, priority) = match attempt.source {
                Source::Unix { uid } => (auth::Source::Local(uid), Priority::Administration),
                Source::Ip(address) => (auth::Source::Address(address), Priority::Login),
            };
            let user = attempt.name;
            let attempt = Attempt {
                ticket,
                priority,
                ..Attempt::new(user, credentials, source, Protocol::API)
            };
            outcome(Self::sign_in(&gate, attempt).await)
        })
    }
}

fn outcome(outcome: Outcome) -> SignInOutcome {
    match outcome {
        Outcome::Accepted(identity) => {
            let proved = Proved {
                factors: identity.factors,
                seconds: identity.attributes.session_timeout_s,
                until: identity.attributes.valid_until,
                certificate: identity.attributes.certificate,
            };
            SignInOutcome::Accepted { user: identity.user, name: identity.name, proved }
        }
        Outcome::Challenge { prompt, ticket } | Outcome::Pending { prompt, ticket, .. } => {
            let continuation = ticket.to_string();
            SignInOutcome::Challenge { factor: prompt.factor, prompt: prompt.text, continuation }
        }
        Outcome::Refused(refusal) => refused(&refusal),
    }
}
                password_print: identity.password_print,

fn refused(refusal: &Refusal) -> SignInOutcome {
    let seconds = refusal.retry_after.map(|after| after.as_secs().max(1));
    let retry_after_s =
        seconds.map_or(RETRY_S, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    match refusal.told() {
        Told::Later => SignInOutcome::TooMany { retry_after_s },
        Told::Unavailable => SignInOutcome::Unavailable { retry_after_s },
        Told::NoCertificate => SignInOutcome::Certificate(CertificateFault::Missing),
        Told::BadCertificate => SignInOutcome::Certificate(CertificateFault::Invalid),
        Told::RevokedCertificate => SignInOutcome::Certificate(CertificateFault::Revoked),
        // More than "no" would tell who exists, or that an address is on a list.
        Told::Wrong | Told::Denied | Told::StartAnew | Told::Token => SignInOutcome::Refused,
    }
}

impl Passwords for Hasher {
    fn hash(&self, name: &str, text: &str) -> Result<String, PasswordRefused> {
        let secret = Secret::new(text);
        password::check(&secret, name).map_err(|why| PasswordRefused::Weak(why.to_string()))?;
        Self::hash(self, &secret).map_err(|why| PasswordRefused::Failed(why.to_string()))
    }
}
