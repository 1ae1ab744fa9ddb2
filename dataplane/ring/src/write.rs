//! Writes on their way to the TUN.
//!
//! Order: entries are submitted in the order of commits, and every write is either done at
//! submission or refused there, because the kernel is told never to wait (`RWF_NOWAIT`). So no
//! write is parked while a later one overtakes it; what would have waited is a counted refusal. On
//! kernels whose TUN does not know that flag, a write could only wait for room in the device's send
//! buffer, which has no limit unless somebody sets one (TUNSETSNDBUF).

#![allow(unsafe_code, reason = "this file hands addresses of its slots to the kernel")]

use io_uring::{cqueue, opcode};

use crate::driver::TunWrite;
use crate::gather::{NO_VECTORS, SpareWrites, Vectors, gather};
use crate::op::{Op, Slots, Token, give_up};
use crate::ring::{FILE_TUN, Ring};
use crate::stats::DriverStats;
use crate::tun::TunQueue;

/// A write in flight: the kernel holds the address of `vectors`, which point into the boxed write
/// and into buffers that the write's pieces hold.
#[derive(Debug)]
struct WriteSlot {
    write: Option<Box<TunWrite>>,
    vectors: Vectors,
}

/// All writes of one core.
#[derive(Debug)]
pub(crate) struct TunWrites {
    slots: Slots<WriteSlot>,
    spare: SpareWrites,
}

impl TunWrites {
    pub(crate) fn new(count: u32) -> Self {
        let slot = || WriteSlot { write: None, vectors: NO_VECTORS };
        Self { slots: Slots::new(Op::Write, count, slot), spare: SpareWrites::new(count) }
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Writes that can be reserved.
    pub(crate) const fn spare(&self) -> usize {
        self.spare.len()
    }

    pub(crate) fn reserve(&mut self) -> Option<Box<TunWrite>> {
        self.spare.reserve()
    }

    /// Takes a write back, done or not.
    pub(crate) fn give_back(&mut self, write: Box<TunWrite>) {
        self.spare.give_back(write);
    }

    /// Queues a write.
    pub(crate) fn write(
        &mut self,
        write: Box<TunWrite>,
        tun: Option<&TunQueue>,
        ring: &mut Ring,
        stats: &mut DriverStats,
    ) {
        let Some(tun) = tun else {
            stats.tun_writes_without_tun += 1;
            self.give_back(write);
            return;
        };
        if write.is_empty() {
            self.give_back(write);
            return;
        }
        stats.tun_writes += 1;
        stats.tun_write_bytes += write.len() as u64;
        stats.tun_batch.record(write.pieces().len().max(1));
        // As many slots as writes circulate.
        let Some((token, slot)) = self.slots.take() else {
            unreachable!("more TUN writes in flight than were made")
        };
        let count = gather(&write, &mut slot.vectors) as u32;
        slot.write = Some(write);
        let (target, kind) = ring.target(FILE_TUN, tun.raw_fd());
        let flags = if tun.writes_nowait() { libc::RWF_NOWAIT } else { 0 };
        let entry = opcode::Writev::new(target, slot.vectors.as_ptr(), count)
            .rw_flags(flags)
            .build()
            .flags(kind)
            .user_data(token.encode());
        // SAFETY: the vectors are in the slot, which does not move and is reused only after the
        // terminal completion; the head is in the boxed write and the pieces are kept by its holds,
        // both in that slot.
        unsafe { ring.push(entry, stats) };
    }

    /// Takes a completion of a write and frees what it held.
    pub(crate) fn completed(
        &mut self,
        token: Token,
        completion: &cqueue::Entry,
        stats: &mut DriverStats,
    ) {
        let result = completion.result();
        if result < 0 && -result != libc::ECANCELED {
            stats.tun_refused.count(-result);
        }
        let write = self.slots.content(token).write.take();
        self.slots.release(token);
        if let Some(write) = write {
            self.give_back(write);
        }
    }

    /// Gives the slots up for good, because the kernel may still read them.
    pub(crate) fn leak(&mut self) {
        let empty = Slots::new(Op::Write, 0, || unreachable!("no slots"));
        give_up(std::mem::replace(&mut self.slots, empty));
    }
}
