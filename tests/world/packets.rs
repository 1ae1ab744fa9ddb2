//! Inner packets for tests: whole IPv4 and IPv6 packets with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::ip::checksum::{pseudo_v4, pseudo_v6, sum};

const UDP: u8 = 17;

/// A UDP packet over IPv4 between port 1000 and 2000.
#[must_use]
pub fn udp4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0];
    packet[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let header = sum(&packet).finish();
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    let pseudo = pseudo_v4(source.octets(), destination.octets(), UDP, udp_len);
    push_udp(&mut packet, payload, |datagram| (pseudo + sum(datagram)).finish_nonzero());
    packet
}

/// A UDP packet between addresses of one family, from port 1000 to 2000.
///
/// # Panics
/// If the families differ.
#[must_use]
pub fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => udp4(source, destination, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => udp6(source, destination, payload),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => panic!("two families in one packet"),
    }
}

/// A UDP packet over IPv6 between port 1000 and 2000.
#[must_use]
pub fn udp6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
    packet[4..6].copy_from_slice(&udp_len.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let pseudo = pseudo_v6(source.octets(), destination.octets(), UDP, u32::from(udp_len));
    push_udp(&mut packet, payload, |datagram| (pseudo + sum(datagram)).finish_nonzero());
    packet
}

fn push_udp(packet: &mut Vec<u8>, payload: &[u8], checksum: impl Fn(&[u8]) -> u16) {
    let start = packet.len();
    packet.extend(1000_u16.to_be_bytes());
    packet.extend(2000_u16.to_be_bytes());
    packet.extend(((8 + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let value = checksum(&packet[start..]);
    packet[start + 6..start + 8].copy_from_slice(&value.to_be_bytes());
}
