//! What happens, told to whoever listens: sessions, users, limits, configuration.
//!
//! A hub keeps the last [`KEPT`] events and hands each to all listeners. Publishing never waits and
//! takes no lock for longer than a push; a listener that does not keep up is told how many it
//! missed. Numbers of another life of the gateway are told from those of this one, so that who
//! comes back after a restart hears that there is a gap, and then all that is kept. Nothing may
//! depend on an event having been heard: it is news, not a record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::store::ids::Timestamp;

/// Events that a listener may ask for again, by `Last-Event-ID`. A thousand covers a page that
/// reconnects after seconds; at some hundred bytes each they cost a few hundred kilobytes.
pub const KEPT: usize = 1024;

macro_rules! kinds {
    ($($variant:ident $word:literal $doc:literal,)*) => {
        /// What an event is about: a closed list, `KIND.VERB`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        pub enum Kind { $(#[doc = $doc] #[serde(rename = $word)] $variant,)* }

        // Written out: the macro of utoipa does not see words that another macro hands on.
        impl utoipa::PartialSchema for Kind {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let words = [$($word,)*];
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(words))
                    .into()
            }
        }

        impl ToSchema for Kind {}

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// What `word` stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.word() == word)
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

kinds! {
    SessionStarted "session.started" "A client connected.",
    SessionEnded "session.ended" "A client's session ended; the detail has the reason.",
    SessionMoved "session.moved" "A client's address or port changed; without it in mode no-log.",
    SignInAccepted "sign-in.accepted" "Somebody signed in.",
    SignInRefused "sign-in.refused" "Somebody was refused at sign-in.",
    UserCreated "user.created" "A user was made.",
    UserChanged "user.changed" "A user was changed.",
    UserRemoved "user.removed" "A user was removed.",
    UserExported "user.exported" "Everything that is kept about a user was read.",
    DeviceCreated "device.created" "A device was added.",
    DeviceChanged "device.changed" "A device was changed.",
    DeviceRemoved "device.removed" "A device was removed.",
    GroupCreated "group.created" "A group was made.",
    GroupChanged "group.changed" "A group was changed.",
    GroupRemoved "group.removed" "A group was removed.",
    PolicyCreated "policy.created" "A policy was made.",
    PolicyChanged "policy.changed" "A policy was changed.",
    PolicyRemoved "policy.removed" "A policy was removed.",
    PoolCreated "pool.created" "A pool was made.",
    PoolChanged "pool.changed" "A pool was changed.",
    PoolRemoved "pool.removed" "A pool was removed.",
    TokenCreated "token.created" "An API token was made.",
    TokenRemoved "token.removed" "An API token was revoked.",
    EnrolmentCreated "enrolment.created" "An invitation was made.",
    EnrolmentUsed "enrolment.used" "An invitation was used.",
    EnrolmentRemoved "enrolment.removed" "An invitation was taken back.",
    AccessGranted "access.granted" "A device may connect from now on, for whatever reason.",
    AccessEnded "access.ended" "A device may not connect any more; the detail has the reason.",
    QuotaReached "quota.reached" "A user's quota is used up.",
    QuotaReset "quota.reset" "A quota that was used up began anew, or was raised.",
    BanSet "ban.set" "Somebody is kept out for a while; without an address in mode no-log.",
    BanLifted "ban.lifted" "A ban was lifted.",
    ConfigApplied "config.applied" "A configuration took effect.",
    ConfigRolledBack "config.rolled-back" "An earlier configuration took effect again.",
    ConfigConfirmed "config.confirmed" "A configuration on trial was confirmed.",
    DrainStarted "drain.started" "No new sessions are taken.",
    DrainEnded "drain.ended" "New sessions are taken again, or all have left.",
    BackupMade "backup.made" "A copy of the records was written; the subject is the file.",
    NodeChanged "node.changed" "An exit was enabled, disabled, or changed its health; the only one, the local exit, never does.",
    Warning "gateway.warning" "Something needs an operator's attention.",
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// One more than the event before has; each start of the gateway begins anew, higher.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: Kind,
    /// What it happened to: a name or an identifier.
    pub subject: String,
    /// More about it; never a secret.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// The place where events are published and heard. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Id of the newest event: wakes listeners, carries nothing else.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    newest: u64,
    /// The number before the first one.
    before: u64,
}

impl Default for Hub {
    fn default() -> Self {
        Self(Arc::new(Shared { ring: Mutex::default(), newest: watch::Sender::new(0) }))
    }
}

/// What a listener gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Arc<Event>),
    /// So many events were missed: they are no longer kept.
    Lagged(u64),
    /// The gateway was started anew since the event that was heard last: nobody knows how many were
    /// missed. What is kept since then follows.
    Restarted,
}

/// Hears events one by one.
#[derive(Debug)]
pub struct Listener {
    hub: Hub,
    newest: watch::Receiver<u64>,
    /// The last one it was given.
    last: u64,
    /// What it heard before is of another life of the gateway, and it was not told so yet.
    restarted: bool,
}

/// Events that a gateway may tell in a millisecond before their numbers could meet those of its
/// next life, which begins with the milliseconds of its start. Fits the integers of every JSON
/// reader.
const IDS_PER_MS: u64 = 1 << 10;

impl Hub {
    /// A hub whose life begins `at` this moment: its events have numbers from there on.
    #[must_use]
    pub fn begun(at: Timestamp) -> Self {
        let before = u64::try_from(at.0).unwrap_or(0).saturating_mul(IDS_PER_MS);
        let ring = Ring { before, newest: before, ..Ring::default() };
        Self(Arc::new(Shared { ring: Mutex::new(ring), newest: watch::Sender::new(before) }))
    }

    /// Tells everybody. Never waits; returns the id.
    pub fn publish(
        &self,
        at: Timestamp,
        kind: Kind,
        subject: impl Into<String>,
        detail: serde_json::Value,
    ) -> u64 {
        let mut ring = self.ring();
        ring.newest += 1;
        let id = ring.newest;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(Event { id, at, kind, subject: subject.into(), detail }));
        // Under the lock, so that the number never goes back.
        self.0.newest.send_replace(id);
        id
    }

    /// Takes the content from the events that `is_about` picks: their place stays, and what they
    /// said of somebody is gone. Listeners may have heard it before.
    pub fn erase(&self, is_about: impl Fn(&Event) -> bool) {
        for event in self.ring().kept.iter_mut().filter(|event| is_about(event)) {
            let (id, at, kind) = (event.id, event.at, event.kind);
            let (subject, detail) = ("erased".to_owned(), serde_json::json!({ "erased": true }));
            *event = Arc::new(Event { id, at, kind, subject, detail });
        }
    }

    /// Listens to what comes from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        let last = self.ring().newest;
        self.listen_after(last)
    }

    /// Listens to what came after the event `last`, as far as it is kept, and to what comes; 0 is
    /// before all of them. A number from before a restart starts at the oldest, and that is said.
    #[must_use]
    pub fn listen_after(&self, last: u64) -> Listener {
        let ring = self.ring();
        let is_ours = (ring.before..=ring.newest).contains(&last);
        let last_of_ours = if is_ours { last } else { ring.before };
        drop(ring);
        Listener {
            hub: self.clone(),
            newest: self.0.newest.subscribe(),
            last: last_of_ours,
            restarted: !is_ours && last != 0,
        }
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.newest.receiver_count()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A push cannot leave the ring half-made, so a poisoned lock is as good as any.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next event; waits for one. None when the hub is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            self.newest.borrow_and_update();
            if let Some(heard) = self.try_next() {
                return Some(heard);
            }
            self.newest.changed().await.ok()?;
        }
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Heard> {
        if std::mem::take(&mut self.restarted) {
            return Some(Heard::Restarted);
        }
        let ring = self.hub.ring();
        let oldest = ring.kept.front()?.id;
        let wanted = self.last + 1;
        if wanted < oldest {
            self.last = oldest - 1;
            return Some(Heard::Lagged(oldest - wanted));
        }
        let event = Arc::clone(ring.kept.get(usize::try_from(wanted - oldest).ok()?)?);
        self.last = wanted;
        Some(Heard::Event(event))
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
