//! Reduces the maximum segment size that TCP endpoints announce to each other (RFC 9293 section
//! 3.7.1, RFC 6691).
//!
//! Both directions: what the client announces limits what is sent to it, what the other side
//! announces limits what the client sends. The checksum is updated incrementally, so one that was
//! wrong stays wrong. Malformed options are left alone, and a missing option is not added: without
//! it senders keep to 536 bytes.

use ringway_proto::ip::{
    Fragment, Ipv4, Ipv6, Packet, Tcp, TcpFlags, TcpOptions, Version, checksum, protocol, read_u16,
    write_u16,
};

/// Reduces the announced segment size of a TCP handshake packet to what fits `mtu` bytes. Says
/// whether it changed anything; `packet` is what `view` was parsed from.
#[inline]
pub fn clamp(packet: &mut [u8], view: &Packet, mtu: u16) -> bool {
    let flags_at = view.transport_offset() + Tcp::FLAGS_AT;
    let handshake = view.protocol() == protocol::TCP
        && view.fragment() != Fragment::Later
        && packet.get(flags_at).is_some_and(|flags| flags & TcpFlags::SYN != 0);
    handshake && clamp_handshake(packet, view, mtu)
}

#[cold]
fn clamp_handshake(packet: &mut [u8], view: &Packet, mtu: u16) -> bool {
    let fixed = match view.version() {
        Version::V4 => Ipv4::HEADER_MIN,
        Version::V6 => Ipv6::HEADER,
    } + Tcp::HEADER_MIN;
    let size_max = mtu.saturating_sub(fixed as u16);
    let Some(transport) = packet.get_mut(view.transport_offset()..view.total_len()) else {
        return false;
    };
    let Ok(tcp) = Tcp::parse(transport) else { return false };
    let announced = tcp.options().find_map(|(kind, at, option)| match (kind, option) {
        (TcpOptions::MAXIMUM_SEGMENT_SIZE, &[_, _, high, low]) => {
            Some((at + 2, u16::from_be_bytes([high, low])))
        }
        _ => None,
    });
    let Some((at, size)) = announced else { return false };
    if size <= size_max {
        return false;
    }
    write_u16(transport, at, size_max);
    // At an odd offset the value lies across two words of the sum: the same as its bytes swapped.
    let [old, new] =
        if at % 2 == 0 { [size, size_max] } else { [size.swap_bytes(), size_max.swap_bytes()] };
    let sum = read_u16(transport, Tcp::CHECKSUM_AT);
    write_u16(transport, Tcp::CHECKSUM_AT, checksum::update(sum, old, new));
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Spec, checksums_hold};

    fn handshake(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        Spec { v6, flags, options: options.to_vec(), ..Spec::default() }.build()
    }

    fn clamped(mut packet: Vec<u8>, mtu: u16) -> (bool, Vec<u8>) {
        let view = Packet::parse(&packet).unwrap();
        let changed = clamp(&mut packet, &view, mtu);
        (changed, packet)
    }

    #[test]
    fn both_sides_of_a_handshake_are_held_to_the_mtu() {
        for flags in [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK] {
            let (changed, packet) = clamped(handshake(false, flags, &[2, 4, 0x05, 0xb4]), 1420);
            assert!(changed);
            assert_eq!(packet, handshake(false, flags, &[2, 4, 0x05, 0x64])); // 1380
            let (changed, packet) = clamped(handshake(true, flags, &[2, 4, 0x05, 0xa0]), 1420);
            assert!(changed);
            assert_eq!(packet, handshake(true, flags, &[2, 4, 0x05, 0x50])); // 1360
        }
    }

    #[test]
    fn a_smaller_announcement_stays() {
        let packet = handshake(false, TcpFlags::SYN, &[2, 4, 0x05, 0x64]);
        assert_eq!(clamped(packet.clone(), 1420), (false, packet));
    }

    #[test]
    fn only_handshakes_are_touched() {
        let packet = handshake(false, TcpFlags::ACK, &[2, 4, 0x05, 0xb4]);
        assert_eq!(clamped(packet.clone(), 1280), (false, packet));
        let mut fragment = handshake(false, TcpFlags::SYN, &[2, 4, 0x05, 0xb4]);
        fragment[7] = 1;
        assert_eq!(clamped(fragment.clone(), 1280), (false, fragment));
    }

    #[test]
    fn malformed_and_missing_options_are_left_alone() {
        for options in [
            &[][..],
            &[2, 3, 5, 0],
            &[2, 6, 5, 180],
            &[2, 0, 5, 180],
            &[0, 0, 0, 0, 2, 4, 5, 180],
            &[3, 60, 0, 0, 2, 4, 5, 180],
            &[1, 1, 1, 2],
        ] {
            let packet = handshake(false, TcpFlags::SYN, options);
            assert_eq!(clamped(packet.clone(), 1000), (false, packet));
        }
    }

    proptest! {
        #[test]
        fn the_checksum_holds_wherever_the_option_stands(
            pads in 0usize..5, size in any::<u16>(), mtu in 500u16..1500, v6 in any::<bool>(),
        ) {
            let mut options = vec![1; pads];
            options.extend([2, 4]);
            options.extend(size.to_be_bytes());
            options.resize(12, 0);
            let (changed, packet) = clamped(handshake(v6, TcpFlags::SYN, &options), mtu);
            let size_max = mtu - if v6 { 60 } else { 40 };
            prop_assert_eq!(changed, size > size_max);
            options[pads + 2..pads + 4].copy_from_slice(&size.min(size_max).to_be_bytes());
            prop_assert!(checksums_hold(&packet));
            prop_assert_eq!(packet.len(), handshake(v6, TcpFlags::SYN, &options).len());
            prop_assert_eq!(&packet[packet.len() - 12..], &options[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..100), v6 in any::<bool>(),
        ) {
            let mut packet = handshake(v6, TcpFlags::SYN, &[]);
            bytes.truncate(packet.len() - if v6 { 40 } else { 20 });
            let transport = if v6 { 40 } else { 20 };
            packet[transport..transport + bytes.len()].copy_from_slice(&bytes);
            clamped(packet, 1280);
        }
    }
}
