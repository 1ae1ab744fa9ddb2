//! Variable memory of sessions: gone at once when the session ends, and counted.
//!
//! Handshake scratch, staged packets, reassembly and stream buffers come from here. A session draws
//! on a mimalloc heap of its own or on its shard's heap; either way its bytes are counted against
//! its budget and a block over budget is refused. A private heap is made when the session first
//! needs memory and destroyed when it holds none: an idle session costs nothing. Its floor is about
//! 70 KB (one 64 KiB page per size class in use), which is why [`HeapPolicy::Auto`] limits how many
//! there are. Heaps belong to the thread that made them, so nothing here is `Send`.
//!
//! This module must not know what the bytes are.

#![allow(unsafe_code, reason = "wraps mimalloc's heaps")]

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::str::FromStr;

use libmimalloc_sys::{self as mi, mi_heap_t};

use crate::guard::{self, Mimalloc, Rounding as _};

/// Private heaps one shard keeps at once under [`HeapPolicy::Auto`]: 1,024 of 70 KB are 70 MB.
pub const PRIVATE_HEAPS_MAX: usize = 1024;

/// Bytes a private heap takes for itself: what `tests/churn.rs` measured, rounded (mimalloc 2.3
/// allocates 3 KB for its header and touches a page more). Counted as used by the shard.
pub const PRIVATE_HEAP_BYTES: usize = 4 << 10;

/// Bytes one session may hold unless told otherwise: a full staging queue (128 packets) of 1,500
/// byte packets five times over, and still only 1 GB when a thousand sessions do their worst.
pub const SESSION_BYTES_MAX: usize = 1 << 20;

/// When a session gets a heap of its own; `[memory] session_heaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeapPolicy {
    /// While fewer than [`PRIVATE_HEAPS_MAX`] sessions of the shard have one.
    #[default]
    Auto,
    /// Whenever it needs memory.
    Always,
    /// Never: all draw on the shard's heap.
    Never,
}

impl FromStr for HeapPolicy {
    type Err = HeapError;

    fn from_str(text: &str) -> Result<Self, HeapError> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(HeapError::PolicyUnknown(text.to_owned())),
        }
    }
}

/// Why there is no memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeapError {
    /// The session's budget does not allow it.
    #[error("Session holds {used} of {limit} bytes and wants {wanted} more")]
    OverBudget {
        /// Bytes it holds.
        used: usize,
        /// Bytes it asked for.
        wanted: usize,
        /// Bytes it may hold.
        limit: usize,
    },
    /// The system has none.
    #[error("Out of memory for {0} bytes")]
    OutOfMemory(usize),
    /// Not the name of a policy.
    #[error("Unknown heap policy {0:?}: auto, always or never")]
    PolicyUnknown(String),
}

/// The heap of one shard, destroyed when the last of its sessions is gone.
#[derive(Clone)]
pub struct ShardHeap(Rc<Shard>);

impl ShardHeap {
    /// A heap for this thread.
    #[must_use]
    pub fn new(policy: HeapPolicy) -> Self {
        free_at_once();
        let private_max = match policy {
            HeapPolicy::Auto => PRIVATE_HEAPS_MAX,
            HeapPolicy::Always => usize::MAX,
            HeapPolicy::Never => 0,
        };
        Self(Rc::new(Shard {
            heap: Heap::new(),
            private_max,
            private_heaps: Cell::new(0),
            used: Cell::new(0),
        }))
    }

    /// Bytes all sessions of the shard hold, with what rounding to size classes and private heaps
    /// add.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.get() + self.0.private_heaps.get() * PRIVATE_HEAP_BYTES
    }

    /// Sessions that have a heap of their own now.
    #[must_use]
    pub fn private_heaps(&self) -> usize {
        self.0.private_heaps.get()
    }

    /// Gives back what mimalloc keeps for the next block of a size. May take longer than a turn.
    pub fn trim(&self) {
        // SAFETY: touches only heaps of this thread, and only memory that is free.
        unsafe { mi::mi_collect(true) };
    }
}

impl fmt::Debug for ShardHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardHeap({} bytes, {} private heaps)", self.used(), self.private_heaps())
    }
}

/// The variable memory of one session.
pub struct SessionHeap {
    shard: Rc<Shard>,
    limit: u32,
    /// See [`SessionHeap::hold`].
    held: u32,
    /// Made with the first block: most sessions need none for most of their life.
    session: Option<Rc<Session>>,
}

impl SessionHeap {
    /// Memory for a session of this shard, at most [`SESSION_BYTES_MAX`].
    #[must_use]
    pub fn new(shard: &ShardHeap) -> Self {
        Self::with_limit(shard, SESSION_BYTES_MAX)
    }

    /// Memory for a session of this shard, at most `limit` bytes (and never 4 GiB).
    #[must_use]
    pub fn with_limit(shard: &ShardHeap, limit: usize) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Self { shard: Rc::clone(&shard.0), limit, held: 0, session: None }
    }

    /// Counts what the session holds in blocks that did not come from here, such as its keypairs:
    /// all of them, in place of what was counted before. It is never refused, but leaves less for
    /// the rest.
    pub fn hold(&mut self, blocks: impl IntoIterator<Item = usize>) {
        let held = blocks.into_iter().map(charge_for).sum::<usize>();
        let used = self.shard.used.get() - self.held as usize;
        self.held = u32::try_from(held).unwrap_or(u32::MAX);
        self.shard.used.set(used + self.held as usize);
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// Over budget, or out of memory.
    pub fn copy(&mut self, bytes: &[u8]) -> Result<HeapBuf, HeapError> {
        let buf = self.allocate(bytes.len())?;
        // SAFETY: `allocate` returned a new block of this many bytes.
        unsafe { buf.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(buf)
    }

    /// `len` zero bytes.
    ///
    /// # Errors
    /// Over budget, or out of memory.
    pub fn zeroed(&mut self, len: usize) -> Result<HeapBuf, HeapError> {
        let buf = self.allocate(len)?;
        // SAFETY: `allocate` returned a new block of this many bytes.
        unsafe { buf.start.as_ptr().write_bytes(0, len) };
        Ok(buf)
    }

    /// Bytes the session holds, with what rounding to size classes adds.
    #[must_use]
    pub fn used(&self) -> usize {
        self.held as usize + self.session.as_ref().map_or(0, |session| session.used.get())
    }

    /// Bytes the session may hold.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Whether the session has a heap of its own now.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.with_private(|heap| heap.is_some()))
    }

    /// A block whose bytes are not initialised yet: the callers above do that before anyone sees
    /// it.
    fn allocate(&mut self, len: usize) -> Result<HeapBuf, HeapError> {
        let session = self.session.get_or_insert_with(|| {
            Rc::new(Session {
                shard: Rc::clone(&self.shard),
                private: Cell::new(None),
                blocks: Cell::new(0),
                used: Cell::new(0),
            })
        });
        let (used, limit) = (self.held as usize + session.used.get(), self.limit as usize);
        let charge = charge_for(len);
        if charge > limit - used.min(limit) {
            return Err(HeapError::OverBudget { used, wanted: charge, limit });
        }
        let start = session.allocate(charge).ok_or(HeapError::OutOfMemory(len))?;
        Ok(HeapBuf { session: Rc::clone(session), start, len, charge })
    }
}

impl Drop for SessionHeap {
    fn drop(&mut self) {
        self.hold([]);
    }
}

impl fmt::Debug for SessionHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionHeap({} of {} bytes)", self.used(), self.limit)
    }
}

/// Bytes of a session. They go back, and are credited, when this is dropped, also after the
/// session.
pub struct HeapBuf {
    session: Rc<Session>,
    start: NonNull<u8>,
    len: usize,
    charge: usize,
}

impl Deref for HeapBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a block of at least `len` initialised bytes, ours alone until `drop`; its heap
        // lives as long as `session`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for HeapBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for HeapBuf {
    fn drop(&mut self) {
        self.session.free(self.start, self.charge);
    }
}

impl fmt::Debug for HeapBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapBuf({} bytes)", self.len)
    }
}

/// Bytes mimalloc really takes for a block; never fewer than asked for, however large that is.
fn charge_for(len: usize) -> usize {
    Mimalloc::rounded(len.max(1))
}

/// Tells mimalloc to give freed pages back to the system at once, unless the operator told it
/// otherwise by MIMALLOC_PURGE_DELAY. Its delay of 10 ms would leave up to a segment (32 MiB) per
/// thread resident until the next allocation after a crowd has gone; without the delay a session
/// that ends pays about 5 us.
fn free_at_once() {
    /// `mi_option_purge_delay` of mimalloc.h version 2.3, which the binding leaves out.
    const PURGE_DELAY_MS: mi::mi_option_t = mi::mi_option_eager_commit_delay + 1;
    // SAFETY: stores one aligned word, the same from every thread.
    unsafe { mi::mi_option_set_default(PURGE_DELAY_MS, 0) };
}

struct Shard {
    heap: Heap,
    private_max: usize,
    private_heaps: Cell<usize>,
    used: Cell<usize>,
}

struct Session {
    shard: Rc<Shard>,
    /// There only while the session holds blocks.
    private: Cell<Option<Heap>>,
    blocks: Cell<usize>,
    used: Cell<usize>,
}

impl Session {
    fn allocate(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.blocks.get() == 0 && self.shard.private_heaps.get() < self.shard.private_max {
            self.private.set(Some(Heap::new()));
            self.shard.private_heaps.set(self.shard.private_heaps.get() + 1);
        }
        let block = self.with_private(|heap| heap.unwrap_or(&self.shard.heap).allocate(bytes));
        if block.is_some() {
            guard::note_alloc(bytes);
            self.blocks.set(self.blocks.get() + 1);
            self.used.set(self.used.get() + bytes);
            self.shard.used.set(self.shard.used.get() + bytes);
        }
        self.destroy_if_empty();
        block
    }

    fn free(&self, block: NonNull<u8>, bytes: usize) {
        // SAFETY: `HeapBuf` got the block from `allocate` on this thread and gives it back once.
        unsafe { mi::mi_free(block.as_ptr().cast()) };
        guard::note_free();
        self.blocks.set(self.blocks.get() - 1);
        self.used.set(self.used.get() - bytes);
        self.shard.used.set(self.shard.used.get() - bytes);
        self.destroy_if_empty();
    }

    fn destroy_if_empty(&self) {
        if self.blocks.get() == 0 && self.private.take().is_some() {
            self.shard.private_heaps.set(self.shard.private_heaps.get() - 1);
        }
    }

    fn with_private<R>(&self, f: impl FnOnce(Option<&Heap>) -> R) -> R {
        let heap = self.private.take();
        let result = f(heap.as_ref());
        self.private.set(heap);
        result
    }
}

/// A mimalloc heap of this thread. Its owner frees all blocks, or forgets them, before dropping it.
struct Heap(NonNull<mi_heap_t>);

impl Heap {
    fn new() -> Self {
        // SAFETY: makes a heap of the calling thread; `NonNull` keeps it on this thread.
        let heap = unsafe { mi::mi_heap_new() };
        Self(NonNull::new(heap).expect("memory for a heap header"))
    }

    fn allocate(&self, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the heap is alive and of this thread.
        NonNull::new(unsafe { mi::mi_heap_malloc(self.0.as_ptr(), bytes) }.cast())
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: alive until here and of this thread; every `HeapBuf` holds its `Session` and thus
        // the heap, so no block is in use.
        unsafe { mi::mi_heap_destroy(self.0.as_ptr()) };
    }
}

#[cfg(test)]
#[path = "heap_tests.rs"]
mod tests;
