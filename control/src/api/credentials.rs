//! What somebody presents at a sign-in, by whichever route, and the answer to it.
//!
//! Both routes that sign people in (a session of the API, and access of devices) take the same
//! credentials, are asked back in the same way and refuse in the same words. A client certificate
//! comes with the connection ([`Chain`]), the rest in the body. This module must not know what a
//! sign-in is good for.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::caller::Source;
use super::problem::{FieldError, Problem};
use super::reason::Reason;
use super::sign_in::{CertificateFault, SignInAttempt, SignInOutcome};
use super::state::ApiState;
use crate::directory::Proved;
use crate::events::Kind;
use crate::store::ids::UserId;

/// Letters of a name.
const NAME_MAX: usize = 64;
/// Bytes of each other text; `auth` takes no longer ones.
const PASSWORD_BYTES_MAX: usize = 1024;
const TOTP_BYTES_MAX: usize = 64;
const TOKEN_BYTES_MAX: usize = 8192;
const CONTINUATION_BYTES_MAX: usize = 512;

/// Whom an event is about if nobody said a name, or one that no user has. No user can have this
/// one.
const NOBODY: &str = "?";

/// The certificates that the client of this connection presented to TLS, its own first; empty if
/// none, and on doors without TLS. The server puts it into every request that has some.
#[derive(Clone, Debug, Default)]
pub struct Chain(pub Arc<[CertificateDer<'static>]>);

impl<S: Send + Sync> FromRequestParts<S> for Chain {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// What a body has.
pub(super) struct Given {
    pub(super) name: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) totp: Option<Zeroizing<String>>,
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) continuation: Option<String>,
}

/// What comes of it, if it is no refusal.
pub(super) enum Judged {
    /// Signed in.
    In { user: UserId, name: String, proved: Proved },
    /// One more factor is needed.
    Challenge(ChallengeState),
}

/// One more factor is needed
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChallengeState {
    /// Which: `password`, `totp` or `token`, as the field of the answer is called.
    #[schema(example = "totp")]
    factor: &'static str,
    /// What to ask the person for.
    prompt: String,
    /// To be sent back with the answer.
    continuation: String,
}

impl Given {
    /// Has what was given judged; `by` is for the event.
    pub(super) async fn judge(
        self,
        state: &ApiState,
        source: Source,
        chain: &Chain,
        by: &'static str,
    ) -> Result<Judged, Problem> {
        self.check_lengths()?;
        let subject = self.name.clone().unwrap_or_else(|| NOBODY.to_owned());
        let attempt = SignInAttempt {
            name: self.name,
            password: self.password,
            totp: self.totp,
            token: self.token,
            certificates: chain.0.to_vec(),
            continuation: self.continuation,
            source,
        };
        let refused = async |reason| Err(refused(state, subject, by, reason).await);
        match state.sign_in().sign_in(attempt).await {
            SignInOutcome::Accepted { user, name, proved } => Ok(Judged::In { user, name, proved }),
            SignInOutcome::Challenge { factor, prompt, continuation } => {
                let factor = factor.word();
                Ok(Judged::Challenge(ChallengeState { factor, prompt, continuation }))
            }
            SignInOutcome::Refused => refused(Reason::SignInRefused).await,
            SignInOutcome::Certificate(fault) => {
                refused(match fault {
                    CertificateFault::Missing => Reason::CertificateMissing,
                    CertificateFault::Invalid => Reason::CertificateInvalid,
                    CertificateFault::Revoked => Reason::CertificateRevoked,
                })
                .await
            }
            SignInOutcome::TooMany { retry_after_s } => {
                let problem = Problem::new(Reason::TooManyRequests, "Too many attempts: wait");
                Err(problem.retry_after(retry_after_s))
            }
            SignInOutcome::Unavailable { retry_after_s } => {
                let detail = "Nobody can be signed in now: try again";
                Err(Problem::new(Reason::Overloaded, detail).retry_after(retry_after_s))
            }
        }
    }

    fn check_lengths(&self) -> Result<(), Problem> {
        let secret = |text: &Option<Zeroizing<String>>| text.as_ref().map_or(0, |text| text.len());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let most = [
            ("/password", secret(&self.password), PASSWORD_BYTES_MAX),
            ("/totp", secret(&self.totp), TOTP_BYTES_MAX),
            ("/token", secret(&self.token), TOKEN_BYTES_MAX),
            ("/continuation", text(&self.continuation), CONTINUATION_BYTES_MAX),
        ];
        let name = self.name.as_ref().filter(|name| name.chars().count() > NAME_MAX);
        let long =
            name.map(|_| FieldError::new("/name", format!("may have {NAME_MAX} characters")));
        let others = most
            .iter()
            .filter(|(_, has, most)| has > most)
            .map(|(pointer, _, most)| FieldError::new(*pointer, format!("may have {most} bytes")));
        let errors: Vec<FieldError> = long.into_iter().chain(others).collect();
        if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
    }
}

/// Says that somebody was refused, and makes the problem. Its detail is the same for everybody who
/// is refused for this reason. Whatever is no name of a user stays out of the event: people type
/// their password into the field for the name.
pub(super) async fn refused(
    state: &ApiState,
    subject: String,
    by: &'static str,
    reason: Reason,
) -> Problem {
    // Without the store nobody knows, and the event says of nobody.
    let is_user = state.accounts().has_user(subject.clone()).await.unwrap_or(false);
    let subject = if is_user { subject } else { NOBODY.to_owned() };
    state.hub().publish(state.now(), Kind::SignInRefused, subject, json!({ "by": by }));
    Problem::new(reason, reason.title())
}
