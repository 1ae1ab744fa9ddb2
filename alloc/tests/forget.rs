//! What a program that forgets leaves in memory. Blocks that were given back are looked at from
//! outside, as anybody would who looks for what was in them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use ringway_alloc::forget;
use ringway_alloc::guard::{Counting, Mimalloc};
use ringway_alloc::slab::Slab;

#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

/// Bytes that stand nowhere else.
const SECRET: [u8; 32] = *b"who was here, at 198.51.100.213?";

/// What lies at an address now, whoever owns it.
fn bytes_at(address: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, address as u64).unwrap();
    bytes
}

#[test]
fn a_block_that_is_given_back_or_has_moved_is_wiped() {
    forget::begin();
    let block = Box::new(SECRET);
    let address = (&raw const *block).addr();
    assert_eq!(bytes_at(address), SECRET, "what is there can be seen");
    drop(block);
    assert_ne!(bytes_at(address), SECRET);

    let mut list = SECRET.to_vec();
    let address = list.as_ptr().addr();
    list.reserve_exact(100_000);
    assert_ne!(list.as_ptr().addr(), address, "it has moved");
    assert_ne!(bytes_at(address)[16..], SECRET[16..]);
    assert_eq!(list, SECRET);
    list.truncate(7);
    list.shrink_to_fit();
    assert_eq!(list, SECRET[..7]);
}

#[test]
fn what_was_taken_out_of_lists_and_slabs_is_wiped_and_the_rest_stays() {
    forget::begin();
    for taken in [1, 3, 5] {
        let mut list = vec![SECRET; 5];
        let places: Vec<usize> = list.iter().map(|one| one.as_ptr().addr()).collect();
        list.truncate(5 - taken);
        assert_eq!(bytes_at(places[4]), SECRET, "it lies there until it is wiped");
        forget::wipe_list(&mut list);
        let left = places.iter().filter(|place| bytes_at(**place) == SECRET);
        assert_eq!((left.count(), &list), (5 - taken, &vec![SECRET; 5 - taken]));
    }
    // Round the end of its memory, and with that full.
    for taken in [0, 2, 6, 8] {
        let mut queue = VecDeque::with_capacity(8);
        queue.extend([[0; 32]; 5]);
        queue.drain(..5);
        queue.extend([SECRET; 8]);
        let places: Vec<usize> = queue.iter().map(|one| one.as_ptr().addr()).collect();
        queue.drain(..taken);
        forget::wipe_queue(&mut queue);
        let left = places.iter().filter(|place| bytes_at(**place) == SECRET);
        assert_eq!((left.count(), queue.len()), (8 - taken, 8 - taken));
        assert!(queue.iter().all(|one| *one == SECRET));
    }
    let mut slab = Slab::new();
    let keys: Vec<_> = (0..3).map(|_| slab.insert(SECRET)).collect();
    let place = slab.get(keys[1]).unwrap().as_ptr().addr();
    assert_eq!(slab.remove(keys[1]), Some(SECRET));
    assert_ne!(bytes_at(place)[16..], SECRET[16..]);
    assert_eq!((slab.get(keys[0]), slab.get(keys[2])), (Some(&SECRET), Some(&SECRET)));
    // One that is far longer than the words that say its slot is free.
    let mut slab = Slab::new();
    let key = slab.insert([SECRET; 20]);
    let places = slab.get(key).unwrap().each_ref().map(|one| one.as_ptr().addr());
    assert!(slab.remove(key).is_some());
    assert_eq!(places.iter().filter(|place| bytes_at(**place) == SECRET).count(), 0);
}

#[test]
fn a_value_that_takes_the_place_of_another_leaves_nothing_of_it() {
    let mut place = Some(SECRET);
    let address = place.as_ref().unwrap().as_ptr().addr();
    assert_eq!(forget::wipe_value(&mut place, None), Some(SECRET));
    assert_eq!((place, bytes_at(address) == SECRET), (None, false));
    let mut place = Some(Box::new(7));
    assert_eq!(forget::wipe_value(&mut place, Some(Box::new(8))).as_deref(), Some(&7));
    assert_eq!(place.as_deref(), Some(&8));
}

#[test]
fn the_stack_below_is_wiped() {
    #[inline(never)]
    fn deep() -> usize {
        let secret = std::hint::black_box(SECRET);
        std::hint::black_box(&secret).as_ptr().addr()
    }
    forget::begin();
    let address = deep();
    forget::scrub_stack();
    assert_ne!(bytes_at(address), SECRET);
}
