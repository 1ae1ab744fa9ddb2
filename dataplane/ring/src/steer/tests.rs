//! The kernel's choice of a socket against the oracle in plain Rust.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::*;
use crate::listen::{UdpGroup, UdpOptions};
use crate::sys;
use crate::tests::net::{in_own_network, ip};

/// Looks at all sockets before a datagram counts as lost: seconds.
const LOOKS_MAX: u32 = 1_000_000;

const SECRET: u32 = 0xa5c3_17e9;

/// Rules of the shapes there are: a range with the index at 4, one length with the index at 8, one
/// length with it at 4.
fn steering(cores: u16) -> Steering {
    let rule = |first_word, bytes_min, bytes_max, index_at| Rule {
        first_word,
        bytes_min,
        bytes_max,
        index_at,
    };
    Steering {
        rules: vec![
            rule(0x0400_0000, 32, 65_535, 4),
            rule(0x0200_0000, 92, 92, 8),
            rule(0x0300_0000, 64, 64, 4),
        ],
        owner: Owner {
            cores,
            core_bits: u32::from(cores).next_power_of_two().trailing_zeros(),
            secret: SECRET,
        },
    }
}

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    /// A datagram that is often nearly right.
    fn datagram(&mut self) -> Vec<u8> {
        let len = match self.below(4) {
            0 => self.below(12),
            1 => self.one_of(&[31, 32, 33, 63, 64, 65, 91, 92, 93, 148]),
            2 => self.below(200),
            _ => self.below(1400),
        };
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
        let mut head = [self.one_of(&[1, 2, 3, 4, 4, 4, 5, 0]), 0, 0, 0];
        if self.below(8) == 0 {
            head[1 + self.below(3) as usize] = self.next() as u8;
        }
        for (byte, head) in bytes.iter_mut().zip(head) {
            *byte = head;
        }
        bytes
    }
}

/// All sockets of a group's family, in order of binding.
fn sockets(group: &UdpGroup, ipv6: bool) -> Vec<UdpSocket> {
    let data = group.sockets.iter().map(|sockets| sockets.descriptors());
    let initiations = group.sockets.iter().map(|sockets| sockets.initiations());
    let fds = data.chain(initiations).filter_map(|fds| fds[usize::from(ipv6)]);
    fds.map(|fd| UdpSocket::from(fd.try_clone_to_owned().unwrap())).collect()
}

/// Which socket has something, and what.
fn arrived(sockets: &[UdpSocket]) -> (u16, Vec<u8>) {
    let mut bytes = vec![0; 65_536];
    for _ in 0..LOOKS_MAX {
        for (number, socket) in sockets.iter().enumerate() {
            match socket.recv(&mut bytes) {
                Ok(len) => return (number as u16, bytes[..len].to_vec()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        std::thread::yield_now();
    }
    panic!("nothing arrived");
}

/// Sends `count` random datagrams from these addresses and compares where they arrive. Returns how
/// many came to each socket.
fn compare(cores: u16, sources: &[IpAddr], count: u32) -> HashMap<u16, u32> {
    let steering = steering(cores);
    let group = UdpGroup::open(&UdpOptions::default(), cores, Some(&steering)).unwrap();
    assert!(group.steered, "{:?}", group.refusal);
    let ipv6 = sources[0].is_ipv6();
    let sockets = sockets(&group, ipv6);
    assert_eq!(sockets.len(), 2 * usize::from(cores));
    let to: SocketAddr = (sources[0], group.sockets[0].port()).into();
    let senders: Vec<_> = sources.iter().map(|ip| UdpSocket::bind((*ip, 0)).unwrap()).collect();
    let mut dice = Dice(u64::from(cores) << 32 | 0x1234_5678);
    let mut seen = HashMap::new();
    for round in 0..count {
        let which = dice.below(senders.len() as u32) as usize;
        let datagram = dice.datagram();
        senders[which].send_to(&datagram, to).unwrap();
        let (socket, bytes) = arrived(&sockets);
        assert_eq!(bytes, datagram);
        let expected = steering.socket_of(&datagram, sources[which]);
        assert_eq!(socket, expected, "round {round}, {cores} cores: {datagram:02x?}");
        *seen.entry(socket).or_default() += 1;
    }
    seen
}

fn ipv4_sources() -> Vec<IpAddr> {
    (1..=64).map(|n| Ipv4Addr::new(127, 0, n % 3, n).into()).collect()
}

#[test]
fn the_kernel_chooses_as_the_oracle_says_for_ipv4() {
    for cores in [1, 2, 3, 4, 7] {
        let seen = compare(cores, &ipv4_sources(), 1500);
        assert_eq!(seen.len(), 2 * usize::from(cores), "every socket got something: {seen:?}");
    }
}

#[test]
fn the_kernel_chooses_as_the_oracle_says_for_ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    for cores in [1, 2, 3, 4, 7] {
        let seen = compare(cores, &[Ipv6Addr::LOCALHOST.into()], 800);
        assert_eq!(seen.len(), usize::from(cores) + 1, "one source, one bank: {seen:?}");
    }
}

#[test]
fn privileged_ipv6_sources_are_told_apart_by_their_first_64_bits() {
    in_own_network(|| {
        let sources: Vec<IpAddr> = (0..48u16)
            .map(|n| Ipv6Addr::new(0x2001, 0xdb8, n % 5, n * 257, 0, 0, 0, 1).into())
            .collect();
        for source in &sources {
            assert!(ip(&format!("address add {source}/128 dev lo nodad")));
        }
        for cores in [2, 3, 4] {
            let seen = compare(cores, &sources, 800);
            assert_eq!(seen.len(), 2 * usize::from(cores), "{seen:?}");
        }
        let steering = steering(7);
        for source in &sources {
            let IpAddr::V6(v6) = source else { unreachable!() };
            let neighbour = Ipv6Addr::from_bits(v6.to_bits() ^ 0xffff);
            let core = steering.core_of_source(*source);
            assert_eq!(steering.core_of_source(neighbour.into()), core);
        }
    });
}

#[test]
fn a_super_packet_goes_by_its_first_datagram() {
    for (cores, segment) in [(2, 148), (3, 96), (4, 32), (4, 1200)] {
        let steering = steering(cores);
        let group = UdpGroup::open(&UdpOptions::default(), cores, Some(&steering)).unwrap();
        let sockets = sockets(&group, false);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let set = sys::set_option(sender.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        set.unwrap();
        let mut dice = Dice(99 + u64::from(cores));
        for _ in 0..100 {
            let segments = 2 + dice.below(20);
            let mut train: Vec<u8> = Vec::new();
            for _ in 0..segments {
                let at = train.len();
                train.extend((0..segment).map(|_| dice.next() as u8));
                let kind = dice.one_of(&[1, 2, 3, 4, 4, 4]);
                train[at..at + 4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            sender.send_to(&train, ("127.0.0.1", group.sockets[0].port())).unwrap();
            let (socket, bytes) = arrived(&sockets);
            assert_eq!(bytes, train, "merged on the way in as on the way out");
            assert_eq!(socket, steering.socket_of(&train, Ipv4Addr::LOCALHOST.into()));
        }
    }
}

#[test]
fn every_index_finds_its_core_and_one_of_a_core_that_is_not_there_is_unmatched() {
    let steering = steering(3);
    let source = Ipv4Addr::new(192, 0, 2, 1).into();
    let mut datagram = vec![0; 32];
    datagram[0] = 4;
    for core in 0..4u32 {
        for low in [0, 1, 0x3fff_ffff] {
            let index = (core << 30 | low) ^ SECRET;
            datagram[4..8].copy_from_slice(&index.to_le_bytes());
            let socket = steering.socket_of(&datagram, source);
            if core < 3 {
                assert_eq!(u32::from(socket), core);
            } else {
                assert!((3..6).contains(&socket));
            }
        }
    }
    assert!((3..6).contains(&steering.socket_of(&[], source)), "never core 0's data by accident");
}

#[test]
fn sources_spread_evenly_over_the_cores_wherever_they_differ() {
    const COUNT: u32 = 4096;
    for cores in [2u16, 3, 4, 7] {
        let steering = steering(cores);
        // Differing in the last, the middle and the first bits.
        let ipv4 = (0..3).map(|place| (place * 10, true));
        let ipv6 = (0..6).map(|place| (64 + place * 10, false));
        for (shift, is_ipv4) in ipv4.chain(ipv6) {
            let mut counts = vec![0u32; cores.into()];
            for n in 0..COUNT {
                let source = if is_ipv4 {
                    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 ^ n << shift))
                } else {
                    IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 ^ u128::from(n) << shift))
                };
                counts[usize::from(steering.core_of_source(source))] += 1;
            }
            let fair = COUNT / u32::from(cores);
            assert!(
                counts.iter().all(|count| count.abs_diff(fair) < fair / 4),
                "{counts:?} at bit {shift}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "index_at")]
fn a_rule_that_would_read_beyond_its_datagram_is_refused() {
    let mut steering = steering(2);
    steering.rules[0].bytes_min = 7;
    let _ = UdpGroup::open(&UdpOptions::default(), 2, Some(&steering));
}
