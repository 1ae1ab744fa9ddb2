//! How the kernel spreads datagrams over the sockets of the cores: the messages that the protocols
//! say name their receiver, and the layout of the indices that this crate hands out.

use ringway_proto::wireguard;
use ringway_ring::steer::{Owner, Rule, Steering};

use crate::index_table::IndexLayout;

/// The steering of a gateway with `cores` cores (at least one) whose indices have this `layout`.
#[must_use]
pub fn steering(cores: u16, layout: IndexLayout) -> Steering {
    let rule = |steered: &wireguard::Steered| Rule {
        first_word: steered.first_word,
        bytes_min: steered.bytes_min,
        bytes_max: steered.bytes_max,
        index_at: steered.index_at,
    };
    Steering {
        rules: wireguard::STEERING.iter().map(rule).collect(),
        owner: Owner { cores, core_bits: layout.core_bits(), secret: layout.secret() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_table::IndexTable;
    use ringway_proto::{CoreId, PeerId};
    use std::net::{IpAddr, Ipv4Addr};

    /// Numbers that fill every bit in turn.
    struct Counting(u32);

    impl ringway_proto::crypto::Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                *byte = (self.0 >> 24) as u8;
            }
        }
    }

    #[test]
    fn data_for_an_index_that_a_core_handed_out_comes_to_that_core() {
        let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut random = Counting(1);
        for cores in [1, 2, 3, 4, 7, 64] {
            let layout = IndexLayout::new(cores, 0x1234_abcd);
            let steering = steering(cores, layout);
            for core in 0..cores {
                let mut table = IndexTable::new(layout, CoreId(core));
                let peer = PeerId { slot: 0, generation: 0 };
                for _ in 0..20 {
                    let index = table.allocate(peer, &mut random).expect("there is room");
                    let mut data = vec![4, 0, 0, 0];
                    data.extend(index.0.to_le_bytes());
                    data.resize(32, 0);
                    assert_eq!(steering.socket_of(&data, source), core);
                }
            }
        }
    }

    #[test]
    fn an_initiation_comes_to_the_second_bank() {
        let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let steering = steering(2, IndexLayout::new(2, 7));
        let mut initiation = vec![0; wireguard::messages::INITIATION_BYTES];
        initiation[0] = 1;
        assert_eq!(steering.socket_of(&initiation, source), 2 + steering.core_of_source(source));
    }
}
