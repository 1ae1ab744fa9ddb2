//! What each driver costs on this machine: CPU time per datagram of an echo over loopback.
//!
//! Two regimes, since a driver may be good at one only: datagrams that come singly, and datagrams
//! that come merged. Both drivers take turns, so that what else the machine does hits both, and the
//! median of many short rounds is taken. Only calls of the driver are timed, and only by the CPU
//! time of this thread: a busy neighbour slows a clock, not this. A few milliseconds tell no more
//! than a coarse difference, which is all that is asked.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use crate::backend::{Backend, DriverConfig};
use crate::clock;
use crate::driver::{Ecn, Outside, Received, Train, Wait};
use crate::epoll::EpollDriver;
use crate::error::RingError;
use crate::features::Features;
use crate::listen::{UdpOptions, UdpSockets};
use crate::pools::{PoolSizes, Pools};
use crate::sys;
use crate::uring::UringDriver;
use crate::zerocopy::ZeroCopyMode;

/// Rounds of each driver in each regime that count, after [`ROUNDS_WARM`] that do not: the first
/// touch of a buffer costs more than its use.
const ROUNDS: usize = 31;
const ROUNDS_WARM: usize = 8;

/// Single datagrams of a round, and their length.
const SINGLES: usize = 16;
const SINGLE_BYTES: usize = 1200;

/// Trains of a round, and the datagrams in each: a super-buffer that is nearly full.
const TRAINS: usize = 4;
const TRAIN_DATAGRAMS: usize = 48;

/// Turns after which a round that is not complete is given up: nothing is lost on loopback.
const TURNS_MAX: usize = 64;

/// As small as a round allows.
const POOLS: PoolSizes =
    PoolSizes { outside: 64, initiations: 2, inside: 2, trains: 32, tun_writes: 2 };

/// CPU time per datagram, received and sent back, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Of datagrams that came singly.
    pub single_ns: u64,
    /// Of datagrams that came merged.
    pub merged_ns: u64,
}

/// What both drivers cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The io_uring driver.
    pub uring: Cost,
    /// The epoll driver.
    pub epoll: Cost,
}

impl Measured {
    /// Whether io_uring is dearer by more than this, both regimes weighing the same (the geometric
    /// mean of their ratios).
    #[must_use]
    pub const fn is_uring_slower_by(&self, percent: u64) -> bool {
        let uring = self.uring.single_ns as u128 * self.uring.merged_ns as u128;
        let epoll = self.epoll.single_ns as u128 * self.epoll.merged_ns as u128;
        let allowed = 100 + percent as u128;
        uring.saturating_mul(100 * 100) > epoll.saturating_mul(allowed * allowed)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uring, epoll } = self;
        write!(
            f,
            "a datagram costs {} ns singly and {} ns merged with io_uring, {} ns and {} ns with epoll",
            uring.single_ns, uring.merged_ns, epoll.single_ns, epoll.merged_ns
        )
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmeasured {
    /// There is no ring after all.
    #[error("{0}")]
    NoRing(RingError),
    /// Loopback does not carry datagrams, so neither driver could show anything.
    #[error("not measured, because loopback carries no datagrams here ({0})")]
    NoLoopback(io::Error),
}

/// Measures both drivers, on the calling thread.
///
/// # Errors
/// [`Unmeasured`].
pub(super) fn measure(features: &Features) -> Result<Measured, Unmeasured> {
    let mut uring = Candidate::<UringDriver>::new(features).map_err(Unmeasured::from_uring)?;
    let mut epoll = Candidate::<EpollDriver>::new(features).map_err(Unmeasured::from_epoll)?;
    let costs = alternate(&mut uring, &mut epoll).map_err(Unmeasured::NoLoopback)?;
    let [uring, epoll] = costs;
    Ok(Measured { uring, epoll })
}

impl Unmeasured {
    fn from_uring(error: Failure) -> Self {
        match error {
            Failure::Driver(error) => Self::NoRing(error),
            Failure::Socket(error) => Self::NoLoopback(error),
        }
    }

    fn from_epoll(error: Failure) -> Self {
        match error {
            Failure::Driver(error) => Self::NoLoopback(io::Error::other(error)),
            Failure::Socket(error) => Self::NoLoopback(error),
        }
    }
}

/// Runs the rounds of both in turns; their medians.
fn alternate(
    uring: &mut Candidate<UringDriver>,
    epoll: &mut Candidate<EpollDriver>,
) -> io::Result<[Cost; 2]> {
    let mut singles = [[0; ROUNDS]; 2];
    let mut merged = [[0; ROUNDS]; 2];
    for round in 0..ROUNDS_WARM + ROUNDS {
        let single_ns = [uring.round(Regime::Single)?, epoll.round(Regime::Single)?];
        let merged_ns = [uring.round(Regime::Merged)?, epoll.round(Regime::Merged)?];
        if let Some(counted) = round.checked_sub(ROUNDS_WARM) {
            for candidate in 0..2 {
                singles[candidate][counted] = single_ns[candidate];
                merged[candidate][counted] = merged_ns[candidate];
            }
        }
    }
    Ok([0, 1].map(|candidate| Cost {
        single_ns: median(&mut singles[candidate]),
        merged_ns: median(&mut merged[candidate]),
    }))
}

fn median(times: &mut [u64; ROUNDS]) -> u64 {
    times.sort_unstable();
    times[ROUNDS / 2].max(1)
}

/// How datagrams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Regime {
    Single,
    Merged,
}

enum Failure {
    Driver(RingError),
    Socket(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// A driver that echoes, and the socket that it echoes to.
struct Candidate<B: Backend> {
    driver: B,
    client: UdpSocket,
    /// As `client`, but the kernel cuts what it sends.
    cutting: UdpSocket,
}

impl<B: Backend> Candidate<B> {
    fn new(features: &Features) -> Result<Self, Failure> {
        let mut driver = B::make(DriverConfig {
            pools: Pools::new(POOLS)?,
            features: features.clone(),
            zero_copy: ZeroCopyMode::Off,
            waker: None,
        })
        .map_err(Failure::Driver)?;
        let options = UdpOptions {
            ipv4: Some(Ipv4Addr::LOCALHOST),
            ipv6: None,
            gro: features.udp_gro,
            ..UdpOptions::default()
        };
        let sockets = UdpSockets::bind(&options).map_err(io::Error::other)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, sockets.port()));
        driver.set_sockets(Some(sockets))?;
        driver.turn(Wait::No)?;
        let connected = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let cutting = connected()?;
        // Where the kernel does not cut, both regimes are the same; that is no error.
        let bytes = SINGLE_BYTES as libc::c_int;
        let _ = sys::set_option(cutting.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, bytes);
        let _ = sys::set_option(cutting.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        Ok(Self { driver, client: connected()?, cutting })
    }

    /// One round; CPU time of the driver per datagram.
    fn round(&mut self, regime: Regime) -> io::Result<u64> {
        let datagrams = self.provoke(regime)?;
        let begin = clock::thread_cpu_ns();
        let mut echoed = 0;
        for _ in 0..TURNS_MAX {
            self.driver.turn(Wait::No)?;
            while let Some(received) = self.driver.next() {
                if let Received::Outside(outside) = received {
                    echoed += outside.len.div_ceil(outside.stride);
                    echo(&mut self.driver, &outside);
                }
            }
            if echoed >= datagrams {
                break;
            }
        }
        self.driver.turn(Wait::No)?;
        let spent = clock::thread_cpu_ns() - begin;
        self.forget(regime);
        if echoed < datagrams {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        Ok(spent / datagrams as u64)
    }

    /// Sends what a round is about; how many datagrams that is.
    fn provoke(&self, regime: Regime) -> io::Result<usize> {
        let bytes = [0; TRAIN_DATAGRAMS * SINGLE_BYTES];
        match regime {
            Regime::Single => {
                for _ in 0..SINGLES {
                    self.client.send(&bytes[..SINGLE_BYTES])?;
                }
                Ok(SINGLES)
            }
            Regime::Merged => {
                for _ in 0..TRAINS {
                    self.cutting.send(&bytes)?;
                }
                Ok(TRAINS * TRAIN_DATAGRAMS)
            }
        }
    }

    /// Takes the echoes out of the client's socket.
    fn forget(&self, regime: Regime) {
        let socket = match regime {
            Regime::Single => &self.client,
            Regime::Merged => &self.cutting,
        };
        let mut bytes = [0; 1 << 16];
        while socket.recv(&mut bytes).is_ok() {}
    }
}

/// Sends back what came, as a train like it.
fn echo(driver: &mut impl Backend, outside: &Outside) {
    let Some(mut buf) = driver.reserve_train() else { return };
    buf[..outside.len].copy_from_slice(&outside.buf[outside.start..][..outside.len]);
    driver.send(Train {
        buf,
        len: outside.len,
        segment_bytes: outside.stride,
        to: outside.from,
        from: outside.to,
        ecn: Ecn(0),
        dscp: 0,
    });
}

/// A driver of this kind is made and echoes.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) fn echoes_once<B: Backend>(features: &Features) {
    let Ok(mut candidate) = Candidate::<B>::new(features) else { panic!("there is no driver") };
    for regime in [Regime::Single, Regime::Merged] {
        candidate.round(regime).unwrap();
    }
}
