//! Authentication in the words of those who ask for it: the API signs people in, the directory sets
//! passwords and second factors, the first start makes an administrator.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::api::accounts::Passwords;
use crate::api::caller;
use crate::api::sign_in::{Later, SignIn, SignInAttempt, SignInOutcome};
use crate::auth::backend::{Credentials, Protocol, Secret};
use crate::auth::gate::{Attempt, Outcome, Refusal};
use crate::auth::password::{self, Hasher};
use crate::auth::reason::Told;
use crate::auth::source::Source;
use crate::auth::{Gate, totp};
use crate::configs::{self, ReloadError, Reloader};
use crate::directory;
use crate::directory::input::Secret as Given;
use crate::stats::serve::ReloadRequest;
use crate::store::records::Timestamp;

/// Who a one-time password is for, as authenticators show it.
const ISSUER: &str = "Ringway";

/// When to come back if nobody says when.
const RETRY_AFTER_S: u32 = 5;

/// How long a reload may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The gate, for those who do not know it.
pub(super) struct Bridge {
    gate: Gate,
}

impl Bridge {
    pub(super) const fn new(gate: Gate) -> Self {
        Self { gate }
    }
}

impl SignIn for Bridge {
    fn sign_in(&self, attempt: SignInAttempt) -> Later<SignInOutcome> {
        let gate = self.gate.clone();
        Box::pin(async move {
            let SignInAttempt { name, password, totp, continuation, source } = attempt;
            let ticket = match continuation.map(|text| text.parse()).transpose() {
                Ok(ticket) => ticket,
                Err(_) => return SignInOutcome::Refused,
            };
            let secret = |text: Zeroizing<String>| Secret::new(text.as_str());
            let credentials = Credentials {
                password: password.map(secret),
                code: totp.map(secret),
                ..Credentials::default()
            };
            let source = match source {
                caller::Source::Unix { uid } => Source::Local(uid),
                caller::Source::Ip(address) => Source::Address(address),
            };
            let attempt = Attempt {
                ticket,
                ..Attempt::new(Some(name), credentials, source, Protocol::API)
            };
            outcome(gate.sign_in(attempt).await)
        })
    }
}

fn outcome(outcome: Outcome) -> SignInOutcome {
    match outcome {
        Outcome::Accepted(identity) => {
            SignInOutcome::Accepted { user: identity.user, name: identity.name }
        }
        Outcome::Challenge { prompt, ticket } | Outcome::Pending { prompt, ticket, .. } => {
            SignInOutcome::Challenge { prompt: prompt.text, continuation: ticket.to_string() }
        }
        Outcome::Refused(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> SignInOutcome {
    let seconds = |after: Duration| u32::try_from(after.as_secs().max(1)).unwrap_or(u32::MAX);
    let retry_after_s = refusal.retry_after.map_or(RETRY_AFTER_S, seconds);
    match refusal.told() {
        Told::Later => SignInOutcome::TooMany { retry_after_s },
        Told::Unavailable => SignInOutcome::Unavailable { retry_after_s },
        Told::Wrong
        | Told::Denied
        | Told::StartAnew
        | Told::Token
        | Told::NoCertificate
        | Told::BadCertificate
        | Told::RevokedCertificate => SignInOutcome::Refused,
    }
}

/// Judges and hashes a password; takes tens of milliseconds.
fn hash(hasher: &Hasher, user: &str, text: &str) -> Result<String, String> {
    let secret = Secret::new(text);
    password::check(&secret, user).map_err(|broken| broken.to_string())?;
    hasher.hash(&secret).map_err(|failure| failure.to_string())
}

impl Passwords for Bridge {
    fn hash(&self, name: &str, password: &str) -> Result<String, String> {
        hash(self.gate.hasher(), name, password)
    }
}

impl directory::Credentials for Bridge {
    fn hash_password(
        &self,
        user: &str,
        password: &Given,
    ) -> directory::Later<Result<String, String>> {
        let (hasher, user, password) =
            (self.gate.hasher().clone(), user.to_owned(), password.clone());
        Box::pin(async move {
            let hashed = tokio::task::spawn_blocking(move || hash(&hasher, &user, &password.0));
            hashed.await.unwrap_or_else(|failure| Err(failure.to_string()))
        })
    }

    fn password_matches(
        &self,
        stored: &str,
        password: &Given,
    ) -> directory::Later<bool> {
        let (hasher, stored, password) =
            (self.gate.hasher().clone(), stored.to_owned(), Secret::new(password.0.as_str()));
        Box::pin(async move {
            let checked =
                tokio::task::spawn_blocking(move || hasher.check(&password, Some(&stored)));
            checked.await.is_ok_and(|checked| checked.is_right)
        })
    }

    fn offer_totp(&self, user: &str) -> Result<directory::TotpOffer, String> {
        let enrolment = totp::enrol(ISSUER, user, totp::Hash::Sha1)?;
        Ok(directory::TotpOffer {
            secret: enrolment.secret,
            text: enrolment.base32,
            url: enrolment.url,
        })
    }

    fn totp_step(&self, secret: &[u8], code: &str, now: Timestamp) -> Option<u64> {
        totp::confirm(secret, &Secret::new(code), now)
    }
}

/// Has the running gateway read its file again.
pub(super) struct ReloadByDesk(mpsc::Sender<ReloadRequest>);

impl ReloadByDesk {
    pub(super) const fn new(reloads: mpsc::Sender<ReloadRequest>) -> Self {
        Self(reloads)
    }
}

impl Reloader for ReloadByDesk {
    fn reload(&self) -> configs::Later<Result<String, ReloadError>> {
        let reloads = self.0.clone();
        Box::pin(async move {
            let unavailable = |why: &str| ReloadError::Unavailable(why.to_owned());
            let (answer, answered) = oneshot::channel();
            reloads.send(answer).await.map_err(|_| unavailable("it is stopping"))?;
            match tokio::time::timeout(RELOAD_TIMEOUT, answered).await {
                Ok(Ok(outcome)) => outcome.map_err(ReloadError::Refused),
                Ok(Err(_)) => Err(unavailable("it is stopping")),
                Err(_) => Err(unavailable("it takes too long")),
            }
        })
    }
}

/// Nothing here is `Sync` by accident: the API's thread and the control thread share it.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Bridge>>();
};
