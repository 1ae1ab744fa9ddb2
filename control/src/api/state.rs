//! What every handler of the API can reach.

use std::sync::Arc;

use super::live::Live;
use super::reason::Counters;
use super::sign_in::SignIn;
use crate::events::Hub;
use crate::store::ids::Timestamp;

/// Tells the time; a test gives one of its own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the API is made of.
pub struct Parts {
    /// The running gateway.
    pub live: Arc<dyn Live>,
    /// Authentication.
    pub sign_in: Arc<dyn SignIn>,
    /// Events.
    pub hub: Hub,
    /// The time.
    pub clock: Clock,
}

/// State of the router; clones are the same.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    parts: Parts,
    refusals: Counters,
}

impl ApiState {
    /// Puts it together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, refusals: Counters::default() }))
    }

    /// The running gateway.
    #[must_use]
    pub fn live(&self) -> &dyn Live {
        &*self.0.parts.live
    }

    /// Authentication.
    #[must_use]
    pub fn sign_in(&self) -> &dyn SignIn {
        &*self.0.parts.sign_in
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

    /// How often each reason was given.
    #[must_use]
    pub fn refusals(&self) -> &Counters {
        &self.0.refusals
    }
}
