//! Inner packets for tests: whole IPv4 and IPv6 packets with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::ip::checksum::{pseudo_of, sum};
use ringway_proto::ip::{Icmp, Packet, protocol};
use ringway_proto::offload::{GsoType, VnetHeader};

const UDP: u8 = protocol::UDP;
const TCP: u8 = protocol::TCP;

/// A UDP packet over IPv4 from port 1000 to 2000.
#[must_use]
pub fn udp4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    udp(source.into(), destination.into(), payload)
}

/// A UDP packet over IPv6 from port 1000 to 2000.
#[must_use]
pub fn udp6(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    udp(source.into(), destination.into(), payload)
}

/// A UDP packet between addresses of one family, from port 1000 to 2000.
///
/// # Panics
/// If the families differ.
#[must_use]
pub fn udp(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let mut packet = ip_header((source, destination), UDP, len);
    let start = packet.len();
    packet.extend(1000_u16.to_be_bytes());
    packet.extend(2000_u16.to_be_bytes());
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let total = pseudo_of(&packet, UDP, len as u32) + sum(&packet[start..]);
    packet[start + 6..start + 8].copy_from_slice(&total.finish_nonzero().to_be_bytes());
    packet
}

/// A TCP packet between port 443 and 50000.
#[derive(Clone, Debug)]
pub struct TcpPacket<'a> {
    /// Source and destination, of one family.
    pub path: (IpAddr, IpAddr),
    /// Sequence number of the first payload byte.
    pub sequence: u32,
    /// Flags, `0x10` for an acknowledgement, `0x02` for a SYN.
    pub flags: u8,
    /// Options, a multiple of four bytes.
    pub options: &'a [u8],
    /// What it carries.
    pub payload: &'a [u8],
}

impl TcpPacket<'_> {
    /// The whole packet, checksums complete.
    ///
    /// # Panics
    /// If the families of the addresses differ.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let len = 20 + self.options.len() + self.payload.len();
        let mut packet = ip_header(self.path, TCP, len);
        let start = packet.len();
        packet.extend(443_u16.to_be_bytes());
        packet.extend(50_000_u16.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([0, 0, 0, 9]);
        packet.extend([((20 + self.options.len()) as u8 / 4) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
        packet.extend(self.options);
        packet.extend(self.payload);
        let value = (pseudo_of(&packet, TCP, len as u32) + sum(&packet[start..])).finish();
        packet[start + 16..start + 18].copy_from_slice(&value.to_be_bytes());
        packet
    }

    /// The whole packet as a super-packet that is still to be cut into segments of `size` payload
    /// bytes, virtio header included, as a TUN hands it over.
    ///
    /// # Panics
    /// If the families of the addresses differ.
    #[must_use]
    pub fn build_super(&self, size: u16) -> Vec<u8> {
        let mut packet = self.build();
        let v6 = self.path.0.is_ipv6();
        let start = if v6 { 40 } else { 20 };
        let len = (packet.len() - start) as u32;
        let seed = pseudo_of(&packet, TCP, len).fold();
        packet[start + 16..start + 18].copy_from_slice(&seed.to_be_bytes());
        let header = VnetHeader {
            needs_csum: true,
            gso: Some(if v6 { GsoType::Tcp6 } else { GsoType::Tcp4 }),
            ecn: false,
            header_len: (start + 20 + self.options.len()) as u16,
            gso_size: size,
            csum_start: start as u16,
            csum_offset: 16,
        };
        [&header.to_bytes()[..], &packet].concat()
    }
}

/// An ICMP echo reply of either family to the echo request `packet`; `None` if it is none.
#[must_use]
pub fn echo_reply(packet: &[u8]) -> Option<Vec<u8>> {
    let view = Packet::parse(packet).ok()?;
    let start = view.transport_offset();
    let message = view.transport_of(packet)?;
    let (request, reply) = match view.protocol() {
        protocol::ICMP => (Icmp::V4_ECHO_REQUEST, Icmp::V4_ECHO_REPLY),
        protocol::ICMPV6 => (Icmp::V6_ECHO_REQUEST, Icmp::V6_ECHO_REPLY),
        _ => return None,
    };
    if message.first() != Some(&request) {
        return None;
    }
    let path = (view.destination(), view.source());
    let mut answer = ip_header(path, view.protocol(), message.len());
    answer.extend(message);
    answer[start] = reply;
    answer[start + 2..start + 4].fill(0);
    let mut total = sum(&answer[start..]);
    if path.0.is_ipv6() {
        total = total + pseudo_of(&answer, protocol::ICMPV6, message.len() as u32);
    }
    answer[start + 2..start + 4].copy_from_slice(&total.finish().to_be_bytes());
    Some(answer)
}

/// An IP header in front of `len` bytes.
fn ip_header(path: (IpAddr, IpAddr), protocol: u8, len: usize) -> Vec<u8> {
    match path {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            packet[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let header = sum(&packet).finish();
            packet[10..12].copy_from_slice(&header.to_be_bytes());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => panic!("two families in one packet"),
    }
}
