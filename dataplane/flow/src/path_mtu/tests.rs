#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::icmp::write_echo;
use crate::testing::Spec;

/// A path and the client at its end.
struct World {
    path: PathMtu,
    now: Instant,
    /// Largest inner packet that arrives.
    carries: u16,
    answers: bool,
    /// Whether a train of several datagrams arrives.
    carries_trains: bool,
    probes: usize,
}

impl World {
    fn new(ceiling: u16, carries: u16) -> Self {
        let now = Instant::ZERO + Duration::from_secs(100);
        Self {
            path: PathMtu::new(ceiling),
            now,
            carries,
            answers: true,
            carries_trains: true,
            probes: 0,
        }
    }

    /// Sends what is due and lets the client answer, until the search is over.
    fn settle(&mut self) {
        for _ in 0..100 {
            while let Some(probe) = self.path.poll_probe() {
                self.probes += 1;
                // The probes of one call leave in one train, but those that must be alone.
                let lone = probe.alone || !self.path.asks_about_trains();
                if probe.bytes <= self.carries && (lone || self.carries_trains) {
                    self.now = self.now + Duration::from_millis(1);
                    self.path.heard(self.now);
                    if self.answers {
                        assert!(self.answer(probe.sequence));
                    }
                }
            }
            match self.path.poll_timeout() {
                Some(at) if self.path.is_searching() => {
                    self.now = at;
                    self.path.handle_timeout(at);
                }
                _ => return,
            }
        }
        panic!("the search does not end");
    }

    fn answer(&mut self, sequence: u16) -> bool {
        let mut reply = [0; 64];
        let [from, to] = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1])];
        assert!(write_echo(from, to, ECHO_IDENTIFIER, sequence, &mut reply));
        reply[20] = Icmp::V4_ECHO_REPLY;
        self.path.take_answer(&reply, &Packet::parse(&reply).unwrap(), self.now)
    }

    fn send(&mut self, sequence: u32, payload: usize) {
        let packet = Spec { sequence, payload, ..Spec::default() }.build();
        let view = Packet::parse(&packet).unwrap();
        self.now = self.now + Duration::from_millis(200);
        self.path.sent(&packet, &view, packet.len(), self.now);
    }

    /// A TCP sender in front of a black hole: a window, then its first segment again and again.
    fn black_hole(&mut self) {
        for segment in 0..10 {
            self.send(segment * 1300, 1300);
        }
        for _ in 0..REPEATS_MAX {
            assert!(!self.path.is_searching());
            self.send(0, 1300);
        }
        assert!(self.path.is_searching());
        self.settle();
    }

    fn v4(&self) -> u16 {
        self.path.mtu(Version::V4)
    }

    fn v6(&self) -> u16 {
        self.path.mtu(Version::V6)
    }
}

#[test]
fn a_black_hole_is_found_and_the_largest_size_that_passes_is_used() {
    for (carries, expected) in [(1419, 1380), (1380, 1380), (1300, 1280), (1210, 1200)] {
        let mut world = World::new(1420, carries);
        world.black_hole();
        assert_eq!(world.v4(), expected);
        let change = Change { from: 1420, to: expected, cause: Cause::Probed };
        assert_eq!(world.path.poll_change(), Some(change));
        assert_eq!(world.path.poll_change(), None);
    }
}

#[test]
fn a_path_of_1124_bytes_works_and_says_so() {
    let mut world = World::new(1420, 1124 - 80);
    world.black_hole();
    assert_eq!((world.v4(), world.v6()), (1024, 1024));
    assert_eq!(world.path.poll_change().unwrap().to, 1024);
}

#[test]
fn a_reported_size_is_used_at_once_but_ipv6_asks_for_proof_below_1280() {
    let mut world = World::new(1420, 1064);
    world.path.outer_too_big(1400, Version::V4, world.now);
    assert_eq!((world.v4(), world.v6()), (1340, 1340));
    assert!(!world.path.is_searching());
    world.path.outer_too_big(1124, Version::V4, world.now);
    assert_eq!((world.v4(), world.v6()), (1064, 1280));
    world.settle();
    assert_eq!((world.v4(), world.v6()), (1064, 1064));
}

#[test]
fn a_report_that_nobody_confirms_is_not_taken_for_a_black_hole() {
    let mut world = World::new(1420, 1064);
    world.answers = false;
    world.path.outer_too_big(1124, Version::V4, world.now);
    world.settle();
    assert_eq!((world.v4(), world.v6()), (1064, 1280));
}

#[test]
fn a_forged_report_does_not_make_ipv6_useless() {
    let mut world = World::new(1420, 1420);
    world.answers = false;
    world.path.outer_too_big(68, Version::V6, world.now);
    world.settle();
    assert_eq!((world.v4(), world.v6()), (576, 1280));
    world.path.outer_too_big(2000, Version::V6, world.now);
    assert_eq!(world.v4(), 576);
}

#[test]
fn a_healthy_flow_with_losses_starts_no_search() {
    let mut world = World::new(1420, 1420);
    for segment in 0..200 {
        world.send(segment * 1300, 1300);
        if segment % 3 == 2 {
            world.send((segment - 1) * 1300, 1300);
            world.send((segment - 1) * 1300, 1300);
        }
    }
    assert_eq!(world.probes, 0);
    assert!(!world.path.is_searching());
}

#[test]
fn small_segments_and_other_flows_are_no_evidence() {
    let mut world = World::new(1420, 1280);
    for _ in 0..20 {
        world.send(0, 500);
    }
    assert!(!world.path.is_searching());
}

#[test]
fn a_false_alarm_changes_nothing_and_is_not_repeated_at_once() {
    let mut world = World::new(1420, 1420);
    world.black_hole();
    assert_eq!(world.v4(), 1420);
    assert_eq!(world.path.poll_change(), None);
    let probes = world.probes;
    for _ in 0..20 {
        world.send(0, 1300);
    }
    assert_eq!(world.probes, probes);
    assert!(!world.path.is_searching());
}

/// A TCP sender whose trains are lost: of each window only what is sent again alone arrives.
fn get_stuck(world: &mut World) {
    let mut next = 0;
    for round in 0..20_u32 {
        if world.path.is_searching() {
            return;
        }
        world.send(next, 1300);
        world.send(round * 1300, 1300);
        world.send((round + 1) * 1300, 1300);
        next += 1300 * u32::from(round < 10);
    }
    panic!("nothing was suspected");
}

#[test]
fn trains_that_are_lost_where_single_datagrams_pass_are_found_out() {
    let mut world = World::new(1420, 1420);
    world.carries_trains = false;
    get_stuck(&mut world);
    world.settle();
    assert!(world.path.poll_trains_lost());
    assert!(!world.path.poll_trains_lost(), "it is said once");
    assert_eq!((world.v4(), world.path.poll_change()), (1420, None), "sizes are not to blame");
    assert_eq!(world.probes, 1 + usize::from(ROUNDS) * TRAIN_PROBES);
}

#[test]
fn a_false_alarm_where_sizes_are_not_to_blame_looks_at_trains() {
    let mut world = World::new(1420, 1420);
    world.carries_trains = false;
    world.black_hole();
    assert!(world.path.poll_trains_lost());
    assert_eq!(world.v4(), 1420);
}

#[test]
fn trains_are_not_blamed_when_they_pass_or_when_nobody_answers() {
    for (carries, answers) in [(1420, true), (1420, false), (0, true)] {
        let mut world = World::new(1420, carries);
        world.answers = answers;
        get_stuck(&mut world);
        world.settle();
        assert!(!world.path.poll_trains_lost());
        let probes = world.probes;
        for _ in 0..10 {
            world.send(1300, 1300);
            world.send(2600, 1300);
        }
        assert_eq!(world.probes, probes, "and they are not asked about again at once");
        assert!(!world.path.asks_about_trains());
    }
}

#[test]
fn a_client_that_answers_no_probes_is_taken_down_step_by_step() {
    let mut world = World::new(1420, 1210);
    world.answers = false;
    for expected in [1380, 1280, 1200] {
        for _ in 0..=REPEATS_MAX {
            world.send(0, 1300);
        }
        world.settle();
        assert_eq!(world.v4(), expected);
        assert_eq!(world.path.poll_change().unwrap().cause, Cause::Guessed);
    }
    assert_eq!(world.v6(), 1280);
}

#[test]
fn a_dead_path_says_nothing_about_sizes() {
    let mut world = World::new(1420, 0);
    world.black_hole();
    assert_eq!(world.v4(), 1420);
    assert_eq!(world.path.poll_timeout(), None);
}

#[test]
fn after_ten_minutes_larger_sizes_are_tried_again() {
    let mut world = World::new(1420, 1280);
    world.black_hole();
    let at = world.path.poll_timeout().unwrap();
    assert_eq!(at.since(world.now), RAISE_AFTER);
    world.path.handle_timeout(at - Duration::from_nanos(1));
    assert!(!world.path.is_searching());

    // Nothing has changed: the size stays, without any data lost.
    world.now = at;
    world.path.handle_timeout(at);
    world.settle();
    assert_eq!(world.v4(), 1280);

    world.carries = 1420;
    world.now = world.path.poll_timeout().unwrap();
    world.path.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.v4(), 1420);
    assert_eq!(world.path.poll_timeout(), None);
}

#[test]
fn without_answers_the_path_is_tried_again_less_and_less_often() {
    let mut world = World::new(1420, 1420);
    world.answers = false;
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.path.outer_too_big(1400, Version::V4, world.now);
        let at = world.path.poll_timeout().unwrap();
        waits.push(at.since(world.now).as_secs());
        world.now = at;
        world.path.handle_timeout(at);
        world.settle();
        assert_eq!(world.v4(), 1420);
    }
    assert_eq!(waits, [600, 1200, 2400, 4800, 9600, 9600]);
}

#[test]
fn roaming_forgets_the_old_path() {
    let mut world = World::new(1420, 1044);
    world.black_hole();
    assert_eq!(world.v6(), 1024);
    world.path.poll_change();
    world.path.reset(1420);
    assert_eq!((world.v4(), world.v6()), (1420, 1420));
    let change = Change { from: 1024, to: 1420, cause: Cause::Reset };
    assert_eq!(world.path.poll_change(), Some(change));
}

#[test]
fn answers_that_were_not_asked_for_are_not_ours() {
    let mut world = World::new(1420, 1420);
    assert!(!world.answer(0));
    world.path.outer_too_big(1124, Version::V4, world.now);
    let probe = world.path.poll_probe().unwrap();
    assert!(!world.answer(probe.sequence.wrapping_add(INDEX_SPACE)));
    assert!(!world.answer(probe.sequence.wrapping_sub(1)));
    assert!(world.answer(probe.sequence));
    let packet = Spec::default().build();
    let view = Packet::parse(&packet).unwrap();
    assert!(!world.path.take_answer(&packet, &view, world.now));
}

#[test]
fn a_jumbo_path_has_steps_of_its_own() {
    let mut world = World::new(8920, 1450);
    world.black_hole();
    assert_eq!(world.v4(), 1420);
    let mut world = World::new(8920, 8500);
    world.black_hole();
    assert_eq!(world.v4(), 8000);
}

proptest! {
    #[test]
    fn whatever_the_path_carries_the_size_found_fits_and_is_the_next_below(
        ceiling in 576u16..9000, carries in 576u16..9000, reported in 0u16..9000,
    ) {
        let mut world = World::new(ceiling, carries);
        world.black_hole();
        prop_assert!(world.v4() <= carries.min(ceiling));
        let better = SIZES.iter().chain([&ceiling]).filter(|size| **size <= carries.min(ceiling));
        prop_assert_eq!(world.v4(), *better.max().unwrap());
        world.path.outer_too_big(reported, Version::V6, world.now);
        world.settle();
        prop_assert!(world.v4() >= MTU_MIN);
        prop_assert!(world.v4() <= world.v6());
        for _ in 0..3 {
            if let Some(at) = world.path.poll_timeout() {
                world.now = at;
                world.path.handle_timeout(at);
                world.settle();
            }
        }
        prop_assert!(world.v4() <= carries.min(ceiling));
    }
}

#[test]
fn what_was_learnt_goes_on_in_another_process() {
    let mut world = World::new(1420, 1420);
    assert_eq!(world.path.learnt(world.now), None);
    world.path.outer_too_big(1400, Version::V4, world.now);
    let later = world.now + Duration::from_secs(100);
    let learnt = world.path.learnt(later).unwrap();
    let mut next = PathMtu::new(1420);
    next.resume(learnt, later);
    assert_eq!(next.mtu(Version::V4), world.path.mtu(Version::V4));
    assert_eq!(next.poll_timeout(), world.path.poll_timeout());
    assert_eq!((next.learnt(later), next.poll_change()), (Some(learnt), None));
}

#[test]
fn what_cannot_have_been_learnt_is_brought_within_bounds() {
    let absurd =
        Learnt { mtu: 9000, narrow: true, raise_in: Duration::MAX, raise_after: Duration::ZERO };
    let now = Instant::ZERO;
    let mut path = PathMtu::new(1420);
    path.resume(absurd, now);
    assert_eq!((path.mtu(Version::V4), path.poll_timeout()), (1420, None));
    path.resume(Learnt { mtu: 1, ..absurd }, now);
    assert_eq!((path.mtu(Version::V6), path.poll_timeout()), (576, Some(now + RAISE_AFTER_MAX)));
}
