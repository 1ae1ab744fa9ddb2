//! What every handler of the API can reach.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::accounts::Accounts;
use super::caller::Source;
use super::first_start::FirstStart;
use super::live::Live;
use super::logins::Logins;
use super::needs::Needs;
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
    /// Requests that are worked on at the same time.
    pub in_flight: usize,
    /// Readers of events at the same time.
    pub listeners: usize,
}

impl Default for Allowances {
    fn default() -> Self {
        Self {
            // A page that opens asks twenty times at once; a busy script a hundred times a second.
            per_source: Allowance { per_second: 100, burst: 300 },
            per_caller: Allowance { per_second: 100, burst: 200 },
            self_service: Allowance { per_second: 1, burst: 30 },
            in_flight: 128,
            listeners: 64,
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
    in_flight: Arc<tokio::sync::Semaphore>,
    listeners: Arc<tokio::sync::Semaphore>,
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
            in_flight: Arc::new(tokio::sync::Semaphore::new(allowances.in_flight)),
            listeners: Arc::new(tokio::sync::Semaphore::new(allowances.listeners)),
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

    /// The client certificates that browser logins were made with.
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

    pub(super) fn in_flight(&self) -> &Arc<tokio::sync::Semaphore> {
        &self.0.in_flight
    }

    pub(super) fn listeners(&self) -> &Arc<tokio::sync::Semaphore> {
        &self.0.listeners
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
