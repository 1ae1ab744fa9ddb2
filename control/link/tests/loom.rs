//! Loom models of the link. Run with: `RUSTFLAGS="--cfg loom" cargo test -p ringway-link --release
//! --test loom --target-dir target/loom` Without `--cfg loom` there is nothing here.

#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use ringway_link::page::PageWriter;
use ringway_link::wake::{self, SleepFlag};
use ringway_link::{handover, mesh, spsc};

/// Counts itself when dropped; its cell makes loom notice an access that is not ordered.
struct Item {
    value: loom::cell::UnsafeCell<usize>,
    drops: Arc<AtomicUsize>,
}

impl Item {
    fn new(value: usize, drops: &Arc<AtomicUsize>) -> Self {
        Self { value: loom::cell::UnsafeCell::new(value), drops: Arc::clone(drops) }
    }

    #[allow(unsafe_code, reason = "loom checks the access")]
    fn get(&self) -> usize {
        // SAFETY: loom fails the test if another thread writes at the same time.
        self.value.with(|value| unsafe { *value })
    }
}

impl Drop for Item {
    #[allow(unsafe_code, reason = "loom checks the access")]
    fn drop(&mut self) {
        // SAFETY: loom fails the test if another thread reads or writes at the same time.
        self.value.with_mut(|value| unsafe { *value = usize::MAX });
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_ring_delivers_in_order_while_wrapping() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(2);
        let drops = Arc::new(AtomicUsize::new(0));
        let items = Arc::clone(&drops);
        let sender = thread::spawn(move || {
            let mut pushed = 0;
            for value in 0..3 {
                if tx.push(Item::new(value, &items)).is_err() {
                    break;
                }
                pushed += 1;
            }
            pushed
        });
        let mut expected = 0;
        for _ in 0..3 {
            if let Some(item) = rx.pop() {
                assert_eq!(item.get(), expected);
                expected += 1;
            }
        }
        let pushed = sender.join().unwrap();
        while let Some(item) = rx.pop() {
            assert_eq!(item.get(), expected);
            expected += 1;
        }
        assert_eq!(expected, pushed);
        assert!(rx.is_closed());
    });
}

#[test]
fn batches_are_whole_on_the_other_side() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(2);
        let drops = Arc::new(AtomicUsize::new(0));
        let items = Arc::clone(&drops);
        let sender = thread::spawn(move || {
            let first = tx.push_batch((0..2).map(|value| Item::new(value, &items)));
            first + tx.push_batch((first..3).map(|value| Item::new(value, &items)))
        });
        let mut expected = 0;
        for item in rx.drain(2) {
            assert_eq!(item.get(), expected);
            expected += 1;
        }
        let pushed = sender.join().unwrap();
        for item in rx.drain(usize::MAX) {
            assert_eq!(item.get(), expected);
            expected += 1;
        }
        assert_eq!(expected, pushed);
    });
}

#[test]
fn every_item_is_dropped_once_when_both_ends_go_at_the_same_time() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(2);
        let drops = Arc::new(AtomicUsize::new(0));
        let items = Arc::clone(&drops);
        let sender = thread::spawn(move || {
            for value in 0..2 {
                drop(tx.push(Item::new(value, &items)));
            }
        });
        drop(rx.pop());
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_closed_ring_seen_before_an_empty_pop_is_finished() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(2);
        let sender = thread::spawn(move || tx.push(1).is_ok());
        let closed = rx.is_closed();
        let popped = rx.pop();
        if closed {
            assert_eq!(popped, Some(1));
        }
        assert!(sender.join().unwrap());
    });
}

#[test]
fn a_snapshot_is_whole_when_taken_and_free_of_readers_when_it_is_back() {
    loom::model(|| {
        let (mut giver, mut taker) = handover::pair();
        let drops = Arc::new(AtomicUsize::new(0));
        let core = thread::spawn(move || {
            let mut newest = 0;
            for _ in 0..2 {
                taker.refresh();
                if let Some(current) = taker.current() {
                    let current: &Item = current;
                    assert!(current.get() >= newest);
                    newest = current.get();
                }
            }
        });
        for value in 1..=2 {
            drop(giver.give(Box::new(Item::new(value, &drops))));
            drop(giver.collect());
        }
        core.join().unwrap();
        assert!(giver.is_closed());
        while giver.collect().is_some() {}
        drop(giver);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_reader_sees_one_publication_or_none() {
    loom::model(|| {
        let mut writer = PageWriter::new(2);
        let reader = writer.reader();
        let thread = thread::spawn(move || {
            for round in 1..=3 {
                writer.publish(&[round, round]);
            }
        });
        let mut out = [0; 2];
        if reader.read_once(&mut out) {
            assert_eq!(out[0], out[1]);
            assert!(out[0] > 0);
        }
        thread.join().unwrap();
        assert!(reader.read_once(&mut out));
        assert_eq!(out, [3, 3]);
    });
}

#[test]
fn a_sleeper_either_sees_the_item_or_is_woken() {
    loom::model(|| {
        let (mut tx, rx) = spsc::channel(2);
        let flag = Arc::new(SleepFlag::new());
        let waker = Arc::clone(&flag);
        let sender = thread::spawn(move || {
            tx.push(1).unwrap();
            waker.take_sleeping()
        });
        flag.announce();
        let would_sleep = rx.is_empty();
        let woken = sender.join().unwrap();
        assert!(!would_sleep || woken);
        assert_eq!(flag.retract(), !woken);
    });
}

#[test]
fn of_two_wakers_at_most_one_makes_the_call() {
    loom::model(|| {
        let flag = Arc::new(SleepFlag::new());
        flag.announce();
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let flag = Arc::clone(&flag);
                thread::spawn(move || flag.take_sleeping())
            })
            .collect();
        let calls = wakers.into_iter().map(|waker| waker.join().unwrap());
        assert_eq!(calls.filter(|called| *called).count(), 1);
    });
}

#[test]
fn a_sleeper_with_two_wakers_sees_every_item_or_is_woken() {
    loom::model(|| {
        let (waker, sleeper) = wake::pair().unwrap();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (mut tx, rx) = spsc::channel(1);
                let waker = waker.clone();
                let thread = thread::spawn(move || {
                    tx.push(1).unwrap();
                    waker.wake()
                });
                (thread, rx)
            })
            .collect();
        sleeper.prepare();
        let seen = threads.iter().filter(|(_, rx)| !rx.is_empty()).count();
        let calls =
            threads.into_iter().filter_map(|(thread, _)| thread.join().ok()?.then_some(())).count();
        // Whoever sleeps with an item unseen is woken, and by one of the two only.
        assert!(seen == 2 || calls == 1);
        assert!(calls <= 1);
        assert_eq!(sleeper.awake(), calls == 1);
        assert_eq!(sleeper.drain(), calls == 1);
    });
}

#[test]
fn a_parcel_crosses_and_its_box_comes_home() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (wakers, mut sleepers): (Vec<_>, Vec<_>) =
            (0..2).map(|_| wake::pair().unwrap()).unzip();
        let mut ports = mesh::ports::<Item>(2, 2);
        let (mut other, mut own) = (ports.pop().unwrap(), ports.pop().unwrap());
        own.set_wakers(&wakers);
        let sleeper = sleepers.pop().unwrap();
        let item = Item::new(7, &drops);
        let core = thread::spawn(move || {
            sleeper.prepare();
            let would_sleep = other.is_empty();
            let taken = other.pop();
            if let Some((from, item)) = taken {
                assert_eq!((from, item.get()), (0, 7));
                assert!(other.push_quietly(from, item).is_ok());
            }
            (would_sleep, sleeper, other)
        });
        assert!(own.push(1, item).is_ok());
        let woken = own.flush() == 1;
        let (would_sleep, sleeper, mut other) = core.join().unwrap();
        assert!(!would_sleep || woken);
        assert_eq!(sleeper.awake(), woken);
        let left = other.pop();
        let back = own.pop();
        assert_eq!(left.is_some(), back.is_none());
        drop((left, back));
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}
