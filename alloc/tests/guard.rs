//! The guard in a program whose global allocator it is.

use ringway_alloc::guard::{self, Counting, Mimalloc};
use ringway_alloc::heap::{HeapPolicy, SessionHeap, ShardHeap};

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

#[test]
fn code_that_allocates_nothing_passes() {
    let mut numbers = vec![3, 1, 2];
    guard::deny_alloc(|| numbers.sort_unstable());
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn code_that_frees_what_was_there_before_passes() {
    let numbers = vec![1];
    guard::deny_alloc(|| drop(numbers));
}

#[test]
#[should_panic(expected = "1 allocations of 24 bytes where none may be")]
fn code_that_allocates_is_named() {
    guard::deny_alloc(|| drop(std::hint::black_box(Box::new([1_u64; 3]))));
}

#[test]
#[should_panic(expected = "where none may be")]
fn code_that_grows_a_vector_is_named() {
    let mut numbers = Vec::with_capacity(1);
    guard::deny_alloc(|| numbers.extend(std::hint::black_box([1, 2, 3])));
}

#[test]
#[should_panic(expected = "where none may be")]
fn a_session_heap_is_no_way_around_the_guard() {
    let shard = ShardHeap::new(HeapPolicy::Never);
    let mut session = SessionHeap::new(&shard);
    drop(session.copy(&[0; 8]));
    guard::deny_alloc(|| drop(session.copy(&[0; 8])));
}

#[test]
fn counts_are_of_this_thread_and_of_the_closure_only() {
    let outside = vec![1_u8; 10];
    let (inside, counts) = guard::count_allocs(|| {
        std::thread::scope(|threads| {
            threads.spawn(|| drop(std::hint::black_box(vec![0_u8; 1000])));
        });
        let (_, counts) = guard::count_allocs(|| vec![0_u8; 100]);
        counts
    });
    assert_eq!(inside, guard::Counts { allocations: 1, frees: 0, bytes: 100 });
    assert!(counts.allocations > 1, "starting a thread allocates");
    drop(outside);
}

#[test]
fn live_bytes_follow_a_large_block() {
    // Larger than everything the other tests hold at the same time.
    const BYTES: usize = 64 << 20;
    let before = guard::live_bytes();
    let block = vec![0_u8; BYTES];
    assert!(guard::live_bytes() > before + BYTES / 2);
    drop(block);
    assert!(guard::live_bytes() < before + BYTES / 2);
}
