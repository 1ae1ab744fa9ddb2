//! Budgets, policies, and what is left after churn.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

#[test]
fn a_copy_holds_the_bytes_and_their_budget_until_it_is_dropped() {
    let shard = ShardHeap::new(HeapPolicy::Auto);
    let mut session = SessionHeap::new(&shard);
    assert_eq!((session.used(), shard.used()), (0, 0));
    let mut copy = session.copy(b"staged").unwrap();
    assert_eq!(&*copy, b"staged");
    copy[0] = b'S';
    assert_eq!(&*copy, b"Staged");
    assert!(session.used() >= 6);
    assert_eq!(session.used() + PRIVATE_HEAP_BYTES, shard.used());
    drop(copy);
    assert_eq!((session.used(), shard.used()), (0, 0));
}

#[test]
fn a_block_over_budget_is_refused_and_changes_nothing() {
    let shard = ShardHeap::new(HeapPolicy::Auto);
    let mut session = SessionHeap::with_limit(&shard, 4096);
    let first = session.zeroed(3000).unwrap();
    let used = session.used();
    assert!(matches!(session.zeroed(3000), Err(HeapError::OverBudget { limit: 4096, .. })));
    for absurd in [usize::MAX / 4, usize::MAX - 1, usize::MAX] {
        assert!(matches!(session.zeroed(absurd), Err(HeapError::OverBudget { .. })));
    }
    assert_eq!(session.used(), used);
    drop(first);
    assert!(session.zeroed(3000).is_ok());
}

#[test]
fn what_is_held_elsewhere_is_counted_and_leaves_less_for_the_rest() {
    let shard = ShardHeap::new(HeapPolicy::Auto);
    let mut session = SessionHeap::with_limit(&shard, 4096);
    session.hold([1_000, 3_000]);
    let held = session.used();
    assert!((4_000..4_900).contains(&held), "{held} bytes with rounding");
    assert_eq!(shard.used(), held);
    assert!(!session.is_private());
    assert!(matches!(session.zeroed(2_000), Err(HeapError::OverBudget { .. })));
    session.hold([1_000]);
    assert!((1_000..1_200).contains(&session.used()));
    let block = session.zeroed(2_000).unwrap();
    assert_eq!(session.used() + PRIVATE_HEAP_BYTES, shard.used());
    session.hold([]);
    drop(block);
    assert_eq!((session.used(), shard.used()), (0, 0));
    session.hold([5_000]);
    drop(session);
    assert_eq!(shard.used(), 0);
}

#[test]
fn a_private_heap_is_there_only_while_it_holds_something() {
    let shard = ShardHeap::new(HeapPolicy::Always);
    let mut session = SessionHeap::new(&shard);
    assert!(!session.is_private());
    let one = session.zeroed(100).unwrap();
    let two = session.zeroed(100).unwrap();
    assert!(session.is_private());
    assert_eq!(shard.private_heaps(), 1);
    drop(one);
    assert!(session.is_private());
    drop(two);
    assert!(!session.is_private());
    assert_eq!(shard.private_heaps(), 0);
}

#[test]
fn under_auto_sessions_beyond_the_heap_budget_share_the_heap_of_the_shard() {
    let shard = ShardHeap::new(HeapPolicy::Auto);
    let mut sessions: Vec<_> =
        (0..PRIVATE_HEAPS_MAX + 2).map(|_| SessionHeap::new(&shard)).collect();
    let mut blocks: Vec<_> = sessions.iter_mut().map(|it| it.copy(&[1; 32]).unwrap()).collect();
    assert_eq!(shard.private_heaps(), PRIVATE_HEAPS_MAX);
    assert!(!sessions[PRIVATE_HEAPS_MAX].is_private());
    blocks.clear();
    assert_eq!((shard.private_heaps(), shard.used()), (0, 0));
}

#[test]
fn under_never_nobody_has_a_private_heap() {
    let shard = ShardHeap::new(HeapPolicy::Never);
    let mut session = SessionHeap::new(&shard);
    let _block = session.zeroed(1).unwrap();
    assert!(!session.is_private());
    assert_eq!(shard.private_heaps(), 0);
}

#[test]
fn a_block_may_outlive_its_session_and_its_shard() {
    let shard = ShardHeap::new(HeapPolicy::Always);
    let mut session = SessionHeap::new(&shard);
    let block = session.copy(b"late").unwrap();
    drop(session);
    drop(shard);
    assert_eq!(&*block, b"late");
}

#[test]
fn policies_have_the_names_of_the_configuration() {
    assert_eq!("auto".parse(), Ok(HeapPolicy::Auto));
    assert_eq!("always".parse(), Ok(HeapPolicy::Always));
    assert_eq!("never".parse(), Ok(HeapPolicy::Never));
    assert!("sometimes".parse::<HeapPolicy>().is_err());
}

proptest! {
    #[test]
    fn the_ledger_is_the_sum_of_what_is_held(
        operations in
            proptest::collection::vec((0..4_usize, 0..20_000_usize, any::<bool>()), 1..100),
        policy in prop_oneof![
            Just(HeapPolicy::Auto), Just(HeapPolicy::Always), Just(HeapPolicy::Never)
        ],
    ) {
        let shard = ShardHeap::new(policy);
        let mut sessions: Vec<_> =
            (0..4).map(|_| (SessionHeap::with_limit(&shard, 64 << 10), Vec::new())).collect();
        for (number, len, free) in operations {
            let (heap, held) = &mut sessions[number];
            if free && !held.is_empty() {
                held.swap_remove(len % held.len());
            } else if let Ok(mut buf) = heap.zeroed(len) {
                prop_assert!(buf.iter().all(|byte| *byte == 0));
                buf.fill(number as u8);
                held.push(buf);
            }
            for (number, (heap, held)) in sessions.iter().enumerate() {
                let least = held.iter().map(|buf| buf.len()).sum::<usize>();
                prop_assert!(heap.used() >= least);
                prop_assert!(heap.used() <= heap.limit());
                prop_assert!(held.iter().all(|buf| buf.iter().all(|byte| *byte == number as u8)));
            }
            let used: usize = sessions.iter().map(|(heap, _)| heap.used()).sum();
            let private = sessions.iter().filter(|(heap, _)| heap.is_private()).count();
            prop_assert_eq!(shard.private_heaps(), private);
            prop_assert_eq!(shard.used(), used + private * PRIVATE_HEAP_BYTES);
        }
    }
}
