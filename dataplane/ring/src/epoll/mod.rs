//! The epoll driver of one core: the same contract as the ring's, for kernels that have no
//! io_uring, forbid it, or are faster without.
//!
//! A turn hands committed trains to the kernel (`sendmmsg`, each a message with UDP_SEGMENT), waits
//! for everything at once (`poll`), and takes a bounded share of what is there: a few `recvmmsg`
//! per socket, several reads of the TUN. Writes to the TUN need a call each, so they leave when
//! they are committed. Calls while running: epoll_wait, epoll_pwait2 (or ppoll), epoll_ctl,
//! recvmmsg, sendmmsg, read, writev. This file must not know what the bytes mean.

#![allow(unsafe_code, reason = "this file hands addresses of writes to the kernel")]

mod poll;
mod read;
mod receive;
mod send;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ringway_alloc::{Arena, Buf};

use self::poll::{Found, IN, OUT, Poll, Source};
use self::read::Reads;
use self::receive::{LANE_MAX, Lane};
use self::send::Outbound;
use crate::backend::{Backend, DriverConfig, Health};
use crate::choice::DriverKind;
use crate::driver::{Driver, Received, Train, TunWrite, Wait};
use crate::error::RingError;
use crate::failures::Failures;
use crate::gather::{NO_VECTORS, SpareWrites, Vectors, gather};
use crate::listen::UdpSockets;
use crate::pools::BUFFER_BYTES;
use crate::ready::{ReadyQueue, SOCKET_INITIATIONS, SOCKETS};
use crate::stats::DriverStats;
use crate::sys;
use crate::tun::TunQueue;

/// Times that a socket which filled all buffers that stood ready is received from again in a turn.
/// What stays in it may be lost when its own buffer is full, what was taken out is not: under load
/// a pause of the core is survived by what both hold. With this a turn takes about what a shard
/// looks at in one.
const ROUNDS_MAX: usize = 4;

/// Sockets in the order in which they are received from: data before initiations.
const SOURCES: [Source; SOCKETS] =
    [Source::Ipv4, Source::Ipv6, Source::InitiationsIpv4, Source::InitiationsIpv6];

/// The epoll driver. It belongs to the thread that made it.
pub struct EpollDriver {
    poll: Poll,
    wake: OwnedFd,
    stats: DriverStats,
    outside: Lane,
    initiations: Lane,
    inside: Reads,
    ready: ReadyQueue,
    outbound: Outbound,
    writes: SpareWrites,
    vectors: Box<Vectors>,
    trains: Arena,
    sockets: Option<UdpSockets>,
    tun: Option<TunQueue>,
    /// Of each socket, in the order of [`SOURCES`].
    outside_failures: [Failures; SOCKETS],
    inside_failures: Failures,
    /// All buffers for data, initiations or packets are in use, and none of these is received.
    starved: [bool; 3],
    /// Nothing is received or read.
    held: bool,
    closed: bool,
}

impl EpollDriver {
    /// Says what to report about sockets and TUN: only what this driver can make use of now.
    fn ask(&mut self) -> io::Result<()> {
        let outside = self.outside.refill();
        let initiations = self.initiations.refill();
        let inside = self.inside.has_buffer();
        self.note_starvation([outside, initiations, inside]);
        for (place, source) in SOURCES.into_iter().enumerate() {
            let room = place < 2 && self.outbound.is_blocked(place);
            let buffers = if place < SOCKET_INITIATIONS { outside } else { initiations };
            let input = buffers && !self.held && self.outside_failures[place].broken().is_none();
            self.ask_about(source, input, room)?;
        }
        let input = inside && !self.held && self.inside_failures.broken().is_none();
        self.ask_about(Source::Tun, input, false)
    }

    /// Counts the moments at which the last buffer went and the first came back.
    fn note_starvation(&mut self, has_buffer: [bool; 3]) {
        let stats = &mut self.stats;
        let times = [
            &mut stats.outside_no_buffer,
            &mut stats.initiations_no_buffer,
            &mut stats.inside_no_buffer,
        ];
        for ((has, starved), times) in has_buffer.into_iter().zip(&mut self.starved).zip(times) {
            if has == *starved {
                *times += u64::from(!has);
                stats.rearmed += u64::from(has);
                *starved = !has;
            }
        }
    }

    fn ask_about(&mut self, source: Source, input: bool, room: bool) -> io::Result<()> {
        let events = if input { IN } else { 0 } | if room { OUT } else { 0 };
        let before = self.poll.asked(source);
        if events == before {
            return Ok(());
        }
        self.poll.ask(source, events)?;
        self.stats.enters += 1;
        Ok(())
    }

    /// Takes a share of everything that was found.
    fn take(&mut self, found: Found) {
        if found.has_input(Source::Wake) {
            self.woken();
        }
        let room = [Source::Ipv4, Source::Ipv6].map(|source| found.has_room(source));
        for (family, room) in room.into_iter().enumerate() {
            if room {
                self.outbound.unblock(family);
            }
        }
        if room.contains(&true) {
            self.flush();
        }
        if !self.held {
            let mut waiting = SOURCES.map(|source| found.has_input(source));
            for _ in 0..ROUNDS_MAX {
                for (place, waiting) in waiting.iter_mut().enumerate() {
                    *waiting = *waiting && self.receive(place);
                }
            }
            if found.has_input(Source::Tun) {
                self.read();
            }
        }
        let stats = &mut self.stats;
        stats.outside_buffers_high_water =
            stats.outside_buffers_high_water.max(self.outside.used() as u64);
        stats.initiations_buffers_high_water =
            stats.initiations_buffers_high_water.max(self.initiations.used() as u64);
        stats.inside_buffers_high_water =
            stats.inside_buffers_high_water.max(self.inside.used() as u64);
    }

    /// Receives once from a socket; whether there may be more for this turn.
    fn receive(&mut self, place: usize) -> bool {
        let socket = self.sockets.as_ref().and_then(|sockets| descriptors(sockets)[place]);
        let Some(socket) = socket else { return false };
        let lane = match place {
            0..SOCKET_INITIATIONS => &mut self.outside,
            _ => &mut self.initiations,
        };
        if !lane.refill() {
            return false;
        }
        self.stats.enters += 1;
        match lane.receive(socket, place, &mut self.ready) {
            Ok(count) => {
                let more = lane.is_used_up();
                self.outside_failures[place].succeeded();
                self.completed(count);
                more && place < SOCKET_INITIATIONS
            }
            Err(error) => {
                self.outside_failures[place].failed(errno(&error));
                false
            }
        }
    }

    fn read(&mut self) {
        let Some(tun) = &self.tun else { return };
        match self.inside.read(tun.descriptor(), &mut self.ready) {
            Ok(count) => {
                self.inside_failures.succeeded();
                self.stats.enters += count as u64 + 1;
                self.completed(count);
            }
            Err(error) => self.inside_failures.failed(errno(&error)),
        }
    }

    fn woken(&mut self) {
        let mut count = [0; 8];
        // If somebody else emptied it first, that is as good.
        self.stats.wakes += u64::from(sys::read(self.wake.as_fd(), &mut count).is_ok());
    }

    fn completed(&mut self, count: usize) {
        let count = count as u64;
        self.stats.completions += count;
        self.stats.completions_high_water = self.stats.completions_high_water.max(count);
    }

    fn flush(&mut self) {
        let sockets = self.sockets.as_ref().map_or([None, None], UdpSockets::descriptors);
        self.outbound.flush(sockets, &mut self.stats);
    }

    fn attach_sockets(&mut self, sockets: Option<&UdpSockets>) -> io::Result<()> {
        let fds = sockets.map_or([None; SOCKETS], descriptors);
        for (source, fd) in SOURCES.into_iter().zip(fds) {
            self.poll.attach(source, fd.map(|fd| fd.as_raw_fd()))?;
        }
        Ok(())
    }

    fn expect_open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "The driver was shut down"));
        }
        Ok(())
    }
}

impl Driver for EpollDriver {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.expect_open()?;
        let used = (self.trains.count() - self.trains.free()) as u64;
        self.stats.train_buffers_high_water = self.stats.train_buffers_high_water.max(used);
        self.ready.begin_turn();
        self.flush();
        self.ask()?;
        let wait = if self.ready.is_empty() { wait } else { Wait::No };
        self.stats.enters += 1;
        let found = self.poll.wait(wait)?;
        self.take(found);
        Ok(())
    }

    fn forget(&mut self) {
        self.ready.forget();
        self.outbound.forget();
    }

    fn forget_path(&mut self, to: IpAddr) {
        self.outbound.forget_path(to);
    }

    #[inline]
    fn next(&mut self) -> Option<Received> {
        self.ready.next(&mut self.stats)
    }

    fn reserve_train(&mut self) -> Option<Buf> {
        if self.trains.free() == 0 {
            self.flush();
            self.stats.submitted_early += 1;
        }
        let buf = self.trains.take();
        self.stats.train_buffers_exhausted += u64::from(buf.is_none());
        buf
    }

    fn send(&mut self, train: Train) {
        let family = send::family(&train);
        let has_socket = self.sockets.as_ref().is_some_and(|s| s.descriptors()[family].is_some());
        if has_socket {
            self.outbound.push(train, &mut self.stats);
        } else {
            self.stats.trains_without_socket += u64::from(train.len > 0);
        }
    }

    fn suspect(&mut self, to: IpAddr) {
        self.outbound.suspect(to, &mut self.stats);
    }

    fn reserve_tun(&mut self) -> Option<Box<TunWrite>> {
        let write = self.writes.reserve();
        self.stats.tun_writes_exhausted += u64::from(write.is_none());
        write
    }

    fn write_tun(&mut self, write: Box<TunWrite>) {
        let stats = &mut self.stats;
        match &self.tun {
            None => stats.tun_writes_without_tun += 1,
            Some(_) if write.is_empty() => {}
            Some(tun) => {
                stats.enters += 1;
                stats.tun_writes += 1;
                stats.tun_write_bytes += write.len() as u64;
                stats.tun_batch.record(write.pieces().len().max(1));
                let count = gather(&write, &mut self.vectors);
                // SAFETY: the vectors describe the write's head and pieces, which it keeps.
                let written =
                    unsafe { sys::write_vectors(tun.descriptor(), &self.vectors[..count]) };
                if let Err(error) = written {
                    stats.tun_refused.count_error(&error);
                }
            }
        }
        self.writes.give_back(write);
    }

    fn cancel_tun(&mut self, write: Box<TunWrite>) {
        self.writes.give_back(write);
    }

    fn set_receiving(&mut self, on: bool) -> io::Result<()> {
        self.expect_open()?;
        self.held = !on;
        Ok(())
    }

    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        self.expect_open()?;
        self.flush();
        self.stats.train_refused.full += self.outbound.give_up() as u64;
        // The old ones are still open: the kernel forgets them before anybody closes them.
        self.attach_sockets(sockets.as_ref())?;
        self.outside_failures = [Failures::new(); SOCKETS];
        let dropped = sockets.as_ref().map(UdpSockets::dropped_before);
        self.ready.new_sockets(dropped.unwrap_or_default());
        Ok(std::mem::replace(&mut self.sockets, sockets))
    }
}

impl Backend for EpollDriver {
    const KIND: DriverKind = DriverKind::Epoll;

    fn make(config: DriverConfig) -> Result<Self, RingError> {
        let DriverConfig { pools, features, zero_copy: _, waker } = config;
        for arena in [&pools.outside, &pools.initiations, &pools.inside, &pools.trains] {
            assert!(arena.buffer_bytes() >= BUFFER_BYTES);
        }
        let mut poll =
            Poll::new().map_err(|error| RingError::while_making("the epoll instance", error))?;
        let wake = waker.map_or_else(sys::event_fd, Ok);
        let wake = wake.map_err(|error| RingError::while_making("the wake-up counter", error))?;
        poll.attach(Source::Wake, Some(wake.as_raw_fd()))
            .and_then(|()| poll.ask(Source::Wake, IN))
            .map_err(|error| RingError::while_making("the wake-up watch", error))?;
        Ok(Self {
            poll,
            wake,
            stats: DriverStats::default(),
            ready: ReadyQueue::new(
                pools.outside.count() + pools.inside.count(),
                pools.initiations.count(),
            ),
            outside: Lane::new(pools.outside, LANE_MAX),
            initiations: Lane::new(pools.initiations, LANE_MAX),
            inside: Reads::new(pools.inside),
            outbound: Outbound::new(pools.trains.count(), features.udp_segments_max),
            writes: SpareWrites::new(pools.tun_writes),
            vectors: Box::new(NO_VECTORS),
            trains: pools.trains,
            sockets: None,
            tun: None,
            outside_failures: [Failures::new(); SOCKETS],
            inside_failures: Failures::new(),
            starved: [false; 3],
            held: false,
            closed: false,
        })
    }

    fn set_tun(&mut self, tun: Option<TunQueue>) -> io::Result<Option<TunQueue>> {
        self.expect_open()?;
        let fd = tun.as_ref().map(|tun| tun.descriptor().as_raw_fd());
        self.poll.attach(Source::Tun, fd)?;
        self.inside_failures.reset();
        Ok(std::mem::replace(&mut self.tun, tun))
    }

    fn sockets(&self) -> Option<&UdpSockets> {
        self.sockets.as_ref()
    }

    fn tun(&self) -> Option<&TunQueue> {
        self.tun.as_ref()
    }

    fn waker_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn health(&self) -> Health {
        Health {
            outside: self.outside_failures.iter().find_map(Failures::broken),
            inside: self.inside_failures.broken(),
        }
    }

    fn revive(&mut self) {
        self.outside_failures.iter_mut().filter(|f| f.broken().is_some()).for_each(Failures::reset);
    }

    fn stats(&mut self) -> &DriverStats {
        self.stats.outside_buffers_free = self.outside.free() as u64;
        self.stats.initiations_buffers_free = self.initiations.free() as u64;
        self.stats.inside_buffers_free = self.inside.free() as u64;
        self.stats.train_buffers_free = self.trains.free() as u64;
        self.stats.paths_demoted = self.outbound.paths_demoted() as u64;
        &self.stats
    }

    fn shutdown(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.flush();
        self.closed = true;
        self.outbound.give_up();
        self.ready.clear();
        self.outside.close();
        self.initiations.close();
        self.inside.close();
        let detached = self.attach_sockets(None);
        let detached = detached.and_then(|()| self.poll.attach(Source::Tun, None));
        self.sockets = None;
        self.tun = None;
        detached
    }
}

impl Drop for EpollDriver {
    fn drop(&mut self) {
        // Nothing is in flight between calls, so nothing can go wrong that matters.
        let _ = self.shutdown();
    }
}

/// Descriptors in the order of [`SOURCES`].
fn descriptors(sockets: &UdpSockets) -> [Option<BorrowedFd<'_>>; SOCKETS] {
    let ([a, b], [c, d]) = (sockets.descriptors(), sockets.initiations());
    [a, b, c, d]
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
