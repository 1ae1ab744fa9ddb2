//! The Internet checksum.

use std::hint::black_box;

use ringway_proto::ip::checksum;

use super::Case;

const TURNS: u32 = 256;

pub(super) const CASES: &[Case] = &[
    Case { name: "checksum/sum_1360", operations: TURNS, prepare: || sum(1360) },
    Case { name: "checksum/sum_64", operations: TURNS, prepare: || sum(64) },
    Case {
        name: "checksum/copy_and_sum_1360",
        operations: TURNS,
        prepare: || {
            let from = bytes(1360);
            let mut to = vec![0; 1360];
            Box::new(move || {
                for _ in 0..TURNS {
                    black_box(checksum::copy_and_sum(black_box(&from), &mut to).finish());
                }
            })
        },
    },
    Case {
        name: "checksum/update",
        operations: TURNS,
        prepare: || {
            Box::new(|| {
                for value in 0..TURNS as u16 {
                    black_box(checksum::update(black_box(0x1234), value, !value));
                }
            })
        },
    },
];

fn sum(len: usize) -> super::Work {
    let bytes = bytes(len);
    Box::new(move || {
        for _ in 0..TURNS {
            black_box(checksum::sum(black_box(&bytes)).finish());
        }
    })
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7) as u8).collect()
}
