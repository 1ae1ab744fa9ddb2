//! Packet buffers of one size in one region.
//!
//! A [`Buf`] is the only owner of a buffer's bytes. A [`Hold`] keeps the buffer from being reused while the kernel still
//! reads it. The buffer is free again when its `Buf` and all its `Hold`s are gone; that is the only way back, so a
//! buffer cannot be forgotten or freed twice. Nothing here is `Send`: an arena belongs to the core that made it.

#![allow(unsafe_code, reason = "this file turns raw memory into owned handles")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

use ringway_numa::Region;

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

    fn release(&self, index: u32) {
        let holders = &self.holders[index as usize];
        holders.set(holders.get() - 1);
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
        Ok(Self::new(Region::new(count as usize * buffer_bytes)?, count, buffer_bytes))
    }

    /// Takes a free buffer, if there is one. Its bytes are whatever was left in them.
    #[must_use]
    pub fn take(&self) -> Option<Buf> {
        let index = self.0.free.borrow_mut().pop()?;
        Some(self.own(index))
    }

    /// Takes the number of a free buffer out of the arena, to lend its bytes to the kernel (a provided-buffer ring).
    /// It comes back with [`Arena::adopt`].
    #[must_use]
    pub fn lend(&self) -> Option<u32> {
        let index = self.0.free.borrow_mut().pop()?;
        self.0.holders[index as usize].set(u32::MAX);
        Some(index)
    }

    /// Takes back a lent buffer, now as its only owner.
    ///
    /// # Panics
    /// If the buffer was not lent: the kernel named a buffer it does not have.
    #[must_use]
    pub fn adopt(&self, index: u32) -> Buf {
        assert_eq!(self.0.holders[index as usize].get(), u32::MAX, "buffer {index} was not lent");
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

    /// Buffers that can be taken now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.free.borrow().len()
    }

    fn own(&self, index: u32) -> Buf {
        self.0.holders[index as usize].set(1);
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
        // SAFETY: the bytes lie in the region, which the `Rc` keeps mapped, and this `Buf` is their only owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.arena.buffer_bytes) }
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive. Holds give no access to bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.arena.buffer_bytes) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.arena.release(self.index);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({})", self.index)
    }
}

/// Keeps a buffer out of the free list; gives no access to its bytes.
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
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.arena.release(self.index);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.index)
    }
}
