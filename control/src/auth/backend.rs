//! The one interface of everything that can prove a user: what is asked, what is answered, and how
//! the work may be done.
//!
//! A back end is asked for one factor of one attempt. It answers at once, blocks on a thread of its
//! own [`Lane`](super::lane::Lane), or waits without a thread ([`Work`]). It may accept, refuse,
//! ask back (a challenge) or say that it waits for somebody else (pending); what it wants to
//! remember in between is an opaque state that the gate keeps. Blocking work that hangs is left
//! behind at the deadline; a helper process that does it registers with [`Abort`] how it is killed.
//! This module must not know any particular back end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::people::Person;
use super::reason::Reason;
use super::source::Source;
use crate::store::records::{Factor, Rate, Timestamp};

/// A future that owns what it needs.
pub type Eventually<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Something that can prove a user.
pub trait BackEnd: Send + Sync + 'static {
    /// Its name in logs and metrics, in the form of an identifier.
    fn name(&self) -> &'static str;

    /// Starts to look at one factor. Must return within microseconds: whatever takes longer is in
    /// the [`Work`] that it returns.
    fn begin(&self, request: Request) -> Work;

    /// Whether a refusal holds for a few seconds, so that the same try need not be looked at again.
    /// False where a credential may become right by itself, as one-time passwords do.
    fn refusals_last(&self) -> bool {
        false
    }
}

/// How an answer comes about.
#[expect(
    clippy::large_enum_variant,
    reason = "one per attempt, moved a few times and never stored"
)]
pub enum Work {
    /// It is there.
    Done(Answer),
    /// It takes a thread for a while: the processor is needed, or a library that blocks.
    Blocking(Box<dyn FnOnce(&Abort) -> Answer + Send>),
    /// The same, and what comes out of it may have to wait for others.
    Stage(Box<dyn FnOnce(&Abort) -> Self + Send>),
    /// It waits for others without a thread; what comes out of it may need a thread again.
    Waiting(Eventually<Self>),
}

impl Work {
    /// Work that takes a thread.
    pub fn blocking(run: impl FnOnce(&Abort) -> Answer + Send + 'static) -> Self {
        Self::Blocking(Box::new(run))
    }

    /// Work that takes a thread and says what is left to do.
    pub fn stage(run: impl FnOnce(&Abort) -> Self + Send + 'static) -> Self {
        Self::Stage(Box::new(run))
    }

    /// Work that waits.
    pub fn waiting(run: impl Future<Output = Self> + Send + 'static) -> Self {
        Self::Waiting(Box::pin(run))
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(answer) => f.debug_tuple("Done").field(answer).finish(),
            Self::Blocking(_) => f.write_str("Blocking"),
            Self::Stage(_) => f.write_str("Stage"),
            Self::Waiting(_) => f.write_str("Waiting"),
        }
    }
}

/// What a back end is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name that was given, in lower case; empty if a credential has to say it.
    pub name: String,
    /// Who that is, as the store knows it; none if there is nobody. Back ends do for nobody what
    /// they do for somebody, so that time does not tell.
    pub person: Option<Arc<Person>>,
    /// What was presented.
    pub credentials: Arc<Credentials>,
    /// From where.
    pub source: Source,
    /// By which protocol.
    pub protocol: Protocol,
    /// What the back end wanted to remember when it asked back.
    pub state: Option<Vec<u8>>,
    /// The time of day.
    pub now: Timestamp,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
}

/// What a back end says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The factor is proved.
    Accepted(Proof),
    /// It needs to know more.
    Challenge {
        /// What to ask the client.
        prompt: Prompt,
        /// What to remember until then.
        state: Vec<u8>,
    },
    /// Somebody else has to do something first: approve on a phone, sign in at a web page.
    Pending {
        /// What to show the client meanwhile.
        prompt: Prompt,
        /// When to ask again.
        poll_after: Duration,
        /// What to remember until then.
        state: Vec<u8>,
    },
    /// Not proved.
    Refused(Reason),
}

/// What a proved factor says about the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Whom the credential names, in lower case; none if it names nobody.
    pub user: Option<String>,
    /// What else it says.
    pub attributes: Attributes,
    /// The print of what the password that was proved is stored as ([`password::print`]).
    ///
    /// [`password::print`]: super::password::print
    pub password_print: Option<[u8; 32]>,
}

/// What a back end may say about a user beyond the name. Absent is what the policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Groups that the back end puts the user into.
    pub groups: Vec<String>,
    /// What the user may do, in words that the back end and the policy agree on.
    pub permissions: Vec<String>,
    /// Rate of the session.
    pub rate: Option<Rate>,
    /// Pool of inner addresses, by name.
    pub pool: Option<String>,
    /// What the client sends into the tunnel.
    pub routes: Vec<String>,
    /// Seconds of access that the sign-in gives.
    pub session_timeout_s: Option<u32>,
    /// No access beyond this moment: the credential itself ends.
    pub valid_until: Option<Timestamp>,
    /// By which certificate the user came, and above it those of the authorities in between, so
    /// that the revocation of each can end the session.
    pub certificates: Vec<CertificateId>,
}

impl Attributes {
    /// Adds what a later factor says. What it says wins, but access never lasts longer than either
    /// credential.
    pub fn add(&mut self, later: Self) {
        let sooner = |a: Option<Timestamp>, b: Option<Timestamp>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        self.groups.extend(later.groups);
        self.permissions.extend(later.permissions);
        for list in [&mut self.groups, &mut self.permissions] {
            list.sort();
            list.dedup();
        }
        self.rate = later.rate.or(self.rate);
        self.pool = later.pool.or_else(|| self.pool.take());
        if !later.routes.is_empty() {
            self.routes = later.routes;
        }
        self.session_timeout_s = later.session_timeout_s.or(self.session_timeout_s);
        self.valid_until = sooner(self.valid_until, later.valid_until);
        if !later.certificates.is_empty() {
            self.certificates = later.certificates;
        }
    }
}

/// What a certificate is called by its authority: issuer and serial number, as they are encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId {
    /// DER of the issuer's name, without its outermost header.
    pub issuer: Vec<u8>,
    /// Big-endian.
    pub serial: Vec<u8>,
}

/// What a client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Which factor it belongs to.
    pub factor: Factor,
    /// For people.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

/// What a client presented. All of it is bounded by the gate before a back end sees it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A password, or the answer to a back end's question.
    pub password: Option<Secret>,
    /// A one-time password or a recovery code.
    pub code: Option<Secret>,
    /// An access token.
    pub token: Option<Secret>,
    /// The certificate chain of TLS, the client's own first. TLS has proved that the client holds
    /// the key; nothing else has been looked at.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// A text that is erased when dropped and never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for whoever compares or hashes it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Over which door somebody comes, for logs and for rules that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub &'static str);

impl Protocol {
    /// The HTTP API.
    pub const API: Self = Self("api");
    /// A device that asks for access or is enrolled.
    pub const ENROLMENT: Self = Self("enrolment");
}

/// How blocking work hears that nobody waits for it any more.
///
/// A thread cannot be stopped from outside. Work that is done by a helper process registers how
/// the helper is killed; work in pieces asks [`Abort::is_fired`] between them.
#[derive(Clone, Default)]
pub struct Abort(Arc<Mutex<Aborting>>);

#[derive(Default)]
struct Aborting {
    fired: bool,
    hook: Option<Box<dyn FnOnce() + Send>>,
}

impl Abort {
    /// What to do when nobody waits any more; at once if that is so already. The hook before is
    /// forgotten.
    pub fn on_fire(&self, hook: impl FnOnce() + Send + 'static) {
        let mut aborting = self.lock();
        if aborting.fired {
            drop(aborting);
            hook();
        } else {
            aborting.hook = Some(Box::new(hook));
        }
    }

    /// The work is through: there is nothing left to kill.
    pub fn disarm(&self) {
        self.lock().hook = None;
    }

    /// Whether nobody waits any more.
    #[must_use]
    pub fn is_fired(&self) -> bool {
        self.lock().fired
    }

    /// Nobody waits any more.
    pub(super) fn fire(&self) {
        let hook = {
            let mut aborting = self.lock();
            aborting.fired = true;
            aborting.hook.take()
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Aborting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abort").field("fired", &self.is_fired()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credentials =
            Credentials { password: Some(Secret::new("hunter2hunter2")), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn a_hook_runs_once_whether_it_comes_before_or_after_the_end() {
        let runs = Arc::new(AtomicUsize::new(0));
        let hook = || {
            let runs = Arc::clone(&runs);
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        let early = Abort::default();
        early.on_fire(hook());
        early.fire();
        early.fire();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        early.on_fire(hook());
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        let through = Abort::default();
        through.on_fire(hook());
        through.disarm();
        through.fire();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn access_lasts_no_longer_than_the_shortest_credential() {
        let until = |ms| Attributes { valid_until: Some(Timestamp(ms)), ..Attributes::default() };
        for (first, second) in [(5, 9), (9, 5)] {
            let mut both = until(first);
            both.add(until(second));
            assert_eq!(both.valid_until, Some(Timestamp(5)));
            both.add(Attributes::default());
            assert_eq!(both.valid_until, Some(Timestamp(5)));
        }
    }
}
