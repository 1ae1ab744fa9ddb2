//! Joining packets for the TUN.

use std::hint::black_box;

use ringway_proto::offload::{Class, Group};

use super::{Case, Work, packets};

const PACKETS: u32 = 40;

pub(super) const CASES: &[Case] = &[
    Case { name: "coalesce/tcp_1368_verified", operations: PACKETS, prepare: || join(true) },
    Case { name: "coalesce/tcp_1368_trusted", operations: PACKETS, prepare: || join(false) },
];

fn join(verify: bool) -> Work {
    let run: Vec<_> = (0..PACKETS).map(|number| packets::tcp(number * 1368, 1368)).collect();
    let mut head = [0; 256];
    Box::new(move || {
        let mut group: Option<Group> = None;
        for packet in &run {
            let Class::Flow(candidate) = Class::of(black_box(packet), verify) else {
                panic!("a packet made here belongs to a flow");
            };
            match &mut group {
                Some(group) => assert!(group.try_append(&candidate)),
                None => group = Some(Group::start(&candidate)),
            }
        }
        if let Some(group) = &group {
            group.finish_head(&mut head);
        }
        black_box(&head);
    })
}
