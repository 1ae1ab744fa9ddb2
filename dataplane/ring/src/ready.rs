//! What was received and waits for the shard.
//!
//! It waits as a whole buffer and is looked at when the shard asks, so that its first lines come
//! into the cache when they are needed. This file must not know who received it.

use std::collections::VecDeque;

use ringway_alloc::Buf;

use crate::driver::{Inside, Outside, Received, VNET_HEADER_BYTES};
use crate::stats::DriverStats;
use crate::udp;

/// Where a packet of the TUN begins in its buffer: its IP header, after the virtio header, is
/// 64-byte aligned.
pub(crate) const INSIDE_START: usize = 64 - VNET_HEADER_BYTES;

/// Something received that the shard has not asked for yet.
#[derive(Debug)]
enum Ready {
    Outside { buf: Buf, used: u32 },
    Inside { buf: Buf, used: u32 },
}

/// All that waits, in order of arrival.
#[derive(Debug)]
pub(crate) struct ReadyQueue(VecDeque<Ready>);

impl ReadyQueue {
    /// For at most `buffers` at a time.
    pub(crate) fn new(buffers: usize) -> Self {
        Self(VecDeque::with_capacity(buffers))
    }

    /// Takes a buffer of a socket, of which the kernel used the first `used` bytes.
    #[inline]
    pub(crate) fn push_outside(&mut self, buf: Buf, used: u32) {
        self.0.push_back(Ready::Outside { buf, used });
    }

    /// Takes a buffer of the TUN, with `used` bytes from [`INSIDE_START`].
    #[inline]
    pub(crate) fn push_inside(&mut self, buf: Buf, used: u32) {
        self.0.push_back(Ready::Inside { buf, used });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The next thing received, made sense of.
    #[inline]
    pub(crate) fn next(&mut self, stats: &mut DriverStats) -> Option<Received> {
        loop {
            match self.0.pop_front()? {
                Ready::Outside { buf, used } => {
                    let Some(outside) = udp::parse(buf, used as usize) else {
                        stats.outside_malformed += 1;
                        continue;
                    };
                    count(&outside, stats);
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
}

#[inline]
fn count(outside: &Outside, stats: &mut DriverStats) {
    let datagrams = outside.len.div_ceil(outside.stride);
    stats.outside_buffers += 1;
    stats.outside_datagrams += datagrams as u64;
    stats.outside_bytes += outside.len as u64;
    stats.outside_batch.record(datagrams);
}
