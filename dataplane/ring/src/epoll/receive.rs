//! Datagrams on their way in: one call takes what waits in a socket, each super-buffer into a
//! buffer of its own.
//!
//! Buffers stand ready in a lane. The kernel fills them from the front; what it filled goes to the
//! shard, and free buffers take the places at the next turn. All sockets of a bank share a lane,
//! since a call is over before the next begins. This file must not know what the datagrams mean.

#![allow(unsafe_code, reason = "this file hands addresses of buffers to the kernel")]

use std::io;
use std::os::fd::BorrowedFd;

use ringway_alloc::{Arena, Buf};

use crate::ready::ReadyQueue;
use crate::sys;
use crate::udp;

/// Buffers that stand ready, and the most that one call takes. Of full super-buffers that is 2 MiB,
/// about a second-level cache; of single datagrams enough that the call itself is a few per cent.
pub(super) const LANE_MAX: usize = 32;

/// Buffers that stand ready for one bank of sockets. Places from `first` on have a buffer; the
/// header and vector of such a place describe it to the kernel.
pub(super) struct Lane {
    arena: Arena,
    first: usize,
    buffers: Box<[Option<Buf>]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
}

impl Lane {
    /// A lane for half of the buffers, so that a second socket of the bank finds some, and for at
    /// most `depth`.
    pub(super) fn new(arena: Arena, depth: usize) -> Self {
        let places = (arena.count() / 2).clamp(1, depth);
        let header = libc::mmsghdr { msg_hdr: sys::empty_message(), msg_len: 0 };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            arena,
            first: places,
            buffers: (0..places).map(|_| None).collect(),
            headers: vec![header; places].into_boxed_slice(),
            vectors: vec![vector; places].into_boxed_slice(),
        }
    }

    /// Puts free buffers into empty places; whether there is any to receive into.
    pub(super) fn refill(&mut self) -> bool {
        while self.first > 0 {
            let Some(mut buf) = self.arena.take() else { break };
            self.first -= 1;
            let vector = &mut self.vectors[self.first];
            self.headers[self.first].msg_hdr = udp::lay_out(&mut buf, vector);
            self.buffers[self.first] = Some(buf);
        }
        self.first < self.buffers.len()
    }

    /// Takes what waits in a socket, the one with the number `place`, as far as buffers stand
    /// ready; how many were filled.
    ///
    /// # Errors
    /// What the kernel says; that nothing waits is none.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        place: usize,
        ready: &mut ReadyQueue,
    ) -> io::Result<usize> {
        if self.first == self.buffers.len() {
            return Ok(0);
        }
        // SAFETY: every place from `first` on has a buffer, which its header and vector describe;
        // both stay where they are.
        let count = match unsafe { sys::receive_many(socket, &mut self.headers[self.first..]) } {
            Ok(count) => count,
            Err(error) if is_nothing(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        for at in self.first..self.first + count {
            let Some(mut buf) = self.buffers[at].take() else {
                unreachable!("the kernel filled a place without a buffer")
            };
            let header = &self.headers[at];
            let used = udp::note(&mut buf, &header.msg_hdr, header.msg_len);
            ready.push_outside(place, buf, used);
        }
        self.first += count;
        Ok(count)
    }

    /// Whether the last receive filled every buffer that stood ready.
    pub(super) fn is_used_up(&self) -> bool {
        self.first == self.buffers.len()
    }

    /// Buffers nobody uses.
    pub(super) fn free(&self) -> usize {
        self.arena.free() + self.buffers.len() - self.first
    }

    /// Buffers in use.
    pub(super) fn used(&self) -> usize {
        self.arena.count() - self.free()
    }

    /// Gives the buffers that stand ready back.
    pub(super) fn close(&mut self) {
        self.buffers.iter_mut().for_each(|place| *place = None);
        self.first = self.buffers.len();
    }
}

/// Whether there was just nothing to do.
pub(super) fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
