//! Cutting super-packets and joining packets into them.

use ringway_proto::ip::{Packet, Version, protocol};
use ringway_proto::offload::coalesce::HEADERS_MAX;
use ringway_proto::offload::{Candidate, Class, Group, GsoType, Segments, VnetHeader};

use super::input::Input;
use super::sums::{is_sound, ones_sum, transport_sum};

/// Bytes of the longest IP packet.
const PACKET_MAX: usize = 65_575;

/// Whatever virtio header and packet are accepted, the segments carry the payload once and in
/// order, and their lengths and checksums are right.
pub(crate) fn segments_carry_the_payload_once(bytes: &[u8]) {
    let Ok((vnet, packet)) = VnetHeader::parse(bytes) else { return };
    let Ok(segments) = Segments::new(&vnet, packet) else { return };
    let whole = *segments.packet();
    let mut out = vec![0; PACKET_MAX];
    let mut payload = Vec::new();
    let headers = vnet.gso.map(|gso| headers_len(packet, &whole, gso));
    for index in 0..segments.count() {
        let len = segments.write(index, &mut out);
        assert_eq!(len, segments.len_of(index));
        assert!(len <= segments.len_max());
        let written = &out[..len];
        let parsed = Packet::parse(written).expect("a segment is a packet");
        assert_eq!((parsed.source(), parsed.destination()), (whole.source(), whole.destination()));
        if let Some(headers) = headers {
            assert_eq!(parsed.total_len(), len);
            assert!(is_sound(written), "segment {index} has a wrong checksum");
            payload.extend_from_slice(&written[headers..]);
        }
    }
    if let Some(headers) = headers {
        assert_eq!(payload, packet[headers..]);
    }
}

/// Packets that were joined come out of segmentation as they were.
pub(crate) fn coalescing_is_undone_by_segmenting(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let verify_checksum = input.byte().is_multiple_of(2);
    let mut sequences = [0_u32; 4];
    let mut group: Option<(Group, Vec<Vec<u8>>)> = None;
    for _ in 0..80 {
        if input.is_empty() {
            break;
        }
        let packet = packet(&mut input, &mut sequences);
        let Class::Flow(candidate) = Class::of(&packet, verify_checksum) else { continue };
        let appended = group.as_mut().is_some_and(|(group, members)| {
            let appended = group.try_append(&candidate);
            if appended {
                assert!(candidate.is_mergeable() && group.key() == candidate.key());
                members.push(packet.clone());
            }
            appended
        });
        if !appended {
            let next = (Group::start(&candidate), vec![packet.clone()]);
            if let Some((group, members)) = group.replace(next) {
                check_group(&group, &members, verify_checksum);
            }
        }
    }
    if let Some((group, members)) = group {
        check_group(&group, &members, verify_checksum);
    }
}

fn check_group(group: &Group, members: &[Vec<u8>], verified: bool) {
    assert_eq!(group.count(), members.len());
    let mut super_packet = vec![0; VnetHeader::BYTES + HEADERS_MAX];
    group.finish_head(&mut super_packet);
    if members.len() == 1 {
        assert_eq!(super_packet[..VnetHeader::BYTES], VnetHeader::default().to_bytes());
        return;
    }
    let headers = |packet: &[u8]| match Class::of(packet, false) {
        Class::Flow(candidate) => Candidate::headers_len(&candidate),
        Class::Fragment | Class::Other => panic!("joined what is no flow"),
    };
    super_packet.truncate(VnetHeader::BYTES + headers(&members[0]));
    for member in members {
        super_packet.extend_from_slice(&member[headers(member)..]);
    }
    let (vnet, packet) = VnetHeader::parse(&super_packet).expect("our own header");
    let segments = Segments::new(&vnet, packet).expect("our own super-packet");
    assert_eq!(segments.count(), members.len());
    for (index, member) in members.iter().enumerate() {
        let mut out = vec![0; segments.len_of(index)];
        segments.write(index, &mut out);
        assert_eq!(comparable(&out, verified), comparable(member, verified), "packet {index}");
    }
}

/// Without what may differ: the identification of an IPv4 packet that may not be fragmented (with
/// the header checksum that covers it), and a transport checksum that nobody verified.
fn comparable(packet: &[u8], verified: bool) -> Vec<u8> {
    let parsed = Packet::parse(packet).expect("a packet");
    let mut packet = packet.to_vec();
    if parsed.version() == Version::V4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    if !verified {
        let field =
            parsed.transport_offset() + if parsed.protocol() == protocol::TCP { 16 } else { 6 };
        packet[field..field + 2].fill(0);
    }
    packet
}

/// A packet of one of four flows: TCP or UDP over either version, mostly what comes next in its
/// flow, sometimes damaged.
fn packet(input: &mut Input<'_>, sequences: &mut [u32; 4]) -> Vec<u8> {
    let choice = input.byte();
    let flow = usize::from(choice % 4);
    let (is_tcp, is_v6) = (flow.is_multiple_of(2), flow >= 2);
    let payload_len = usize::from(input.byte()) + 1;
    let payload = input.take(payload_len).to_vec();

    let mut transport = vec![0x04, 0xd2, 0x16, 0x2e];
    if is_tcp {
        transport.extend_from_slice(&sequences[flow].to_be_bytes());
        let flags = if choice & 0x80 == 0 { 0x10 } else { input.byte() };
        transport.extend_from_slice(&[0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    } else {
        transport.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
        transport.extend_from_slice(&[0, 0]);
    }
    transport.extend_from_slice(&payload);
    sequences[flow] = sequences[flow].wrapping_add(payload.len() as u32);

    let mut packet = ip_header(is_v6, is_tcp, transport.len(), choice);
    let header_len = packet.len();
    packet.extend_from_slice(&transport);
    let field = header_len + if is_tcp { 16 } else { 6 };
    let sum = !transport_sum(&packet, header_len);
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    if choice & 0x40 != 0 {
        input.damage(&mut packet);
    }
    packet
}

fn ip_header(is_v6: bool, is_tcp: bool, len: usize, choice: u8) -> Vec<u8> {
    let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
    if is_v6 {
        let mut header = vec![0x60, 0, 0, 0, (len >> 8) as u8, len as u8, protocol, 64];
        header.extend_from_slice(&[0xfd; 32]);
        return header;
    }
    let total = (20 + len) as u16;
    let [high, low] = total.to_be_bytes();
    // Bits 4 and 5 of the choice: may not be fragmented; another type of service.
    let (tos, flags) = ((choice & 0x20) >> 3, if choice & 0x10 == 0 { 0x40 } else { 0 });
    let mut header = vec![0x45, tos, high, low, 0, 1, flags, 0, 64, protocol, 0, 0];
    header.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = !ones_sum(&header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Bytes of IP and transport headers of a super-packet.
fn headers_len(packet: &[u8], parsed: &Packet, gso: GsoType) -> usize {
    parsed.transport_offset()
        + match gso {
            GsoType::Tcp4 | GsoType::Tcp6 => {
                usize::from(packet[parsed.transport_offset() + 12] >> 4) * 4
            }
            GsoType::UdpL4 => 8,
        }
}
