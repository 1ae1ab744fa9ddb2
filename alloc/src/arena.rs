//! Packet buffers of one size in one region.
//!
//! A [`Buf`] is the only owner of a buffer's bytes. A [`Hold`] keeps the buffer from being reused
//! while the kernel still reads it. The buffer is free again when its `Buf` and all its `Hold`s are
//! gone; that is the only way back, so a buffer cannot be forgotten or freed twice. Nothing here is
//! `Send`: an arena belongs to the core that made it.

#![allow(unsafe_code, reason = "this file turns raw memory into owned handles")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use ringway_numa::{Region, RegionOptions};

/// What a [`Buf`] adds to the count of its buffer; a [`Hold`] adds one. So a count below it means
/// that nobody can write.
const OWNER: u32 = 1 << 16;

/// The count of a buffer that is lent to the kernel.
const LENT: u32 = u32::MAX;

struct Inner {
    region: Region,
    buffer_bytes: usize,
    free: RefCell<Vec<u32>>,
    holders: Box<[Cell<u32>]>,
}

impl Inner {
    fn start(&self, index: u32) -> NonNull<u8> {
        assert!((index as usize) < self.holders.len());
        // SAFETY: `index` is below the number of buffers, all of which lie inside the region.
        unsafe { self.region.base().add(index as usize * self.buffer_bytes) }
    }

    fn release(&self, index: u32, share: u32) {
        let holders = &self.holders[index as usize];
        holders.set(holders.get() - share);
        if holders.get() == 0 {
            // Within the capacity reserved at construction: this never allocates.
            self.free.borrow_mut().push(index);
        }
    }
}

/// A fixed number of buffers of one size. Cloning gives another handle to the same arena.
#[derive(Clone)]
pub struct Arena(Rc<Inner>);

impl Arena {
    /// Divides `region` into `count` buffers of `buffer_bytes` each.
    ///
    /// # Panics
    /// If the region is too small: sizes are computed by the caller, never taken from outside.
    #[must_use]
    pub fn new(region: Region, count: u32, buffer_bytes: usize) -> Self {
        assert!(buffer_bytes > 0);
        assert!(region.len() / buffer_bytes >= count as usize);
        let free = (0..count).rev().collect();
        let holders = (0..count).map(|_| Cell::new(0)).collect();
        Self(Rc::new(Inner { region, buffer_bytes, free: RefCell::new(free), holders }))
    }

    /// Maps a region of the right size and divides it.
    ///
    /// # Errors
    /// What mapping says.
    pub fn with_capacity(count: u32, buffer_bytes: usize) -> io::Result<Self> {
        Self::with_options(count, buffer_bytes, &RegionOptions::default())
    }

    /// Maps a region of the right size as told (node, kind of pages) and divides it.
    ///
    /// # Errors
    /// What mapping says.
    pub fn with_options(
        count: u32,
        buffer_bytes: usize,
        options: &RegionOptions,
    ) -> io::Result<Self> {
        let bytes = (count as usize)
            .checked_mul(buffer_bytes)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self::new(Region::with_options(bytes, options)?, count, buffer_bytes))
    }

    /// Takes a free buffer, if there is one. Its bytes are whatever was left in them.
    #[must_use]
    pub fn take(&self) -> Option<Buf> {
        let index = self.0.free.borrow_mut().pop()?;
        Some(self.own(index))
    }

    /// Takes the number of a free buffer out of the arena, to lend its bytes to the kernel (a
    /// provided-buffer ring). It comes back with [`Arena::adopt`].
    #[must_use]
    pub fn lend(&self) -> Option<u32> {
        let index = self.0.free.borrow_mut().pop()?;
        self.0.holders[index as usize].set(LENT);
        Some(index)
    }

    /// Takes back a lent buffer, now as its only owner.
    ///
    /// # Panics
    /// If the buffer was not lent: the kernel named a buffer it does not have.
    #[must_use]
    pub fn adopt(&self, index: u32) -> Buf {
        assert_eq!(self.0.holders[index as usize].get(), LENT, "buffer {index} was not lent");
        self.own(index)
    }

    /// First byte of a buffer, for filling provided-buffer rings and registering memory.
    #[must_use]
    pub fn address(&self, index: u32) -> NonNull<u8> {
        self.0.start(index)
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffer_bytes
    }

    /// Number of buffers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.holders.len()
    }

    /// The mapping the buffers lie in, to ask where it is and of what pages.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.0.region
    }

    /// Buffers that can be taken now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.free.borrow().len()
    }

    fn own(&self, index: u32) -> Buf {
        self.0.holders[index as usize].set(OWNER);
        Buf { arena: Rc::clone(&self.0), index, start: self.0.start(index) }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} of {} free)", self.free(), self.count())
    }
}

/// The only owner of one buffer's bytes. Not `Clone`.
pub struct Buf {
    arena: Rc<Inner>,
    index: u32,
    start: NonNull<u8>,
}

impl Buf {
    /// Its number in the arena.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Keeps the buffer from being reused while an operation refers to its bytes.
    #[must_use]
    pub fn hold(&self) -> Hold {
        let holders = &self.arena.holders[self.index as usize];
        holders.set(holders.get() + 1);
        Hold { arena: Rc::clone(&self.arena), index: self.index }
    }
}

impl Deref for Buf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes lie in the region, which the `Rc` keeps mapped, and this `Buf` is their
        // only owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.arena.buffer_bytes) }
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive. Holds give
        // access only while there is no `Buf`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.arena.buffer_bytes) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.arena.release(self.index, OWNER);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({})", self.index)
    }
}

/// Keeps a buffer out of the free list; its bytes can be read once their owner has gone.
pub struct Hold {
    arena: Rc<Inner>,
    index: u32,
}

impl Hold {
    /// The number of the held buffer.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// First byte of the held buffer, for building an I/O vector.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.arena.start(self.index)
    }

    /// The buffer's bytes, if its [`Buf`] is gone and so nobody can write them any more.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.arena.holders[self.index as usize].get() >= OWNER {
            return None;
        }
        let start = self.arena.start(self.index);
        // SAFETY: the bytes lie in the region, which the `Rc` keeps mapped. No `Buf` owns them, and
        // none can be made while this hold keeps the buffer out of the free list.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), self.arena.buffer_bytes) })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.arena.release(self.index, 1);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.index)
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
