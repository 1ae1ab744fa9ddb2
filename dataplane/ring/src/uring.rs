//! The io_uring driver of one core: two UDP sockets, one TUN queue, one wake-up counter, one wait.
//!
//! A turn gives free buffers to the kernel, starts receives that ended, submits, waits, and takes
//! completions: sends and writes free what they held at once, receives are queued for the shard and
//! looked at when it asks. Memory that the kernel may touch goes only after every operation has
//! ended ([`UringDriver::shutdown`], also on drop). This file must not know what the bytes mean.

#![allow(unsafe_code, reason = "this file starts receives into memory that it keeps")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};
use ringway_alloc::{Arena, Buf};

use crate::driver::{Driver, Inside, Received, Train, TunWrite, VNET_HEADER_BYTES, Wait};
use crate::error::RingError;
use crate::features::Features;
use crate::listen::UdpSockets;
use crate::op::{Arm, Op, Token, give_up};
use crate::pools::{BUFFER_BYTES, PoolSizes, Pools};
use crate::provided::Provided;
use crate::ring::{FILES, Ring, RingMode};
use crate::send::{Exits, Outbound};
use crate::stats::DriverStats;
use crate::tun::TunQueue;
use crate::udp;
use crate::wake::Wake;
use crate::write::TunWrites;
use crate::zerocopy::ZeroCopyMode;

/// Where a packet of the TUN begins in its buffer: its IP header, after the virtio header, is
/// 64-byte aligned.
pub const INSIDE_START: usize = 64 - VNET_HEADER_BYTES;

/// Entries of the submission queue. A turn commits at most this many without an extra call: trains,
/// writes and a few receives.
const SUBMISSIONS: u32 = 512;

/// Registered descriptors.
const FILE_IPV4: u32 = 0;
const FILE_IPV6: u32 = 1;
const FILE_TUN: u32 = 2;
const FILE_WAKE: u32 = 3;
const _: () = assert!(FILES == FILE_WAKE + 1);

/// Groups of provided buffers.
const GROUP_OUTSIDE: u16 = 0;
const GROUP_INSIDE: u16 = 1;

/// Reads kept in flight where the kernel has no multishot read.
const SINGLE_READS: u32 = 16;

/// How long the end of cancelled operations is waited for: steps and their length. Two seconds;
/// usually it is the first.
const DRAIN_STEPS: u32 = 200;
const DRAIN_STEP: Duration = Duration::from_millis(10);

const _: () = assert!(BUFFER_BYTES >= udp::OUTSIDE_START + 65_535);
const _: () = assert!(BUFFER_BYTES >= INSIDE_START + VNET_HEADER_BYTES + 65_535);

/// What a driver is made of.
#[derive(Debug)]
pub struct UringConfig {
    /// Buffers.
    pub pools: Pools,
    /// What the kernel can do.
    pub features: Features,
    /// Whether sends may be zero copy.
    pub zero_copy: ZeroCopyMode,
    /// The eventfd by which other threads wake this core; made if absent.
    pub waker: Option<OwnedFd>,
}

impl UringConfig {
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

/// Something received that the shard has not asked for yet.
#[derive(Debug)]
enum Ready {
    Outside { buf: Buf, used: u32 },
    Inside { buf: Buf, used: u32 },
}

/// Receives that the kernel ended for good, by error number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The UDP sockets, if one of them cannot be received from any more.
    pub outside: Option<i32>,
    /// The TUN, if it cannot be read any more: usually the interface was deleted.
    pub inside: Option<i32>,
}

/// The io_uring driver. It belongs to the thread that made it.
pub struct UringDriver {
    ring: Ring,
    stats: DriverStats,
    outside: Provided,
    inside: Provided,
    trains: Arena,
    sockets: Option<UdpSockets>,
    tun: Option<TunQueue>,
    wake: Wake,
    receives: [Arm; 2],
    receive_header: Box<libc::msghdr>,
    reads: Box<[Arm]>,
    read_multishot: bool,
    waking: Arm,
    outbound: Outbound,
    writes: TunWrites,
    ready: VecDeque<Ready>,
    in_flight: usize,
    closed: bool,
}

impl UringDriver {
    /// Makes the ring on the calling thread and lends it the receive buffers. Sockets and TUN come
    /// later.
    ///
    /// # Errors
    /// [`RingError`]: what is missing and what helps.
    ///
    /// # Panics
    /// If buffers are smaller than [`BUFFER_BYTES`] or a pool has more than 32,768 of them.
    pub fn new(config: UringConfig) -> Result<Self, RingError> {
        let UringConfig { pools, features, zero_copy, waker } = config;
        for arena in [&pools.outside, &pools.inside, &pools.trains] {
            assert!(arena.buffer_bytes() >= BUFFER_BYTES);
        }
        let received = pools.outside.count() + pools.inside.count();
        let trains = pools.trains.count() as u32;
        let completions = received as u32 // each receive buffer once
            + 2 * trains // result and notification of each train
            + pools.tun_writes
            + 64; // ends of receives, wake-ups, cancels
        let ring = Ring::new(SUBMISSIONS, completions)?;
        let wake = Wake::new(waker)
            .map_err(|error| RingError::while_making("the wake-up counter", error))?;
        ring.set_file(FILE_WAKE, Some(wake.raw_fd()))
            .map_err(|error| RingError::while_making("registered descriptors", error))?;
        let provide = |arena, group, headroom| {
            Provided::new(&ring, arena, group, headroom)
                .map_err(|error| RingError::while_making("provided buffers", error))
        };
        let outside = provide(pools.outside, GROUP_OUTSIDE, 0)?;
        let inside = provide(pools.inside, GROUP_INSIDE, INSIDE_START)?;
        let uring = features.uring.as_ref().ok();
        let read_multishot = uring.is_none_or(|uring| uring.read_multishot);
        let can_zero_copy = uring.is_some_and(|uring| uring.send_zero_copy);
        let zero_copy = if can_zero_copy { zero_copy } else { ZeroCopyMode::Off };
        let reads = if read_multishot { 1 } else { SINGLE_READS };
        let mut driver = Self {
            ring,
            stats: DriverStats::default(),
            outside,
            inside,
            trains: pools.trains,
            sockets: None,
            tun: None,
            wake,
            receives: [Arm::new(Op::Receive, FILE_IPV4), Arm::new(Op::Receive, FILE_IPV6)],
            receive_header: Box::new(udp::receive_header()),
            reads: (0..reads).map(|slot| Arm::new(Op::Read, slot)).collect(),
            read_multishot,
            waking: Arm::new(Op::Wake, 0),
            outbound: Outbound::new(trains, zero_copy, features.udp_segments_max),
            writes: TunWrites::new(pools.tun_writes),
            ready: VecDeque::with_capacity(received),
            in_flight: 0,
            closed: false,
        };
        driver.start_wake();
        Ok(driver)
    }

    /// Writing eight bytes (a 64-bit one) to this descriptor ends the wait of [`Driver::turn`].
    #[must_use]
    pub fn waker_fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    /// How task work of completions is run.
    #[must_use]
    pub const fn mode(&self) -> RingMode {
        self.ring.mode()
    }

    /// The sockets in use.
    #[must_use]
    pub const fn sockets(&self) -> Option<&UdpSockets> {
        self.sockets.as_ref()
    }

    /// The TUN in use.
    #[must_use]
    pub const fn tun(&self) -> Option<&TunQueue> {
        self.tun.as_ref()
    }

    /// Which receives the kernel ended for good. Setting new sockets or a new TUN clears it.
    #[must_use]
    pub fn health(&self) -> Health {
        Health {
            outside: self.receives.iter().find_map(Arm::broken),
            inside: self.reads.iter().find_map(Arm::broken),
        }
    }

    /// What was counted so far, with gauges as of now.
    pub fn stats(&mut self) -> &DriverStats {
        let stats = &mut self.stats;
        stats.outside_buffers_free = (self.outside.lent() + self.outside.arena().free()) as u64;
        stats.inside_buffers_free = (self.inside.lent() + self.inside.arena().free()) as u64;
        stats.train_buffers_free = self.trains.free() as u64;
        stats
    }

    /// Replaces the sockets; returns the old ones, which nothing uses any more. Datagrams that were
    /// received before are still handed out. To open the same port again, set `None` first and drop
    /// what comes back.
    ///
    /// # Errors
    /// If the ring is broken, or the kernel does not let go of the old sockets in time.
    pub fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        let old = self.sockets.take();
        if let Some(old) = &old {
            for (file, fd) in [FILE_IPV4, FILE_IPV6].into_iter().zip(old.raw()) {
                if let Some(fd) = fd {
                    self.cancel_file(file, fd);
                }
            }
            self.drain(|driver| {
                driver.receives.iter().all(|arm| !arm.is_armed())
                    && driver.outbound.unanswered() == 0
            })?;
        }
        let fds = sockets.as_ref().map_or([None, None], UdpSockets::raw);
        self.ring.set_file(FILE_IPV4, fds[0])?;
        self.ring.set_file(FILE_IPV6, fds[1])?;
        self.receives.iter_mut().for_each(Arm::reset);
        self.sockets = sockets;
        self.rearm();
        Ok(old)
    }

    /// Replaces the TUN; returns the old one, which nothing uses any more.
    ///
    /// # Errors
    /// As [`UringDriver::set_sockets`].
    pub fn set_tun(&mut self, tun: Option<TunQueue>) -> io::Result<Option<TunQueue>> {
        let old = self.tun.take();
        if let Some(old) = &old {
            self.cancel_file(FILE_TUN, old.raw_fd());
            self.drain(|driver| {
                driver.reads.iter().all(|arm| !arm.is_armed()) && driver.writes.in_flight() == 0
            })?;
        }
        self.ring.set_file(FILE_TUN, tun.as_ref().map(TunQueue::raw_fd))?;
        self.reads.iter_mut().for_each(Arm::reset);
        self.tun = tun;
        self.rearm();
        Ok(old)
    }

    /// Cancels everything, waits for its end (bounded, two seconds) and takes all buffers back.
    /// Afterwards the driver does nothing any more. Called on drop; calling it first allows to see
    /// whether it went well.
    ///
    /// # Errors
    /// If operations did not end in time. Their memory is then given up for good rather than freed
    /// under the kernel.
    pub fn shutdown(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push_cancel(entry);
        let drained = self.drain(|driver| driver.in_flight == 0);
        self.ready.clear();
        self.outside.close_or_leak(&self.ring, drained.is_ok());
        self.inside.close_or_leak(&self.ring, drained.is_ok());
        if drained.is_err() {
            give_up(self.trains.clone());
            self.outbound.leak();
            self.writes.leak();
            let header = Box::new(udp::receive_header());
            give_up(std::mem::replace(&mut self.receive_header, header));
            self.wake.leak();
        }
        // The ring's own references go now, not when the kernel gets to closing it.
        for file in 0..FILES {
            let _ = self.ring.set_file(file, None);
        }
        self.sockets = None;
        self.tun = None;
        drained
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

    /// Starts whatever should be running and is not.
    fn rearm(&mut self) {
        if self.waking.wants_arming() {
            self.start_wake();
        }
        if self.outside.can_feed() {
            let fds = self.sockets.as_ref().map_or([None, None], UdpSockets::raw);
            for (file, fd) in fds.into_iter().enumerate() {
                if let Some(fd) = fd
                    && self.receives[file].wants_arming()
                {
                    self.start_receive(file, fd);
                }
            }
        }
        if self.inside.can_feed()
            && let Some(fd) = self.tun.as_ref().map(TunQueue::raw_fd)
        {
            for slot in 0..self.reads.len() {
                if self.reads[slot].wants_arming() {
                    self.start_read(slot, fd);
                }
            }
        }
    }

    fn start_receive(&mut self, file: usize, fd: i32) {
        let (target, kind) = self.ring.target(file as u32, fd);
        let header: *const libc::msghdr = &raw const *self.receive_header;
        let entry = opcode::RecvMsgMulti::new(target, header, self.outside.group()).build();
        self.stats.rearmed += u64::from(self.receives[file].was_armed());
        let token = self.receives[file].start();
        self.push(with(entry, kind, token));
    }

    fn start_read(&mut self, slot: usize, fd: i32) {
        let (target, kind) = self.ring.target(FILE_TUN, fd);
        let group = self.inside.group();
        // The crate sets the flags of a multishot read instead of adding to them, so the kind of
        // descriptor is added afterwards, as everywhere here.
        let entry = if self.read_multishot {
            opcode::ReadMulti::new(target, 0, group).offset(u64::MAX).build()
        } else {
            let len = (self.inside.arena().buffer_bytes() - INSIDE_START) as u32;
            opcode::Read::new(target, std::ptr::null_mut(), len)
                .buf_group(group)
                .offset(u64::MAX)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        self.stats.rearmed += u64::from(self.reads[slot].was_armed());
        let token = self.reads[slot].start();
        self.push(with(entry, kind, token));
    }

    fn start_wake(&mut self) {
        let (target, kind) = self.ring.target(FILE_WAKE, self.wake.raw_fd());
        let entry = opcode::Read::new(target, self.wake.count(), 8).build();
        let token = self.waking.start();
        self.push(with(entry, kind, token));
    }

    fn cancel_file(&mut self, file: u32, fd: i32) {
        let (_, kind) = self.ring.target(file, fd);
        let which = if kind.contains(squeue::Flags::FIXED_FILE) {
            CancelBuilder::fd(Fixed(file))
        } else {
            CancelBuilder::fd(Fd(fd))
        };
        self.push_cancel(opcode::AsyncCancel2::new(which.all()).build());
    }

    fn push_cancel(&mut self, entry: squeue::Entry) {
        let token = Token::new(Op::Cancel, 0, 0);
        self.push(entry.user_data(token.encode()));
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: receives point to `receive_header`, wake-ups to the counter's box, reads and
        // cancels to nothing; all live until `shutdown` has seen the end of every operation, or are
        // leaked there.
        unsafe { self.ring.push(entry, &mut self.stats) };
    }

    /// Takes all completions.
    fn reap(&mut self) {
        let mut count = 0;
        while let Some(completion) = self.ring.pop() {
            count += 1;
            self.completed(&completion);
        }
        let stats = &mut self.stats;
        stats.completions += count;
        stats.completions_high_water = stats.completions_high_water.max(count);
        let used = (self.outside.arena().count() - self.outside.lent()) as u64;
        stats.outside_buffers_high_water = stats.outside_buffers_high_water.max(used);
        let used = (self.inside.arena().count() - self.inside.lent()) as u64;
        stats.inside_buffers_high_water = stats.inside_buffers_high_water.max(used);
    }

    fn completed(&mut self, completion: &cqueue::Entry) {
        let Some(token) = Token::decode(completion.user_data()) else {
            unreachable!("a completion of nothing: {completion:?}")
        };
        if !cqueue::more(completion.flags()) {
            self.in_flight -= 1;
        }
        match token.op {
            Op::Receive => {
                let buf = cqueue::buffer_select(completion.flags()).map(|n| self.outside.take(n));
                let arm = &mut self.receives[token.slot as usize];
                if ended(arm, token, completion) == Some(libc::ENOBUFS) {
                    self.stats.outside_no_buffer += 1;
                }
                if let (Some(buf), Ok(used)) = (buf, u32::try_from(completion.result())) {
                    self.ready.push_back(Ready::Outside { buf, used });
                }
            }
            Op::Read => {
                let buf = cqueue::buffer_select(completion.flags()).map(|n| self.inside.take(n));
                let arm = &mut self.reads[token.slot as usize];
                if ended(arm, token, completion) == Some(libc::ENOBUFS) {
                    self.stats.inside_no_buffer += 1;
                }
                if let (Some(buf), Ok(used)) = (buf, u32::try_from(completion.result())) {
                    self.ready.push_back(Ready::Inside { buf, used });
                }
            }
            Op::Send => {
                let exits = exits(self.sockets.as_ref());
                self.outbound.completed(token, completion, exits, &mut self.stats);
            }
            Op::Write => self.writes.completed(token, completion, &mut self.stats),
            Op::Wake => {
                ended(&mut self.waking, token, completion);
                self.stats.wakes += u64::from(completion.result() == 8);
            }
            Op::Cancel => {}
        }
    }

    fn count_outside(&mut self, outside: &crate::driver::Outside) {
        let datagrams = outside.len.div_ceil(outside.stride);
        self.stats.outside_buffers += 1;
        self.stats.outside_datagrams += datagrams as u64;
        self.stats.outside_bytes += outside.len as u64;
        self.stats.outside_batch.record(datagrams);
    }
}

impl Driver for UringDriver {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "The driver was shut down"));
        }
        let used = (self.trains.count() - self.trains.free()) as u64;
        self.stats.train_buffers_high_water = self.stats.train_buffers_high_water.max(used);
        self.outside.refill();
        self.inside.refill();
        self.rearm();
        let wait = if self.ready.is_empty() { wait } else { Wait::No };
        self.ring.enter(wait, &mut self.stats)?;
        self.reap();
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Option<Received> {
        loop {
            match self.ready.pop_front()? {
                Ready::Outside { buf, used } => {
                    let Some(outside) = udp::parse(buf, used as usize) else {
                        self.stats.outside_malformed += 1;
                        continue;
                    };
                    self.count_outside(&outside);
                    return Some(Received::Outside(outside));
                }
                Ready::Inside { buf, used } => {
                    let len = used as usize;
                    if len <= VNET_HEADER_BYTES {
                        self.stats.inside_malformed += 1;
                        continue;
                    }
                    self.stats.inside_packets += 1;
                    self.stats.inside_bytes += len as u64;
                    return Some(Received::Inside(Inside { buf, start: INSIDE_START, len }));
                }
            }
        }
    }

    fn reserve_train(&mut self) -> Option<Buf> {
        let buf = self.trains.take();
        self.stats.train_buffers_exhausted += u64::from(buf.is_none());
        buf
    }

    fn send(&mut self, train: Train) {
        let exits = exits(self.sockets.as_ref());
        let queued = self.outbound.send(train, exits, &mut self.ring, &mut self.stats);
        self.in_flight += usize::from(queued);
    }

    fn reserve_tun(&mut self) -> Option<Box<TunWrite>> {
        let write = self.writes.reserve();
        self.stats.tun_writes_exhausted += u64::from(write.is_none());
        write
    }

    fn write_tun(&mut self, write: Box<TunWrite>) {
        let tun = self.tun.as_ref();
        let queued = self.writes.write(write, tun, FILE_TUN, &mut self.ring, &mut self.stats);
        self.in_flight += usize::from(queued);
    }

    fn cancel_tun(&mut self, write: Box<TunWrite>) {
        self.writes.give_back(write);
    }

    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        Self::set_sockets(self, sockets)
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        // A failure was acted upon (memory is given up); there is nobody left to tell.
        let _ = self.shutdown();
    }
}

/// Takes note of how a receive, read or wake-up went; the error number if it failed.
fn ended(arm: &mut Arm, token: Token, completion: &cqueue::Entry) -> Option<i32> {
    if !arm.is_current(token) {
        return None;
    }
    if !cqueue::more(completion.flags()) {
        arm.ended();
    }
    let result = completion.result();
    if result >= 0 {
        arm.succeeded();
        return None;
    }
    if !matches!(-result, libc::ENOBUFS | libc::ECANCELED | libc::EINTR) {
        arm.failed(-result);
    }
    Some(-result)
}

fn with(entry: squeue::Entry, kind: squeue::Flags, token: Token) -> squeue::Entry {
    entry.flags(kind).user_data(token.encode())
}

fn exits(sockets: Option<&UdpSockets>) -> Exits<'_> {
    Exits(sockets.map_or([None, None], UdpSockets::descriptors))
}
