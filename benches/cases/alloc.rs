//! Buffers, slabs and session memory.

use std::hint::black_box;

use ringway_alloc::Arena;
use ringway_alloc::heap::{HeapPolicy, SessionHeap, ShardHeap};
use ringway_alloc::slab::Slab;

use super::Case;

const TURNS: u32 = 256;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "arena/take_drop",
        operations: TURNS,
        prepare: || {
            let arena = Arena::with_capacity(64, 2048).expect("memory for 64 buffers");
            Box::new(move || {
                for _ in 0..TURNS {
                    drop(black_box(arena.take()));
                }
            })
        },
    },
    Case {
        name: "arena/lend_adopt_hold_drop",
        operations: TURNS,
        prepare: || {
            let arena = Arena::with_capacity(64, 2048).expect("memory for 64 buffers");
            Box::new(move || {
                for _ in 0..TURNS {
                    let index = arena.lend().expect("one of 64");
                    let buf = arena.adopt(index);
                    let hold = buf.hold();
                    drop(black_box(buf));
                    drop(black_box(hold));
                }
            })
        },
    },
    Case {
        name: "slab/get_of_10000",
        operations: TURNS,
        prepare: || {
            let mut slab = Slab::new();
            let keys: Vec<_> = (0..10_000_u64).map(|value| slab.insert([value; 16])).collect();
            let wanted: Vec<_> = (0..TURNS as usize).map(|at| keys[at * 7919 % 10_000]).collect();
            Box::new(move || {
                for key in &wanted {
                    black_box(slab.get(black_box(*key)));
                }
            })
        },
    },
    Case {
        name: "slab/insert_remove",
        operations: TURNS,
        prepare: || {
            let mut slab = Slab::new();
            slab.insert([0_u64; 16]);
            Box::new(move || {
                for value in 0..u64::from(TURNS) {
                    let key = slab.insert(black_box([value; 16]));
                    black_box(slab.remove(key));
                }
            })
        },
    },
    Case {
        name: "heap/copy_1500_free",
        operations: TURNS,
        prepare: || {
            let shard = ShardHeap::new(HeapPolicy::Never);
            let mut session = SessionHeap::new(&shard);
            let packet = [9; 1500];
            // The first block stays, so that the page of its size does too.
            let first = session.copy(&packet);
            Box::new(move || {
                black_box(&first);
                for _ in 0..TURNS {
                    drop(session.copy(black_box(&packet)));
                }
            })
        },
    },
];
