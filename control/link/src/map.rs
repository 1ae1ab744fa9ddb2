//! The few calls to the kernel that the rest of the crate needs: an eventfd and a shared mapping of
//! a file.

#![cfg_attr(loom, allow(dead_code, reason = "a model has no files"))]
#![allow(clippy::disallowed_types, reason = "counter pages are the files of this crate")]
#![allow(unsafe_code, reason = "the one place of this crate that calls the kernel directly")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crate::primitive::AtomicU64;

/// A new eventfd: counter zero, non-blocking, closed on exec.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes an eventfd readable.
pub(crate) fn event_add(event: BorrowedFd<'_>) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the kernel reads the eight bytes of `one`. The only failure is a counter at its
    // maximum, and then the sleeper is being woken already.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Empties an eventfd; returns whether anything was in it.
pub(crate) fn event_take(event: BorrowedFd<'_>) -> bool {
    let mut count = [0_u8; 8];
    // SAFETY: the kernel writes at most the eight bytes of `count`.
    let read = unsafe { libc::read(event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    read > 0
}

/// Takes the lock of a file for as long as the file stays open; fails at once if another holds it.
pub(crate) fn lock_exclusively(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the first `bytes` of a file room in its file system; its length does not shrink.
pub(crate) fn reserve_file(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: no memory is passed.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the mapping may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Words of a file, shared with every process that maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

impl Mapping {
    /// Maps the first `words` words of `file`, which must be that long and stay so: reading beyond
    /// its end is a fault.
    pub(crate) fn new(file: &File, words: usize, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let bytes = words * size_of::<u64>();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(raw.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, words })
    }

    /// Words in memory that nobody else maps: zeros that take no room until they are written.
    pub(crate) fn anonymous(words: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(raw.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `new` or `anonymous` mapped this many words, page-aligned, and they stay mapped
        // while `self` lives. Everyone uses them as atomics; in a read-only mapping `page` never
        // stores.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; references to its words borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

// SAFETY: a mapping belongs to the process, not to a thread, and its words are atomics.
unsafe impl Send for Mapping {}

// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Waits until `fd` can be read.
#[cfg(test)]
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure, as the count says.
    let result = unsafe { libc::poll(&raw mut poll, 1, -1) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
