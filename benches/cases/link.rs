//! What crosses threads, without the other thread: the price of the instructions alone.

use std::hint::black_box;

use ringway_link::page::PageWriter;
use ringway_link::spsc;
use ringway_link::wake::SleepFlag;

use super::Case;

const ITEMS: u32 = 256;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "spsc/push_pop",
        operations: ITEMS,
        prepare: || {
            let (mut sender, mut receiver) = spsc::channel(64);
            Box::new(move || {
                for item in 0..ITEMS {
                    assert!(sender.push(black_box([item; 8])).is_ok());
                    black_box(receiver.pop());
                }
            })
        },
    },
    Case {
        name: "spsc/batches_of_32",
        operations: ITEMS,
        prepare: || {
            let (mut sender, mut receiver) = spsc::channel(64);
            Box::new(move || {
                for _ in 0..ITEMS / 32 {
                    assert_eq!(sender.push_batch((0..32).map(|item| black_box([item; 8]))), 32);
                    receiver.drain(32).for_each(|item| {
                        black_box(item);
                    });
                }
            })
        },
    },
    Case {
        name: "wake/nobody_sleeps",
        operations: ITEMS,
        prepare: || {
            let flag = SleepFlag::new();
            Box::new(move || {
                for _ in 0..ITEMS {
                    assert!(!black_box(&flag).take_sleeping());
                }
            })
        },
    },
    Case {
        name: "page/publish_256_words",
        operations: 1,
        prepare: || {
            let mut writer = PageWriter::new(256);
            let words = vec![7; 256];
            Box::new(move || writer.publish(black_box(&words)))
        },
    },
];
