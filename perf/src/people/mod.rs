//! The service for people on the real gateway, as a black box: what sign-ins, requests, changes,
//! revocation, records and metrics cost, and what of it traffic notices.
//!
//! Every scenario has two sizes: the small one takes seconds and may be called by tests, the full
//! one is measured by `tools/perf people` into a dated folder. Both are the same code with other
//! numbers. What is written down is what a client of the API and the ends of traffic can see.
//!
//! On two processors the gateway's worker is alone on CPU 1, from which the gateway keeps its other
//! threads away; they and all else share CPU 0. Rates of requests therefore include whoever asks.

mod asking;
mod edits;
mod house;
mod logins;
mod memory;
mod metrics;
mod proofs;
mod requests;
mod revocation;
mod traffic;

use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::outcomes::{Outcome, Size};

/// A scenario of the service for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Signing in by each means.
    Logins,
    /// Requests, with and without traffic beside them.
    Api,
    /// Changes of others beside an honest session.
    Edits,
    /// From a revocation to the last packet.
    Revocation,
    /// Very many users with a device each.
    Memory,
    /// What scraping the metrics costs traffic.
    Metrics,
}

impl Scenario {
    /// All of them, in the order they are run.
    pub const ALL: [Self; 6] =
        [Self::Logins, Self::Api, Self::Edits, Self::Revocation, Self::Metrics, Self::Memory];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logins => "logins",
            Self::Api => "api",
            Self::Edits => "edits",
            Self::Revocation => "revocation",
            Self::Memory => "memory",
            Self::Metrics => "metrics",
        }
    }

    /// Runs it and returns a row per variant.
    ///
    /// # Errors
    /// When the gateway does not start or something is refused that should not be; a broken
    /// invariant is no error.
    pub fn run(self, size: Size) -> Result<Vec<Outcome>> {
        let run = || match self {
            Self::Logins => logins::run(size),
            Self::Api => requests::run(size),
            Self::Edits => edits::run(size),
            Self::Revocation => revocation::run(size),
            Self::Memory => memory::run(size),
            Self::Metrics => metrics::run(size),
        };
        // A thread of its own: it is bound to a CPU, and its children end with it.
        let ended = thread::scope(|scope| scope.spawn(run).join());
        ended.map_err(|_| anyhow!("The scenario panicked"))?.with_context(|| self.name().to_owned())
    }
}
