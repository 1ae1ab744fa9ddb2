//! Packets of the TUN on their way in: one call each, for the kernel has none for several.
//!
//! This file must not know what the packets mean.

use std::io;
use std::os::fd::BorrowedFd;

use ringway_alloc::{Arena, Buf};

use super::receive::is_nothing;
use crate::ready::{INSIDE_START, ReadyQueue};
use crate::sys;

/// Packets or super-packets read in one turn: as many as datagrams are received at once.
const READS_MAX: usize = 32;

/// Reads of the TUN.
pub(super) struct Reads {
    arena: Arena,
    /// Taken for a read that found nothing.
    kept: Option<Buf>,
}

impl Reads {
    pub(super) const fn new(arena: Arena) -> Self {
        Self { arena, kept: None }
    }

    /// Whether there is a buffer to read into.
    pub(super) fn has_buffer(&self) -> bool {
        self.free() > 0
    }

    /// Reads what waits, up to the bound of a turn and as far as there are buffers; how many.
    ///
    /// # Errors
    /// What the kernel says; that nothing waits is none.
    pub(super) fn read(
        &mut self,
        tun: BorrowedFd<'_>,
        ready: &mut ReadyQueue,
    ) -> io::Result<usize> {
        for count in 0..READS_MAX {
            let Some(mut buf) = self.kept.take().or_else(|| self.arena.take()) else {
                return Ok(count);
            };
            match sys::read(tun, &mut buf[INSIDE_START..]) {
                Ok(len) => ready.push_inside(buf, len as u32),
                Err(error) => {
                    self.kept = Some(buf);
                    return if is_nothing(&error) { Ok(count) } else { Err(error) };
                }
            }
        }
        Ok(READS_MAX)
    }

    /// Buffers nobody uses.
    pub(super) fn free(&self) -> usize {
        self.arena.free() + usize::from(self.kept.is_some())
    }

    /// Buffers in use.
    pub(super) fn used(&self) -> usize {
        self.arena.count() - self.free()
    }

    /// Gives the buffer that stands ready back.
    pub(super) fn close(&mut self) {
        self.kept = None;
    }
}
