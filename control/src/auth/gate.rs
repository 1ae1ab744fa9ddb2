//! The door: one attempt from its address to its answer.
//!
//! In this order: size of what was presented, address lists, bans and rates, the ticket if there is
//! one, who it is, then the first factor (in `first`) and the others (in `walk`). Whoever is
//! unknown, disabled, thrown out or locked out is asked the same, walks the same way as everybody
//! else and is refused after the first factor, with the same answer and after the same work. Every
//! attempt is counted once, under its true reason; what failed adds to scores.
//!
//! The gate waits and never blocks; it may be called from any runtime. It must not know what a back
//! end does.

mod first;
mod kept;
mod walk;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::records::{Ban, Factor, Timestamp, UserId};

use super::anonymous::Anonymous;
use super::backend::{Attributes, BackEnd, Credentials, Prompt, Protocol, Secret};
use super::ban::Bans;
use super::cache::NegativeCache;
use super::certificate::{CERTIFICATE_BYTES_MAX, CHAIN_MAX, Certificates};
use super::challenges::{Challenges, Ticket};
use super::lane::{Lane, LaneSettings};
use super::password::{BYTES_MAX, Hasher, LocalPasswords};
use super::people::{People, Trouble};
use super::queue::Priority;
use super::reason::{Reason, Told};
use super::settings::Settings;
use super::source::Source;
use super::stats::{Snapshot, Stats};
use super::token::{TOKEN_BYTES_MAX, Tokens};
use super::totp::OneTimePasswords;
use kept::Kept;
use walk::{Trail, Walker};

/// Bytes of a user name as it comes; what the store has is shorter, and what is longer is no
/// mistake.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a one-time password or recovery code with spaces.
const CODE_BYTES_MAX: usize = 64;

/// Somebody wants in.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who, as it came; none if a credential says it.
    pub user: Option<String>,
    /// What was presented now.
    pub credentials: Credentials,
    /// From where.
    pub source: Source,
    /// Over which door.
    pub protocol: Protocol,
    /// How urgent it is.
    pub priority: Priority,
    /// What an earlier answer said to bring back.
    pub ticket: Option<Ticket>,
    /// How long to wait, if less than the settings say.
    pub patience: Option<Duration>,
}

impl Attempt {
    /// A new sign-in over the API or an enrolment.
    #[must_use]
    pub const fn new(
        user: Option<String>,
        credentials: Credentials,
        source: Source,
        protocol: Protocol,
    ) -> Self {
        let (priority, ticket, patience) = (Priority::Login, None, None);
        Self { user, credentials, source, protocol, priority, ticket, patience }
    }
}

/// What comes of an attempt.
#[expect(clippy::large_enum_variant, reason = "one per attempt, returned once and never stored")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All factors are proved.
    Accepted(Identity),
    /// Ask the client, and come back with the ticket.
    Challenge {
        /// What to ask.
        prompt: Prompt,
        /// What to bring back; works once.
        ticket: Ticket,
    },
    /// Somebody else has to do something first: come back with the ticket.
    Pending {
        /// What to show meanwhile.
        prompt: Prompt,
        /// When to come back.
        poll_after: Duration,
        /// What to bring back; works once.
        ticket: Ticket,
    },
    /// No.
    Refused(Refusal),
}

/// Somebody who has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// What was proved, in order.
    pub factors: Vec<Factor>,
    /// What the back ends said beyond that.
    pub attributes: Attributes,
    /// The print of what the password that was proved is stored as, if one was: whatever lasts must
    /// end when it is stored no more.
    pub password_print: Option<[u8; 32]>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For log and counters; the client must not see it.
    pub reason: Reason,
    /// What the client hears. Mostly what goes with the reason; where that would tell who exists,
    /// what goes with everything that was presented.
    pub told: Told,
    /// When it is worth to try again, if that is known.
    pub retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, told: reason.told(), retry_after: None }
    }
}

/// The time of day, as the gate sees it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The door. Clones are the same door.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    settings: Settings,
    people: Arc<dyn People>,
    doors: Vec<Door>,
    hasher: Hasher,
    tokens: Option<Tokens>,
    certificates: Option<Certificates>,
    bans: Mutex<Bans>,
    challenges: Mutex<Challenges>,
    cache: Mutex<NegativeCache>,
    stats: Stats,
    clock: Clock,
    /// As the settings say, until somebody says otherwise.
    keeps_addresses: AtomicBool,
    kept: Kept,
    on_ban: Box<dyn Fn(&Ban) + Send + Sync>,
}

/// A factor, who looks at it, and where.
struct Door {
    factor: Factor,
    back_end: Arc<dyn BackEnd>,
    lane: Lane,
}

/// A gate that is being put together.
pub struct Builder {
    inner: Inner,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builder")
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Gate {
    /// Puts a gate together with the back ends that `settings` ask for. Computes one password hash
    /// and reads the certificate files: not for a thread in a hurry. The runtime that it is called
    /// in, if any, replaces outdated hashes later.
    ///
    /// # Errors
    ///
    /// What cannot be used, where and why.
    pub fn builder(settings: Settings, people: Arc<dyn People>) -> Result<Builder, String> {
        let hasher = Hasher::new(settings.passwords).map_err(|error| error.to_string())?;
        let tokens = (!settings.issuers.is_empty())
            .then(|| Tokens::new(settings.issuers.clone()))
            .transpose()?;
        let certificates = settings.certificates.clone().map(Certificates::new).transpose()?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("no random bytes: {error}"))?;
        let clock: Clock = Arc::new(|| Timestamp(jiff::Timestamp::now().as_millisecond()));
        let runtime = tokio::runtime::Handle::try_current().ok();
        let passwords = LocalPasswords::new(hasher.clone(), Arc::clone(&people), runtime);
        let codes = OneTimePasswords::new(Arc::clone(&people))?;
        let lane = settings.lane;
        let inner = Inner {
            bans: Mutex::new(Bans::new(settings.bans)),
            challenges: Mutex::new(Challenges::new(settings.challenges)),
            cache: Mutex::new(NegativeCache::new(settings.cache, secret)),
            stats: Stats::default(),
            doors: Vec::new(),
            tokens: tokens.clone(),
            certificates: certificates.clone(),
            keeps_addresses: AtomicBool::new(settings.keeps_addresses),
            settings,
            people,
            hasher,
            clock,
            kept: Kept::default(),
            on_ban: Box::new(|_| ()),
        };
        let mut builder = Builder { inner }
            .back_end(Factor::Password, Arc::new(passwords), lane)
            .back_end(Factor::Totp, Arc::new(codes), lane);
        if let Some(tokens) = tokens {
            builder = builder.back_end(Factor::Token, Arc::new(tokens), lane);
        }
        if let Some(certificates) = certificates {
            builder = builder.back_end(Factor::Certificate, Arc::new(certificates), lane);
        }
        if builder.inner.settings.anonymous.is_some() {
            builder = builder.back_end(Factor::Anonymous, Arc::new(Anonymous), lane);
        }
        Ok(builder)
    }

    /// Lets somebody in, or not.
    pub async fn sign_in(&self, attempt: Attempt) -> Outcome {
        let inner = &self.0;
        let now = (inner.clock)();
        inner.stats.attempt();
        let mut trail = Trail::default();
        let outcome = match inner.try_in(&attempt, now, &mut trail).await {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        };
        match &outcome {
            Outcome::Accepted(identity) => {
                inner.stats.accept();
                inner.bans().succeeded(attempt.source, &identity.name, now);
                tracing::info!(user = identity.name, protocol = attempt.protocol.0, "signed in");
            }
            Outcome::Challenge { .. } => inner.stats.challenge(),
            Outcome::Pending { .. } => inner.stats.pend(),
            Outcome::Refused(refusal) => inner.refused(&attempt, trail, refusal.reason, now),
        }
        outcome
    }

    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        let inner = &self.0;
        let (now, moment) = ((inner.clock)(), Instant::now());
        let lanes = inner.doors.iter().map(|door| (door.lane.name(), door.lane.status(moment)));
        Snapshot {
            lanes: lanes.collect(),
            bans: inner.bans().count(now),
            challenges: inner.challenges().len(),
            ..inner.stats.snapshot()
        }
    }

    /// Hashes passwords, for whoever sets one.
    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    /// Client certificates, to find out whose are revoked and what expires.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.0.certificates.as_ref()
    }

    /// Something about a user has changed: what was refused may be right now.
    pub fn changed(&self, user: &str) {
        self.0.cache().forget(user);
    }

    /// Who is kept out now.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        let now = (self.0.clock)();
        self.0.bans().list(now)
    }

    /// Lets `subject` (`user:NAME` or a prefix) in again. False if it was not kept out.
    ///
    /// # Errors
    ///
    /// The store did not take it; here it is lifted, and comes back with a restart.
    pub async fn lift(&self, subject: &str) -> Result<bool, Trouble> {
        let was_out = self.0.bans().lift(subject);
        self.0.kept.forget(subject);
        self.0.people.remove_ban(subject.to_owned()).await?;
        Ok(was_out)
    }

    /// Whether addresses that are kept out are stored from now on.
    pub fn keep_addresses(&self, keeps: bool) {
        self.0.keeps_addresses.store(keeps, Ordering::Relaxed);
    }

    /// Lets an address in again that is kept out only here, as addresses are not stored. False if
    /// they are, or if it was not kept out.
    #[must_use]
    pub fn lift_unstored(&self, subject: &str) -> bool {
        !self.0.stores(subject) && self.0.bans().lift(subject)
    }

    /// Takes over who was kept out before a restart, or by another gateway. Where addresses may not
    /// be stored any more, those of before are removed.
    ///
    /// # Errors
    ///
    /// The store did not say.
    pub async fn restore(&self) -> Result<(), Trouble> {
        let now = (self.0.clock)();
        let bans = self.0.people.bans(now).await?;
        self.0.bans().load(&bans, now);
        for ban in bans {
            if self.0.stores(&ban.subject) {
                self.0.kept.add(ban.subject);
            } else {
                self.0.people.remove_ban(ban.subject).await?;
            }
        }
        Ok(())
    }

    /// To be called every few seconds: fetches keys that are due, reads certificate files that have
    /// changed. True if revocations may be new: then ask [`Certificates::revoked_now`].
    pub async fn upkeep(&self) -> bool {
        let now = (self.0.clock)();
        self.forget_ended();
        if let Some(tokens) = &self.0.tokens {
            tokens.refresh(now).await;
        }
        let Some(certificates) = self.0.certificates.clone() else { return false };
        match tokio::task::spawn_blocking(move || certificates.reload()).await {
            Ok(Ok(is_new)) => is_new,
            Ok(Err(why)) => {
                tracing::warn!(why, "certificate files not read; what was in force stays");
                false
            }
            Err(_) => false,
        }
    }
}

impl Builder {
    /// Has `back_end` look at `factor`, instead of whatever did.
    #[must_use]
    pub fn back_end(
        mut self,
        factor: Factor,
        back_end: Arc<dyn BackEnd>,
        lane: LaneSettings,
    ) -> Self {
        let lane = Lane::new(back_end.name(), lane);
        self.inner.doors.retain(|door| door.factor != factor);
        self.inner.doors.push(Door { factor, back_end, lane });
        self
    }

    /// Tells `hear` of each ban when it begins. It is called on the way of a sign-in and must not
    /// wait for anything.
    #[must_use]
    pub fn on_ban(mut self, hear: impl Fn(&Ban) + Send + Sync + 'static) -> Self {
        self.inner.on_ban = Box::new(hear);
        self
    }

    /// Takes the time of day from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.inner.clock = clock;
        self
    }

    /// The gate.
    #[must_use]
    pub fn build(self) -> Gate {
        Gate(Arc::new(self.inner))
    }
}

impl Inner {
    /// Everything before the first factor, and then the walk.
    async fn try_in(
        &self,
        attempt: &Attempt,
        now: Timestamp,
        trail: &mut Trail,
    ) -> Result<Outcome, Refusal> {
        bounded(attempt)?;
        if !self.settings.lists.admit(attempt.source) {
            return Err(Reason::SourceDenied.into());
        }
        self.bans().admit(attempt.source, now).map_err(|kept_out| {
            let ms = u64::try_from(kept_out.until.since(now)).ok();
            Refusal { retry_after: ms.map(Duration::from_millis), ..kept_out.reason.into() }
        })?;
        let longest =
            Duration::from_millis(u64::from(self.settings.deadline_ms.clamp(100, 60_000)));
        let patience = attempt.patience.unwrap_or(longest).min(longest);
        let deadline = Instant::now() + patience;
        Walker { inner: self, attempt, now, deadline }.walk(trail).await
    }

    fn refused(&self, attempt: &Attempt, trail: Trail, reason: Reason, now: Timestamp) {
        let Trail { user, mut wrong } = trail;
        self.stats.refuse(reason);
        let (source, protocol) = (attempt.source, attempt.protocol.0);
        tracing::debug!(user, %source, protocol, reason = reason.code(), "sign-in refused");
        if wrong.is_empty() {
            wrong.push(reason);
        }
        let mut bans = Vec::new();
        for reason in wrong {
            // A certificate or token that is worth nothing is no guess at a user's secrets: whoever
            // sends one with somebody's name must not lock that somebody out.
            let whose = user.as_deref().filter(|_| reason.told() == Told::Wrong);
            bans.extend(self.bans().failed(source, whose, reason, now));
        }
        self.keep_out(bans);
    }

    /// Tells who is kept out from now on, and keeps it.
    fn keep_out(&self, bans: Vec<Ban>) {
        for ban in bans {
            if ban.subject.starts_with("user:") {
                tracing::warn!(subject = ban.subject, until = %ban.until, "locked out after too many failures");
            } else {
                // An address.
                tracing::debug!(subject = ban.subject, until = %ban.until, "kept out after too many failures");
            }
            // What is told of is remembered for those who listen later, as is what is stored.
            if !self.stores(&ban.subject) {
                continue;
            }
            (self.on_ban)(&ban);
            // The answer does not wait for it: that would tell that this was the last try.
            let (kept, subject) = (self.kept.clone(), ban.subject.clone());
            let put = self.people.put_ban(ban);
            tokio::spawn(async move {
                match put.await {
                    Ok(()) => kept.add(subject),
                    Err(error) => tracing::warn!(%error, "a ban is not kept beyond a restart"),
                }
            });
        }
    }

    /// Whether a ban of `subject` is stored: all are, but perhaps those of addresses.
    fn stores(&self, subject: &str) -> bool {
        let is_address = !subject.starts_with("user:") && !subject.starts_with("local:");
        self.keeps_addresses.load(Ordering::Relaxed) || !is_address
    }

    fn bans(&self) -> MutexGuard<'_, Bans> {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn challenges(&self) -> MutexGuard<'_, Challenges> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, NegativeCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was presented is of a size that can be looked at.
fn bounded(attempt: &Attempt) -> Result<(), Reason> {
    let Credentials { password, code, token, certificates } = &attempt.credentials;
    let len = |secret: &Option<Secret>| secret.as_ref().map_or(0, |secret| secret.expose().len());
    if len(token) > TOKEN_BYTES_MAX {
        return Err(Reason::TokenOversized);
    }
    let is_bounded = attempt.user.as_ref().is_none_or(|user| user.len() <= NAME_BYTES_MAX)
        && len(password) <= BYTES_MAX
        && len(code) <= CODE_BYTES_MAX
        && certificates.len() <= CHAIN_MAX
        && certificates.iter().all(|one| one.len() <= CERTIFICATE_BYTES_MAX);
    if is_bounded { Ok(()) } else { Err(Reason::InputOversized) }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "gate_first_tests.rs"]
mod first_tests;

#[cfg(test)]
#[path = "gate_keeping_tests.rs"]
mod keeping_tests;
