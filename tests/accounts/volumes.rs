//! Volumes: used up to the byte, said once, and what happens then.

use std::time::Duration;

use ringway_dataplane::command::{AccountChange, Exhausted, Volume};
use ringway_flow::qos::Rate;
use ringway_proto::{AccountId, DropReason};

use crate::gang::{Gang, limited, metered};

const fn volume(number: u32, bytes: u64, then: Exhausted) -> Volume {
    Volume { number, bytes, then }
}

fn total(bytes: [u64; 2]) -> u64 {
    bytes[0] + bytes[1]
}

#[test]
fn a_volume_is_used_up_to_the_byte_by_devices_on_any_number_of_cores() {
    for cores in [1, 2, 4] {
        let mut gang = Gang::new(cores);
        // Packets of one length, which divides it.
        gang.begin_volume(metered(1), volume(1, 1_000 * 700, Exhausted::Drop));
        let clients = usize::from(cores);
        (0..clients).for_each(|client| gang.bind(client, Some(1)));
        for round in 0..2_000 {
            gang.send(round % clients, round / 3 % 2, &[700]);
        }
        gang.advance(Duration::from_millis(500));
        // Everything that had to wait for what another core held is asked for again.
        for round in 0..2_000 {
            gang.send(round % clients, round % 2, &[700]);
            gang.advance(Duration::from_millis(2));
        }
        assert_eq!(total(gang.sum()), 1_000 * 700, "{cores} cores");
        assert_eq!(total(gang.used(1)), 1_000 * 700);
        assert_eq!(gang.exhausted, [(AccountId(1), 1)]);
        assert!(gang.cluster.drops(DropReason::QuotaExceeded) > 0);
    }
}

#[test]
fn no_packet_passes_beyond_a_volume_and_none_that_fits_into_it_is_the_last() {
    for (cores, bytes) in [(1, 100_001), (2, 777_777), (4, 123_456), (4, 1_000)] {
        let mut gang = Gang::new(cores);
        gang.begin_volume(metered(0), volume(1, bytes, Exhausted::Drop));
        (0..usize::from(cores)).for_each(|client| gang.bind(client, Some(0)));
        let clients: Vec<_> = (0..usize::from(cores)).collect();
        gang.load(&clients, 300_000, Duration::from_secs(4));
        let used = total(gang.sum());
        assert!(used <= bytes && bytes - used < 1_400, "{used} of {bytes}");
        assert_eq!(total(gang.used(0)), used);
        assert_eq!(gang.exhausted, [(AccountId(0), 1)]);
    }
}

#[test]
fn what_an_idle_core_holds_is_used_by_another_one() {
    let mut gang = Gang::new(2);
    // Both cores hold a good part of it at first.
    gang.begin_volume(metered(3), volume(1, 2_000 * 500, Exhausted::Drop));
    (0..2).for_each(|client| gang.bind(client, Some(3)));
    gang.send(0, 0, &[500]);
    gang.send(1, 0, &[500]);
    for _ in 0..3_000 {
        gang.send(1, 1, &[500]);
        gang.advance(Duration::from_millis(2));
    }
    assert_eq!(total(gang.sum()), 2_000 * 500);
    assert_eq!(gang.passed[0], [500, 0]);
}

#[test]
fn a_used_up_volume_slows_down_or_only_reports() {
    let slow = Rate { bytes_per_second: 100_000, burst: 20_000 };
    for then in [Exhausted::Throttle([slow; 2]), Exhausted::Report] {
        let mut gang = Gang::new(2);
        gang.begin_volume(metered(0), volume(1, 1_000_000, then));
        (0..2).for_each(|client| gang.bind(client, Some(0)));
        gang.load(&[0, 1], 500_000, Duration::from_secs(2));
        assert_eq!(gang.exhausted, [(AccountId(0), 1)]);
        let before = gang.sum();
        gang.load(&[0, 1], 500_000, Duration::from_secs(5));
        let passed = [gang.sum()[0] - before[0], gang.sum()[1] - before[1]];
        let expected = if then == Exhausted::Report { 5_000_000 } else { 500_000 };
        for bytes in passed {
            let off = bytes.abs_diff(expected) as f64 / expected as f64;
            assert!(off < 0.02, "{then:?}: {bytes} bytes in 5 s");
        }
        assert_eq!(gang.exhausted.len(), 1);
        assert_eq!(gang.cluster.drops(DropReason::QuotaExceeded), 0);
    }
}

#[test]
fn another_volume_replaces_what_was_left_and_opens_what_was_closed() {
    let mut gang = Gang::new(2);
    let rate = Rate::of(10_000_000);
    gang.begin_volume(limited(0, rate), volume(1, 100 * 1_000, Exhausted::Drop));
    (0..2).for_each(|client| gang.bind(client, Some(0)));
    let carry = |gang: &mut Gang, rounds: usize| {
        let before = total(gang.sum());
        for round in 0..rounds {
            gang.send(round % 2, 0, &[1_000]);
            gang.advance(Duration::from_millis(2));
        }
        total(gang.sum()) - before
    };
    assert_eq!(carry(&mut gang, 300), 100 * 1_000);
    gang.begin_volume(limited(0, rate), volume(2, 200 * 1_000, Exhausted::Drop));
    assert_eq!(carry(&mut gang, 50), 50 * 1_000);
    // Said again, it goes on.
    gang.put(limited(0, rate));
    assert_eq!(carry(&mut gang, 50), 50 * 1_000);
    // What was left of it is not added to the next.
    gang.begin_volume(limited(0, rate), volume(3, 30 * 1_000, Exhausted::Drop));
    assert_eq!(carry(&mut gang, 300), 30 * 1_000);
    assert_eq!(gang.exhausted, [(AccountId(0), 1), (AccountId(0), 3)]);
}

#[test]
fn the_volume_of_a_user_holds_for_all_sessions_below() {
    let mut gang = Gang::new(4);
    gang.begin_volume(metered(0), volume(1, 400 * 900, Exhausted::Drop));
    for session in 0..4 {
        let parent = Some(AccountId(0));
        gang.put(AccountChange { parent, ..metered(10 + session) });
        gang.bind(session as usize, Some(10 + session));
    }
    for round in 0..2_000 {
        gang.send(round % 4, round % 2, &[900]);
        gang.advance(Duration::from_millis(1));
    }
    let sessions: u64 = (10..14).map(|session| total(gang.used(session))).sum();
    assert_eq!((total(gang.sum()), sessions), (400 * 900, 400 * 900));
    assert_eq!(gang.exhausted, [(AccountId(0), 1)]);
}

#[test]
fn the_homes_and_the_cores_say_together_what_is_left() {
    let mut gang = Gang::new(2);
    gang.begin_volume(metered(1), volume(1, 5_000_000, Exhausted::Drop));
    (0..2).for_each(|client| gang.bind(client, Some(1)));
    gang.load(&[0, 1], 1_000_000, Duration::from_millis(700));
    let statuses: Vec<_> = (0..2).flat_map(|core| gang.accounts(core)).collect();
    let held: u64 = statuses.iter().map(|status| status.held_volume).sum();
    let homes: Vec<_> = statuses.iter().filter_map(|status| status.home).collect();
    assert_eq!(homes.len(), 1);
    assert_eq!(held + homes[0].volume.expect("a volume") + total(gang.sum()), 5_000_000);
    assert!(!homes[0].exhausted);
}
