//! The same small servers on the ring and on three runtimes, measured from outside.
//!
//! A server runs in a process of its own on one CPU, the load on another; what a server costs is
//! the CPU time of all threads of its process, as the kernel counts it, so that helper threads of a
//! runtime are not forgotten. Rounds are interleaved: each contender meets the same noise.

mod bare;
pub mod load;
pub mod relay;
pub mod report;
pub mod server;
pub mod udp;

use std::str::FromStr;

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// ringway-ring: multishot receive with GRO, GSO trains.
    Ring,
    /// ringway-ring without a ring: recvmmsg with GRO, sendmmsg of GSO trains.
    Epoll,
    /// The io-uring crate alone: our driver has no streams yet.
    Bare,
    /// monoio 0.2 on io_uring.
    Monoio,
    /// tokio-uring 0.5.
    TokioUring,
    /// tokio on epoll, current-thread runtime.
    Tokio,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] =
        [Self::Ring, Self::Epoll, Self::Bare, Self::Monoio, Self::TokioUring, Self::Tokio];

    /// Its name in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Epoll => "epoll",
            Self::Bare => "io-uring, bare",
            Self::Monoio => "monoio",
            Self::TokioUring => "tokio-uring",
            Self::Tokio => "tokio",
        }
    }
}

impl FromStr for Contender {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let known = Self::ALL.into_iter().find(|contender| contender.name() == name);
        known.ok_or_else(|| anyhow::anyhow!("Nobody is called {name}"))
    }
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// 64-byte datagrams that arrive one by one, 64 in flight.
    UdpSingle,
    /// 64-byte datagrams that arrive merged by GRO, 64 in a train.
    UdpMerged,
    /// One-way relay between TCP connections, so many pairs of them.
    Relay(usize),
}

impl Workload {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::UdpSingle, Self::UdpMerged, Self::Relay(1), Self::Relay(16)];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::UdpSingle => "udp echo 64 B, single".to_owned(),
            Self::UdpMerged => "udp echo 64 B, merged".to_owned(),
            Self::Relay(pairs) => format!("tcp relay, {pairs} connections"),
        }
    }

    /// Whether the contender can serve it: our drivers have no streams yet, and the bare ring
    /// stands in for them there.
    #[must_use]
    pub fn has(self, contender: Contender) -> bool {
        match contender {
            Contender::Ring | Contender::Epoll => !matches!(self, Self::Relay(_)),
            Contender::Bare => matches!(self, Self::Relay(_)),
            Contender::Monoio | Contender::TokioUring | Contender::Tokio => true,
        }
    }
}

/// What one round gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Operations in the round: datagrams echoed, or KiB relayed.
    pub operations: u64,
    /// Length of the round.
    pub seconds: f64,
    /// CPU time of the server's process in the round.
    pub cpu_ns: u64,
}

impl Sample {
    /// Operations per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// CPU time of the server per operation, in nanoseconds.
    #[must_use]
    pub fn cpu_ns_each(&self) -> f64 {
        self.cpu_ns as f64 / self.operations.max(1) as f64
    }
}
