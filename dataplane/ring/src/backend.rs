//! What the thread around a shard needs from a driver besides [`Driver`]: how it is made, fed with
//! a TUN, looked after and ended.
//!
//! The packet path knows only [`Driver`]. A worker is generic over [`Backend`], so each driver
//! gets a loop of its own at compile time and no packet pays for the choice. This file must not
//! know how any driver works.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use crate::choice::DriverKind;
use crate::driver::Driver;
use crate::error::RingError;
use crate::features::Features;
use crate::pools::{PoolSizes, Pools};
use crate::stats::DriverStats;
use crate::tun::TunQueue;
use crate::zerocopy::ZeroCopyMode;

/// What a driver is made of.
#[derive(Debug)]
pub struct DriverConfig {
    /// Buffers.
    pub pools: Pools,
    /// What the kernel can do.
    pub features: Features,
    /// Whether sends may be zero copy. Only the ring has such sends.
    pub zero_copy: ZeroCopyMode,
    /// The eventfd by which other threads wake this core; made if absent.
    pub waker: Option<OwnedFd>,
}

impl DriverConfig {
    /// Buffers of the default sizes, features as probed now, no zero copy, an own eventfd.
    ///
    /// # Errors
    /// What mapping the buffers says.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            pools: Pools::new(PoolSizes::default())?,
            features: Features::probe(),
            zero_copy: ZeroCopyMode::default(),
            waker: None,
        })
    }
}

/// Receives that the kernel ended for good, by error number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The UDP sockets, if one of them cannot be received from any more.
    pub outside: Option<i32>,
    /// The TUN, if it cannot be read any more: usually the interface was deleted.
    pub inside: Option<i32>,
}

/// A driver that a worker can run. It belongs to the thread that made it.
pub trait Backend: Driver + Sized {
    /// Which driver it is.
    const KIND: DriverKind;

    /// Makes the driver on the calling thread. Sockets and TUN come later.
    ///
    /// # Errors
    /// [`RingError`]: what is missing and what helps.
    ///
    /// # Panics
    /// If buffers are smaller than [`BUFFER_BYTES`](crate::BUFFER_BYTES).
    fn make(config: DriverConfig) -> Result<Self, RingError>;

    /// Replaces the TUN; returns the old one, which nothing uses any more.
    ///
    /// # Errors
    /// As [`Driver::set_sockets`].
    fn set_tun(&mut self, tun: Option<TunQueue>) -> io::Result<Option<TunQueue>>;

    /// The sockets in use.
    fn sockets(&self) -> Option<&crate::UdpSockets>;

    /// The TUN in use.
    fn tun(&self) -> Option<&TunQueue>;

    /// Writing eight bytes (a 64-bit one) to this descriptor ends the wait of [`Driver::turn`].
    fn waker_fd(&self) -> BorrowedFd<'_>;

    /// Which receives the kernel ended for good. Setting new sockets or a new TUN clears it.
    fn health(&self) -> Health;

    /// Receives again from UDP sockets that were given up after failing over and over. What made
    /// them fail (no memory, mostly) may have passed; the caller paces the attempts. The TUN is
    /// left alone: it breaks when its interface was deleted.
    fn revive(&mut self);

    /// What was counted so far, with gauges as of now.
    fn stats(&mut self) -> &DriverStats;

    /// The ring, if the driver has one: the only one whose calls a sandbox lets through.
    fn ring_fd(&self) -> Option<RawFd> {
        None
    }

    /// Lets the ring, if the driver has one, do only what the driver does, for good. Only before
    /// the first turn.
    ///
    /// # Errors
    /// What the kernel says; the ring is unrestricted then.
    fn restrict(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ends everything that is in flight (bounded) and takes all buffers back. Afterwards the
    /// driver does nothing any more. Called on drop; calling it first allows to see whether it
    /// went well.
    ///
    /// # Errors
    /// If operations did not end in time. Their memory is then given up for good rather than freed
    /// under the kernel.
    fn shutdown(&mut self) -> io::Result<()>;
}
