//! Several workers, very many clients, attackers and operators: the invariants of the scenarios
//! that `tools/perf shards` measures, in their small size.
//!
//! ```text
//!   cli: a fleet, 10.128.0.0/9 is local ── gw: several workers ── dst: judges every flow's order
//! ```
//!
//! The matrix of `main` decides about workers (default 2 here), driver and steering.

use std::sync::{Mutex, PoisonError};

use ringway_perf::shards::{Scenario, Settings, Size};

use crate::setup::gateway;

/// Two at a time would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn workers() -> u16 {
    std::env::var("RINGWAY_LAB_WORKERS").map_or(2, |count| count.parse().unwrap())
}

/// Driver and steering of the matrix; the scenarios say the rest.
fn flags() -> String {
    let of = |name: &str, flag: &str| {
        std::env::var(name).map_or(String::new(), |word| format!(" {flag} {word}"))
    };
    of("RINGWAY_LAB_DRIVER", "--driver") + &of("RINGWAY_LAB_STEERING", "--steering")
}

/// Whether the kernel is asked to steer. Where it is not, initiations have no bank of their own and
/// stand beside data; a flooder's strays compete with those of others; and the buffers in which
/// packets cross are touched. Those figures are promised with steering only.
fn is_steered() -> bool {
    std::env::var("RINGWAY_LAB_STEERING").as_deref() != Ok("off")
}

fn holds(scenario: Scenario, workers: u16) {
    holds_within(scenario, workers, 1);
}

/// As [`holds`], in one of several runs: where the machine itself stands still for tens of
/// milliseconds, a flood fills the kernel's buffers whatever the gateway does.
fn holds_within(scenario: Scenario, workers: u16, runs: u32) {
    if gateway() != ringway_perf::programs::Program::Ringway {
        return; // others have no workers, no counters and no control thread
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut settings = Settings::small(workers, &flags());
    if scenario == Scenario::Freeze && std::env::var_os("RINGWAY_LAB_LONG").is_some() {
        settings.size = Size::Full;
    }
    let mut broken = Vec::new();
    for _ in 0..runs {
        let outcomes = scenario.run(&settings).unwrap();
        assert!(!outcomes.is_empty());
        broken = outcomes
            .iter()
            .flat_map(|row| row.broken().map(|says| format!("{}: {says}", row.variant)))
            .collect();
        if broken.is_empty() {
            return;
        }
    }
    panic!("{}", broken.join("\n"));
}

#[test]
fn privileged_one_worker_at_full_load_keeps_the_order_of_every_flow() {
    holds(Scenario::Scaling, 1);
}

#[test]
fn privileged_two_workers_at_full_load_keep_the_order_of_every_flow() {
    holds(Scenario::Scaling, 2);
}

#[test]
fn privileged_four_workers_at_full_load_keep_the_order_of_every_flow() {
    holds(Scenario::Scaling, 4);
}

#[test]
fn privileged_forged_initiations_cost_an_honest_session_nothing() {
    if is_steered() {
        holds(Scenario::Flood, workers());
    }
}

#[test]
fn privileged_hundreds_of_handshakes_at_once_complete_beside_an_honest_session() {
    holds(Scenario::Storm, workers());
}

#[test]
fn privileged_idle_sessions_stay_within_their_budget_and_give_it_back() {
    if is_steered() {
        holds(Scenario::Memory, workers());
    }
}

#[test]
fn privileged_a_client_that_floods_takes_nothing_from_another() {
    // One worker, which has a processor to itself: of several, some share theirs with the flooder.
    if is_steered() {
        holds_within(Scenario::Fairness, 1, 2);
    }
}

#[test]
fn privileged_a_thousand_edits_a_second_cost_a_session_nothing() {
    holds(Scenario::Edits, workers());
}

#[test]
fn privileged_cores_go_on_while_the_control_thread_stands_still() {
    holds(Scenario::Freeze, workers());
}
