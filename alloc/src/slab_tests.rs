//! The slab against a map that is obviously right.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Large enough that a chunk has few slots, so that chunks come and go in the tests.
type Big = [u64; 1024];

proptest! {
    #[test]
    fn the_slab_behaves_like_a_map_with_fresh_keys(
        operations in
            proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..300),
    ) {
        let mut slab = Slab::<Big>::new();
        let mut live = BTreeMap::new();
        let mut dead = Vec::new();
        let mut next = 0;
        for (insert, which) in operations {
            if insert || live.is_empty() {
                let key = slab.insert([next; 1024]);
                prop_assert!(!dead.contains(&key));
                prop_assert_eq!(live.insert(key, next), None);
                next += 1;
            } else {
                let key = *live.keys().nth(which.index(live.len())).unwrap();
                let expected = live.remove(&key);
                prop_assert_eq!(slab.remove(key).map(|value| value[1023]), expected);
                dead.push(key);
            }
            for key in &dead {
                prop_assert!(slab.get(*key).is_none() && slab.get_mut(*key).is_none());
                prop_assert!(slab.remove(*key).is_none());
            }
            prop_assert_eq!(slab.len(), live.len());
            let seen: Vec<_> = slab.iter().map(|(key, value)| (key, value[0])).collect();
            let expected: Vec<_> = live.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}

#[test]
fn growing_moves_no_entry() {
    let mut slab = Slab::<Big>::new();
    let first = slab.insert([1; 1024]);
    let address = std::ptr::from_ref(slab.get(first).unwrap());
    for _ in 0..1000 {
        slab.insert([2; 1024]);
    }
    assert_eq!(address, std::ptr::from_ref(slab.get(first).unwrap()));
}

#[test]
fn memory_comes_back_after_a_crowd_has_gone() {
    let mut slab = Slab::<Big>::new();
    let keys: Vec<_> = (0..1000).map(|_| slab.insert([0; 1024])).collect();
    let crowded = slab.bytes();
    for key in &keys {
        slab.remove(*key).unwrap();
    }
    assert!(slab.bytes() * 30 < crowded, "{} of {crowded} bytes left", slab.bytes());
    // Slots that come back go on counting, so no old key means a new entry.
    for _ in 0..1000 {
        slab.insert([1; 1024]);
    }
    assert!(keys.iter().all(|key| slab.get(*key).is_none()));
}

#[test]
fn a_walk_goes_on_where_it_stopped() {
    let mut slab = Slab::new();
    let keys: Vec<_> = (0..5000_u32).map(|value| slab.insert(value)).collect();
    for key in keys.iter().step_by(3) {
        slab.remove(*key).unwrap();
    }
    let mut seen = Vec::new();
    let mut cursor = 0;
    while let Some((key, value)) = slab.next_from(cursor) {
        seen.push(*value);
        cursor = key.slot + 1;
    }
    assert_eq!(seen, (0..5000).filter(|value| value % 3 != 0).collect::<Vec<_>>());
    assert!(slab.next_from(u32::MAX).is_none());
}

#[test]
fn a_key_from_nowhere_finds_nobody() {
    let mut slab = Slab::<u8>::new();
    let key = Key { slot: u32::MAX, generation: 0 };
    assert!(slab.get(key).is_none());
    assert_eq!(slab.remove(key), None);
    assert_eq!(slab.bytes(), 0);
}

#[test]
fn a_chunk_wastes_little_of_what_the_allocator_gives_it() {
    for entry_bytes in [64, 520, 2_000, 3_300, 4_436, 5_000, 6_200] {
        let bytes = entries_per_chunk(entry_bytes) * entry_bytes;
        let given = bytes.next_multiple_of(SPAN_BYTES);
        assert!(given <= SPANS_MAX * SPAN_BYTES, "{entry_bytes}: {bytes}");
        assert!((given - bytes) * 50 <= given, "{entry_bytes}: {bytes} of {given}");
    }
    assert_eq!(entries_per_chunk(100_000), 8);
}
