//! The Internet checksum as plainly as it can be written, to check the fast ones against.

use ringway_proto::ip::{Packet, Version, protocol};

/// The checksums that cover `packet` hold: of the IPv4 header, and of TCP, UDP or ICMP. UDP without
/// one is sound.
pub(crate) fn is_sound(packet: &[u8]) -> bool {
    let parsed = Packet::parse(packet).expect("a packet");
    let transport = parsed.transport_offset();
    let header = parsed.version() == Version::V6 || ones_sum(&packet[..transport], 0) == u16::MAX;
    let sum = match parsed.protocol() {
        protocol::UDP if packet[transport + 6..transport + 8] == [0, 0] => u16::MAX,
        protocol::ICMP => ones_sum(&packet[transport..], 0),
        _ => transport_sum(packet, transport),
    };
    header && sum == u16::MAX
}

/// Of the pseudo-header and everything from `transport` on.
pub(crate) fn transport_sum(packet: &[u8], transport: usize) -> u16 {
    let parsed = Packet::parse(packet).expect("a packet");
    let addresses = match parsed.version() {
        Version::V4 => &packet[12..20],
        Version::V6 => &packet[8..40],
    };
    let len = packet.len() - transport;
    let pseudo = u64::from(parsed.protocol()) + len as u64 + u64::from(ones_sum(addresses, 0));
    ones_sum(&packet[transport..], pseudo)
}

/// The ones' complement sum, two bytes at a time (RFC 1071).
pub(crate) fn ones_sum(bytes: &[u8], start: u64) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum = start + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
