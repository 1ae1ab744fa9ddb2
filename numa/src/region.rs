//! A mapping with an owner: 2 MiB aligned, on a chosen node, with transparent huge pages.

#![allow(unsafe_code, reason = "this file is the one place that maps memory")]

use std::io;
use std::ptr::NonNull;

/// Alignment and granularity of a region, in bytes: one huge page of x86-64 and of aarch64 with 4
/// KiB pages.
pub const REGION_ALIGN: usize = 2 << 20;

/// Anonymous memory that is unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

impl Region {
    /// Maps at least `len` bytes, zeroed.
    ///
    /// # Errors
    /// What `mmap` says, usually out of memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(REGION_ALIGN);
        let span = len + REGION_ALIGN;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                span,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = raw as usize;
        let aligned = start.next_multiple_of(REGION_ALIGN);
        let head = aligned - start;
        let tail = span - head - len;
        if head > 0 {
            // SAFETY: the head of the mapping made above; nothing refers to it.
            unsafe { libc::munmap(raw, head) };
        }
        if tail > 0 {
            // SAFETY: the tail of the mapping made above; nothing refers to it.
            unsafe { libc::munmap((aligned + len) as *mut libc::c_void, tail) };
        }
        // SAFETY: advice on the mapping made above; refusal is harmless.
        unsafe { libc::madvise(aligned as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(aligned as *mut u8).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, len })
    }

    /// First byte of the mapping; valid for [`Region::len`] bytes while the region lives.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped, a multiple of [`REGION_ALIGN`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` kept; owners of bytes in it hold the region alive.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
