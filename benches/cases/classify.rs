//! The first look at what came from outside.

use std::hint::black_box;

use ringway_dataplane::classify;
use ringway_proto::wireguard;

use super::Case;

const DATAGRAMS: usize = 46;
const STRIDE: usize = 1420;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "classify/datagram",
        operations: 1,
        prepare: || {
            let bytes = data(STRIDE);
            Box::new(move || {
                black_box(wireguard::classify(black_box(&bytes)).is_ok());
            })
        },
    },
    Case {
        name: "classify/run_of_46",
        operations: DATAGRAMS as u32,
        prepare: || {
            let bytes = data(STRIDE).repeat(DATAGRAMS);
            Box::new(move || {
                assert_eq!(classify::next_run(black_box(&bytes), STRIDE).count, DATAGRAMS);
            })
        },
    },
];

fn data(len: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; len];
    datagram[..8].copy_from_slice(&[4, 0, 0, 0, 1, 2, 3, 4]);
    datagram
}
