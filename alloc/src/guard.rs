//! A global allocator that counts, and the proof that a stretch of code allocates nothing.
//!
//! Counts are per thread, so that other threads cannot spoil a test; live bytes are per process,
//! for the statistics of the program. [`deny_alloc`] also sees what [`crate::heap`] hands out. It
//! must not know what runs inside.

#![allow(unsafe_code, reason = "implements an allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::forget;

/// mimalloc as a global allocator; the same library the session heaps come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mimalloc;

/// An allocator that knows how much memory it takes for a block.
pub trait Rounding {
    /// Bytes taken for a block of `bytes`: at least as many.
    fn rounded(bytes: usize) -> usize;
}

impl Rounding for Mimalloc {
    #[inline]
    fn rounded(bytes: usize) -> usize {
        // SAFETY: a pure function of its argument.
        let class = unsafe { libmimalloc_sys::mi_good_size(bytes) };
        class.max(bytes)
    }
}

/// Counts what passes through another allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting<A>(A);

impl<A> Counting<A> {
    /// Counts what passes through `inner`.
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self(inner)
    }
}

/// What one thread asked of its allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New blocks, and blocks that grew or shrank.
    pub allocations: u64,
    /// Blocks given back.
    pub frees: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// Bytes of the process that passed through [`Counting`] and were not given back, with what
/// rounding to size classes adds.
#[must_use]
pub fn live_bytes() -> usize {
    LIVE_BYTES.0.load(Ordering::Relaxed)
}

/// Counts what this thread allocates in `f`.
///
/// # Panics
/// If the program's global allocator is not [`Counting`]: everything would look clean.
pub fn count_allocs<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    assert!(is_installed(), "the global allocator of this program does not count");
    let before = COUNTS.get();
    let result = f();
    let after = COUNTS.get();
    let counts = Counts {
        allocations: after.allocations - before.allocations,
        frees: after.frees - before.frees,
        bytes: after.bytes - before.bytes,
    };
    (result, counts)
}

/// Blocks that this thread allocates in `f` and does not give back in it: where the memory lies
/// that what `f` makes is made of.
///
/// # Panics
/// As [`count_allocs`].
pub fn blocks_of<R>(f: impl FnOnce() -> R) -> (R, Vec<Range<usize>>) {
    assert!(is_installed(), "the global allocator of this program does not count");
    RECORDING.set(true);
    let result = f();
    RECORDING.set(false);
    (result, BLOCKS.take())
}

/// Runs `f`, in which this thread must not allocate. It may free what was allocated before.
///
/// # Panics
/// After `f`, if it allocated: with the place of the first allocation. Also as [`count_allocs`].
pub fn deny_alloc<R>(f: impl FnOnce() -> R) -> R {
    let was_watching = WATCHING.replace(true);
    let (result, counts) = count_allocs(f);
    WATCHING.set(was_watching);
    let culprit = CULPRIT.take();
    if counts.allocations > 0 {
        let place = culprit.map_or_else(String::new, |trace| trace.to_string());
        panic!(
            "{} allocations of {} bytes where none may be; the first:\n{place}",
            counts.allocations, counts.bytes
        );
    }
    result
}

/// Whether this program counts.
#[must_use]
pub fn is_installed() -> bool {
    let watching = WATCHING.replace(false);
    let before = COUNTS.get();
    drop(std::hint::black_box(Box::new(0_u8)));
    let counts = COUNTS.get() != before;
    COUNTS.set(before);
    WATCHING.set(watching);
    counts
}

/// Written by every thread that allocates, so nothing that a core reads may lie beside it: two
/// cache lines, because processors fetch them in pairs.
#[repr(align(128))]
struct Alone(AtomicUsize);

static LIVE_BYTES: Alone = Alone(AtomicUsize::new(0));

const _: () = assert!(size_of::<Alone>() == align_of::<Alone>(), "nothing else fits beside it");

thread_local! {
    static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { allocations: 0, frees: 0, bytes: 0 }) };
    /// Whether the next allocation is to be remembered.
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    /// Whether blocks are remembered.
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    /// Those that are.
    static BLOCKS: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
    /// Where the first unwanted allocation was made.
    static CULPRIT: RefCell<Option<Backtrace>> = const { RefCell::new(None) };
}

/// Notes an allocation of this thread, whoever made it.
#[inline]
pub(crate) fn note_alloc(bytes: usize) {
    let mut counts = COUNTS.get();
    counts.allocations += 1;
    counts.bytes += bytes as u64;
    COUNTS.set(counts);
    if WATCHING.get() {
        remember_culprit();
    }
}

/// Notes that this thread gave a block back.
#[inline]
pub(crate) fn note_free() {
    let mut counts = COUNTS.get();
    counts.frees += 1;
    COUNTS.set(counts);
}

/// Changes the list of blocks, which allocates itself.
#[cold]
fn record(change: impl FnOnce(&mut Vec<Range<usize>>)) {
    RECORDING.set(false);
    BLOCKS.with(|blocks| change(&mut blocks.borrow_mut()));
    RECORDING.set(true);
}

#[inline]
fn came(block: *mut u8, bytes: usize) {
    if RECORDING.get() {
        record(|blocks| blocks.push(block.addr()..block.addr() + bytes));
    }
}

#[inline]
fn went(block: *mut u8) {
    if RECORDING.get() {
        record(|blocks| blocks.retain(|known| known.start != block.addr()));
    }
}

#[cold]
fn remember_culprit() {
    WATCHING.set(false); // Only the first is wanted, and taking a trace allocates.
    let counts = COUNTS.get();
    let trace = Backtrace::force_capture();
    CULPRIT.with(|culprit| *culprit.borrow_mut() = Some(trace));
    COUNTS.set(counts);
}

impl<A: GlobalAlloc> Counting<A> {
    /// As `realloc`, but the old block is wiped: mimalloc would not, where it moves one.
    ///
    /// # Safety
    /// As that of [`GlobalAlloc::realloc`].
    #[cold]
    unsafe fn move_and_wipe(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size, rounded up to the alignment, is a
        // layout's.
        let fresh = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the layout has a size, as the caller promises.
        let moved = unsafe { self.0.alloc(fresh) };
        if !moved.is_null() {
            // SAFETY: both have that many bytes, and a new block is nobody else's.
            unsafe { block.copy_to_nonoverlapping(moved, layout.size().min(new_size)) };
            // SAFETY: the block has that many bytes, and the caller gives them up.
            unsafe { block.write_bytes(0, layout.size()) };
            // SAFETY: the caller got it with this layout.
            unsafe { self.0.dealloc(block, layout) };
        }
        moved
    }
}

// SAFETY: every request goes unchanged to `A`, which keeps the allocator's promises.
unsafe impl<A: GlobalAlloc + Rounding> GlobalAlloc for Counting<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_alloc(layout.size());
        LIVE_BYTES.0.fetch_add(A::rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout`.
        let block = unsafe { self.0.alloc(layout) };
        came(block, layout.size());
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_alloc(layout.size());
        LIVE_BYTES.0.fetch_add(A::rounded(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout`.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        came(block, layout.size());
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note_free();
        went(block);
        LIVE_BYTES.0.fetch_sub(A::rounded(layout.size()), Ordering::Relaxed);
        if forget::is_on() {
            // SAFETY: the block has that many bytes, and the caller gives them up.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        // SAFETY: the caller's promise about `block` and `layout`.
        unsafe { self.0.dealloc(block, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note_alloc(new_size);
        LIVE_BYTES.0.fetch_add(A::rounded(new_size), Ordering::Relaxed);
        LIVE_BYTES.0.fetch_sub(A::rounded(layout.size()), Ordering::Relaxed);
        let moved = if forget::is_on() {
            // SAFETY: the caller's promise about `block`, `layout` and `new_size`.
            unsafe { self.move_and_wipe(block, layout, new_size) }
        } else {
            // SAFETY: the caller's promise about `block`, `layout` and `new_size`.
            unsafe { self.0.realloc(block, layout, new_size) }
        };
        went(block);
        came(moved, new_size);
        moved
    }
}

// SAFETY: mimalloc returns blocks of at least the size and alignment asked for, or null.
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power-of-two alignment are valid.
        unsafe { libmimalloc_sys::mi_malloc_aligned(layout.size(), layout.align()) }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power-of-two alignment are valid.
        unsafe { libmimalloc_sys::mi_zalloc_aligned(layout.size(), layout.align()) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller got `block` from here.
        unsafe { libmimalloc_sys::mi_free(block.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the caller got `block` from here.
        unsafe { libmimalloc_sys::mi_realloc_aligned(block.cast(), new_size, align) }.cast()
    }
}
