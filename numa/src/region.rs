//! A mapping with an owner: 2 MiB aligned, on a chosen node, with huge pages where there are any.
//!
//! What was asked for and what was given can differ (a node without memory left, no huge pages
//! reserved), so a region reports what it measured. This module must not know what lies in it.

#![allow(unsafe_code, reason = "this file is the one place that maps memory")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Alignment and granularity of a region, in bytes: one huge page of x86-64 and of aarch64 with 4
/// KiB pages.
pub const REGION_ALIGN: usize = 2 << 20;

/// How a region is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionOptions {
    /// Node the memory should be on; `None` leaves it to the first touch.
    pub node: Option<u32>,
    /// Fail rather than take memory of another node.
    pub strict: bool,
    /// Pages wanted.
    pub pages: Pages,
    /// Take all memory now instead of at first touch, so that no page fault meets the packet path.
    pub prefault: bool,
}

/// Kind of pages behind a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Ordinary pages which the kernel is advised to merge into huge ones.
    #[default]
    Transparent,
    /// Ordinary pages, and the kernel is asked to leave them so.
    Small,
    /// Huge pages that were reserved with `vm.nr_hugepages`; transparent ones if there are too few.
    Reserved,
}

/// Bytes all regions of the process have mapped.
#[must_use]
pub fn mapped_bytes() -> usize {
    MAPPED_BYTES.load(Ordering::Relaxed)
}

static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Anonymous memory that is unmapped when dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    pages: Pages,
}

impl Region {
    /// Maps at least `len` bytes, zeroed, with the default options.
    ///
    /// # Errors
    /// What `mmap` says, usually out of memory.
    pub fn new(len: usize) -> io::Result<Self> {
        Self::with_options(len, &RegionOptions::default())
    }

    /// Maps at least `len` bytes, zeroed.
    ///
    /// # Errors
    /// What `mmap` says, usually out of memory; with `strict` also if the node is not there, and
    /// with `strict` and `prefault` if it has not enough.
    pub fn with_options(len: usize, options: &RegionOptions) -> io::Result<Self> {
        let len = len
            .max(1)
            .checked_next_multiple_of(REGION_ALIGN)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        if options.pages == Pages::Reserved
            && let Ok(region) = Self::reserved(len, options)
        {
            return Ok(region);
        }
        let region = Self::ordinary(len, options.pages == Pages::Small)?;
        region.place(options)?;
        if options.prefault {
            region.prefault()?;
        }
        Ok(region)
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

    /// The kind of pages it got.
    #[must_use]
    pub const fn pages(&self) -> Pages {
        self.pages
    }

    /// The node the memory is on, as the kernel says of its first, middle and last page, which are
    /// touched by this. `None` if they are on different nodes or the kernel does not tell.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        let node = self.node_at(0)?;
        let same = |offset| self.node_at(offset) == Some(node);
        (same(self.len / 2) && same(self.len - 1)).then_some(node)
    }

    /// Ordinary pages, aligned by hand and advised to become huge, or to stay `small`.
    fn ordinary(len: usize, small: bool) -> io::Result<Self> {
        let span = len
            .checked_add(REGION_ALIGN)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let start = map(span, libc::MAP_NORESERVE)?.as_ptr() as usize;
        let aligned = start.next_multiple_of(REGION_ALIGN);
        let head = aligned - start;
        let tail = span - head - len;
        if head > 0 {
            // SAFETY: the head of the mapping made above; nothing refers to it.
            unsafe { libc::munmap(start as *mut libc::c_void, head) };
        }
        if tail > 0 {
            // SAFETY: the tail of the mapping made above; nothing refers to it.
            unsafe { libc::munmap((aligned + len) as *mut libc::c_void, tail) };
        }
        let (pages, advice) = match small {
            true => (Pages::Small, libc::MADV_NOHUGEPAGE),
            false => (Pages::Transparent, libc::MADV_HUGEPAGE),
        };
        // SAFETY: advice on the mapping made above; refusal is harmless.
        unsafe { libc::madvise(aligned as *mut libc::c_void, len, advice) };
        let base = NonNull::new(aligned as *mut u8).ok_or_else(io::Error::last_os_error)?;
        Ok(Self::own(base, len, pages))
    }

    /// Huge pages, all of them taken now: a missing one found later would be a fatal signal.
    fn reserved(len: usize, options: &RegionOptions) -> io::Result<Self> {
        let base = map(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
        let region = Self::own(base, len, Pages::Reserved);
        region.place(options)?;
        region.advise(libc::MADV_POPULATE_WRITE)?;
        Ok(region)
    }

    fn own(base: NonNull<u8>, len: usize, pages: Pages) -> Self {
        MAPPED_BYTES.fetch_add(len, Ordering::Relaxed);
        // A process that locks its memory means its secrets; packet memory is large and has none.
        // SAFETY: the mapping just made, whole; nothing in it changes by this.
        unsafe { libc::munlock(base.as_ptr().cast(), len) };
        Self { base, len, pages }
    }

    /// Asks for the node. Without `strict` a refusal (no such node, no NUMA in the kernel) is fine:
    /// [`Region::node`] tells where the memory is.
    fn place(&self, options: &RegionOptions) -> io::Result<()> {
        let Some(node) = options.node else { return Ok(()) };
        let mut mask = [0_u64; NODES_MAX as usize / 64];
        let Some(word) = mask.get_mut(node as usize / 64) else {
            let no_such_node = io::Error::from_raw_os_error(libc::EINVAL);
            return if options.strict { Err(no_such_node) } else { Ok(()) };
        };
        *word = 1 << (node % 64);
        let policy = if options.strict { libc::MPOL_BIND } else { libc::MPOL_PREFERRED };
        // SAFETY: a policy for exactly this mapping; the kernel reads `mask` only during the call.
        // It counts one bit less than it is told.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.base.as_ptr(),
                self.len,
                policy,
                mask.as_ptr(),
                libc::c_ulong::from(NODES_MAX) + 1,
                0,
            )
        };
        if result != 0 && options.strict {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn prefault(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            // Before Linux 5.14.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                for offset in (0..self.len).step_by(SMALLEST_PAGE_BYTES) {
                    // SAFETY: within the mapping.
                    let byte = unsafe { self.base.add(offset) };
                    // SAFETY: ours alone as yet, and zero already: this changes nothing.
                    unsafe { byte.write_volatile(0) };
                }
                Ok(())
            }
            result => result,
        }
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: our own mapping; the advice given here does not change its content.
        let result = unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn node_at(&self, offset: usize) -> Option<u32> {
        let mut node: libc::c_int = -1;
        // SAFETY: the kernel writes one number to `node`; the address is only looked up.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut node,
                std::ptr::null_mut::<libc::c_ulong>(),
                0,
                self.base.as_ptr().wrapping_add(offset),
                MPOL_F_NODE | MPOL_F_ADDR,
            )
        };
        if result == 0 { u32::try_from(node).ok() } else { None }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        MAPPED_BYTES.fetch_sub(self.len, Ordering::Relaxed);
        // SAFETY: exactly the mapping that `with_options` kept; owners of bytes in it hold the
        // region alive.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Nodes a mask can name, as many as the kernel supports at most.
const NODES_MAX: u32 = 1024;

/// Flags of `get_mempolicy` (uapi/linux/mempolicy.h): tell the node, of an address.
const MPOL_F_NODE: libc::c_ulong = 1;
const MPOL_F_ADDR: libc::c_ulong = 2;

const SMALLEST_PAGE_BYTES: usize = 4096;

fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
    // exists.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(raw.cast()).ok_or_else(io::Error::last_os_error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn bytes(region: &mut Region) -> &mut [u8] {
        // SAFETY: the whole mapping, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(region.base.as_ptr(), region.len) }
    }

    /// The first node this process may use.
    fn node() -> u32 {
        crate::memory::allowed_nodes().as_slice()[0]
    }

    #[test]
    fn a_region_is_zeroed_aligned_and_whole_pages_long() {
        for len in [0, 1, REGION_ALIGN, REGION_ALIGN + 1] {
            let mut region = Region::new(len).unwrap();
            assert!(region.len() >= len.max(1));
            assert_eq!(region.len() % REGION_ALIGN, 0);
            assert_eq!(region.base().as_ptr() as usize % REGION_ALIGN, 0);
            assert!(bytes(&mut region).iter().all(|byte| *byte == 0));
            bytes(&mut region).fill(0xff);
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        for len in [usize::MAX, usize::MAX - REGION_ALIGN, usize::MAX / 2] {
            assert!(Region::new(len).is_err());
        }
    }

    #[test]
    fn memory_is_measured_to_be_on_the_node_it_was_bound_to() {
        let node = node();
        for strict in [false, true] {
            for prefault in [false, true] {
                let options =
                    RegionOptions { node: Some(node), strict, prefault, ..Default::default() };
                let region = Region::with_options(3 * REGION_ALIGN, &options).unwrap();
                assert_eq!(region.node(), Some(node));
            }
        }
    }

    #[test]
    fn a_node_that_is_not_there_matters_only_to_who_insists() {
        for node in [NODES_MAX - 1, NODES_MAX, u32::MAX] {
            let mut options = RegionOptions { node: Some(node), ..Default::default() };
            let region = Region::with_options(1, &options).unwrap();
            assert_ne!(region.node(), Some(node));
            options.strict = true;
            assert!(Region::with_options(1, &options).is_err());
        }
    }

    #[test]
    fn without_reserved_huge_pages_the_region_says_that_it_has_transparent_ones() {
        // More than any machine that runs tests has reserved, but only as addresses.
        let options = RegionOptions { pages: Pages::Reserved, ..Default::default() };
        let region = Region::with_options(1 << 40, &options).unwrap();
        assert_eq!(region.pages(), Pages::Transparent);
        let mut small = Region::with_options(1, &options).unwrap();
        bytes(&mut small).fill(1);
    }

    #[test]
    fn mapped_bytes_count_this_region_while_it_lives() {
        // Larger than what all other tests hold together, except the one of 1 TiB.
        const BYTES: usize = 1 << 42;
        let region = Region::new(BYTES).unwrap();
        assert!(mapped_bytes() >= BYTES);
        drop(region);
        assert!(mapped_bytes() < BYTES);
    }
}
