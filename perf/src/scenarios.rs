//! What is measured. A scenario builds its own namespaces, so that nothing is left over from the one before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cpu;
use crate::iperf::{self, Amount, Direction};
use crate::programs::Program;
use crate::report::Figure;
use crate::topology::{Family, Line, Pinning, Place, Plan};

/// One measurement, with its parameters in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// `tcp-N-up` or `tcp-N-down`: N streams through a stock client.
    Tcp {
        /// Parallel streams.
        streams: u32,
        /// Which way.
        direction: Direction,
    },
}

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
}

impl Scenario {
    /// All of them, in the order they are run.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for streams in [1, 4] {
            for direction in [Direction::Up, Direction::Down] {
                all.push(Self::Tcp { streams, direction });
            }
        }
        all
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Tcp { streams, direction } => format!("tcp-{streams}-{}", direction.name()),
        }
    }

    /// Measures `server` once.
    ///
    /// # Errors
    /// When a program fails or no traffic passes.
    pub fn measure(&self, server: Program, settings: &Settings) -> Result<Vec<Figure>> {
        let measured = match *self {
            Self::Tcp { streams, direction } => tcp(server, settings, streams, direction),
        };
        measured.with_context(|| format!("{} with {server}", self.name()))
    }
}

fn tcp(
    server: Program,
    settings: &Settings,
    streams: u32,
    direction: Direction,
) -> Result<Vec<Figure>> {
    let mut plan = Plan::new(server, settings.client);
    plan.outside = settings.outside;
    plan.pinning = Pinning::MEASURE;
    let site = Line::new(1500)?.connect(plan)?;
    site.await_traffic(settings.inside)?;

    let to = Place::Destination.address(settings.inside);
    let ends = plan.pinning.ends;
    let iperf = iperf::Server::start(&site.line.dst, to, 5201, ends)?;
    let amount = Amount::Seconds { omitted_s: settings.omitted_s, measured_s: settings.measured_s };
    let run = iperf::Run { streams, direction, amount, rate_limit: None };

    let busy = Busy::since_now(site.gateway.pid());
    let client = Busy::since_now(site.client.pid());
    let carried = iperf.run(&site.line.cli, run, ends)?;
    let gigabytes = carried.bytes / 1e9;
    Ok(vec![
        Figure::higher("Gbit/s", carried.bits_per_second / 1e9),
        Figure::lower("CPU-s/GB", busy.seconds() / gigabytes),
        Figure::told("core used", busy.share()),
        Figure::told("client CPU-s/GB", client.seconds() / gigabytes),
        Figure::told("retransmits", to_float(carried.retransmits)),
    ])
}

/// Processor time of a process since a moment.
#[derive(Clone, Copy, Debug)]
struct Busy {
    pid: u32,
    before_s: f64,
    start: Instant,
}

impl Busy {
    fn since_now(pid: u32) -> Self {
        Self { pid, before_s: cpu::seconds_of(pid), start: Instant::now() }
    }

    fn seconds(&self) -> f64 {
        cpu::seconds_of(self.pid) - self.before_s
    }

    /// Of one core, 0 to 1 (more for a program on several).
    fn share(&self) -> f64 {
        self.seconds() / self.start.elapsed().max(Duration::from_millis(1)).as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds stay far below 2^52")]
const fn to_float(count: u64) -> f64 {
    count as f64
}
