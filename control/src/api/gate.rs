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
                Source::Unix { uid } => (local(uid), Priority::Administration),
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

    fn lift_unstored(&self, subject: &str) -> bool {
        Self::lift_unstored(self, subject)
    }
}

/// Root and whoever runs the gateway could do worse than guess. Others are in the socket's group.
fn local(uid: u32) -> auth::Source {
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || uid == own { auth::Source::Local(uid) } else { auth::Source::Unix(uid) }
}

fn outcome(outcome: Outcome) -> SignInOutcome {
    match outcome {
        Outcome::Accepted(identity) => {
            let proved = Proved {
                factors: identity.factors,
                seconds: identity.attributes.session_timeout_s,
                until: identity.attributes.valid_until,
                certificates: identity.attributes.certificates,
                groups: identity.attributes.groups,
                password_print: identity.password_print,
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

fn refused(refusal: &Refusal) -> SignInOutcome {
    let seconds = refusal.retry_after.map(|after| after.as_secs().max(1));
    let retry_after_s =
        seconds.map_or(RETRY_S, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    match refusal.told {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_gateways_own_user_guess_without_a_limit() {
        let own = rustix::process::geteuid().as_raw();
        let other = own.wrapping_add(1).max(1);
        assert_eq!(local(0), auth::Source::Local(0));
        assert_eq!(local(own), auth::Source::Local(own));
        assert_eq!(local(other), auth::Source::Unix(other));
    }
}
