//! Resident memory before, during and after a hundred thousand sessions. Alone in its program,
//! because resident memory is a figure of the whole process.

#![allow(clippy::unwrap_used, reason = "tests")]

use ringway_alloc::heap::{HeapPolicy, SessionHeap, ShardHeap};

const SESSIONS: usize = 5_000;
const BYTES_EACH: usize = 16 << 10;

#[test]
fn resident_memory_follows_the_ledger_and_comes_back_after_churn() {
    for policy in [HeapPolicy::Auto, HeapPolicy::Never] {
        let shard = ShardHeap::new(policy);
        // What the first use of the allocator takes for good is not what is asked about.
        churn(&shard, 200);
        shard.trim();
        let before = resident_bytes();
        for _ in 0..10 {
            let (used, resident) = churn(&shard, SESSIONS);
            assert!(used >= SESSIONS * BYTES_EACH);
            // The test's own vectors and handles are in the figure: 2 % of it.
            let apart = (resident - before).abs_diff(used);
            assert!(apart < used / 20, "{policy:?}: {} resident, {used} used", resident - before);
        }
        shard.trim();
        assert_eq!((shard.used(), shard.private_heaps()), (0, 0));
        let left = resident_bytes().saturating_sub(before);
        assert!(left < SESSIONS * BYTES_EACH / 20, "{policy:?}: {left} bytes are still resident");
    }
}

/// Lets sessions come, fill their memory, and go; returns ledger and resident bytes at the peak.
fn churn(shard: &ShardHeap, sessions: usize) -> (usize, usize) {
    let held: Vec<_> = (0..sessions)
        .map(|_| {
            let mut heap = SessionHeap::new(shard);
            let blocks: Vec<_> = (0..8).map(|_| heap.copy(&[7; BYTES_EACH / 8]).unwrap()).collect();
            (heap, blocks)
        })
        .collect();
    let peak = (shard.used(), resident_bytes());
    drop(held);
    peak
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
