//! Who is handed out first.

use super::*;
use crate::addr::Name;
use ringway_alloc::Arena;

/// A queue, and where its buffers come from.
struct Fixture {
    arena: Arena,
    queue: ReadyQueue,
    stats: DriverStats,
}

impl Fixture {
    fn new() -> Self {
        let arena = Arena::with_capacity(256, 4096).unwrap();
        Self { arena, queue: ReadyQueue::new(128, 128), stats: DriverStats::default() }
    }

    /// Datagrams of ten bytes that arrived together at `socket`, each beginning with `mark`.
    fn push(&mut self, socket: usize, mark: u8, datagrams: usize, dropped: Option<u32>) {
        let mut buf = self.arena.take().unwrap();
        let mut name = Name::default();
        let name_len = name.set(&"192.0.2.1:5".parse().unwrap());
        buf[16..][..name_len].copy_from_slice(&name.as_bytes()[..name_len]);
        let mut control = message(libc::SOL_UDP, libc::UDP_GRO, 10);
        control.extend(
            dropped
                .into_iter()
                .flat_map(|dropped| message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, dropped)),
        );
        buf[48..][..control.len()].copy_from_slice(&control);
        let len = 10 * datagrams;
        buf[udp::OUTSIDE_START..][..len].fill(mark);
        for (n, word) in [name_len, control.len(), len, 0].into_iter().enumerate() {
            buf[4 * n..][..4].copy_from_slice(&(word as u32).to_ne_bytes());
        }
        self.queue.push_outside(socket, buf, (udp::OUTSIDE_START + len) as u32);
    }

    /// The mark of what comes next.
    fn next(&mut self) -> Option<u8> {
        match self.queue.next(&mut self.stats)? {
            Received::Outside(outside) => Some(outside.buf[outside.start]),
            Received::Inside(inside) => panic!("{inside:?}"),
        }
    }

    fn turn(&mut self) -> Vec<u8> {
        self.queue.begin_turn();
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn message(level: i32, kind: i32, value: u32) -> Vec<u8> {
    let mut bytes = 20usize.to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn data_comes_before_initiations_that_came_before_it() {
    let mut fixture = Fixture::new();
    for (socket, mark) in [(2, 20), (0, 1), (3, 30), (1, 2)] {
        fixture.push(socket, mark, 1, None);
    }
    assert_eq!(fixture.turn(), [1, 2, 20, 30]);
    assert_eq!(fixture.stats.outside_datagrams, 4);
    assert_eq!(fixture.stats.initiations_datagrams, 2);
    assert!(fixture.queue.is_empty());
}

#[test]
fn a_turn_hands_out_a_bounded_number_of_initiations() {
    let mut fixture = Fixture::new();
    for n in 0..100 {
        fixture.push(2, n, 1, None);
    }
    assert_eq!(fixture.turn().len(), INITIATIONS_PER_TURN);
    assert!(!fixture.queue.is_empty(), "so that the turn does not wait");
    assert_eq!(fixture.turn().len(), 100 - INITIATIONS_PER_TURN);
    // Merged ones count one by one.
    for n in 0..5 {
        fixture.push(2, n, 50, None);
    }
    assert_eq!(fixture.turn(), [0, 1]);
    assert_eq!(fixture.turn(), [2, 3]);
    assert_eq!(fixture.turn(), [4]);
}

#[test]
fn initiations_are_not_starved_by_data_without_end() {
    let mut fixture = Fixture::new();
    fixture.push(2, 99, 1, None);
    fixture.push(2, 99, 1, None);
    let mut first_in_turn = Vec::new();
    for _ in 0..3 * PASSED_OVER_MAX {
        // A budget that data alone uses up.
        for _ in 0..8 {
            fixture.push(0, 1, 1, None);
        }
        fixture.queue.begin_turn();
        first_in_turn.push(fixture.next().unwrap());
        for _ in 1..8 {
            assert_eq!(fixture.next(), Some(1), "one at a time");
        }
    }
    let handed_out = first_in_turn.iter().filter(|mark| **mark == 99).count();
    assert_eq!(handed_out, 2, "{first_in_turn:?}");
}

#[test]
fn drops_are_counted_once_and_per_bank() {
    let mut fixture = Fixture::new();
    fixture.queue.new_sockets([100, 0, u32::MAX, 0]);
    for (socket, dropped) in
        [(0, Some(100)), (0, Some(103)), (0, None), (0, Some(103)), (1, Some(2)), (2, Some(4))]
    {
        fixture.push(socket, 1, 1, dropped);
    }
    // Late news of sockets that were replaced.
    fixture.push(0, 1, 1, Some(50));
    fixture.turn();
    assert_eq!(fixture.stats.outside_dropped, 5);
    assert_eq!(fixture.stats.initiations_dropped, 5);
}
