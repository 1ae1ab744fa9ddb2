//! How another thread wakes a core that waits in its ring: an event counter that the ring reads.
//!
//! The other side adds to the counter (`write` of eight bytes); the driver's wait ends. This file
//! must not know who wakes or why.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::op::give_up;
use crate::sys;

/// The read side of a wake-up counter, with the memory the kernel reads the count into.
#[derive(Debug)]
pub(crate) struct Wake {
    fd: OwnedFd,
    count: Box<u64>,
}

impl Wake {
    /// Uses `fd`, an eventfd, or makes one.
    ///
    /// # Errors
    /// What making it says, usually no descriptors left.
    pub(crate) fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        let fd = match fd {
            Some(fd) => fd,
            None => sys::event_fd()?,
        };
        Ok(Self { fd, count: Box::new(0) })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Gives the memory up for good, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        give_up(std::mem::take(&mut self.count));
    }

    /// Where the kernel writes the count.
    pub(crate) fn count(&mut self) -> *mut u8 {
        let count: *mut u64 = &mut *self.count;
        count.cast()
    }
}
