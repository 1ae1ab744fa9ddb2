//! What every handler of the API can reach.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::accounts::Accounts;
use super::caller::{Caller, Source};
use super::first_start::FirstStart;
use super::live::Live;
use super::logins::Logins;
use super::needs::Needs;
use super::places::{Place, Places};
use super::rate::{Allowance, Buckets};
use super::reason::Counters;
use super::sign_in::SignIn;
use crate::auth::backend::CertificateId;
use crate::configs::Configs;
use crate::events::Hub;
use crate::store::ids::{Timestamp, UserId};

/// Tells the time; a test gives one of its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the API is made of.
pub struct Parts {
    /// The running gateway.
    pub live: Arc<dyn Live>,
    /// Whom it lets in.
    pub accounts: Arc<dyn Accounts>,
    /// Authentication.
    pub sign_in: Arc<dyn SignIn>,
    /// Versions of the configuration.
    pub configs: Arc<Configs>,
    /// The one-time secret.
    pub first_start: FirstStart,
    /// Events.
    pub hub: Hub,
    /// The time.
    pub clock: Clock,
    /// The gateway's own user id: its owner is an administrator on the Unix socket, beside root.
    pub own_uid: u32,
    /// How much callers may ask.
    pub allowances: Allowances,
}

/// How often callers may ask. Callers on the Unix socket are not limited.
#[derive(Clone, Copy, Debug)]
pub struct Allowances {
    /// One address (IPv4) or one /64 (IPv6).
    pub per_source: Allowance,
    /// One user or token.
    pub per_caller: Allowance,
    /// Changes that one user or token makes about itself (`/api/v1/me`): each is a write of a store
    /// that a fleet shares, and asks for no role.
    pub self_service: Allowance,
    /// Requests of callers with credentials that are worked on at the same time.
    pub in_flight: usize,
    /// Those of one user, with all its tokens and browsers.
    pub in_flight_each: usize,
    /// Requests without credentials, beside these.
    pub strangers: usize,
    /// Those of one address (IPv4) or one /64 (IPv6), or one user id on the Unix socket.
    pub strangers_each: usize,
    /// Requests of root and of the gateway's own user on the Unix socket, beside these.
    pub local: usize,
    /// Readers of events at the same time.
    pub listeners: usize,
    /// Those of one user, or of root.
    pub listeners_each: usize,
}

impl Default for Allowances {
    fn default() -> Self {
        Self {
            // A page that opens asks twenty times at once; a busy script a hundred times a second.
            per_source: Allowance { per_second: 100, burst: 300 },
            per_caller: Allowance { per_second: 100, burst: 200 },
            self_service: Allowance { per_second: 1, burst: 30 },
            in_flight: 128,
            in_flight_each: 32,
            // Most of them wait for a password to be checked, which few do at a time anyway.
            strangers: 32,
            strangers_each: 4,
            local: 32,
            listeners: 64,
            listeners_each: 8,
        }
    }
}

/// State of the router; clones are the same.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    parts: Parts,
    refusals: Counters,
    logins: Mutex<Logins>,
    sources: Mutex<Buckets<SourceKey>>,
    callers: Mutex<Buckets<CallerKey>>,
    self_service: Mutex<Buckets<CallerKey>>,
    known: Places<Option<UserId>>,
    strangers: Places<SourceKey>,
    local: Places<()>,
    listeners: Places<Option<UserId>>,
    needs: std::sync::OnceLock<Needs>,
}

/// What shares a bucket: an IPv4 address, or a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceKey(u64, bool);

impl SourceKey {
    pub(super) fn new(source: Source) -> Self {
        match source {
            Source::Unix { uid } => Self(u64::from(uid) | 1 << 40, false),
            Source::Ip(address) => match address.to_canonical() {
                std::net::IpAddr::V4(address) => Self(u64::from(u32::from(address)), false),
                std::net::IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64, true),
            },
        }
    }
}

/// The place of a request that is worked on, until it is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "places are there to be dropped")]
pub(super) enum InFlight {
    Local(Place<()>),
    Known(Place<Option<UserId>>),
    Stranger(Place<SourceKey>),
}

/// A user, or a token.
pub(super) type CallerKey = u128;

impl ApiState {
    /// Puts it together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let allowances = parts.allowances;
        Self(Arc::new(Inner {
            parts,
            refusals: Counters::default(),
            logins: Mutex::default(),
            sources: Mutex::new(Buckets::new(allowances.per_source)),
            callers: Mutex::new(Buckets::new(allowances.per_caller)),
            self_service: Mutex::new(Buckets::new(allowances.self_service)),
            known: Places::new(allowances.in_flight, allowances.in_flight_each),
            strangers: Places::new(allowances.strangers, allowances.strangers_each),
            local: Places::new(allowances.local, allowances.local),
            listeners: Places::new(allowances.listeners, allowances.listeners_each),
            needs: std::sync::OnceLock::new(),
        }))
    }

    /// The running gateway.
    #[must_use]
    pub fn live(&self) -> &dyn Live {
        &*self.0.parts.live
    }

    /// Whom the API lets in.
    #[must_use]
    pub fn accounts(&self) -> &Arc<dyn Accounts> {
        &self.0.parts.accounts
    }

    /// Authentication.
    #[must_use]
    pub fn sign_in(&self) -> &dyn SignIn {
        &*self.0.parts.sign_in
    }

    /// Versions of the configuration.
    #[must_use]
    pub fn configs(&self) -> &Arc<Configs> {
        &self.0.parts.configs
    }

    /// The one-time secret.
    #[must_use]
    pub fn first_start(&self) -> &FirstStart {
        &self.0.parts.first_start
    }

    /// Events.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.0.parts.hub
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0.parts.clock)()
    }

    /// The gateway's own user id.
    #[must_use]
    pub fn own_uid(&self) -> u32 {
        self.0.parts.own_uid
    }

    /// How often each reason was given.
    #[must_use]
    pub fn refusals(&self) -> &Counters {
        &self.0.refusals
    }

    /// Ends all browser logins of a user: call it when the password changes or the user is shut
    /// out. (The next request would find out by itself; this frees the place at once.)
    pub fn end_logins(&self, user: UserId) {
        self.logins().end_all(user);
    }

    /// The client certificates that browser logins were made with, and those above them.
    #[must_use]
    pub fn login_certificates(&self) -> Vec<CertificateId> {
        self.logins().certificates()
    }

    /// Ends the browser logins that were made with a certificate that is revoked by now.
    pub fn end_revoked_logins(&self, revoked: &[CertificateId]) {
        self.logins().end_revoked(revoked);
    }

    pub(super) fn logins(&self) -> MutexGuard<'_, Logins> {
        open(&self.0.logins)
    }

    pub(super) fn take_source(&self, key: SourceKey, cost: u32) -> Result<(), u32> {
        let now = self.now();
        open(&self.0.sources).take(key, cost, now)
    }

    pub(super) fn charge_source(&self, key: SourceKey, cost: u32) {
        let now = self.now();
        open(&self.0.sources).charge(key, cost, now);
    }

    pub(super) fn take_caller(&self, key: CallerKey) -> Result<(), u32> {
        let now = self.now();
        open(&self.0.callers).take(key, 1, now)
    }

    pub(super) fn take_self_service(&self, key: CallerKey) -> Result<(), u32> {
        let now = self.now();
        open(&self.0.self_service).take(key, 1, now)
    }

    /// A place for a request: of `caller`, or of nobody known from `source`.
    pub(super) fn take_place(&self, caller: Option<&Caller>, source: Source) -> Option<InFlight> {
        match caller {
            Some(caller) if caller.is_local() => self.0.local.take(()).map(InFlight::Local),
            Some(caller) => self.0.known.take(caller.user()).map(InFlight::Known),
            None => {
                // Behind a proxy on this host are many, and it may count them itself.
                let is_proxy = matches!(source, Source::Ip(address) if address.is_loopback());
                let (places, key) = (&self.0.strangers, SourceKey::new(source));
                let place = if is_proxy { places.take_unshared(key) } else { places.take(key) };
                place.map(InFlight::Stranger)
            }
        }
    }

    /// A place for a reader of events.
    pub(super) fn take_listener(&self, caller: &Caller) -> Option<Place<Option<UserId>>> {
        self.0.listeners.take(caller.user())
    }

    /// How many requests without credentials could come now.
    #[cfg(test)]
    pub(super) fn free_for_strangers(&self) -> usize {
        self.0.strangers.free()
    }

    /// The table of needs: empty (all is refused) until the router is made.
    pub(super) fn needs(&self) -> &Needs {
        static NONE: Needs = Needs::NONE;
        self.0.needs.get().unwrap_or(&NONE)
    }

    pub(super) fn set_needs(&self, needs: Needs) {
        // A second router over the same state has the same table.
        let _ = self.0.needs.set(needs);
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiState")
    }
}

/// What is behind these locks is never half-made, so a poisoned one is as good as any.
fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
