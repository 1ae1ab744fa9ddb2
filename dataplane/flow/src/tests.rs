#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use ringway_proto::ip::Icmp;
use ringway_proto::limits::ICMP_ANSWERS_BURST;

use super::*;
use crate::icmp::write_echo;
use crate::testing::{Spec, checksums_hold, ip_v4, ip_v6};

fn policy() -> Policy {
    Policy {
        address_v4: Some(Ipv4Addr::new(10, 9, 9, 1)),
        address_v6: Some(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)),
        ..Policy::default()
    }
}

fn answered(packet: &[u8], reason: DropReason, policy: &Policy) -> Option<Vec<u8>> {
    let mut out = vec![0xee; ANSWER_BYTES_MAX];
    let mut allowance = Allowance::default();
    let len = answer(packet, reason, 1280, policy, &mut allowance, Instant::ZERO, &mut out)?;
    assert!(out[len..].iter().all(|byte| *byte == 0xee));
    out.truncate(len);
    assert!(checksums_hold(&out));
    Some(out)
}

#[test]
fn a_packet_too_big_is_answered_with_what_would_fit() {
    let packet = Spec { payload: 1400, ..Spec::default() }.build();
    let out = answered(&packet, DropReason::InsideTooBig, &policy()).unwrap();
    let view = Packet::parse(&out).unwrap();
    assert_eq!((out.len(), view.total_len()), (576, 576));
    // Not from an address of this host, which its kernel would take for a forgery.
    assert_eq!(view.source(), Packet::parse(&packet).unwrap().destination());
    assert_eq!(view.destination(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(out[20..22], [3, 4]);
    assert_eq!(out[24..28], [0, 0, 5, 0]);
    assert_eq!(out[28..], packet[..548]);

    let packet = Spec { v6: true, payload: 1400, ..Spec::default() }.build();
    let out = answered(&packet, DropReason::InsideTooBig, &policy()).unwrap();
    let view = Packet::parse(&out).unwrap();
    assert_eq!((out.len(), view.total_len()), (1280, 1280));
    assert_eq!(view.source(), Packet::parse(&packet).unwrap().destination());
    assert_eq!(out[40..42], [2, 0]);
    assert_eq!(out[44..48], [0, 0, 5, 0]);
    assert_eq!(out[48..], packet[..1232]);
}

#[test]
fn who_cannot_be_reached_is_said_in_the_words_of_each_family() {
    for (reason, v4, v6) in [
        (DropReason::InsideNoPeer, [3, 1], [1, 0]),
        (DropReason::InsideNoEndpoint, [3, 1], [1, 3]),
        (DropReason::StagedExpired, [3, 1], [1, 3]),
    ] {
        let out = answered(&Spec::default().build(), reason, &policy()).unwrap();
        assert_eq!((out.len(), &out[20..22]), (68, &v4[..]));
        let packet = Spec { v6: true, ..Spec::default() }.build();
        let out = answered(&packet, reason, &policy()).unwrap();
        assert_eq!((out.len(), &out[40..42]), (108, &v6[..]));
    }
    let packet = Spec::default().build();
    let view = Packet::parse(&packet).unwrap();
    let mut out = [0; 100];
    let len = icmp::write_error(icmp::Error::Prohibited, &packet, &view, None, &mut out).unwrap();
    assert_eq!(out[20..22], [3, 13]);
    assert!(checksums_hold(&out[..len]));
}

#[test]
fn without_an_address_of_ours_the_answer_seems_to_come_from_the_destination() {
    for v6 in [false, true] {
        let packet = Spec { v6, ..Spec::default() }.build();
        let out = answered(&packet, DropReason::InsideNoPeer, &Policy::default()).unwrap();
        let source = Packet::parse(&out).unwrap().source();
        assert_eq!(source, Packet::parse(&packet).unwrap().destination());
    }
}

#[test]
fn what_nobody_waits_for_is_dropped_in_silence() {
    let packet = Spec::default().build();
    assert_eq!(answered(&packet, DropReason::TransmitExhausted, &policy()), None);
    assert_eq!(answered(&packet, DropReason::SourceNotAllowed, &policy()), None);
    let silent = Policy { answer_icmp: false, ..policy() };
    assert_eq!(answered(&packet, DropReason::InsideNoPeer, &silent), None);
    assert_eq!(answered(&packet[..10], DropReason::InsideNoPeer, &policy()), None);
}

#[test]
fn errors_parts_and_what_is_for_many_are_never_answered() {
    let may = |packet: &[u8]| icmp::may_answer(packet, &Packet::parse(packet).unwrap());
    assert!(may(&Spec::default().build()));
    let change = |at: usize, bytes: &[u8]| {
        let mut packet = Spec::default().build();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    assert!(may(&change(6, &[0x20, 0])));
    assert!(!may(&change(6, &[0x20, 1])));
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        assert!(!may(&change(12, &source)));
    }
    for destination in [[224, 0, 0, 1], [239, 1, 2, 3], [255; 4]] {
        assert!(!may(&change(16, &destination)));
    }
    let message = |v6: bool, kind: u8| {
        let head = if v6 { ip_v6(58, 0, 8) } else { ip_v4(1, 0, 8) };
        [head, vec![kind, 0, 0, 0, 0, 0, 0, 0]].concat()
    };
    for kind in [3, 4, 5, 11, 12, 200] {
        assert!(!may(&message(false, kind)), "{kind}");
    }
    for kind in [0, 8, 13] {
        assert!(may(&message(false, kind)), "{kind}");
    }
    for kind in [1, 2, 3, 4, 100, 137] {
        assert!(!may(&message(true, kind)), "{kind}");
    }
    assert!(may(&message(true, 128)));
    assert!(!may(&ip_v4(1, 0, 0)));
    let mut multicast = Spec { v6: true, ..Spec::default() }.build();
    multicast[24] = 0xff;
    assert!(!may(&multicast));
    let mut unspecified = Spec { v6: true, ..Spec::default() }.build();
    unspecified[8..24].fill(0);
    assert!(!may(&unspecified));
}

#[test]
fn answers_are_rationed_and_the_ration_grows_back() {
    let mut allowance = Allowance::new(10, 3);
    let at = |ms| Instant::ZERO + Duration::from_millis(ms);
    let taken = |allowance: &mut Allowance, now| (0..9).filter(|_| allowance.take(now)).count();
    assert_eq!(taken(&mut allowance, at(1000)), 3);
    assert_eq!(taken(&mut allowance, at(1099)), 0);
    assert_eq!(taken(&mut allowance, at(1100)), 1);
    assert_eq!(taken(&mut allowance, at(1350)), 2);
    assert_eq!(taken(&mut allowance, at(9000)), 3);
    assert_eq!(taken(&mut Allowance::new(0, 0), at(9000)), 1);
    let burst = ICMP_ANSWERS_BURST as usize;
    let mut allowance = Allowance::default();
    assert_eq!((0..2 * burst).filter(|_| allowance.take(at(0))).count(), burst);
}

#[test]
fn an_echo_request_has_the_size_that_was_asked_for() {
    let v4 = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    let v6 =
        [IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2])];
    for ([from, to], kind) in [(v4, Icmp::V4_ECHO_REQUEST), (v6, Icmp::V6_ECHO_REQUEST)] {
        let mut out = [0xee; 1280];
        assert!(write_echo(from, to, 7, 9, &mut out));
        let view = Packet::parse(&out).unwrap();
        assert_eq!((view.source(), view.destination(), view.total_len()), (from, to, 1280));
        let icmp = Icmp::parse(view.transport_of(&out).unwrap()).unwrap();
        assert_eq!((icmp.kind(), icmp.identifier(), icmp.sequence()), (kind, 7, 9));
        assert!(checksums_hold(&out));
    }
    assert!(!write_echo(v4[0], v6[0], 7, 9, &mut [0; 1280]));
    assert!(!write_echo(v4[0], v4[1], 7, 9, &mut [0; 27]));
}

#[test]
fn the_two_directions_clamp_and_count() {
    let handshake = Spec { flags: 2, options: vec![2, 4, 0x05, 0xb4], ..Spec::default() };
    let mut counters = Counters::default();
    let mut packet = handshake.build();
    let view = Packet::parse(&packet).unwrap();
    to_client(&mut packet, &view, 1280, &policy(), &mut counters);
    assert_eq!(packet[42..44], 1240u16.to_be_bytes());
    let mut packet = Spec { tos: 2, ..handshake.clone() }.build();
    to_exit(&mut packet, &view, 3, 1280, &policy(), &mut counters).unwrap();
    assert_eq!(packet[42..44], 1240u16.to_be_bytes());
    assert_eq!(packet[1], 3);
    assert_eq!(counters, Counters { mss_clamped: 2, congestion_marked: 1 });
    let mut packet = handshake.build();
    let unclamped = Policy { clamp_mss: false, ..policy() };
    to_client(&mut packet, &view, 1280, &unclamped, &mut counters);
    assert_eq!(packet, handshake.build());
    assert_eq!(fits(1281, 1280), Err(DropReason::InsideTooBig));
    assert_eq!(fits(1280, 1280), Ok(()));
}

proptest! {
    #[test]
    fn whatever_is_quoted_an_answer_is_whole_and_fits(
        bytes in proptest::collection::vec(any::<u8>(), 20..200),
        version in 0usize..2, room in 0usize..1400,
    ) {
        let mut packet = bytes;
        packet[0] = [0x45, 0x60][version];
        let len = packet.len();
        if version == 0 {
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&(len.saturating_sub(40) as u16).to_be_bytes());
        }
        let mut out = vec![0; room];
        let mut allowance = Allowance::default();
        let (reason, now) = (DropReason::InsideTooBig, Instant::ZERO);
        if let Some(len) = answer(&packet, reason, 1024, &policy(), &mut allowance, now, &mut out) {
            prop_assert!(checksums_hold(&out[..len]));
            prop_assert_eq!(Packet::parse(&out).unwrap().total_len(), len);
        }
    }
}
