//! Memory that forgets: for a gateway that must not know afterwards who was there.
//!
//! Memory that is given back keeps its bytes until somebody else uses them, and so does the stack
//! below whoever runs. Once a program [begins](begin) to forget, [`crate::guard::Counting`] wipes
//! every block that is given back, and threads wipe from time to time the stack below them and what
//! their lists and queues no longer hold. It costs nothing before: a load of a flag per block that
//! is given back. What is wiped is not known here, nor why.

#![allow(unsafe_code, reason = "overwrites what is no value any more")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of stack that [`scrub_stack`] wipes: deeper than what a turn or a tick calls.
pub const STACK_BYTES: usize = 128 << 10;

static FORGETS: AtomicBool = AtomicBool::new(false);

/// From now on blocks are wiped when they are given back. There is no way back: what was not wiped
/// in between could not be found again.
pub fn begin() {
    FORGETS.store(true, Ordering::Relaxed);
}

/// Whether the program forgets.
#[inline]
#[must_use]
pub fn is_on() -> bool {
    FORGETS.load(Ordering::Relaxed)
}

/// Wipes the stack of this thread below the caller, if the program forgets.
#[inline]
pub fn scrub_stack() {
    if is_on() {
        wipe_stack();
    }
}

/// Wipes the room of a list beyond its end: what was taken out of it still lies there.
pub fn wipe_list<T>(list: &mut Vec<T>) {
    const { assert!(size_of::<T>() > 0, "what has no bytes has endless room") };
    list.spare_capacity_mut().fill_with(MaybeUninit::zeroed);
}

/// As [`wipe_list`]. Moves what waits to where the memory begins; allocates nothing.
pub fn wipe_queue<T>(queue: &mut VecDeque<T>) {
    let mut list = Vec::from(mem::take(queue));
    wipe_list(&mut list);
    *queue = list.into();
}

/// Replaces a value, and wipes what no part of the new one covers. Returns the old one.
pub fn wipe_value<T>(place: &mut T, fresh: T) -> T {
    // Nothing here can unwind, and zeros are not read as a value.
    // SAFETY: the place has a value, which is not used there again.
    let old = unsafe { std::ptr::read(place) };
    // SAFETY: the place is ours alone and as long as one value.
    unsafe { std::ptr::write_bytes(place, 0, 1) };
    black_box(&raw mut *place);
    // SAFETY: as above; what is overwritten is no value and need not be dropped.
    unsafe { std::ptr::write(place, fresh) };
    old
}

#[cold]
#[inline(never)]
fn wipe_stack() {
    // What was called before lay where this array lies.
    let mut below = [0_u8; STACK_BYTES];
    black_box(&mut below);
}
