//! Everything that comes in: receives of the sockets, reads of the TUN, wake-ups.
//!
//! Each is started once and goes on by itself until the kernel ends it: for want of a buffer, after
//! an error, or because it was cancelled. [`Inbound::rearm`] starts what ended.

#![allow(unsafe_code, reason = "this file starts receives into memory that it keeps")]

use std::os::fd::RawFd;

use io_uring::{cqueue, opcode, squeue};

use crate::driver::Received;
use crate::listen::UdpSockets;
use crate::op::{Arm, Op, Token, give_up};
use crate::provided::Provided;
use crate::ready::{INSIDE_START, ReadyQueue, SOCKET_INITIATIONS, SOCKETS};
use crate::ring::{
    FILE_INITIATIONS_IPV4, FILE_INITIATIONS_IPV6, FILE_IPV4, FILE_IPV6, FILE_TUN, FILE_WAKE, Ring,
};
use crate::stats::DriverStats;
use crate::tun::TunQueue;
use crate::udp;
use crate::wake::Wake;

/// Reads kept in flight where the kernel has no multishot read.
const SINGLE_READS: u32 = 16;

/// Where each socket is registered.
pub(crate) const SOCKET_FILES: [u32; SOCKETS] =
    [FILE_IPV4, FILE_IPV6, FILE_INITIATIONS_IPV4, FILE_INITIATIONS_IPV6];

/// All that comes in on one core.
pub(crate) struct Inbound {
    outside: Provided,
    initiations: Provided,
    inside: Provided,
    wake: Wake,
    receives: [Arm; SOCKETS],
    /// IPv6 is received from before IPv4: every other turn, because the first may take all buffers
    /// of a bank.
    ipv6_first: bool,
    receive_header: Box<libc::msghdr>,
    reads: Box<[Arm]>,
    read_multishot: bool,
    waking: Arm,
    ready: ReadyQueue,
    /// No receive and no read is started.
    held: bool,
}

impl Inbound {
    pub(crate) fn new(
        outside: Provided,
        initiations: Provided,
        inside: Provided,
        wake: Wake,
        read_multishot: bool,
    ) -> Self {
        let reads = if read_multishot { 1 } else { SINGLE_READS };
        let ready = outside.arena().count() + inside.arena().count();
        let ready = ReadyQueue::new(ready, initiations.arena().count());
        Self {
            outside,
            initiations,
            inside,
            wake,
            ipv6_first: false,
            receives: std::array::from_fn(|socket| Arm::new(Op::Receive, socket as u32)),
            receive_header: Box::new(udp::receive_header()),
            reads: (0..reads).map(|slot| Arm::new(Op::Read, slot)).collect(),
            read_multishot,
            waking: Arm::new(Op::Wake, 0),
            ready,
            held: false,
        }
    }

    /// Begins a turn: lends the kernel every buffer that came back.
    pub(crate) fn refill(&mut self) {
        self.ready.begin_turn();
        self.ipv6_first = !self.ipv6_first;
        self.outside.refill();
        self.initiations.refill();
        self.inside.refill();
    }

    /// Starts whatever should be running and is not.
    pub(crate) fn rearm(
        &mut self,
        sockets: Option<&UdpSockets>,
        tun: Option<&TunQueue>,
        ring: &mut Ring,
        stats: &mut DriverStats,
    ) {
        if self.waking.wants_arming() {
            self.start_wake(ring, stats);
        }
        if self.held {
            return;
        }
        let fds = sockets.map_or([None; SOCKETS], UdpSockets::raw);
        for place in 0..SOCKETS {
            // Banks in order; families in either.
            let socket = place ^ usize::from(self.ipv6_first);
            if let Some(fd) = fds[socket]
                && self.receives[socket].wants_arming()
                && self.pool(socket).can_feed()
            {
                self.start_receive(socket, fd, ring, stats);
            }
        }
        if self.inside.can_feed()
            && let Some(fd) = tun.map(TunQueue::raw_fd)
        {
            for slot in 0..self.reads.len() {
                if self.reads[slot].wants_arming() {
                    self.start_read(slot, fd, ring, stats);
                }
            }
        }
    }

    /// As [`ReadyQueue::forget`].
    pub(crate) fn forget(&mut self) {
        self.ready.forget();
    }

    /// The next thing received, made sense of.
    #[inline]
    pub(crate) fn next(&mut self, stats: &mut DriverStats) -> Option<Received> {
        self.ready.next(stats)
    }

    /// Takes a completion of a socket.
    pub(crate) fn received(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        stats: &mut DriverStats,
    ) {
        let socket = token.slot as usize;
        let (pool, no_buffer) = if socket < SOCKET_INITIATIONS {
            (&mut self.outside, &mut stats.outside_no_buffer)
        } else {
            (&mut self.initiations, &mut stats.initiations_no_buffer)
        };
        let buf = cqueue::buffer_select(completion.flags()).map(|n| pool.take(n));
        if ended(&mut self.receives[socket], token, completion) == Some(libc::ENOBUFS) {
            *no_buffer += u64::from(pool.ran_dry());
        }
        if let (Some(buf), Ok(used)) = (buf, u32::try_from(completion.result())) {
            self.ready.push_outside(socket, buf, used);
        }
    }

    /// Takes a completion of the TUN.
    pub(crate) fn read(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        stats: &mut DriverStats,
    ) {
        let buf = cqueue::buffer_select(completion.flags()).map(|n| self.inside.take(n));
        let arm = &mut self.reads[token.slot as usize];
        if ended(arm, token, completion) == Some(libc::ENOBUFS) {
            stats.inside_no_buffer += u64::from(self.inside.ran_dry());
        }
        if let (Some(buf), Ok(used)) = (buf, u32::try_from(completion.result())) {
            self.ready.push_inside(buf, used);
        }
    }

    /// Takes a completion of the wake-up counter.
    pub(crate) fn woken(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        stats: &mut DriverStats,
    ) {
        ended(&mut self.waking, token, completion);
        stats.wakes += u64::from(completion.result() == 8);
    }

    pub(crate) const fn wake(&self) -> &Wake {
        &self.wake
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts no receive and no read until it is told otherwise. Returns the tokens of those that
    /// run and must be cancelled.
    pub(crate) fn hold(&mut self, held: bool) -> impl Iterator<Item = Token> + '_ {
        self.held = held;
        let arms = self.receives.iter().chain(&self.reads);
        arms.filter(move |arm| held && arm.is_armed()).map(Arm::token)
    }

    /// Whether the kernel still receives from a socket.
    pub(crate) fn receives_outside(&self) -> bool {
        self.receives.iter().any(Arm::is_armed)
    }

    /// Whether the kernel still reads the TUN.
    pub(crate) fn reads_inside(&self) -> bool {
        self.reads.iter().any(Arm::is_armed)
    }

    /// New sockets: what failed before no longer counts.
    pub(crate) fn reset_outside(&mut self, sockets: Option<&UdpSockets>) {
        self.ready.new_sockets(sockets.map_or([0; SOCKETS], UdpSockets::dropped_before));
        self.receives.iter_mut().for_each(Arm::reset);
    }

    /// Sockets that were given up may be tried again, with the next turn.
    pub(crate) fn revive_outside(&mut self) {
        self.receives.iter_mut().filter(|arm| arm.broken().is_some()).for_each(Arm::reset);
    }

    /// A new TUN: what failed before no longer counts.
    pub(crate) fn reset_inside(&mut self) {
        self.reads.iter_mut().for_each(Arm::reset);
    }

    /// Why sockets and TUN cannot be received from any more, as error numbers.
    pub(crate) fn broken(&self) -> (Option<i32>, Option<i32>) {
        (self.receives.iter().find_map(Arm::broken), self.reads.iter().find_map(Arm::broken))
    }

    /// Notes how many buffers are in use.
    pub(crate) fn gauge(&self, stats: &mut DriverStats) {
        let used = |pool: &Provided| {
            let arena = pool.arena();
            (arena.count() - arena.free() - pool.lent()) as u64
        };
        stats.outside_buffers_high_water =
            stats.outside_buffers_high_water.max(used(&self.outside));
        stats.initiations_buffers_high_water =
            stats.initiations_buffers_high_water.max(used(&self.initiations));
        stats.inside_buffers_high_water = stats.inside_buffers_high_water.max(used(&self.inside));
    }

    /// Notes how many buffers nobody uses.
    pub(crate) fn gauge_free(&self, stats: &mut DriverStats) {
        let free = |pool: &Provided| (pool.lent() + pool.arena().free()) as u64;
        stats.outside_buffers_free = free(&self.outside);
        stats.initiations_buffers_free = free(&self.initiations);
        stats.inside_buffers_free = free(&self.inside);
    }

    /// Takes all buffers back if every operation has `ended`; gives all memory up otherwise.
    pub(crate) fn close(&mut self, ring: &Ring, ended: bool) {
        self.ready.clear();
        self.outside.close_or_leak(ring, ended);
        self.initiations.close_or_leak(ring, ended);
        self.inside.close_or_leak(ring, ended);
        if !ended {
            let header = Box::new(udp::receive_header());
            give_up(std::mem::replace(&mut self.receive_header, header));
            self.wake.leak();
        }
    }

    const fn pool(&self, socket: usize) -> &Provided {
        if socket < SOCKET_INITIATIONS { &self.outside } else { &self.initiations }
    }

    fn start_receive(
        &mut self,
        socket: usize,
        fd: RawFd,
        ring: &mut Ring,
        stats: &mut DriverStats,
    ) {
        let (target, kind) = ring.target(SOCKET_FILES[socket], fd);
        let header: *const libc::msghdr = &raw const *self.receive_header;
        let entry = opcode::RecvMsgMulti::new(target, header, self.pool(socket).group()).build();
        stats.rearmed += u64::from(self.receives[socket].was_armed());
        let entry = with(entry, kind, self.receives[socket].start());
        // SAFETY: the header is boxed and lives until `close`, which frees it only after the end of
        // every operation; buffers are the kernel's until it names them.
        unsafe { ring.push(entry, stats) };
    }

    fn start_read(&mut self, slot: usize, fd: RawFd, ring: &mut Ring, stats: &mut DriverStats) {
        let (target, kind) = ring.target(FILE_TUN, fd);
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
        stats.rearmed += u64::from(self.read_multishot && self.reads[slot].was_armed());
        let entry = with(entry, kind, self.reads[slot].start());
        // SAFETY: the entry points to nothing; buffers are the kernel's until it names them.
        unsafe { ring.push(entry, stats) };
    }

    fn start_wake(&mut self, ring: &mut Ring, stats: &mut DriverStats) {
        let (target, kind) = ring.target(FILE_WAKE, self.wake.raw_fd());
        let entry = opcode::Read::new(target, self.wake.count(), 8).build();
        let entry = with(entry, kind, self.waking.start());
        // SAFETY: the count is boxed and lives until `close`, which frees it only after the end of
        // every operation.
        unsafe { ring.push(entry, stats) };
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
