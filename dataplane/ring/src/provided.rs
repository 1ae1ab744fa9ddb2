//! A ring of buffers that the kernel picks from when something arrives.
//!
//! Buffers are lent by an [`Arena`] and come back named in a completion, as owned [`Buf`]s. A
//! buffer the shard has let go of is lent again at the next turn. Entries never name part of a
//! buffer twice (no incremental consumption: it cuts datagrams). This file must not know what
//! arrives.

#![allow(unsafe_code, reason = "this file writes the memory that the kernel reads entries from")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use ringway_alloc::{Arena, Buf};

use crate::op::give_up;
use crate::ring::Ring;

/// The kernel wants the entries on a page of their own.
const ENTRIES_ALIGN: usize = 4096;

/// Buffers that are lent as long as the kernel does not run out of them. It takes them in turn, so
/// all that are lent are touched again and again; of full super-buffers these are 1 MiB, which
/// stays in a second-level cache. With 64 lent a merged datagram cost a third more.
const LENT_MIN: usize = 16;

/// Turns that took less than a quarter of what was lent, after which half is lent.
const QUIET_TURNS: u32 = 1024;

/// Largest number of entries the kernel accepts.
const ENTRIES_MAX: usize = 1 << 15;

/// Provided buffers of one group.
pub(crate) struct Provided {
    arena: Arena,
    group: u16,
    /// Bytes left free at the beginning of each buffer.
    headroom: usize,
    entries: NonNull<BufRingEntry>,
    mask: u16,
    tail: u16,
    lent: Box<[bool]>,
    lent_count: usize,
    /// Buffers lent at most: as many as the kernel needed lately.
    lent_max: usize,
    /// Buffers taken since the last refill.
    taken: usize,
    quiet_turns: u32,
    registered: bool,
}

impl Provided {
    /// Registers a ring for all buffers of `arena`.
    ///
    /// # Errors
    /// What the kernel says; an old one does not know such rings (EINVAL).
    ///
    /// # Panics
    /// If the arena has more buffers than a group can have (32,768).
    pub(crate) fn new(ring: &Ring, arena: Arena, group: u16, headroom: usize) -> io::Result<Self> {
        let count = arena.count().next_power_of_two();
        assert!(count <= ENTRIES_MAX);
        assert!(headroom < arena.buffer_bytes());
        let layout = Self::layout(count);
        // SAFETY: the layout has a size, since an arena has at least one buffer's worth of entries.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(raw.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout)
        };
        let mut provided = Self {
            lent: vec![false; arena.count()].into_boxed_slice(),
            lent_max: LENT_MIN.min(arena.count()),
            taken: 0,
            quiet_turns: 0,
            arena,
            group,
            headroom,
            entries,
            mask: (count - 1) as u16,
            tail: 0,
            lent_count: 0,
            registered: false,
        };
        ring.register_buffers(entries, count as u16, group)?;
        provided.registered = true;
        provided.refill();
        Ok(provided)
    }

    /// Lends free buffers to the kernel, those used last first, up to what it needs; how many.
    pub(crate) fn refill(&mut self) -> usize {
        self.adapt();
        let before = self.lent_count;
        while self.lent_count < self.lent_max
            && let Some(index) = self.arena.lend()
        {
            self.push(index);
        }
        let added = self.lent_count - before;
        if added > 0 {
            self.publish();
        }
        added
    }

    /// The kernel found no buffer: more are lent from now on. Whether there are no more.
    pub(crate) fn ran_dry(&mut self) -> bool {
        self.lent_max = (2 * self.lent_max).min(self.arena.count());
        self.quiet_turns = 0;
        self.arena.free() == 0
    }

    fn adapt(&mut self) {
        let quiet = 4 * std::mem::take(&mut self.taken) <= self.lent_max;
        self.quiet_turns = if quiet { self.quiet_turns + 1 } else { 0 };
        if self.quiet_turns >= QUIET_TURNS {
            self.quiet_turns = 0;
            self.lent_max = (self.lent_max / 2).max(LENT_MIN.min(self.arena.count()));
        }
    }

    /// The buffer that a completion named, now owned.
    ///
    /// # Panics
    /// If that buffer was not lent: the kernel and we disagree about who owns it.
    pub(crate) fn take(&mut self, index: u16) -> Buf {
        let lent = &mut self.lent[usize::from(index)];
        assert!(*lent, "buffer {index} of group {} was not lent", self.group);
        *lent = false;
        self.lent_count -= 1;
        self.taken += 1;
        self.arena.adopt(u32::from(index))
    }

    /// Buffers the kernel can still pick.
    pub(crate) const fn lent(&self) -> usize {
        self.lent_count
    }

    pub(crate) const fn group(&self) -> u16 {
        self.group
    }

    pub(crate) const fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Whether enough buffers are there to start a receive again. One would do; an eighth keeps a
    /// starved receive from being started and ended for every single datagram.
    pub(crate) fn can_feed(&self) -> bool {
        self.lent_count >= (self.lent_max / 8).max(1)
    }

    /// Takes all buffers back if every operation of this group has `ended`; otherwise gives the
    /// memory up for good, because the kernel may still write to it.
    pub(crate) fn close_or_leak(&mut self, ring: &Ring, ended: bool) {
        if !self.registered {
            return;
        }
        if !ended {
            give_up(self.arena.clone());
            return;
        }
        // Whatever the answer, nothing picks from this group any more: all its operations have
        // ended.
        let _ = ring.unregister_buffers(self.group);
        self.registered = false;
        for index in 0..self.lent.len() {
            if std::mem::take(&mut self.lent[index]) {
                drop(self.arena.adopt(index as u32));
            }
        }
        self.lent_count = 0;
    }

    fn push(&mut self, index: u32) {
        let position = usize::from(self.tail & self.mask);
        let address = self.arena.address(index).as_ptr() as u64 + self.headroom as u64;
        let len = self.arena.buffer_bytes() - self.headroom;
        // SAFETY: `position` is masked to the number of entries that were allocated.
        let mut entry = unsafe { self.entries.add(position) };
        // SAFETY: the entry is zero-initialised or written by us, and the kernel does not read
        // entries at or beyond the published tail; this `&mut` is the only reference.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(len as u32);
        entry.set_bid(index as u16);
        self.tail = self.tail.wrapping_add(1);
        self.lent[index as usize] = true;
        self.lent_count += 1;
    }

    fn publish(&self) {
        // SAFETY: `entries` is the first entry of the ring, initialised at allocation.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside the first entry, which lives as long as `self`;
        // the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn layout(count: usize) -> Layout {
        let bytes = count * size_of::<BufRingEntry>();
        match Layout::from_size_align(bytes, ENTRIES_ALIGN) {
            Ok(layout) => layout,
            Err(_) => unreachable!("at most {ENTRIES_MAX} entries of 16 bytes"),
        }
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // Still registered means not closed: the kernel may yet read the entries, so they stay.
        if self.registered {
            return;
        }
        let layout = Self::layout(usize::from(self.mask) + 1);
        // SAFETY: allocated in `new` with this layout; `close` ended the kernel's use of it.
        unsafe { dealloc(self.entries.as_ptr().cast(), layout) };
    }
}
