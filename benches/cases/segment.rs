//! Cutting super-packets from the TUN.

use std::hint::black_box;

use ringway_proto::offload::{Segments, VnetHeader};

use super::{Case, Work, packets};

const STRIDE: u16 = 1368;
const SEGMENTS: usize = 46;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "segment/tcp_1368_of_46",
        operations: SEGMENTS as u32,
        prepare: || {
            let (vnet, bytes) = packets::tcp_super(SEGMENTS * STRIDE as usize, STRIDE);
            cut(vnet, bytes)
        },
    },
    Case {
        name: "segment/single_64",
        operations: 1,
        prepare: || cut(VnetHeader::default(), packets::tcp(1, 12)),
    },
];

fn cut(vnet: VnetHeader, bytes: Vec<u8>) -> Work {
    let mut out = vec![0; 2048];
    Box::new(move || {
        let segments = Segments::new(&vnet, black_box(&bytes)).expect("a packet made here");
        for index in 0..segments.count() {
            black_box(segments.write(index, &mut out));
        }
    })
}
