//! A bounded ring with one sender and one receiver.
//!
//! Neither end ever waits: a full ring gives the value back, an empty one gives nothing. Waking a
//! receiver that sleeps is [`crate::wake`]'s business. The ring must not know what it carries.

#![allow(unsafe_code, reason = "slots are handed from one thread to the other without a lock")]

use std::fmt;
use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::primitive::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

/// Makes a ring of `capacity` slots and returns its two ends.
///
/// # Panics
/// If `capacity` is not a power of two: cursors wrap by a mask.
#[must_use]
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two(), "capacity {capacity} is not a power of two");
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        sender_gone: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
        mask: capacity - 1,
        slots: (0..capacity + 2 * margin::<T>())
            .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
            .collect(),
    });
    let sender = Sender { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

/// The end that puts in. May move to another thread; cannot be cloned.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// Own cursor; at least the published one, and equal to it between calls unless an iterator
    /// panicked.
    tail: usize,
    /// The receiver's cursor when last looked at.
    head_seen: usize,
}

impl<T> Sender<T> {
    /// Puts `value` in, visible to the receiver at once.
    ///
    /// # Errors
    /// Gives `value` back if the ring is full or the receiver is gone ([`Sender::is_closed`] tells
    /// which).
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.is_closed() || self.room() == 0 {
            return Err(value);
        }
        self.write(value);
        self.publish();
        Ok(())
    }

    /// Puts in what `items` yields while there is room, and shows it to the receiver with one store
    /// at the end. Takes nothing from the iterator that it cannot put in. Returns how many.
    pub fn push_batch(&mut self, items: impl IntoIterator<Item = T>) -> usize {
        if self.is_closed() {
            return 0;
        }
        let mut items = items.into_iter();
        let mut count = 0;
        while self.room() > 0 {
            let Some(item) = items.next() else { break };
            self.write(item);
            count += 1;
        }
        self.publish();
        count
    }

    /// Slots that can be filled now; more may become free at any time.
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Items the receiver has not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.load(Ordering::Acquire))
    }

    /// Whether the receiver has taken everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }

    /// Whether the receiver is gone: nothing put in will ever be taken out.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }

    /// Free slots as far as known; looks at the receiver's cursor only when there seem to be none.
    #[inline]
    fn room(&mut self) -> usize {
        let known = self.capacity() - self.tail.wrapping_sub(self.head_seen);
        if known > 0 {
            return known;
        }
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    /// Fills the slot at the own cursor. Only with room.
    #[inline]
    fn write(&mut self, value: T) {
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: `room` saw `head` within one lap, so the receiver has left this slot, and it
            // does not come back before `publish`. The sender is not `Clone`, so nobody else
            // writes.
            unsafe { slot.write(MaybeUninit::new(value)) };
        });
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    fn publish(&self) {
        self.shared.tail.store(self.tail, Ordering::Release);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.publish();
        self.shared.sender_gone.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} of {})", self.len(), self.capacity())
    }
}

/// The end that takes out. May move to another thread; cannot be cloned.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Own cursor; at least the published one, and equal to it between calls unless a [`Drain`] was
    /// leaked.
    head: usize,
    /// The sender's cursor when last looked at.
    tail_seen: usize,
}

impl<T> Receiver<T> {
    /// Takes the oldest item out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let value = self.read()?;
        self.publish();
        Some(value)
    }

    /// Takes out at most `max` items, oldest first. Their slots become free together when the
    /// iterator is dropped; items it did not yield stay in the ring.
    pub const fn drain(&mut self, max: usize) -> Drain<'_, T> {
        Drain { receiver: self, left: max }
    }

    /// Items that can be taken now; more may arrive at any time.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether there is nothing to take. Looks at the sender's cursor itself, so it is fit for the
    /// second look before sleeping.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.mask + 1
    }

    /// Whether the sender is gone. What it put in can still be taken: nothing more comes when this
    /// was true *before* a `pop` that returned `None`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.sender_gone.load(Ordering::Acquire)
    }

    /// Moves the value at the own cursor out and passes it, without telling the sender yet.
    #[inline]
    fn read(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let value = self.shared.slot(self.head).with(|slot| {
            // SAFETY: `tail` was seen beyond this slot, so the sender filled it and leaves it alone
            // until `publish`.
            unsafe { slot.read() }
        });
        self.head = self.head.wrapping_add(1);
        // SAFETY: the sender wrote a value there; passing the cursor makes this the only time it is
        // moved out.
        Some(unsafe { value.assume_init() })
    }

    #[inline]
    fn publish(&self) {
        self.shared.head.store(self.head, Ordering::Release);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // First the flag, so that the sender stops; then what is there. What slips in between is
        // dropped with `Shared`.
        self.shared.receiver_gone.store(true, Ordering::Release);
        self.drain(usize::MAX).for_each(drop);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({} of {})", self.len(), self.capacity())
    }
}

/// Items on their way out; see [`Receiver::drain`].
#[derive(Debug)]
pub struct Drain<'a, T> {
    receiver: &'a mut Receiver<T>,
    left: usize,
}

impl<T> Iterator for Drain<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        self.receiver.read()
    }
}

impl<T> Drop for Drain<'_, T> {
    fn drop(&mut self) {
        self.receiver.publish();
    }
}

struct Shared<T> {
    /// Items ever taken out, wrapping. Written by the receiver.
    head: CachePadded<AtomicUsize>,
    /// Items ever put in, wrapping. Written by the sender.
    tail: CachePadded<AtomicUsize>,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
    /// Wraps a cursor.
    mask: usize,
    /// With a margin on either side that stays empty.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

/// Slots that are left empty on either side of those in use, so that no line of a slot is a line of
/// whatever lies beside the ring: a cache line, and the one that processors fetch with it.
const fn margin<T>() -> usize {
    const LINES_BYTES: usize = align_of::<CachePadded<u8>>();
    match size_of::<T>() {
        _ if cfg!(loom) => 0, // models have no caches, and every slot costs them time
        0 => 0,
        bytes => LINES_BYTES.div_ceil(bytes),
    }
}

// SAFETY: a slot is touched by the sender while it lies in [tail, head + capacity) and by the
// receiver while it lies in [head, tail); `Sender` and `Receiver` keep to that with the orderings
// of the crate's head comment. Values move from one thread to the other, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, cursor: usize) -> &UnsafeCell<MaybeUninit<T>> {
        let at = margin::<T>() + (cursor & self.mask);
        debug_assert!(at < self.slots.len());
        // SAFETY: there are a margin, `mask + 1` slots and another margin, and `at` is one of those
        // between.
        unsafe { self.slots.get_unchecked(at) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Acquire);
        let mut cursor = self.head.load(Ordering::Acquire);
        while cursor != tail {
            self.slot(cursor).with_mut(|slot| {
                // SAFETY: `&mut self` shows that both ends are gone.
                let slot = unsafe { &mut *slot };
                // SAFETY: slots in [head, tail) hold values which nobody moved out.
                unsafe { slot.assume_init_drop() };
            });
            cursor = cursor.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "spsc_tests.rs"]
mod tests;
