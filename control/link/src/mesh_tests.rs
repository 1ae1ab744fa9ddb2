//! Ports against a table of queues, and under real threads that sleep.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::wake;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::thread;

#[derive(Clone, Debug)]
enum Operation {
    Push { from: u16, to: u16 },
    Pop { core: u16 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..4_u16, 0..5_u16).prop_map(|(from, to)| Operation::Push { from, to }),
        (0..4_u16).prop_map(|core| Operation::Pop { core }),
    ]
}

proptest! {
    #[test]
    fn the_mesh_behaves_like_a_table_of_bounded_queues(
        operations in proptest::collection::vec(operation(), 0..300),
        cores in 1..4_u16,
    ) {
        let mut ports = ports::<Box<usize>>(cores, 4);
        let mut queues = vec![VecDeque::new(); 16];
        for (number, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Push { from, to } if from < cores => {
                    let queue = &mut queues[usize::from(from * 4 + to.min(3))];
                    let fits = to < cores && to != from && queue.len() < 4;
                    let pushed = ports[usize::from(from)].push(to, Box::new(number));
                    prop_assert_eq!(pushed.is_ok(), fits);
                    if fits { queue.push_back(number) }
                }
                Operation::Pop { core } if core < cores => {
                    let to = usize::from(core);
                    let waiting = (0..4).any(|from| !queues[from * 4 + to].is_empty());
                    prop_assert_eq!(ports[usize::from(core)].is_empty(), !waiting);
                    match ports[usize::from(core)].pop() {
                        Some((from, item)) => {
                            let queue = &mut queues[usize::from(from * 4 + core)];
                            prop_assert_eq!(queue.pop_front(), Some(*item));
                        }
                        None => prop_assert!(!waiting),
                    }
                }
                Operation::Push { .. } | Operation::Pop { .. } => {}
            }
        }
    }
}

#[test]
fn a_busy_source_leaves_room_for_a_quiet_one() {
    let mut ports = ports(3, 8);
    for number in 0..8 {
        assert_eq!(ports[0].push(2, number), Ok(()));
    }
    assert_eq!(ports[0].push(2, 8), Err(8));
    assert_eq!(ports[1].push(2, 100), Ok(()));
    let taken: Vec<_> = std::iter::from_fn(|| ports[2].pop()).collect();
    assert!(taken.iter().position(|(from, _)| *from == 1).unwrap() <= 1);
    assert_eq!(taken.len(), 9);
}

#[test]
fn only_cores_that_got_something_and_sleep_are_woken() {
    let (wakers, sleepers): (Vec<_>, Vec<_>) = (0..3).map(|_| wake::pair().unwrap()).unzip();
    let mut ports = ports(3, 8);
    ports[0].set_wakers(&wakers);
    sleepers[1].prepare();
    sleepers[2].prepare();
    assert_eq!(ports[0].push(1, ()), Ok(()));
    assert_eq!(ports[0].push_quietly(2, ()), Ok(()));
    assert_eq!(ports[0].flush(), 1);
    assert_eq!(ports[0].flush(), 0);
    assert!(sleepers[1].awake());
    assert!(!sleepers[2].awake());
}

#[test]
fn a_core_that_has_gone_takes_nothing_and_holds_nobody_back() {
    let mut ports = ports(2, 8);
    drop(ports.pop());
    assert_eq!(ports[0].push(1, 7), Err(7));
    assert!(ports[0].is_empty());
    assert_eq!(ports[0].pop(), None);
}

#[test]
fn three_threads_that_sleep_lose_nothing_and_keep_the_order_of_each_source() {
    const ITEMS: u64 = 20_000;
    let (wakers, sleepers): (Vec<_>, Vec<_>) = (0..3).map(|_| wake::pair().unwrap()).unzip();
    let mut ports = ports::<u64>(3, 16);
    thread::scope(|threads| {
        for (mut port, sleeper) in ports.drain(..).zip(sleepers) {
            port.set_wakers(&wakers);
            threads.spawn(move || {
                let own = port.core();
                let others: Vec<u16> = (0..3).filter(|core| *core != own).collect();
                let mut sent = [0; 3];
                let mut taken = [0; 3];
                let unfinished = |numbers: &[u64; 3]| {
                    others.iter().any(|core| numbers[usize::from(*core)] < ITEMS)
                };
                while unfinished(&sent) || unfinished(&taken) {
                    for core in &others {
                        let next = &mut sent[usize::from(*core)];
                        for _ in 0..5 {
                            *next += u64::from(*next < ITEMS && port.push(*core, *next).is_ok());
                        }
                    }
                    while let Some((from, item)) = port.pop() {
                        assert_eq!(item, taken[usize::from(from)]);
                        taken[usize::from(from)] += 1;
                    }
                    port.flush();
                    sleeper.prepare();
                    if !unfinished(&sent) && unfinished(&taken) && port.is_empty() {
                        crate::map::wait_readable(sleeper.as_fd()).unwrap();
                        sleeper.drain();
                    }
                    sleeper.awake();
                }
                port
            });
        }
    });
}

#[test]
fn the_shared_number_rises_on_all_cores_and_never_falls() {
    let ports = ports::<u8>(3, 4);
    assert!(ports.iter().all(|port| port.mark() == 0));
    for (core, number, highest) in [(0, 7, 7), (2, 5, 7), (1, 9, 9)] {
        ports[core].raise(number);
        assert!(ports.iter().all(|port| port.mark() == highest));
    }
}

#[test]
fn no_two_cores_have_cursors_on_one_cache_line() {
    const LINE: usize = 128;
    for cores in [2_u16, 3, 16] {
        let ports = ports::<Box<u64>>(cores, 8);
        let spans = ports.iter().map(|port| {
            let begin = port.lines.as_ptr().addr();
            (begin, begin + size_of_val(&*port.lines))
        });
        let mut spans: Vec<_> = spans.collect();
        spans.sort_unstable();
        for (begin, end) in &spans {
            assert!(begin % LINE == 0 && end % LINE == 0, "{begin:#x} to {end:#x}");
        }
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        // The number that all of them read is alone.
        assert_eq!(size_of_val(&*ports[0].mark), LINE);
        assert_eq!(std::ptr::from_ref(&*ports[0].mark).addr() % LINE, 0);
    }
}
