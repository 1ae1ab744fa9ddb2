#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::checksum::{Partial, copy_and_sum, pseudo_of, pseudo_v4, pseudo_v6, sum, update};
use super::*;

/// RFC 1071 section 4.1, word by word, as simple as it can be said.
fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// In one's complement there are two zeros.
fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

#[test]
fn the_example_of_rfc_1071_sums_as_printed() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
}

#[test]
fn a_long_run_of_ones_loses_no_carry() {
    assert_eq!(sum(&[0xff; 70_000]).fold(), 0xffff);
    assert_eq!(sum(&[0xff; 70_000]).finish_nonzero(), 0xffff);
}

proptest! {
    #[test]
    fn every_way_of_summing_agrees_with_the_plain_one(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..1000,
    ) {
        let expected = plain_sum(&bytes);
        prop_assert_eq!(sum(&bytes).fold(), expected);
        let mut copy = vec![0xa5; bytes.len() + 3];
        prop_assert_eq!(copy_and_sum(&bytes, &mut copy).fold(), expected);
        prop_assert_eq!(&copy[..bytes.len()], &bytes[..]);
        prop_assert_eq!(&copy[bytes.len()..], &[0xa5; 3]);
        let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
        prop_assert_eq!((sum(head) + sum(tail)).fold(), expected);
        prop_assert_eq!((sum(tail) + sum(head)).fold(), expected);
    }

    #[test]
    fn an_incremental_update_equals_summing_again(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..60),
        new in any::<u16>(), at in 0usize..10,
    ) {
        let before = sum(&bytes).finish();
        let old = read_u16(&bytes, at * 2);
        write_u16(&mut bytes, at * 2, new);
        prop_assert!(same(update(before, old, new), sum(&bytes).finish()));
    }

    #[test]
    fn pseudo_headers_sum_like_their_bytes(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), len in any::<u16>(),
    ) {
        let tail = [&[0, 0], &len.to_be_bytes()[..], &[0, 0, 0, 6]].concat();
        let mut bytes = [&source[..], &destination, &tail].concat();
        let sum = pseudo_v6(source, destination, 6, u32::from(len)).fold();
        prop_assert_eq!(sum, plain_sum(&bytes));
        let header = [&[0x60; 8], &source[..], &destination].concat();
        prop_assert_eq!(pseudo_of(&header, 6, u32::from(len)).fold(), plain_sum(&bytes));

        let (source, destination) = ([1, 2, 3, source[0]], [9, 8, 7, destination[0]]);
        bytes = [&source[..], &destination, &[0, 17], &len.to_be_bytes()].concat();
        prop_assert_eq!(pseudo_v4(source, destination, 17, len).fold(), plain_sum(&bytes));
        let header = [&[0x45; 12], &source[..], &destination].concat();
        prop_assert_eq!(pseudo_of(&header, 17, u32::from(len)).fold(), plain_sum(&bytes));
    }

    #[test]
    fn no_bytes_make_a_view_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120), version in 0usize..3,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = [*first, 0x40 | (*first & 15), 0x60][version];
        }
        if version > 0 && bytes.len() > 5 {
            bytes[if version == 1 { 2 } else { 4 }] = 0;
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert!(packet.transport_offset() <= packet.total_len());
            prop_assert!(packet.total_len() <= bytes.len());
            let transport = packet.transport_of(&bytes).unwrap_or_default();
            if let Ok(tcp) = Tcp::parse(transport) {
                let _ = (tcp.payload(), tcp.options().count(), tcp.flags(), tcp.window());
            }
            if let Ok(udp) = Udp::parse(transport) {
                let _ = (udp.payload(), udp.checksum(), udp.datagram_len());
            }
            if let Ok(icmp) = Icmp::parse(transport) {
                let _ = (icmp.payload(), icmp.kind(), icmp.sequence());
            }
        }
    }
}

#[test]
fn partial_words_are_given_by_value() {
    assert_eq!(Partial::of_u16(0x1234).fold(), 0x1234);
    assert_eq!((Partial::of_u32(0x0001_0203) + Partial::of_u16(1)).fold(), 0x0205);
    assert_eq!(Partial::ZERO.finish(), 0xffff);
}

fn ipv4(total_len: u16, options: usize, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20 + options];
    bytes[0] = 0x45 + (options / 4) as u8;
    write_u16(&mut bytes, 2, total_len);
    bytes[8] = 64;
    bytes[9] = protocol::UDP;
    bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend_from_slice(rest);
    bytes
}

fn ipv6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[0] = 0x60;
    write_u16(&mut bytes, 4, rest.len() as u16);
    bytes[6] = next_header;
    bytes[23] = 1;
    bytes[39] = 2;
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn an_ipv4_header_with_options_is_stepped_over() {
    let bytes = ipv4(32, 4, &[0; 8]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.source(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(packet.destination(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!((packet.transport_offset(), packet.total_len()), (24, 32));
    assert_eq!(packet.transport_of(&bytes).unwrap().len(), 8);
}

#[test]
fn padding_after_a_packet_is_not_part_of_it() {
    let bytes = ipv4(28, 0, &[0; 20]);
    assert_eq!(Packet::parse(&bytes).unwrap().total_len(), 28);
    assert_eq!(Ipv4::parse(&bytes).unwrap().payload().len(), 8);
}

#[test]
fn lengths_that_lie_are_refused() {
    assert_eq!(Packet::parse(&[]), Err(Malformed::Truncated));
    assert_eq!(Packet::parse(&[0x45; 19]), Err(Malformed::Truncated));
    assert_eq!(Packet::parse(&[0x50; 60]), Err(Malformed::Version));
    assert_eq!(Packet::parse(&ipv4(29, 0, &[0; 8])), Err(Malformed::Length));
    assert_eq!(Packet::parse(&ipv4(19, 0, &[0; 8])), Err(Malformed::Length));
    let mut short_header = ipv4(28, 0, &[0; 8]);
    short_header[0] = 0x44;
    assert_eq!(Packet::parse(&short_header), Err(Malformed::HeaderLength));
    let mut truncated = ipv6(protocol::UDP, &[0; 8]);
    truncated.pop();
    assert_eq!(Packet::parse(&truncated), Err(Malformed::Length));
}

#[test]
fn fragments_are_told_apart_in_ipv4() {
    let mut bytes = ipv4(28, 0, &[0; 8]);
    for (field, expected) in [
        (0x0000, Fragment::Whole),
        (0x4000, Fragment::Whole),
        (0x2000, Fragment::First),
        (0x2001, Fragment::Later),
        (0x0001, Fragment::Later),
    ] {
        write_u16(&mut bytes, 6, field);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.fragment(), expected);
        assert_eq!(packet.transport_of(&bytes).is_none(), expected == Fragment::Later);
    }
}

#[test]
fn ipv6_extension_headers_are_walked_to_the_upper_layer() {
    let hop_by_hop = [protocol::ROUTING, 0, 0, 0, 0, 0, 0, 0];
    let routing = [protocol::FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let atomic = [protocol::UDP, 0, 0, 0, 1, 2, 3, 4];
    let bytes = ipv6(0, &[&hop_by_hop[..], &routing, &atomic, &[7; 8]].concat());
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.transport_offset()), (protocol::UDP, 72));
    assert_eq!(packet.fragment(), Fragment::Whole);
    assert_eq!(packet.source(), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 1)));
}

#[test]
fn ipv6_fragments_hide_what_follows_them_except_in_the_first() {
    let first = ipv6(protocol::FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8]);
    let packet = Packet::parse(&first).unwrap();
    assert_eq!((packet.protocol(), packet.transport_offset()), (protocol::UDP, 48));
    assert_eq!(packet.fragment(), Fragment::First);
    let later = ipv6(protocol::FRAGMENT, &[0, 0, 0, 8, 0, 0, 0, 9, 0, 255, 3, 4, 5, 6, 7, 8]);
    let packet = Packet::parse(&later).unwrap();
    assert_eq!((packet.protocol(), packet.transport_offset()), (0, 48));
    assert_eq!(packet.fragment(), Fragment::Later);
}

#[test]
fn an_extension_header_that_runs_past_the_end_stops_the_walk() {
    let bytes = ipv6(protocol::DESTINATION_OPTIONS, &[17, 9, 0, 0, 0, 0, 0, 0]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.transport_offset()), (protocol::DESTINATION_OPTIONS, 40));
}

#[test]
fn tcp_options_end_at_the_first_malformed_one() {
    let mut bytes = [0; 32];
    bytes[12] = 0x80;
    bytes[20..32].copy_from_slice(&[1, 2, 4, 5, 0xb4, 8, 2, 3, 0, 3, 3, 7]);
    let tcp = Tcp::parse(&bytes).unwrap();
    let kinds: Vec<_> = tcp.options().map(|(kind, offset, _)| (kind, offset)).collect();
    assert_eq!(kinds, [(2, 21), (8, 25)]);
    assert_eq!(tcp.payload().len(), 0);
}
