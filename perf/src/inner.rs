//! Inner packets for the generators: UDP over IPv4 or IPv6, with or without a checksum.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use ringway_proto::ip::{checksum, protocol};

const UDP_HEADER_BYTES: usize = 8;

/// A UDP packet of exactly `total_bytes`, IP header included, its payload filled with zeros. With
/// `with_checksum` the UDP checksum is right; without, it is zero, so that a receiver which
/// coalesces must not trust the packet. IPv6 has no such packets.
///
/// # Errors
/// When the families differ, the size does not fit, or IPv6 is asked for without a checksum.
pub fn udp_packet(
    from: SocketAddr,
    to: SocketAddr,
    total_bytes: usize,
    with_checksum: bool,
) -> Result<Vec<u8>> {
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend(u16::try_from(total_bytes)?.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol::UDP, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = checksum::sum(&packet).finish().to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ensure!(with_checksum, "UDP over IPv6 always has a checksum");
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(u16::try_from(total_bytes.saturating_sub(40))?.to_be_bytes());
            packet.extend([protocol::UDP, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => bail!("{from} and {to} are of different families"),
    };
    let header = packet.len();
    ensure!(total_bytes >= header + UDP_HEADER_BYTES, "{total_bytes} bytes are too few for UDP");
    let udp_bytes = u16::try_from(total_bytes - header)?;
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(udp_bytes.to_be_bytes());
    packet.resize(total_bytes, 0);
    if with_checksum {
        let pseudo = checksum::pseudo_of(&packet, protocol::UDP, u32::from(udp_bytes));
        let sum = (pseudo + checksum::sum(&packet[header..])).finish_nonzero();
        packet[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use ringway_proto::ip::{Ipv4, Packet, Udp};

    #[test]
    fn both_families_parse_again_and_their_sums_hold() {
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let packet = udp_packet(from.parse().unwrap(), to.parse().unwrap(), 65, true).unwrap();
            let view = Packet::parse(&packet).unwrap();
            let transport = view.transport_of(&packet).unwrap();
            assert_eq!(view.total_len(), 65);
            assert_eq!(Udp::parse(transport).unwrap().destination_port(), 2);
            let length = u32::try_from(transport.len()).unwrap();
            let pseudo = checksum::pseudo_of(&packet, protocol::UDP, length);
            assert_eq!((pseudo + checksum::sum(transport)).finish(), 0);
        }
    }

    #[test]
    fn without_a_checksum_the_field_is_zero_and_the_header_still_holds() {
        let (from, to) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let packet = udp_packet(from, to, 64, false).unwrap();
        assert_eq!(packet[26..28], [0, 0]);
        assert!(Ipv4::parse(&packet).unwrap().checksum_holds());
    }

    #[test]
    fn mixed_families_and_sizes_below_the_headers_are_refused() {
        let v4: SocketAddr = "10.0.0.1:1".parse().unwrap();
        assert!(udp_packet(v4, "[::1]:1".parse().unwrap(), 64, true).is_err());
        assert!(udp_packet(v4, v4, 27, true).is_err());
    }
}
