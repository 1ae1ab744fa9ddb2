//! Packets for the cases: whole, with right checksums, the same on every run.

use ringway_proto::ip::checksum;
use ringway_proto::offload::{GsoType, VnetHeader};

/// Bytes of the IPv4 and TCP headers, options included, that [`tcp`] writes.
pub(super) const TCP_HEADERS: usize = 20 + 32;

/// A TCP packet over IPv4 with timestamps, as Linux sends them, with the sequence number
/// `sequence`.
pub(super) fn tcp(sequence: u32, payload_len: usize) -> Vec<u8> {
    let mut packet = vec![0; TCP_HEADERS];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((TCP_HEADERS + payload_len) as u16).to_be_bytes());
    packet[6] = 0x40; // may not be fragmented
    packet[8] = 64;
    packet[9] = 6;
    packet[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&7_u32.to_be_bytes());
    packet[32] = 8 << 4;
    packet[33] = 0x10; // ACK
    packet[34..36].copy_from_slice(&501_u16.to_be_bytes());
    packet[40..44].copy_from_slice(&[1, 1, 8, 10]);
    packet.extend((0..payload_len).map(|at| at as u8));
    let header = checksum::sum(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    let pseudo = checksum::pseudo_of(&packet[..20], 6, (packet.len() - 20) as u32);
    let transport = (pseudo + checksum::sum(&packet[20..])).finish();
    packet[36..38].copy_from_slice(&transport.to_be_bytes());
    packet
}

/// A super-packet as a TUN with offloads delivers it: to be cut after every `stride` payload bytes.
pub(super) fn tcp_super(payload_len: usize, stride: u16) -> (VnetHeader, Vec<u8>) {
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Some(GsoType::Tcp4),
        ecn: false,
        header_len: TCP_HEADERS as u16,
        gso_size: stride,
        csum_start: 20,
        csum_offset: 16,
    };
    (vnet, tcp(1, payload_len))
}
