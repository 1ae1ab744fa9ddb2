//! Writes to the TUN between the shard and the kernel: the boxes that circulate, and the vectors
//! that describe one to the kernel.
//!
//! This file must not know how a write is submitted.

#![allow(unsafe_code, reason = "this file computes addresses inside held buffers")]

use crate::driver::{TUN_PIECES_MAX, TunWrite};

/// Room for the vectors of any write: its head and its pieces.
pub(crate) type Vectors = [libc::iovec; 1 + TUN_PIECES_MAX];

/// No vectors yet.
pub(crate) const NO_VECTORS: Vectors =
    [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 1 + TUN_PIECES_MAX];

/// Writes that nobody uses.
#[derive(Debug)]
pub(crate) struct SpareWrites(
    #[expect(clippy::vec_box, reason = "the kernel holds addresses into a write while it moves")]
    Vec<Box<TunWrite>>,
);

impl SpareWrites {
    /// Makes all writes that will ever circulate.
    pub(crate) fn new(count: u32) -> Self {
        Self((0..count).map(|_| TunWrite::new()).collect())
    }

    /// Writes that can be reserved.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn reserve(&mut self) -> Option<Box<TunWrite>> {
        self.0.pop()
    }

    /// Takes a write back, done or not.
    pub(crate) fn give_back(&mut self, mut write: Box<TunWrite>) {
        write.clear();
        // Within the capacity reserved at construction: this never allocates.
        self.0.push(write);
    }
}

/// Lists head and pieces of a write; how many vectors that took. They are valid for as long as the
/// write is neither changed nor moved out of its box.
pub(crate) fn gather(write: &TunWrite, vectors: &mut Vectors) -> usize {
    let mut count = 0;
    let head = write.head();
    if !head.is_empty() {
        let base: *const u8 = head.as_ptr();
        vectors[0] = libc::iovec { iov_base: base.cast_mut().cast(), iov_len: head.len() };
        count = 1;
    }
    let mut buffer = None;
    for piece in write.pieces() {
        if let Some(hold) = &piece.hold {
            buffer = Some(hold.address());
        }
        let Some(base) = buffer else { unreachable!("the first piece of a buffer holds it") };
        // SAFETY: `TunWrite::attach` checked that the piece lies inside the buffer that `hold`
        // keeps.
        let start = unsafe { base.add(piece.start as usize) };
        vectors[count] =
            libc::iovec { iov_base: start.as_ptr().cast(), iov_len: piece.len as usize };
        count += 1;
    }
    count
}
