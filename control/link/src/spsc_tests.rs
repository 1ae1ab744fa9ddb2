//! The ring against a queue that is obviously right, and under two real threads.

#![allow(clippy::disallowed_methods, reason = "a leaked iterator is what is tested")]

use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::thread;

#[derive(Clone, Debug)]
enum Operation {
    Push(u8),
    PushBatch(Vec<u8>),
    Pop,
    Drain { max: usize, yielded: usize },
    Leak { max: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        any::<u8>().prop_map(Operation::Push),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Operation::PushBatch),
        Just(Operation::Pop),
        (0..12_usize, 0..12_usize).prop_map(|(max, yielded)| Operation::Drain { max, yielded }),
        (0..3_usize).prop_map(|max| Operation::Leak { max }),
    ]
}

proptest! {
    #[test]
    fn the_ring_behaves_like_a_bounded_queue(
        operations in proptest::collection::vec(operation(), 0..200),
        exponent in 0..4_u32,
    ) {
        let capacity = 1 << exponent;
        // Boxed, so that a value dropped twice or never is seen by the allocator's checks too.
        let (mut tx, mut rx) = channel::<Box<u8>>(capacity);
        let mut oracle = VecDeque::new();
        // Slots of items taken by a leaked drain stay occupied until the next one is returned.
        let mut unreturned = 0;
        for operation in operations {
            let room = capacity - oracle.len() - unreturned;
            match operation {
                Operation::Push(value) => {
                    prop_assert_eq!(tx.push(Box::new(value)).is_ok(), room > 0);
                    if room > 0 { oracle.push_back(value) }
                }
                Operation::PushBatch(values) => {
                    let fits = values.len().min(room);
                    prop_assert_eq!(tx.push_batch(values.iter().copied().map(Box::new)), fits);
                    oracle.extend(&values[..fits]);
                }
                Operation::Pop => {
                    let expected = oracle.pop_front();
                    prop_assert_eq!(rx.pop().as_deref().copied(), expected);
                    if expected.is_some() { unreturned = 0 }
                }
                Operation::Drain { max, yielded } => {
                    let mut drain = rx.drain(max);
                    for number in 0..yielded {
                        let expected = if number < max { oracle.pop_front() } else { None };
                        prop_assert_eq!(drain.next().as_deref().copied(), expected);
                    }
                    drop(drain);
                    unreturned = 0;
                }
                Operation::Leak { max } => {
                    let mut drain = rx.drain(max);
                    while drain.next().is_some() {
                        oracle.pop_front();
                        unreturned += 1;
                    }
                    std::mem::forget(drain);
                }
            }
            prop_assert_eq!(rx.len(), oracle.len());
            prop_assert_eq!(rx.is_empty(), oracle.is_empty());
            prop_assert_eq!(tx.len(), oracle.len() + unreturned);
            prop_assert_eq!(tx.free(), capacity - oracle.len() - unreturned);
        }
        prop_assert!(!tx.is_closed() && !rx.is_closed());
    }
}

#[test]
#[should_panic(expected = "not a power of two")]
fn a_capacity_that_is_no_power_of_two_is_refused() {
    drop(channel::<u8>(12));
}

/// Counts how often it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn items_left_in_the_ring_are_dropped_once_whichever_end_goes_first() {
    for receiver_first in [true, false] {
        let drops = AtomicU32::new(0);
        let (mut tx, mut rx) = channel(8);
        for _ in 0..6 {
            assert!(tx.push(Counted(&drops)).is_ok());
        }
        drop(rx.pop());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        if receiver_first {
            drop(rx);
            assert_eq!(drops.load(Ordering::Relaxed), 6);
            drop(tx);
        } else {
            drop(tx);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            drop(rx);
        }
        assert_eq!(drops.load(Ordering::Relaxed), 6);
    }
}

#[test]
fn a_sender_learns_that_the_receiver_is_gone_and_keeps_its_value() {
    let (mut tx, rx) = channel(2);
    assert!(!tx.is_closed());
    drop(rx);
    assert!(tx.is_closed());
    assert_eq!(tx.push(7), Err(7));
    assert_eq!(tx.push_batch([1, 2]), 0);
}

#[test]
fn a_receiver_gets_everything_that_was_put_in_before_the_sender_went() {
    let (mut tx, mut rx) = channel(2);
    assert_eq!(tx.push(7), Ok(()));
    drop(tx);
    assert!(rx.is_closed());
    assert_eq!(rx.pop(), Some(7));
    assert_eq!(rx.pop(), None);
}

#[test]
fn a_batch_takes_no_more_from_its_iterator_than_fits() {
    let (mut tx, _rx) = channel(4);
    let taken = Cell::new(0);
    let items = (0..10).inspect(|_| taken.set(taken.get() + 1));
    assert_eq!(tx.push_batch(items), 4);
    assert_eq!(taken.get(), 4);
}

#[test]
fn an_iterator_that_panics_loses_nothing_that_it_yielded() {
    let (mut tx, mut rx) = channel(8);
    let batch = std::panic::AssertUnwindSafe(|| {
        tx.push_batch((0..4).inspect(|item| assert!(*item < 2, "stops here")))
    });
    assert!(std::panic::catch_unwind(batch).is_err());
    assert_eq!(tx.push(9), Ok(()));
    assert_eq!(rx.drain(usize::MAX).collect::<Vec<_>>(), [0, 1, 9]);
}

#[test]
fn items_cross_threads_in_order_and_whole() {
    const ITEMS: u64 = 300_000;
    let (mut tx, mut rx) = channel::<(u64, Box<u64>)>(64);
    let reader = move || {
        let mut expected = 0;
        while expected < ITEMS {
            for (number, boxed) in rx.drain(1 + (expected % 40) as usize) {
                assert_eq!((number, *boxed), (expected, !expected));
                expected += 1;
            }
            if let Some((number, boxed)) = rx.pop() {
                assert_eq!((number, *boxed), (expected, !expected));
                expected += 1;
            }
        }
    };
    thread::scope(|threads| {
        threads.spawn(reader);
        let mut next = 0;
        while next < ITEMS {
            let end = ITEMS.min(next + 1 + next % 50);
            let sent = tx.push_batch((next..end).map(|number| (number, Box::new(!number))));
            next += sent as u64;
            if sent == 0 {
                thread::yield_now();
            }
        }
    });
}

/// Bytes that processors move between caches as one: a line and its neighbour.
const LINE: usize = 128;

fn line_of<T>(thing: &T) -> usize {
    std::ptr::from_ref(thing).addr() / LINE
}

fn lines_of_a_ring<T: Send>(capacity: usize) {
    let (tx, _rx) = channel::<T>(capacity);
    let shared = &*tx.shared;
    // Written by the receiver, by the sender, and by nobody before the end.
    let apart = [line_of(&shared.head), line_of(&shared.tail), line_of(&shared.mask)];
    let [head, tail, rest] = apart;
    assert!(head != tail && tail != rest && head != rest, "{apart:?}");
    assert_eq!(line_of(&shared.slots), rest, "what both read is on a line that neither writes");
    assert_eq!(align_of_val(shared), LINE);
    assert_eq!(size_of_val(shared) % LINE, 0, "nothing of a stranger is on its lines");
    if size_of::<T>() == 0 {
        return;
    }
    let (first, last) = (shared.slot(0), shared.slot(capacity - 1));
    let begin = shared.slots.as_ptr().addr();
    let end = begin + size_of_val(&*shared.slots);
    let (first, last) = (std::ptr::from_ref(first).addr(), std::ptr::from_ref(last).addr());
    assert!(first - begin >= LINE, "the first slot has a stranger's line");
    assert!(end - (last + size_of::<T>()) >= LINE, "the last slot has a stranger's line");
}

#[test]
fn neither_end_writes_a_cache_line_that_the_other_or_a_stranger_needs() {
    for capacity in [1, 2, 64, 1024] {
        lines_of_a_ring::<u8>(capacity);
        lines_of_a_ring::<Box<u64>>(capacity);
        lines_of_a_ring::<[u64; 12]>(capacity);
        lines_of_a_ring::<[u64; 40]>(capacity);
        lines_of_a_ring::<()>(capacity);
    }
}
