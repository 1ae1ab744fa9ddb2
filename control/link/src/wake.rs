//! Ending a sleep, and not paying for it when nobody sleeps.
//!
//! A thread that is about to wait says so in a flag, looks at its queues once more, and waits on an
//! eventfd together with everything else it waits for: a core polls it with its ring, the control
//! thread with tokio's `AsyncFd`. Whoever put something into one of its queues (control, other
//! cores) calls [`Waker::wake`], which writes the eventfd only if the flag is up: a busy receiver
//! costs its senders one fence and one load.
//!
//! The waiting side, in order: [`Sleeper::prepare`], look at every queue, wait if all are empty,
//! [`Sleeper::awake`], and [`Sleeper::drain`] if the descriptor was what ended the wait. This
//! module must not know the queues.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::map::{event_add, event_fd, event_take};
use crate::primitive::{AtomicBool, Ordering, fence};

/// Makes a sleeper and the waker that ends its sleep.
///
/// # Errors
/// What `eventfd` says: out of descriptors or memory.
pub fn pair() -> io::Result<(Waker, Sleeper)> {
    let shared = Arc::new(Shared { flag: CachePadded::new(SleepFlag::new()), event: event_fd()? });
    Ok((Waker { shared: Arc::clone(&shared) }, Sleeper { shared }))
}

/// Ends the sleep of one [`Sleeper`]. Any thread may hold a clone.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    /// Wakes the sleeper if it said it sleeps. To be called after the work was put into its queue.
    /// Returns whether a system call was needed.
    #[inline]
    pub fn wake(&self) -> bool {
        let needed = self.shared.flag.take_sleeping();
        if needed {
            self.ring();
        }
        needed
    }

    /// Ends the sleep, or the next one, whatever the flag says; for a shutdown.
    pub fn wake_always(&self) {
        self.shared.flag.take_sleeping();
        self.ring();
    }

    fn ring(&self) {
        event_add(self.shared.event.as_fd());
    }
}

/// The eventfd that is written, for a filter that lets this and no other write through.
impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

/// The side that waits. Its descriptor becomes readable when a waker ended the sleep; it is
/// non-blocking, so poll it (a ring: multishot POLL_ADD; tokio: `AsyncFd`) instead of reading it.
#[derive(Debug)]
pub struct Sleeper {
    shared: Arc<Shared>,
}

impl Sleeper {
    /// Says that this thread is about to wait. Look at every queue afterwards, and wait only if all
    /// are empty.
    #[inline]
    pub fn prepare(&self) {
        self.shared.flag.announce();
    }

    /// Says that this thread is awake, whether or not it waited. Returns whether a waker had
    /// lowered the flag before.
    #[inline]
    pub fn awake(&self) -> bool {
        !self.shared.flag.retract()
    }

    /// Empties the eventfd; to be called whenever the wait reported it readable, and only then. A
    /// waker may write it some time after it lowered the flag, so a wake-up can turn up one sleep
    /// late and end that one early. Returns whether anything was in it.
    pub fn drain(&self) -> bool {
        event_take(self.shared.event.as_fd())
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl AsRawFd for Sleeper {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

/// Whether a thread said that it sleeps. Useful by itself where the wake-up is something else than
/// an eventfd, such as a message to the ring of another core.
#[derive(Debug)]
pub struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// Awake.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The sleeper's side: raises the flag before the last look at the queues.
    #[inline]
    pub fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper's side: lowers the flag. Returns whether it was still up, that is, whether
    /// nobody woke us.
    #[inline]
    pub fn retract(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }

    /// The waker's side, after putting something into a queue: whether the sleeper has to be woken,
    /// by this caller and nobody else.
    #[inline]
    pub fn take_sleeping(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Shared {
    /// Written with every sleep, and looked at by all that may end it. Sleepers are made one after
    /// the other; without room around it their flags would lie on one line.
    flag: CachePadded<SleepFlag>,
    event: OwnedFd,
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::spsc;
    use std::thread;

    fn wait(sleeper: &Sleeper) {
        crate::map::wait_readable(sleeper.as_fd()).unwrap();
    }

    #[test]
    fn no_two_sleepers_have_flags_on_one_cache_line() {
        const LINE: usize = 128;
        let pairs: Vec<_> = (0..16).map(|_| pair().unwrap()).collect();
        let flags = pairs.iter().map(|(waker, _)| &waker.shared.flag);
        for flag in flags {
            assert_eq!(std::ptr::from_ref(flag).addr() % LINE, 0);
            assert_eq!(size_of_val(flag), LINE);
        }
    }

    #[test]
    fn a_waker_leaves_a_thread_that_is_awake_alone() {
        let (waker, sleeper) = pair().unwrap();
        assert!(!waker.wake());
        assert!(!sleeper.drain());
    }

    #[test]
    fn only_the_first_of_several_wakers_makes_the_call() {
        let (waker, sleeper) = pair().unwrap();
        sleeper.prepare();
        assert!(waker.wake());
        assert!(!waker.clone().wake());
        wait(&sleeper);
        assert!(sleeper.awake());
        assert!(sleeper.drain());
        assert!(!sleeper.drain());
    }

    #[test]
    fn a_sleep_that_was_called_off_needs_no_waker() {
        let (waker, sleeper) = pair().unwrap();
        sleeper.prepare();
        assert!(!sleeper.awake());
        assert!(!waker.wake());
        assert!(!sleeper.drain());
    }

    #[test]
    fn a_shutdown_wakes_whether_or_not_the_thread_sleeps() {
        let (waker, sleeper) = pair().unwrap();
        waker.wake_always();
        sleeper.prepare();
        wait(&sleeper);
        assert!(sleeper.drain());
    }

    #[test]
    fn no_item_is_left_behind_by_a_sleeping_thread() {
        const ITEMS: u32 = 50_000;
        let (mut tx, mut rx) = spsc::channel::<u32>(8);
        let (waker, sleeper) = pair().unwrap();
        let reader = move || {
            let mut expected = 0;
            while expected < ITEMS {
                if let Some(item) = rx.pop() {
                    assert_eq!(item, expected);
                    expected += 1;
                    continue;
                }
                sleeper.prepare();
                if rx.is_empty() {
                    wait(&sleeper);
                    sleeper.drain();
                }
                sleeper.awake();
            }
        };
        thread::scope(|threads| {
            threads.spawn(reader);
            for item in 0..ITEMS {
                while tx.push(item).is_err() {
                    thread::yield_now();
                }
                waker.wake();
            }
        });
    }
}
