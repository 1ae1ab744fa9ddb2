//! What must hold when many clients, several workers, attackers and operators meet: scenarios with
//! a fleet, each with figures to be read and invariants to be asserted.
//!
//! Every scenario has two sizes. The small one takes seconds and is part of the lab's tests, which
//! assert its invariants; the full one is measured by `tools/perf shards` into a dated folder. Both
//! are the same code with other numbers ([`Size`]).
//!
//! On two processors the gateway's single worker is alone on CPU 1 and all else shares CPU 0. With
//! more workers they share the machine with their load, so that CPU time per byte is the figure to
//! read, not the rate.

mod edits;
mod fairness;
mod flood;
mod freeze;
mod honest;
mod memory;
mod scaling;
mod storm;

use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::cpu;
use crate::fleet::{Grounds, cpu_count, pin_this_thread};
use crate::outcomes::{float, must};

pub use crate::outcomes::{Invariant, Outcome, Size};

/// How to run a scenario.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers of the gateway.
    pub workers: u16,
    /// Further flags of the gateway, such as `--driver epoll`.
    pub flags: String,
    /// How large.
    pub size: Size,
}

/// A scenario with many clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Numbered datagrams both ways at full load: cost, crossings, order.
    Scaling,
    /// An honest session beside forged initiations.
    Flood,
    /// Thousands of handshakes at once.
    Storm,
    /// Idle sessions: bytes each, ledger, and whether all of it is given back.
    Memory,
    /// An honest client beside an authenticated one that floods.
    Fairness,
    /// A thousand edits per second beside traffic.
    Edits,
    /// The control thread stands still beside traffic.
    Freeze,
}

impl Scenario {
    /// All of them, in the order they are run.
    pub const ALL: [Self; 7] = [
        Self::Scaling,
        Self::Flood,
        Self::Storm,
        Self::Fairness,
        Self::Edits,
        Self::Freeze,
        Self::Memory,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scaling => "scaling",
            Self::Flood => "flood",
            Self::Storm => "storm",
            Self::Memory => "memory",
            Self::Fairness => "fairness",
            Self::Edits => "edits",
            Self::Freeze => "freeze",
        }
    }

    /// Whether it is worth measuring with so many workers, of those that are measured. What one
    /// worker does to its sessions, each of several does; memory is the same for all.
    #[must_use]
    pub fn is_for(self, workers: u16, measured: &[u16]) -> bool {
        let largest = measured.iter().copied().filter(|count| *count <= 2).max();
        match self {
            Self::Scaling => true,
            Self::Flood | Self::Storm | Self::Edits | Self::Fairness | Self::Freeze => {
                workers <= 2 || largest.is_none()
            }
            Self::Memory => measured.iter().min() == Some(&workers),
        }
    }

    /// Runs it and returns a row per variant.
    ///
    /// # Errors
    /// When the gateway does not start or no traffic passes; a broken invariant is no error.
    pub fn run(self, settings: &Settings) -> Result<Vec<Outcome>> {
        let run = || match self {
            Self::Scaling => scaling::run(settings),
            Self::Flood => flood::run(settings),
            Self::Storm => storm::run(settings),
            Self::Memory => memory::run(settings),
            Self::Fairness => fairness::run(settings),
            Self::Edits => edits::run(settings),
            Self::Freeze => freeze::run(settings),
        };
        // A thread of its own: it is bound to a CPU, and its children end with it.
        let ended = thread::scope(|scope| scope.spawn(run).join());
        ended
            .map_err(|_| anyhow!("The scenario panicked"))?
            .with_context(|| format!("{} with {} workers", self.name(), settings.workers))
    }
}

impl Settings {
    /// One worker, small: what a test begins with.
    #[must_use]
    pub fn small(workers: u16, flags: &str) -> Self {
        Self { workers, flags: flags.to_owned(), size: Size::Small }
    }

    /// Starts the gateway and then binds this thread, and those it starts, away from it.
    fn grounds(&self) -> Result<Grounds> {
        // The gateway of the variant before left this thread bound, and children inherit that.
        pin_this_thread(None)?;
        let place = match self.workers {
            1 if cpu_count()? > 1 => "--workers 1 --cpus 1".to_owned(),
            workers => format!("--workers {workers} --oversubscribe"),
        };
        let grounds = Grounds::start(&format!("{place} {}", self.flags))?;
        pin_this_thread(self.ends_cpu())?;
        Ok(grounds)
    }

    /// The CPU of everything that is not the gateway, if it has one of its own.
    fn ends_cpu(&self) -> Option<usize> {
        (self.workers == 1 && cpu_count().is_ok_and(|cpus| cpus > 1)).then_some(0)
    }

    fn variant(&self, what: &str) -> String {
        let plural = if self.workers == 1 { "" } else { "s" };
        format!("{what}, {} worker{plural}{}", self.workers, self.flags)
    }
}

/// Processor seconds of the gateway since a moment.
struct Spent {
    pid: u32,
    before_s: f64,
}

impl Spent {
    fn since_now(pid: u32) -> Self {
        Self { pid, before_s: cpu::seconds_of(pid) }
    }

    fn seconds(&self) -> f64 {
        cpu::seconds_of(self.pid) - self.before_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_names_its_workers_and_flags() {
        let settings = Settings::small(2, " --driver epoll");
        assert_eq!(settings.variant("up"), "up, 2 workers --driver epoll");
        assert_eq!(Settings::small(1, "").variant("up"), "up, 1 worker");
    }
}
