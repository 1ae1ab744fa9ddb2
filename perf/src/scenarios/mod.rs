//! What is measured. A scenario builds its own namespaces, so that nothing is left over from the
//! one before.

mod datagrams;
mod latency;
mod memory;
mod tcp;

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::cpu;
use crate::iperf::Direction;
use crate::process::Launch;
use crate::programs::Program;
use crate::report::Figure;
use crate::rr::Transport;
use crate::topology::{Family, Pinning, Plan};

/// One measurement, with its parameters in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// `tcp-N-up`, `tcp-N-down`: N streams through a stock client.
    Tcp {
        /// Parallel streams.
        streams: u32,
        /// Which way.
        direction: Direction,
    },
    /// `flood-SIZE-merged`, `flood-SIZE-single`, `-nosum`: a saturated gateway decrypts.
    Flood {
        /// Bytes of the inner packet.
        size: usize,
        /// Whether datagrams arrive in GSO trains of up to 64, or one by one.
        merged: bool,
        /// Whether inner UDP has a checksum.
        checksum: bool,
    },
    /// `encrypt-SIZE`: single packets from the destination, one per TUN read, sealed towards a
    /// client that only counts.
    Encrypt {
        /// Bytes of the inner packet.
        size: usize,
    },
    /// `rr-tcp`, `rr-udp`: round trips of one byte on an idle gateway.
    RoundTrips {
        /// What carries the byte.
        transport: Transport,
    },
    /// `memory-N`: resident memory with N configured peers and no traffic.
    Memory {
        /// Peers.
        peers: u32,
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

impl Settings {
    fn plan(&self, server: Program) -> Plan {
        Plan { outside: self.outside, pinning: Pinning::MEASURE, ..Plan::new(server, self.client) }
    }
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
        for (merged, checksum) in [(true, true), (false, true), (true, false), (false, false)] {
            for size in [64, 256, 512, 1_360] {
                all.push(Self::Flood { size, merged, checksum });
            }
        }
        all.push(Self::Encrypt { size: 64 });
        all.extend(
            [Transport::Tcp, Transport::Udp].map(|transport| Self::RoundTrips { transport }),
        );
        all.push(Self::Memory { peers: 10_000 });
        all
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Tcp { streams, direction } => format!("tcp-{streams}-{}", direction.name()),
            Self::Flood { size, merged, checksum } => format!(
                "flood-{size}-{}{}",
                if *merged { "merged" } else { "single" },
                if *checksum { "" } else { "-nosum" }
            ),
            Self::Encrypt { size } => format!("encrypt-{size}"),
            Self::RoundTrips { transport } => format!("rr-{}", transport.name()),
            Self::Memory { peers } => format!("memory-{peers}"),
        }
    }

    /// Measures `server` once.
    ///
    /// # Errors
    /// When a program fails or no traffic passes.
    pub fn measure(&self, server: Program, settings: &Settings) -> Result<Vec<Figure>> {
        let measured = match *self {
            Self::Tcp { streams, direction } => tcp::measure(server, settings, streams, direction),
            Self::Flood { size, merged, checksum } => {
                datagrams::decrypt(server, settings, size, merged, checksum)
            }
            Self::Encrypt { size } => datagrams::encrypt(server, settings, size),
            Self::RoundTrips { transport } => latency::measure(server, settings, transport),
            Self::Memory { peers } => memory::measure(server, settings, peers),
        };
        measured.with_context(|| format!("{} with {server}", self.name()))
    }
}

/// Processor time of a process since a moment.
#[derive(Clone, Copy, Debug)]
struct Busy {
    pid: u32,
    before_s: f64,
    start: Instant,
}

/// Processor seconds used, and seconds passed.
#[derive(Clone, Copy, Debug)]
struct Used {
    cpu_s: f64,
    wall_s: f64,
}

impl Busy {
    fn since_now(pid: u32) -> Self {
        Self { pid, before_s: cpu::seconds_of(pid), start: Instant::now() }
    }

    fn used(&self) -> Used {
        Used {
            cpu_s: cpu::seconds_of(self.pid) - self.before_s,
            wall_s: self.start.elapsed().as_secs_f64(),
        }
    }
}

impl Used {
    /// Of one core, 0 to 1; more for a program on several.
    fn cores(self) -> f64 {
        self.cpu_s / self.wall_s
    }
}

/// This program, for the tools that have to run pinned and inside a namespace.
fn own_tool(words: &str) -> Result<Launch> {
    Ok(Launch::new(std::env::current_exe().context("Finding this program")?).words(words))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds stay far below 2^52")]
const fn to_float(count: u64) -> f64 {
    count as f64
}
