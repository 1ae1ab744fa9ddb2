//! Core to core: a ring for each ordered pair, and a way to end the other core's sleep.
//!
//! Each core holds one [`Port`]. It pushes to any other core without waiting, takes what others
//! pushed in turns, one source after the other, and once per turn of its loop [`Port::flush`] wakes
//! the cores that got something and said that they sleep. A core is woken by the sleeper that
//! control wakes it by, so it waits in one place for everything; several wakers per sleeper are
//! sound, because lowering the flag is a swap that only one of them wins.
//!
//! Looking for work reads the cursor of every other core: with 64 cores that is 63 loads per turn,
//! which stay in the own cache while nothing is pushed. Beside the rings there is one number that
//! all cores share and that only rises. This module must not know what crosses, nor what the
//! number says.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::primitive::{Arc, AtomicU64, Ordering};
use crate::spsc::{self, Receiver, Sender};
use crate::wake::Waker;

/// Makes the ports of `cores` cores, in their order. Each ring holds `capacity` items.
///
/// # Panics
/// If `capacity` is not a power of two.
#[must_use]
pub fn ports<T: Send>(cores: u16, capacity: usize) -> Vec<Port<T>> {
    let count = usize::from(cores);
    let mark = Arc::new(CachePadded::new(AtomicU64::new(0)));
    let mut ports: Vec<Port<T>> = (0..cores)
        .map(|core| {
            let lines = (0..count).map(|_| CachePadded::new(None)).collect();
            Port { core, lines, next: 0, mark: Arc::clone(&mark) }
        })
        .collect();
    for low in 0..count {
        for high in low + 1..count {
            let (to_high, from_low) = spsc::channel(capacity);
            let (to_low, from_high) = spsc::channel(capacity);
            *ports[low].lines[high] = Some(Line::new(to_high, from_high));
            *ports[high].lines[low] = Some(Line::new(to_low, from_low));
        }
    }
    ports
}

/// One core's ends of the rings between it and every other core. May move to another thread; cannot
/// be cloned.
pub struct Port<T> {
    core: u16,
    /// By core; there is none to itself. They hold cursors that this core alone writes, but all
    /// ports are made by one thread: the room around each keeps two cores off one cache line.
    lines: Box<[CachePadded<Option<Line<T>>>]>,
    /// Whose turn it is to be taken from.
    next: usize,
    /// The same for all ports.
    mark: Arc<CachePadded<AtomicU64>>,
}

/// Both ways between this core and one other.
struct Line<T> {
    to: Sender<T>,
    from: Receiver<T>,
    waker: Option<Waker>,
    /// Something was pushed since the last flush.
    pushed: bool,
}

impl<T> Line<T> {
    const fn new(to: Sender<T>, from: Receiver<T>) -> Self {
        Self { to, from, waker: None, pushed: false }
    }
}

impl<T> Port<T> {
    /// How to wake each core, in their order; the own one is not used. Without this nobody is
    /// woken: right where all cores turn in one thread.
    pub fn set_wakers(&mut self, wakers: &[Waker]) {
        for (line, waker) in self.lines.iter_mut().zip(wakers) {
            if let Some(line) = &mut **line {
                line.waker = Some(waker.clone());
            }
        }
    }

    /// By what other cores are woken.
    pub fn wakers(&self) -> impl Iterator<Item = &Waker> {
        self.lines.iter().filter_map(|line| line.as_ref()?.waker.as_ref())
    }

    /// The core that holds this port.
    #[must_use]
    pub const fn core(&self) -> u16 {
        self.core
    }

    /// How many cores there are, this one included.
    #[must_use]
    pub const fn cores(&self) -> u16 {
        // As many as `ports` was told, which was a `u16`.
        self.lines.len() as u16
    }

    /// Gives `item` to another core. It is seen at once by a core that is awake; one that sleeps is
    /// woken with the next flush.
    ///
    /// # Errors
    /// Gives `item` back if the ring is full, if that core has gone, or if there is none of that
    /// number but the own one.
    #[inline]
    pub fn push(&mut self, to: u16, item: T) -> Result<(), T> {
        let Some(line) = self.line(to) else { return Err(item) };
        line.to.push(item)?;
        line.pushed = true;
        Ok(())
    }

    /// As [`Port::push`], but not worth waking anybody for.
    ///
    /// # Errors
    /// As [`Port::push`].
    #[inline]
    pub fn push_quietly(&mut self, to: u16, item: T) -> Result<(), T> {
        let Some(line) = self.line(to) else { return Err(item) };
        line.to.push(item)
    }

    /// Takes the next item and says which core it came from: one of each core in turn, and of each
    /// in its order.
    #[inline]
    pub fn pop(&mut self) -> Option<(u16, T)> {
        let count = self.lines.len();
        for _ in 0..count {
            let from = self.next;
            self.next = if from + 1 == count { 0 } else { from + 1 };
            if let Some(line) = &mut *self.lines[from]
                && let Some(item) = line.from.pop()
            {
                return Some((from as u16, item));
            }
        }
        None
    }

    /// Whether there is nothing to take. Looks at the others' cursors themselves, so it is fit for
    /// the second look before sleeping.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lines.iter().filter_map(|line| line.as_ref()).all(|line| line.from.is_empty())
    }

    /// Wakes every core that was pushed to since the last flush and said that it sleeps. Returns
    /// how many system calls that took.
    pub fn flush(&mut self) -> usize {
        let mut woken = 0;
        for line in self.lines.iter_mut().filter_map(|line| line.as_mut()) {
            if std::mem::replace(&mut line.pushed, false)
                && let Some(waker) = &line.waker
            {
                woken += usize::from(waker.wake());
            }
        }
        woken
    }

    /// Raises the number that all cores share, unless it is as high already. Every core that reads
    /// it next pays for a transfer between caches, so this is nothing for every turn.
    pub fn raise(&self, mark: u64) {
        // The number alone says something: nothing else is ordered by it.
        self.mark.fetch_max(mark, Ordering::Relaxed);
    }

    /// The highest number that any core has raised the shared one to; 0 at first.
    #[must_use]
    #[inline]
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }

    #[inline]
    fn line(&mut self, to: u16) -> Option<&mut Line<T>> {
        self.lines.get_mut(usize::from(to))?.as_mut()
    }
}

impl<T> fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({} of {})", self.core, self.lines.len())
    }
}

#[cfg(all(test, not(loom)))]
#[path = "mesh_tests.rs"]
mod tests;
