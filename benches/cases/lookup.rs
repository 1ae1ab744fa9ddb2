//! Which peer has an inner address.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::PeerId;
use ringway_proto::allowed_ips::{AllowedIps, IpNet};

use super::{Case, Work};

const PEERS: u32 = 10_000;
const LOOKUPS: u32 = 256;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "allowed_ips/host_v4_of_10000",
        operations: LOOKUPS,
        prepare: || look_up(|peer| IpNet::host(v4(peer)), v4),
    },
    Case {
        name: "allowed_ips/host_v6_of_10000",
        operations: LOOKUPS,
        prepare: || look_up(|peer| IpNet::host(v6(peer)), v6),
    },
    Case {
        name: "allowed_ips/net_v4_of_10000",
        operations: LOOKUPS,
        prepare: || look_up(|peer| net(v4(peer << 4), 28), |peer| v4(peer << 4 | 9)),
    },
    Case {
        name: "allowed_ips/net_v6_of_10000",
        operations: LOOKUPS,
        prepare: || look_up(|peer| net(v6(peer << 8), 120), |peer| v6(peer << 8 | 9)),
    },
];

fn look_up(net_of: fn(u32) -> IpNet, address_of: fn(u32) -> IpAddr) -> Work {
    let mut table = AllowedIps::new();
    for slot in 0..PEERS {
        table.insert(net_of(slot), PeerId { slot, generation: 0 });
    }
    let wanted: Vec<_> = (0..LOOKUPS).map(|turn| address_of(turn * 7919 % PEERS)).collect();
    Box::new(move || {
        for address in &wanted {
            assert!(table.lookup(black_box(*address)).is_some());
        }
    })
}

fn net(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).expect("a prefix made here")
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | number))
}

fn v6(number: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(0xfd << 120 | u128::from(number)))
}
