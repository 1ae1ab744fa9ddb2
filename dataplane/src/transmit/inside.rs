//! Open super-packets for the TUN: packets of one flow, merged by reference.
//!
//! What merges and what does not is decided by `proto::offload::coalesce`; here are the table of
//! open groups and the writes they fill. Headers are copied into the write's head, payloads stay
//! where they were decrypted. Order is kept within a flow: a packet that cannot join closes the
//! flow's group first, and a fragment, which names no flow, closes all.

use ringway_alloc::Buf;
use ringway_flow::Policy;
use ringway_proto::DropReason;
use ringway_proto::offload::{Candidate, Class, Group};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{Driver, TunWrite};

use crate::counters::Counters;

/// Flows with an open super-packet at once. More than this in one turn close the oldest; a search
/// of sixteen keys costs less than a hash.
const OPEN_MAX: usize = 16;

struct Open {
    group: Group,
    write: Box<TunWrite>,
}

/// Where a packet lies: whole, in a receive buffer.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The buffer.
    pub buf: &'a Buf,
    /// First byte of the IP header.
    pub start: usize,
    /// Bytes of the packet.
    pub len: usize,
}

/// The open super-packets of one core.
pub struct InsideQueue {
    open: Vec<Open>,
}

impl InsideQueue {
    /// None open, with room for all that may be.
    #[must_use]
    pub fn new() -> Self {
        Self { open: Vec::with_capacity(OPEN_MAX) }
    }

    /// Takes a packet. It leaves with its flow's super-packet, or alone, at the latest with
    /// [`InsideQueue::flush`].
    ///
    /// # Errors
    /// [`DropReason::TunExhausted`] when no write is free.
    #[inline]
    pub fn push<D: Driver>(
        &mut self,
        place: Place<'_>,
        policy: &Policy,
        driver: &mut D,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        if !policy.merge {
            return alone(place, driver, counters);
        }
        let bytes = &place.buf[place.start..place.start + place.len];
        match Class::of(bytes, policy.verify_inner_checksum) {
            Class::Flow(candidate) => self.push_flow(&candidate, place, driver, counters),
            Class::Fragment => {
                self.flush(driver, counters);
                alone(place, driver, counters)
            }
            Class::Other => alone(place, driver, counters),
        }
    }

    /// Commits all super-packets, oldest first.
    pub fn flush<D: Driver>(&mut self, driver: &mut D, counters: &mut Counters) {
        for open in self.open.drain(..) {
            commit(open, driver, counters);
        }
    }

    fn push_flow<D: Driver>(
        &mut self,
        candidate: &Candidate<'_>,
        place: Place<'_>,
        driver: &mut D,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let found = self.open.iter().rposition(|open| open.group.key() == candidate.key());
        if let Some(at) = found {
            let open = &mut self.open[at];
            let skip = candidate.headers_len();
            // A group takes at most a run of packets, for which a write has pieces.
            if open.group.try_append(candidate)
                && open.write.attach(place.buf, place.start + skip, place.len - skip).is_ok()
            {
                if !open.group.is_open() {
                    let open = self.open.remove(at);
                    commit(open, driver, counters);
                }
                return Ok(());
            }
            let open = self.open.remove(at);
            commit(open, driver, counters);
        }
        if !candidate.is_mergeable() {
            return alone(place, driver, counters);
        }
        let open = start(candidate, place, driver)?;
        if !open.group.is_open() {
            commit(open, driver, counters);
            return Ok(());
        }
        if self.open.len() == OPEN_MAX {
            let oldest = self.open.remove(0);
            commit(oldest, driver, counters);
        }
        self.open.push(open);
        Ok(())
    }
}

impl Default for InsideQueue {
    fn default() -> Self {
        Self::new()
    }
}

fn start<D: Driver>(
    candidate: &Candidate<'_>,
    place: Place<'_>,
    driver: &mut D,
) -> Result<Open, DropReason> {
    let mut write = driver.reserve_tun().ok_or(DropReason::TunExhausted)?;
    let skip = candidate.headers_len();
    let filled = write
        .push_head(&[0; VNET_HEADER_BYTES])
        .and_then(|()| write.push_head(&candidate.bytes()[..skip]))
        .and_then(|()| write.attach(place.buf, place.start + skip, place.len - skip));
    assert!(filled.is_ok(), "an empty write takes headers and one payload");
    Ok(Open { group: Group::start(candidate), write })
}

/// Commits a packet that merges with nothing.
fn alone<D: Driver>(
    place: Place<'_>,
    driver: &mut D,
    counters: &mut Counters,
) -> Result<(), DropReason> {
    let mut write = driver.reserve_tun().ok_or(DropReason::TunExhausted)?;
    let filled = write
        .push_head(&[0; VNET_HEADER_BYTES])
        .and_then(|()| write.attach(place.buf, place.start, place.len));
    assert!(filled.is_ok(), "an empty write takes a virtio header and one packet");
    counters.tun_writes += 1;
    counters.tun_packets.record(1);
    driver.write_tun(write);
    Ok(())
}

fn commit<D: Driver>(mut open: Open, driver: &mut D, counters: &mut Counters) {
    open.group.finish_head(open.write.head_mut());
    let packets = open.group.count() as u64;
    counters.tun_writes += 1;
    counters.tun_packets.record(packets);
    if packets > 1 {
        counters.tun_coalesced_packets += packets;
    }
    driver.write_tun(open.write);
}
