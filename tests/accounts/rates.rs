//! Rates: the cap holds for all devices together, and no device waits while there is something.

use std::time::Duration;

use ringway_dataplane::Command;
use ringway_dataplane::command::AccountChange;
use ringway_flow::qos::Rate;
use ringway_proto::{AccountId, DropReason};

use crate::gang::{Gang, limited, metered};

const CAP: u64 = 1_000_000;
const RATE: Rate = Rate { bytes_per_second: CAP, burst: 50_000 };

/// How far `bytes` are from what the cap allows in `seconds`, in percent.
fn off(bytes: u64, seconds: u64) -> f64 {
    (bytes as f64 / (CAP * seconds) as f64 - 1.0) * 100.0
}

fn assert_capped(bytes: [u64; 2], seconds: u64) {
    for bytes in bytes {
        let off = off(bytes, seconds);
        assert!(off.abs() <= 2.0, "{off:.2} % off the cap");
    }
}

#[test]
fn devices_of_one_user_on_any_number_of_cores_get_the_cap_together() {
    for cores in [1, 2, 4] {
        let mut gang = Gang::new(cores);
        gang.put(limited(5, RATE));
        let all: Vec<usize> = (0..usize::from(cores)).collect();
        all.iter().for_each(|client| gang.bind(*client, Some(5)));
        gang.load(&all, 4 * CAP / u64::from(cores), Duration::from_secs(10));
        let sum = gang.sum();
        assert_capped(sum, 10);
        // Never more than was issued, and what the page says is what passed.
        assert!(sum.iter().all(|bytes| *bytes <= 10 * CAP + RATE.burst), "{sum:?}");
        assert_eq!(gang.used(5), sum);
        // Nobody is left out.
        let fair = 10 * CAP / u64::from(cores);
        for passed in gang.passed.iter().flatten() {
            assert!(*passed > fair / 2, "{:?}", gang.passed);
        }
        assert!(gang.cluster.drops(DropReason::RateExceededToExit) > 0);
        assert!(gang.cluster.drops(DropReason::RateExceededToClient) > 0);
        assert!(gang.cluster.at_rest());
    }
}

#[test]
fn one_of_two_cores_gets_all_while_the_other_is_idle_and_shares_when_it_is_back() {
    let mut gang = Gang::new(2);
    gang.put(limited(0, RATE));
    (0..2).for_each(|client| gang.bind(client, Some(0)));
    for clients in [&[0, 1][..], &[1], &[0], &[0, 1]] {
        let before = gang.sum();
        gang.load(clients, 4 * CAP / clients.len() as u64, Duration::from_secs(5));
        let after = gang.sum();
        assert_capped([after[0] - before[0], after[1] - before[1]], 5);
    }
    assert!(gang.sum().iter().all(|bytes| *bytes <= 20 * CAP + RATE.burst));
}

#[test]
fn a_group_is_held_to_its_cap_whatever_its_users_may_have() {
    let mut gang = Gang::new(4);
    gang.put(limited(0, RATE));
    // Two users, each above two sessions; none of them is limited as narrowly as the group.
    let wide = Rate { bytes_per_second: 2 * CAP, burst: 100_000 };
    gang.put(AccountChange { parent: Some(AccountId(0)), ..limited(1, wide) });
    gang.put(AccountChange { parent: Some(AccountId(0)), ..metered(2) });
    for session in 0..4_u32 {
        let parent = Some(AccountId(1 + session / 2));
        gang.put(AccountChange { parent, ..metered(10 + session) });
        gang.bind(session as usize, Some(10 + session));
    }
    gang.load(&[0, 1, 2, 3], CAP, Duration::from_secs(10));
    assert_capped(gang.sum(), 10);
    let sessions: Vec<_> = (10..14).map(|session| gang.used(session)).collect();
    assert_eq!(sessions, gang.passed);
    assert_eq!(gang.used(0), gang.sum());
    for user in 0..2 {
        let below = [0, 1].map(|way| sessions[2 * user][way] + sessions[2 * user + 1][way]);
        assert_eq!(gang.used(1 + user as u32), below);
    }
}

#[test]
fn a_user_below_a_wide_group_is_held_to_his_own_cap() {
    let mut gang = Gang::new(2);
    gang.put(limited(0, Rate::of(100 * CAP)));
    gang.put(AccountChange { parent: Some(AccountId(0)), ..limited(1, RATE) });
    gang.bind(0, Some(1));
    gang.bind(1, Some(1));
    gang.load(&[0, 1], 2 * CAP, Duration::from_secs(10));
    assert_capped(gang.sum(), 10);
}

#[test]
fn a_load_below_the_cap_loses_nothing_on_any_core() {
    let mut gang = Gang::new(4);
    gang.put(limited(3, Rate::of(CAP)));
    (0..4).for_each(|client| gang.bind(client, Some(3)));
    for clients in [&[0, 1, 2, 3][..], &[2], &[1, 3]] {
        gang.load(clients, CAP * 8 / 10 / clients.len() as u64, Duration::from_secs(3));
        gang.advance(Duration::from_secs(1));
    }
    // A packet now and then, after pauses.
    for round in 0..20 {
        gang.send(round % 4, round % 2, &[1_400; 4]);
        gang.advance(Duration::from_millis(700));
    }
    assert_eq!(gang.cluster.sum(|counters| counters.drops.iter().sum()), 0);
    assert_eq!(gang.used(3), gang.sum());
}

#[test]
fn another_rate_holds_at_once_on_all_cores() {
    let mut gang = Gang::new(2);
    gang.put(metered(0));
    (0..2).for_each(|client| gang.bind(client, Some(0)));
    let mut last = [0; 2];
    let mut passed = |gang: &mut Gang| {
        let sum = gang.sum();
        let passed = [sum[0] - last[0], sum[1] - last[1]];
        last = sum;
        passed
    };
    gang.load(&[0, 1], 2 * CAP, Duration::from_secs(1));
    assert!(passed(&mut gang)[0] >= 4 * CAP, "unlimited");
    gang.put(limited(0, RATE));
    gang.load(&[0, 1], 2 * CAP, Duration::from_secs(5));
    let both = passed(&mut gang);
    assert!(both.iter().all(|bytes| off(*bytes, 5).abs() <= 2.0), "{both:?}");
    let half = Rate { bytes_per_second: CAP / 2, burst: 20_000 };
    gang.put(limited(0, half));
    gang.load(&[0, 1], 2 * CAP, Duration::from_secs(10));
    let both = passed(&mut gang);
    assert!(both.iter().all(|bytes| off(*bytes, 5).abs() <= 2.0), "{both:?}");
    gang.put(metered(0));
    gang.load(&[0, 1], 2 * CAP, Duration::from_secs(1));
    assert!(passed(&mut gang)[0] >= 4 * CAP, "unlimited again");
}

#[test]
fn a_peer_in_no_account_is_neither_limited_nor_counted() {
    let mut gang = Gang::new(2);
    gang.put(limited(0, RATE));
    gang.bind(0, Some(0));
    gang.load(&[1], 4 * CAP, Duration::from_millis(500));
    assert_eq!(gang.used(0), [0; 2]);
    assert_eq!(gang.cluster.sum(|counters| counters.drops.iter().sum()), 0);
    // Bound in the middle, and let go again.
    gang.bind(1, Some(0));
    gang.load(&[1], 4 * CAP, Duration::from_millis(500));
    assert!(gang.cluster.drops(DropReason::RateExceededToExit) > 0);
    gang.bind(1, None);
    let drops = gang.cluster.sum(|counters| counters.drops.iter().sum());
    gang.load(&[1], 4 * CAP, Duration::from_millis(500));
    assert_eq!(gang.cluster.sum(|counters| counters.drops.iter().sum()), drops);
}

#[test]
fn accounts_in_use_stay_and_others_go() {
    let mut gang = Gang::new(2);
    gang.put(metered(0));
    gang.put(AccountChange { parent: Some(AccountId(0)), ..limited(1, RATE) });
    gang.bind(1, Some(1));
    for account in [0, 1] {
        let command = Command::RemoveAccount(AccountId(account));
        let report = gang.cluster.at(ringway_proto::CoreId(1)).apply(command);
        assert!(format!("{report:?}").contains("AccountInUse"), "{report:?}");
    }
    gang.load(&[1], 4 * CAP, Duration::from_secs(1));
    gang.bind(1, None);
    for account in [1, 0] {
        gang.cluster.everywhere(|_| Command::RemoveAccount(AccountId(account)));
    }
    gang.advance(Duration::from_secs(1));
    assert!(gang.accounts(0).is_empty() && gang.accounts(1).is_empty());
    assert!(gang.cluster.wake_at.is_none_or(|at| at > gang.cluster.now.mono));
}
