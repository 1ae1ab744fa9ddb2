//! The io_uring driver of one core: its UDP sockets, one TUN queue, one wake-up counter, one wait.
//!
//! A turn gives free buffers to the kernel, starts receives that ended, submits, waits, and takes
//! completions: sends and writes free what they held at once, receives are queued for the shard and
//! looked at when it asks. Memory that the kernel may touch goes only after every operation has
//! ended ([`Backend::shutdown`], also on drop). This file must not know what the bytes mean.

#![allow(unsafe_code, reason = "this file submits cancellations and registers memory")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};
use ringway_alloc::{Arena, Buf};

use crate::backend::{Backend, DriverConfig, Health};
use crate::choice::DriverKind;
use crate::driver::{Driver, Received, Train, TunWrite, VNET_HEADER_BYTES, Wait};
use crate::error::RingError;
use crate::inbound::{Inbound, SOCKET_FILES};
use crate::listen::UdpSockets;
use crate::op::{Op, Token, give_up};
use crate::pools::BUFFER_BYTES;
use crate::provided::Provided;
use crate::ready::INSIDE_START;
use crate::ring::{FILE_TUN, FILE_WAKE, FILES, Ring, RingMode};
use crate::send::{Exits, Outbound};
use crate::stats::DriverStats;
use crate::tun::TunQueue;
use crate::udp;
use crate::wake::Wake;
use crate::write::TunWrites;
use crate::zerocopy::ZeroCopyMode;

/// Entries of the submission queue. A turn commits at most this many without an extra call: trains,
/// writes and a few receives.
const SUBMISSIONS: u32 = 512;

/// Groups of provided buffers.
const GROUP_OUTSIDE: u16 = 0;
const GROUP_INSIDE: u16 = 1;
const GROUP_INITIATIONS: u16 = 2;

/// How long the end of cancelled operations is waited for: steps and their length. Two seconds;
/// usually it is the first.
const DRAIN_STEPS: u32 = 200;
const DRAIN_STEP: Duration = Duration::from_millis(10);

const _: () = assert!(BUFFER_BYTES >= udp::OUTSIDE_START + 65_535);
const _: () = assert!(BUFFER_BYTES >= INSIDE_START + VNET_HEADER_BYTES + 65_535);

/// The io_uring driver. It belongs to the thread that made it.
pub struct UringDriver {
    ring: Ring,
    stats: DriverStats,
    inbound: Inbound,
    outbound: Outbound,
    writes: TunWrites,
    trains: Arena,
    sockets: Option<UdpSockets>,
    tun: Option<TunQueue>,
    /// Codes of all operations that this driver submits.
    operations: Vec<u8>,
    closed: bool,
}

impl UringDriver {
    /// Makes the ring and lends it the receive buffers, with task work run no better than `best`:
    /// what an older kernel would do.
    pub(crate) fn with_mode(config: DriverConfig, best: RingMode) -> Result<Self, RingError> {
        let DriverConfig { pools, features, zero_copy, waker } = config;
        for arena in [&pools.outside, &pools.initiations, &pools.inside, &pools.trains] {
            assert!(arena.buffer_bytes() >= BUFFER_BYTES);
        }
        let received = [&pools.outside, &pools.initiations, &pools.inside];
        let received = received.into_iter().map(Arena::count).sum::<usize>() as u32;
        let trains = pools.trains.count() as u32;
        let completions = received // each receive buffer once
            + 2 * trains // result and notification of each train
            + pools.tun_writes
            + 64; // ends of receives, wake-ups, cancels
        let ring = Ring::new(best, SUBMISSIONS, completions)?;
        let wake = Wake::new(waker)
            .map_err(|error| RingError::while_making("the wake-up counter", error))?;
        ring.set_file(FILE_WAKE, Some(wake.raw_fd()))
            .map_err(|error| RingError::while_making("registered descriptors", error))?;
        let provide = |arena, group, headroom| {
            Provided::new(&ring, arena, group, headroom)
                .map_err(|error| RingError::while_making("provided buffers", error))
        };
        let outside = provide(pools.outside, GROUP_OUTSIDE, 0)?;
        let initiations = provide(pools.initiations, GROUP_INITIATIONS, 0)?;
        let inside = provide(pools.inside, GROUP_INSIDE, INSIDE_START)?;
        let uring = features.uring.as_ref().ok();
        let read_multishot = uring.is_none_or(|uring| uring.read_multishot);
        let can_zero_copy = uring.is_some_and(|uring| uring.send_zero_copy);
        let zero_copy = if can_zero_copy { zero_copy } else { ZeroCopyMode::Off };
        let registered = zero_copy != ZeroCopyMode::Off && register(&ring, &pools.trains);
        Ok(Self {
            ring,
            stats: DriverStats::default(),
            inbound: Inbound::new(outside, initiations, inside, wake, read_multishot),
            outbound: Outbound::new(trains, zero_copy, registered, features.udp_segments_max),
            writes: TunWrites::new(pools.tun_writes),
            trains: pools.trains,
            sockets: None,
            tun: None,
            operations: operations(read_multishot, zero_copy),
            closed: false,
        })
    }

    /// How task work of completions is run.
    #[must_use]
    pub const fn mode(&self) -> RingMode {
        self.ring.mode()
    }

    /// The bare ring, for tests that attack it.
    #[cfg(test)]
    pub(crate) const fn bare(&mut self) -> (&mut Ring, &mut DriverStats) {
        (&mut self.ring, &mut self.stats)
    }

    /// Enters and takes completions until `done`, starting nothing.
    fn drain(&mut self, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        for _ in 0..DRAIN_STEPS {
            self.ring.enter(Wait::AtMost(DRAIN_STEP), &mut self.stats)?;
            self.reap();
            if done(self) {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "The kernel did not end operations in time"))
    }

    fn expect_open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "The driver was shut down"));
        }
        Ok(())
    }

    fn rearm(&mut self) {
        let (sockets, tun) = (self.sockets.as_ref(), self.tun.as_ref());
        self.inbound.rearm(sockets, tun, &mut self.ring, &mut self.stats);
    }

    fn cancel_file(&mut self, file: u32, fd: i32) {
        let (_, kind) = self.ring.target(file, fd);
        let which = if kind.contains(squeue::Flags::FIXED_FILE) {
            CancelBuilder::fd(Fixed(file))
        } else {
            CancelBuilder::fd(Fd(fd))
        };
        self.cancel(which.all());
    }

    fn cancel(&mut self, which: CancelBuilder) {
        let token = Token::new(Op::Cancel, 0, 0);
        // A cancel uses no descriptor, but a restricted ring wants the flag on every entry.
        let (_, kind) = self.ring.target(FILE_WAKE, -1);
        let entry = opcode::AsyncCancel2::new(which).build().flags(kind).user_data(token.encode());
        // SAFETY: the entry points to nothing.
        unsafe { self.ring.push(entry, &mut self.stats) };
    }

    /// Submits what was committed so far, for the sake of what it holds: writes and sends end
    /// inline, so their buffers come back at once. What is received meanwhile waits its turn.
    #[cold]
    fn make_room(&mut self) {
        // A broken ring is reported by the next turn.
        if self.ring.enter(Wait::No, &mut self.stats).is_ok() {
            self.stats.submitted_early += 1;
            self.reap();
        }
    }

    /// Takes all completions.
    fn reap(&mut self) {
        let mut count = 0;
        while let Some(completion) = self.ring.pop() {
            count += 1;
            self.completed(&completion);
        }
        self.stats.completions += count;
        self.stats.completions_high_water = self.stats.completions_high_water.max(count);
        self.inbound.gauge(&mut self.stats);
    }

    fn completed(&mut self, completion: &cqueue::Entry) {
        let Some(token) = Token::decode(completion.user_data()) else {
            unreachable!("a completion of nothing: {completion:?}")
        };
        let stats = &mut self.stats;
        match token.op {
            Op::Receive => self.inbound.received(token, completion, stats),
            Op::Read => self.inbound.read(token, completion, stats),
            Op::Send => {
                let exits = exits(self.sockets.as_ref());
                self.outbound.completed(token, completion, exits, stats);
            }
            Op::Write => self.writes.completed(token, completion, stats),
            Op::Wake => self.inbound.woken(token, completion, stats),
            Op::Cancel => {}
        }
    }
}

impl Driver for UringDriver {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.expect_open()?;
        let used = (self.trains.count() - self.trains.free()) as u64;
        self.stats.train_buffers_high_water = self.stats.train_buffers_high_water.max(used);
        self.inbound.refill();
        self.rearm();
        let wait = if self.inbound.has_ready() { Wait::No } else { wait };
        self.ring.enter(wait, &mut self.stats)?;
        self.reap();
        Ok(())
    }

    fn forget(&mut self) {
        self.inbound.forget();
        self.outbound.forget();
    }

    fn forget_path(&mut self, to: IpAddr) {
        self.outbound.forget_path(to);
    }

    #[inline]
    fn next(&mut self) -> Option<Received> {
        self.inbound.next(&mut self.stats)
    }

    fn reserve_train(&mut self) -> Option<Buf> {
        if self.trains.free() == 0 {
            self.make_room();
        }
        let buf = self.trains.take();
        self.stats.train_buffers_exhausted += u64::from(buf.is_none());
        buf
    }

    fn send(&mut self, train: Train) {
        let exits = exits(self.sockets.as_ref());
        self.outbound.send(train, exits, &mut self.ring, &mut self.stats);
    }

    fn suspect(&mut self, to: IpAddr) {
        self.outbound.suspect(to, &mut self.stats);
    }

    fn reserve_tun(&mut self) -> Option<Box<TunWrite>> {
        if self.writes.spare() == 0 {
            self.make_room();
        }
        let write = self.writes.reserve();
        self.stats.tun_writes_exhausted += u64::from(write.is_none());
        write
    }

    fn write_tun(&mut self, write: Box<TunWrite>) {
        let tun = self.tun.as_ref();
        self.writes.write(write, tun, &mut self.ring, &mut self.stats);
    }

    fn cancel_tun(&mut self, write: Box<TunWrite>) {
        self.writes.give_back(write);
    }

    fn set_receiving(&mut self, on: bool) -> io::Result<()> {
        self.expect_open()?;
        let running: Vec<Token> = self.inbound.hold(!on).collect();
        for token in running {
            self.cancel(CancelBuilder::user_data(token.encode()));
        }
        let ended = |driver: &Self| {
            on || !(driver.inbound.receives_outside() || driver.inbound.reads_inside())
        };
        let drained = if ended(self) { Ok(()) } else { self.drain(ended) };
        if drained.is_err() {
            let _none = self.inbound.hold(false);
        }
        self.rearm();
        drained
    }

    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        self.expect_open()?;
        let old = self.sockets.take();
        if let Some(old) = &old {
            for (file, fd) in SOCKET_FILES.into_iter().zip(old.raw()) {
                if let Some(fd) = fd {
                    self.cancel_file(file, fd);
                }
            }
            self.drain(|driver| {
                !driver.inbound.receives_outside() && driver.outbound.unanswered() == 0
            })?;
        }
        let fds = sockets.as_ref().map_or([None; SOCKET_FILES.len()], UdpSockets::raw);
        for (file, fd) in SOCKET_FILES.into_iter().zip(fds) {
            self.ring.set_file(file, fd)?;
        }
        self.inbound.reset_outside(sockets.as_ref());
        self.sockets = sockets;
        self.rearm();
        Ok(old)
    }
}

impl Backend for UringDriver {
    const KIND: DriverKind = DriverKind::Uring;

    fn make(config: DriverConfig) -> Result<Self, RingError> {
        let best = config.features.uring.as_ref().map_or(RingMode::Deferred, |uring| uring.mode);
        Self::with_mode(config, best)
    }

    fn set_tun(&mut self, tun: Option<TunQueue>) -> io::Result<Option<TunQueue>> {
        self.expect_open()?;
        let old = self.tun.take();
        if let Some(old) = &old {
            self.cancel_file(FILE_TUN, old.raw_fd());
            self.drain(|driver| !driver.inbound.reads_inside() && driver.writes.in_flight() == 0)?;
        }
        self.ring.set_file(FILE_TUN, tun.as_ref().map(TunQueue::raw_fd))?;
        self.inbound.reset_inside();
        self.tun = tun;
        self.rearm();
        Ok(old)
    }

    fn sockets(&self) -> Option<&UdpSockets> {
        self.sockets.as_ref()
    }

    fn tun(&self) -> Option<&TunQueue> {
        self.tun.as_ref()
    }

    fn waker_fd(&self) -> BorrowedFd<'_> {
        self.inbound.wake().fd()
    }

    fn health(&self) -> Health {
        let (outside, inside) = self.inbound.broken();
        Health { outside, inside }
    }

    fn revive(&mut self) {
        self.inbound.revive_outside();
    }

    fn stats(&mut self) -> &DriverStats {
        self.inbound.gauge_free(&mut self.stats);
        self.stats.train_buffers_free = self.trains.free() as u64;
        self.stats.paths_demoted = self.outbound.paths_demoted() as u64;
        &self.stats
    }

    fn ring_fd(&self) -> Option<RawFd> {
        Some(self.ring.fd())
    }

    fn restrict(&mut self) -> io::Result<()> {
        self.ring.restrict(&self.operations)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.cancel(CancelBuilder::any());
        let drained = self.drain(|driver| driver.ring.in_flight() == 0);
        self.inbound.close(&self.ring, drained.is_ok());
        if drained.is_err() {
            give_up(self.trains.clone());
            self.outbound.leak();
            self.writes.leak();
        }
        // The ring's own references go now, not when the kernel gets to closing it.
        for file in 0..FILES {
            let _ = self.ring.set_file(file, None);
        }
        self.sockets = None;
        self.tun = None;
        drained
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        // A failure was acted upon (memory is given up); there is nobody left to tell.
        let _ = self.shutdown();
    }
}

/// Everything that is submitted here, in `inbound`, in `send` and in `write`.
fn operations(read_multishot: bool, zero_copy: ZeroCopyMode) -> Vec<u8> {
    let mut codes = vec![
        opcode::RecvMsgMulti::CODE,
        opcode::Read::CODE,
        opcode::Writev::CODE,
        opcode::SendMsg::CODE,
        opcode::AsyncCancel2::CODE,
    ];
    // An older kernel refuses a list with codes that it does not know.
    codes.extend(read_multishot.then_some(opcode::ReadMulti::CODE));
    codes.extend((zero_copy != ZeroCopyMode::Off).then_some(opcode::SendMsgZc::CODE));
    codes
}

/// Registers the transmit buffers with the ring. Refusal (usually the limit of locked memory) only
/// makes zero-copy sends dearer.
fn register(ring: &Ring, trains: &Arena) -> bool {
    let len = trains.count() * trains.buffer_bytes();
    // SAFETY: buffers lie one after the other in a region that the arena keeps mapped; the driver
    // keeps the arena until it drops the ring, or gives it up for good.
    unsafe { ring.register_memory(trains.address(0), len) }.is_ok()
}

fn exits(sockets: Option<&UdpSockets>) -> Exits<'_> {
    Exits(sockets.map_or([None, None], UdpSockets::descriptors))
}
