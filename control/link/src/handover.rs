//! One immutable snapshot goes to a core, and the one it replaces comes back.
//!
//! The control thread builds a snapshot and gives it; the core takes it between two turns and uses
//! it through a plain reference until the next one; the old one comes back and is freed by the
//! thread that allocated it. A snapshot that the core has not taken yet is simply replaced: the
//! last one given wins.
//!
//! This module must not know what a snapshot holds.

#![allow(unsafe_code, reason = "owned pointers change hands through atomic words")]

use std::fmt;
use std::ptr;

use crate::primitive::{Arc, AtomicBool, AtomicPtr, Ordering};

/// Makes a connection with nothing in it.
#[must_use]
pub fn pair<T: Send>() -> (Giver<T>, Taker<T>) {
    let shared = Arc::new(Shared {
        incoming: Slot::empty(),
        returned: Slot::empty(),
        last: Slot::empty(),
        taker_gone: AtomicBool::new(false),
    });
    (Giver { shared: Arc::clone(&shared) }, Taker { shared, current: None })
}

/// The end of the thread that makes snapshots and frees them.
pub struct Giver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Giver<T> {
    /// Offers `snapshot` to the core. Returns the one offered before if the core never took it.
    pub fn give(&mut self, snapshot: Box<T>) -> Option<Box<T>> {
        self.shared.incoming.swap(Some(snapshot))
    }

    /// The snapshot the core has stopped using, if one came back. Call it regularly: the core takes
    /// no new snapshot while an old one waits here.
    pub fn collect(&mut self) -> Option<Box<T>> {
        self.shared.returned.take().or_else(|| self.shared.last.take())
    }

    /// Whether the core is gone. What it used last is then still to be collected.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.taker_gone.load(Ordering::Acquire)
    }
}

impl<T> fmt::Debug for Giver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Giver(offered: {})", self.shared.incoming.is_full())
    }
}

/// The core's end.
pub struct Taker<T> {
    shared: Arc<Shared<T>>,
    current: Option<Box<T>>,
}

impl<T> Taker<T> {
    /// Switches to the offered snapshot, if there is one and the previous old one has been
    /// collected. Returns whether it switched. Two plain loads when there is nothing to do.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if !self.shared.incoming.is_full() || self.shared.returned.is_full() {
            return false;
        }
        let Some(new) = self.shared.incoming.take() else { return false };
        if let Some(old) = self.current.replace(new) {
            // The slot was empty above and only this side fills it, so nothing is pushed out.
            self.shared.returned.put(old);
        }
        true
    }

    /// The snapshot in use; `None` until the first one was taken.
    #[must_use]
    #[inline]
    pub fn current(&self) -> Option<&T> {
        self.current.as_deref()
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        if let Some(current) = self.current.take() {
            self.shared.last.put(current);
        }
        self.shared.taker_gone.store(true, Ordering::Release);
    }
}

impl<T: fmt::Debug> fmt::Debug for Taker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taker").field(&self.current).finish()
    }
}

struct Shared<T> {
    /// Filled by the giver, emptied by either side.
    incoming: Slot<T>,
    /// Filled by the taker, emptied by the giver.
    returned: Slot<T>,
    /// Filled once, when the taker goes.
    last: Slot<T>,
    taker_gone: AtomicBool,
}

/// An atomic `Option<Box<T>>`.
struct Slot<T>(AtomicPtr<T>);

// SAFETY: a slot holds a box or nothing, and each operation moves the whole box; so sharing a slot
// between threads is sending boxes, which `T: Send` allows.
unsafe impl<T: Send> Sync for Slot<T> {}

// SAFETY: as above.
unsafe impl<T: Send> Send for Slot<T> {}

impl<T> Slot<T> {
    fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    fn is_full(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_null()
    }

    fn swap(&self, value: Option<Box<T>>) -> Option<Box<T>> {
        let old = self.0.swap(into_raw(value), Ordering::AcqRel);
        // SAFETY: only `into_raw` puts pointers into the slot, and the swap took this one out: it
        // is ours alone.
        unsafe { from_raw(old) }
    }

    fn take(&self) -> Option<Box<T>> {
        if self.is_full() { self.swap(None) } else { None }
    }

    fn put(&self, value: Box<T>) {
        let pushed_out = self.swap(Some(value));
        debug_assert!(pushed_out.is_none());
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.swap(None));
    }
}

fn into_raw<T>(value: Option<Box<T>>) -> *mut T {
    value.map_or(ptr::null_mut(), Box::into_raw)
}

/// # Safety
/// `raw` is null or came from [`into_raw`], and is used once.
unsafe fn from_raw<T>(raw: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's promise.
    (!raw.is_null()).then(|| unsafe { Box::from_raw(raw) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_core_has_no_snapshot_until_one_is_given() {
        let (mut giver, mut taker) = pair::<u32>();
        assert!(!taker.refresh());
        assert_eq!(taker.current(), None);
        assert!(giver.give(Box::new(1)).is_none());
        assert_eq!(taker.current(), None);
        assert!(taker.refresh());
        assert_eq!(taker.current(), Some(&1));
        assert_eq!(giver.collect(), None);
    }

    #[test]
    fn the_last_snapshot_given_wins_and_the_others_come_back() {
        let (mut giver, mut taker) = pair();
        assert!(giver.give(Box::new(1)).is_none());
        assert_eq!(giver.give(Box::new(2)).as_deref(), Some(&1));
        taker.refresh();
        assert_eq!(taker.current(), Some(&2));
        giver.give(Box::new(3));
        taker.refresh();
        assert_eq!(giver.collect().as_deref(), Some(&2));
        assert_eq!(taker.current(), Some(&3));
    }

    #[test]
    fn a_core_keeps_its_snapshot_until_the_old_one_was_collected() {
        let (mut giver, mut taker) = pair();
        giver.give(Box::new(1));
        taker.refresh();
        giver.give(Box::new(2));
        taker.refresh();
        giver.give(Box::new(3));
        assert!(!taker.refresh());
        assert_eq!(taker.current(), Some(&2));
        assert_eq!(giver.collect().as_deref(), Some(&1));
        assert!(taker.refresh());
        assert_eq!(taker.current(), Some(&3));
    }

    #[test]
    fn what_a_stopped_core_used_last_comes_back_too() {
        let (mut giver, mut taker) = pair();
        giver.give(Box::new(1));
        taker.refresh();
        giver.give(Box::new(2));
        taker.refresh();
        giver.give(Box::new(3));
        drop(taker);
        assert!(giver.is_closed());
        assert_eq!(giver.collect().as_deref(), Some(&1));
        assert_eq!(giver.collect().as_deref(), Some(&2));
        assert_eq!(giver.collect(), None);
    }

    #[test]
    fn every_snapshot_is_whole_and_freed_by_its_maker() {
        const ROUNDS: u64 = 20_000;
        let (mut giver, mut taker) = pair::<[u64; 8]>();
        let core = move || {
            let mut newest = 0;
            while newest < ROUNDS {
                taker.refresh();
                let Some(current) = taker.current() else { continue };
                assert!(current.iter().all(|word| *word == current[0]));
                assert!(current[0] >= newest);
                newest = current[0];
            }
        };
        let mut freed = 0;
        thread::scope(|threads| {
            threads.spawn(core);
            for round in 1..=ROUNDS {
                freed += u64::from(giver.give(Box::new([round; 8])).is_some());
                freed += u64::from(giver.collect().is_some());
            }
            while !giver.is_closed() {
                freed += u64::from(giver.collect().is_some());
                thread::yield_now();
            }
        });
        while giver.collect().is_some() {
            freed += 1;
        }
        assert_eq!(freed, ROUNDS);
    }
}
