//! What the scenarios share: how long, which client, which processors, and what a process used.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cpu;
use crate::process::Launch;
use crate::profile;
use crate::programs::Program;
use crate::topology::{Family, Pinning, Plan};

/// What all scenarios of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The client program, the same for all servers.
    pub client: Program,
    /// Seconds of warm-up per measurement.
    pub omitted_s: u32,
    /// Seconds measured.
    pub measured_s: u32,
    /// Outer address family.
    pub outside: Family,
    /// Address family inside.
    pub inside: Family,
    /// Whether this is a smoke run: fewer clients where their number is ours to choose.
    pub quick: bool,
}

/// Seconds the generators run beyond the window, for starting and stopping.
const MARGIN_S: u32 = 1;

impl Settings {
    /// Server alone on CPU 1, or on both where it has two workers; all else on CPU 0.
    pub(super) fn plan(&self, server: Program) -> Plan {
        let gateway = if server.workers() > 1 { Some("0-1") } else { Pinning::MEASURE.gateway };
        let pinning = Pinning { gateway, ..Pinning::MEASURE };
        Plan { outside: self.outside, pinning, ..Plan::new(server, self.client) }
    }

    /// How long a generator has to run so that the window lies within.
    pub(super) const fn whole_s(&self) -> u32 {
        self.omitted_s + self.measured_s + MARGIN_S
    }

    /// As [`Settings::whole_s`].
    pub(super) fn whole(&self) -> Duration {
        Duration::from_secs(self.whole_s().into())
    }

    /// Counts over the measured window: arrivals and what the process used meanwhile.
    pub(super) fn window(
        &self,
        pid: u32,
        arrived: impl Fn() -> Result<u64>,
    ) -> Result<(u64, Used)> {
        std::thread::sleep(Duration::from_secs(self.omitted_s.into()));
        let (before, busy) = (arrived()?, Busy::since_now(pid));
        std::thread::sleep(Duration::from_secs(self.measured_s.into()));
        let (after, used) = (arrived()?, busy.used());
        ensure!(after > before, "Nothing arrived");
        Ok((after - before, used))
    }
}

/// Processor time of a process since a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    pid: u32,
    before_s: f64,
    start: Instant,
}

/// Processor seconds used, and seconds passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) cpu_s: f64,
    pub(super) wall_s: f64,
}

impl Busy {
    pub(super) fn since_now(pid: u32) -> Self {
        profile::begin(pid);
        Self { pid, before_s: cpu::seconds_of(pid), start: Instant::now() }
    }

    pub(super) fn used(&self) -> Used {
        let used = Used {
            cpu_s: cpu::seconds_of(self.pid) - self.before_s,
            wall_s: self.start.elapsed().as_secs_f64(),
        };
        profile::end();
        used
    }
}

impl Used {
    /// Of one core, 0 to 1; more for a program on several.
    pub(super) fn cores(self) -> f64 {
        self.cpu_s / self.wall_s
    }
}

/// This program, for the tools that have to run pinned and inside a namespace.
pub(super) fn own_tool(words: &str) -> Result<Launch> {
    Ok(Launch::new(std::env::current_exe().context("Finding this program")?).words(words))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds stay far below 2^52")]
pub(super) const fn to_float(count: u64) -> f64 {
    count as f64
}
