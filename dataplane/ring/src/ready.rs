//! What was received and waits for the shard.
//!
//! It waits as a whole buffer and is looked at when the shard asks, so that its first lines come
//! into the cache when they are needed. Initiations wait apart: behind data, and bounded per turn.
//! This file must not know who received it.

use std::collections::VecDeque;

use ringway_alloc::{Buf, forget};

use crate::driver::{Inside, Outside, Received, VNET_HEADER_BYTES};
use crate::stats::DriverStats;
use crate::udp;

/// Where a packet of the TUN begins in its buffer: its IP header, after the virtio header, is
/// 64-byte aligned.
pub(crate) const INSIDE_START: usize = 64 - VNET_HEADER_BYTES;

/// Sockets of a core: data of IPv4 and IPv6, then initiations of both.
pub(crate) const SOCKETS: usize = 4;

/// The first socket of the bank of initiations.
pub(crate) const SOCKET_INITIATIONS: usize = 2;

/// Datagrams of the bank of initiations that are handed out per turn; the last buffer of a turn may
/// go beyond. Judging one by its MACs costs about a microsecond, so with a last buffer full of them
/// a turn is at most a tenth of a millisecond longer. In a turn as short as this the core can judge
/// half a million a second, more than it can answer; what is beyond that waits in the bank's
/// buffers, and then is dropped in its socket.
const INITIATIONS_PER_TURN: usize = 64;

/// Turns in a row after which waiting initiations get one buffer before data does: a core that is
/// never done with data must still let its clients renew their keys.
const PASSED_OVER_MAX: u32 = 4;

/// Something received that the shard has not asked for yet.
#[derive(Debug)]
enum Ready {
    Outside { buf: Buf, used: u32, socket: u8 },
    Inside { buf: Buf, used: u32 },
}

/// All that waits, in order of arrival.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    data: VecDeque<Ready>,
    initiations: VecDeque<Ready>,
    /// Initiations handed out in this turn.
    judged: usize,
    /// Turns in a row that had none for waiting initiations.
    passed_over: u32,
    /// Datagrams that each socket is known to have dropped.
    dropped: [u32; SOCKETS],
}

impl ReadyQueue {
    /// For at most so many `buffers` of data and TUN, and of `initiations`, at a time.
    pub(crate) fn new(buffers: usize, initiations: usize) -> Self {
        Self {
            data: VecDeque::with_capacity(buffers),
            initiations: VecDeque::with_capacity(initiations),
            judged: 0,
            passed_over: 0,
            dropped: [0; SOCKETS],
        }
    }

    /// Sockets of a core that so far `dropped` this many datagrams each.
    pub(crate) const fn new_sockets(&mut self, dropped: [u32; SOCKETS]) {
        self.dropped = dropped;
    }

    /// Initiations may be handed out again.
    pub(crate) fn begin_turn(&mut self) {
        let passed_over = self.judged == 0 && !self.initiations.is_empty();
        self.passed_over = if passed_over { self.passed_over + 1 } else { 0 };
        self.judged = 0;
    }

    /// Takes a buffer of a socket (below [`SOCKETS`]), of which the kernel used the first `used`
    /// bytes.
    #[inline]
    pub(crate) fn push_outside(&mut self, socket: usize, buf: Buf, used: u32) {
        let ready = Ready::Outside { buf, used, socket: socket as u8 };
        if socket < SOCKET_INITIATIONS {
            self.data.push_back(ready);
        } else {
            self.initiations.push_back(ready);
        }
    }

    /// Takes a buffer of the TUN, with `used` bytes from [`INSIDE_START`].
    #[inline]
    pub(crate) fn push_inside(&mut self, buf: Buf, used: u32) {
        self.data.push_back(Ready::Inside { buf, used });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.initiations.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.initiations.clear();
    }

    /// Wipes who sent what is no longer here.
    pub(crate) fn forget(&mut self) {
        forget::wipe_queue(&mut self.data);
        forget::wipe_queue(&mut self.initiations);
    }

    /// The next thing received, made sense of: data first, then as many initiations as a turn may
    /// have.
    #[inline]
    pub(crate) fn next(&mut self, stats: &mut DriverStats) -> Option<Received> {
        loop {
            match self.pop()? {
                Ready::Outside { buf, used, socket } => {
                    let Some((outside, dropped)) = udp::parse(buf, used as usize) else {
                        stats.outside_malformed += 1;
                        continue;
                    };
                    if let Some(dropped) = dropped {
                        self.note_dropped(socket.into(), dropped, stats);
                    }
                    let datagrams = count(&outside, stats);
                    if usize::from(socket) >= SOCKET_INITIATIONS {
                        self.judged += datagrams;
                        stats.initiations_datagrams += datagrams as u64;
                    }
                    return Some(Received::Outside(outside));
                }
                Ready::Inside { buf, used } => {
                    let len = used as usize;
                    if len <= VNET_HEADER_BYTES {
                        stats.inside_malformed += 1;
                        continue;
                    }
                    stats.inside_packets += 1;
                    stats.inside_bytes += len as u64;
                    return Some(Received::Inside(Inside { buf, start: INSIDE_START, len }));
                }
            }
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Ready> {
        if self.passed_over >= PASSED_OVER_MAX && self.judged == 0 {
            return self.initiations.pop_front().or_else(|| self.data.pop_front());
        }
        self.data.pop_front().or_else(|| self.pop_initiation())
    }

    fn pop_initiation(&mut self) -> Option<Ready> {
        if self.judged < INITIATIONS_PER_TURN { self.initiations.pop_front() } else { None }
    }

    /// The kernel says with each datagram how many its socket had dropped before, if any.
    #[cold]
    fn note_dropped(&mut self, socket: usize, now: u32, stats: &mut DriverStats) {
        let known = &mut self.dropped[socket];
        // What waited while sockets were replaced may tell of the old ones.
        let Ok(more) = u32::try_from(now.wrapping_sub(*known).cast_signed()) else { return };
        *known = now;
        if socket < SOCKET_INITIATIONS {
            stats.outside_dropped += u64::from(more);
        } else {
            stats.initiations_dropped += u64::from(more);
        }
    }
}

#[inline]
fn count(outside: &Outside, stats: &mut DriverStats) -> usize {
    let datagrams = outside.len.div_ceil(outside.stride);
    stats.outside_buffers += 1;
    stats.outside_datagrams += datagrams as u64;
    stats.outside_bytes += outside.len as u64;
    stats.outside_batch.record(datagrams);
    datagrams
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
