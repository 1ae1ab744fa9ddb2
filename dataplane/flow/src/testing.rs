//! Packets built field by field, for the tests of this crate.

use ringway_proto::ip::checksum::{pseudo_of, sum};

/// A TCP packet by its fields.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) v6: bool,
    pub(crate) tos: u8,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: usize,
}

impl Default for Spec {
    fn default() -> Self {
        Self { v6: false, tos: 0, flags: 0x10, sequence: 1, options: Vec::new(), payload: 0 }
    }
}

impl Spec {
    pub(crate) fn build(&self) -> Vec<u8> {
        let len = (20 + self.options.len() + self.payload) as u16;
        let mut packet = if self.v6 { ip_v6(6, self.tos, len) } else { ip_v4(6, self.tos, len) };
        let transport = packet.len();
        packet.extend([0x01, 0xbb, 0xc0, 0x01]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([0, 0, 0, 9]);
        packet.extend([((20 + self.options.len()) as u8 / 4) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
        packet.extend(&self.options);
        packet.resize(transport + usize::from(len), 0x5a);
        let check = (pseudo_of(&packet, 6, u32::from(len)) + sum(&packet[transport..])).finish();
        packet[transport + 16..transport + 18].copy_from_slice(&check.to_be_bytes());
        packet
    }
}

/// An IPv4 header from 10.0.0.2 to 192.0.2.1, checksum complete.
pub(crate) fn ip_v4(protocol: u8, tos: u8, len: u16) -> Vec<u8> {
    let mut packet = vec![0x45, tos];
    packet.extend((20 + len).to_be_bytes());
    packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1]);
    let check = sum(&packet).finish();
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

/// An IPv6 header from fd00::2 to 2001:db8::1.
pub(crate) fn ip_v6(protocol: u8, tos: u8, len: u16) -> Vec<u8> {
    let mut packet = vec![0x60 | (tos >> 4), tos << 4, 0, 7];
    packet.extend(len.to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet
}

/// Whether IP and transport checksum of a packet without IP options hold (ICMPv4 has no
/// pseudo-header).
pub(crate) fn checksums_hold(packet: &[u8]) -> bool {
    let (header, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let transport = &packet[header..];
    let pseudo = match protocol {
        1 => sum(&[]),
        _ => pseudo_of(packet, protocol, transport.len() as u32),
    };
    (header == 40 || sum(&packet[..20]).fold() == 0xffff)
        && (pseudo + sum(transport)).fold() == 0xffff
}
