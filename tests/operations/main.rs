//! What a packet costs beside its bytes: locked instructions, fences, stores to memory that other
//! threads look at, and system calls. Each is counted exactly, by executing the shard instruction
//! by instruction (`trace`) while it carries packets on a stage that `scene` sets.
//!
//! ```text
//! cargo test --profile ci --package ringway-tests --test operations -- --nocapture
//! ```
//!
//! It is a stage of its own (`counts`), because it is about the code that ships: an unoptimised
//! build takes ten times as long and says less.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod scene;
mod trace;

use std::process::Command;

use ringway_alloc::guard::{Counting, Mimalloc};
use scene::{PACKETS, ROUNDS, Scene};
use trace::{Operations, Seen, Tracer};

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

/// Says which scene is to be played, in the process that is watched.
const SCENE: &str = "RINGWAY_SCENE";

#[test]
fn stage() {
    if let Ok(name) = std::env::var(SCENE) {
        scene::play(Scene::ALL.into_iter().find(|scene| scene.name() == name).unwrap());
    }
}

/// Plays a scene in another process and says what it took, in all rounds together.
fn watch(scene: Scene) -> Operations {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "stage", "--nocapture", "--test-threads=1"]);
    program.env(SCENE, scene.name());
    let seen = Tracer::start(program).unwrap().watch().unwrap();
    assert_eq!(seen.sections.len(), ROUNDS, "{scene:?}");
    let all = sum(&seen);
    let per = |count: u64| count as f64 / (ROUNDS * PACKETS) as f64;
    eprintln!(
        "{}: {} locked, {} fences, {} shared stores, {} calls in {} packets ({:.3} calls and \
         {:.0} instructions each)",
        scene.name(),
        all.locked,
        all.fences,
        all.shared_stores,
        all.calls,
        ROUNDS * PACKETS,
        per(all.calls),
        per(all.instructions),
    );
    for (place, count) in &seen.places {
        eprintln!("  {count} times at {place:#x}");
    }
    all
}

fn sum(seen: &Seen) -> Operations {
    seen.sections.iter().fold(Operations::default(), |all, one| Operations {
        instructions: all.instructions + one.instructions,
        locked: all.locked + one.locked,
        fences: all.fences + one.fences,
        shared_stores: all.shared_stores + one.shared_stores,
        calls: all.calls + one.calls,
    })
}

fn shares_nothing(scene: Scene) -> Operations {
    let all = watch(scene);
    assert_eq!((all.locked, all.fences, all.shared_stores), (0, 0, 0), "{scene:?}");
    all
}

#[test]
fn the_watcher_sees_a_lock_a_fence_and_a_store_that_others_look_at() {
    let all = watch(Scene::Guilty);
    let rounds = ROUNDS as u64;
    assert_eq!((all.locked, all.fences, all.calls), (rounds, rounds, rounds));
    // The counter, and slot and cursor of a ring.
    assert_eq!(all.shared_stores, 3 * rounds);
}

#[test]
fn packets_to_exit_take_no_lock_and_store_nothing_that_others_see() {
    assert_eq!(shares_nothing(Scene::ToExit).calls, 0);
}

#[test]
fn packets_to_client_take_no_lock_and_store_nothing_that_others_see() {
    assert_eq!(shares_nothing(Scene::ToClient).calls, 0);
}

#[test]
fn neither_do_packets_that_a_chain_of_accounts_limits_and_counts() {
    assert_eq!(shares_nothing(Scene::ToExitLimited).calls, 0);
    assert_eq!(shares_nothing(Scene::ToClientLimited).calls, 0);
}

#[test]
fn neither_does_the_driver_with_a_ring_and_many_packets_share_a_call() {
    let all = shares_nothing(Scene::Uring);
    assert!(all.calls as usize * 10 <= ROUNDS * PACKETS, "{all:?}");
}

#[test]
fn neither_does_the_driver_without_a_ring() {
    let all = shares_nothing(Scene::Epoll);
    assert!(all.calls as usize * 5 <= ROUNDS * PACKETS, "{all:?}");
}

#[test]
fn what_crosses_takes_no_lock_and_a_few_stores_for_all_that_crosses_together() {
    let all = watch(Scene::Crossing);
    assert_eq!(all.locked, 0);
    // Whoever hands over looks whether the other sleeps; the way back of a parcel wakes nobody.
    assert_eq!(all.fences as usize, ROUNDS);
    // Slots and cursors of both ways, and the own ends of the lines, which lie among what is
    // watched: half a store for each packet.
    assert!(all.shared_stores as usize * 2 <= ROUNDS * PACKETS, "{all:?}");
}
