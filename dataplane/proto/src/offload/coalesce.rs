//! Joins packets that came out of tunnels into super-packets for the TUN.
//!
//! The caller keeps a small table of open [`Group`]s, one for each flow, for the time of one turn.
//! For every packet it asks [`Class::of`]:
//!
//! - [`Class::Flow`]: look for the open group with the same [`FlowKey`]. If [`Group::try_append`]
//!   takes the packet, attach its payload to the group's write. Otherwise close that group, and
//!   start a new one with the packet, so that order is kept within the flow. A packet that never
//!   merges starts a group that takes nothing more.
//! - [`Class::Fragment`]: no ports, so it may belong to any group. Close all groups, then write it
//!   alone.
//! - [`Class::Other`]: never merges and belongs to no group. Write it alone.
//!
//! A group's write is its own head (10 bytes of virtio header, then [`Candidate::headers_len`]
//! bytes of the first packet), followed by the payloads by reference. [`Group::finish_head`]
//! completes the head; the write of a group of one leaves unchanged. Nothing is copied but headers,
//! and nothing here knows buffers or writes.
//!
//! What merges could be cut again into the same packets, with one exception: identifications of
//! IPv4 packets that may not be fragmented. They mean nothing (RFC 6864 section 4.1), senders fill
//! them in every way, and so they need not count upwards; of packets that may be fragmented they
//! must.

use super::virtio::{GsoType, VnetHeader};
use crate::ip::checksum::{self, Partial};
use crate::ip::{
    Fragment, Ipv4, Ipv6, Packet, Tcp, TcpFlags, Udp, Version, protocol, read_u16, read_u32,
    write_u16,
};
use crate::limits;

/// Bytes of the longest headers that merge: IPv6 and TCP with all options.
pub const HEADERS_MAX: usize = Ipv6::HEADER + 60;

/// Bytes of the longest super-packet. IPv6 could carry 40 more; nothing is gained by that.
pub const SUPER_PACKET_MAX: usize = 65_535;

/// Packets in one group at the most. Older kernels refuse a UDP super-packet of more than 64
/// datagrams.
pub const GROUP_MAX: usize = limits::RUN_MAX;

/// How a packet takes part in coalescing.
#[derive(Clone, Copy, Debug)]
pub enum Class<'a> {
    /// Belongs to a TCP or UDP flow: joins the group of its flow, or follows it.
    Flow(Candidate<'a>),
    /// Part of a packet, of whatever flow: follows all groups.
    Fragment,
    /// Has no flow that could have a group.
    Other,
}

/// The addresses, protocol and ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Source and destination port as they stand in the header, then the protocol: what differs
    /// most comes first.
    ports: u32,
    protocol: u8,
    version: Version,
    /// Source and destination as words in memory order: four comparisons.
    addresses: [u64; 4],
}

/// A packet of a flow, checked once.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    bytes: &'a [u8],
    key: FlowKey,
    transport: usize,
    headers: usize,
    mergeable: bool,
}

/// Packets of one flow that leave as one.
#[derive(Clone, Debug)]
pub struct Group {
    key: FlowKey,
    /// Headers of the first packet.
    headers: [u8; HEADERS_MAX],
    headers_len: usize,
    transport: usize,
    /// Payload bytes of every packet but the last.
    stride: usize,
    payload_bytes: usize,
    count: usize,
    /// FIN and PSH of the last packet.
    last_flags: u8,
    open: bool,
}

impl<'a> Class<'a> {
    /// Looks at a packet that came out of a tunnel, without padding.
    ///
    /// With `verify_checksum` a packet whose transport checksum is wrong goes alone, so that the
    /// kernel sees and counts it; without, the tunnel's tag is taken as proof, and merging hides
    /// what was broken before.
    #[must_use]
    pub fn of(bytes: &'a [u8], verify_checksum: bool) -> Self {
        let Ok(packet) = Packet::parse(bytes) else { return Self::Other };
        if packet.fragment() != Fragment::Whole {
            return Self::Fragment;
        }
        let transport = &bytes[packet.transport_offset()..packet.total_len()];
        let (header_len, may_merge) = match packet.protocol() {
            protocol::TCP => match Tcp::parse(transport) {
                Ok(tcp) => (tcp.header_len(), tcp_may_merge(tcp)),
                Err(_) => return Self::Other,
            },
            protocol::UDP => match Udp::parse(transport) {
                Ok(udp) => (Udp::HEADER, udp_may_merge(udp, transport.len())),
                Err(_) => return Self::Other,
            },
            _ => return Self::Other,
        };
        let mergeable = may_merge
            && packet.total_len() == bytes.len()
            && ip_may_merge(bytes, &packet)
            && (!verify_checksum || transport_checksum_holds(bytes, &packet));
        Self::Flow(Candidate {
            bytes,
            key: FlowKey::of(bytes, &packet),
            transport: packet.transport_offset(),
            headers: packet.transport_offset() + header_len,
            mergeable,
        })
    }
}

impl FlowKey {
    fn of(bytes: &[u8], packet: &Packet) -> Self {
        let raw = match packet.version() {
            Version::V4 => &bytes[12..20],
            Version::V6 => &bytes[8..40],
        };
        let mut addresses = [0; 4];
        for (word, raw) in addresses.iter_mut().zip(raw.as_chunks().0) {
            *word = u64::from_ne_bytes(*raw);
        }
        Self {
            ports: read_u32(bytes, packet.transport_offset()),
            protocol: packet.protocol(),
            version: packet.version(),
            addresses,
        }
    }
}

impl<'a> Candidate<'a> {
    /// The flow it belongs to.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Whether it can be in a group with others at all. If not, its group can be closed at once.
    #[inline]
    #[must_use]
    pub const fn is_mergeable(&self) -> bool {
        self.mergeable
    }

    /// Bytes of IP and transport headers; the payload to attach begins here.
    #[inline]
    #[must_use]
    pub const fn headers_len(&self) -> usize {
        self.headers
    }

    /// The whole packet.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline]
    const fn payload_len(&self) -> usize {
        self.bytes.len() - self.headers
    }

    #[inline]
    fn is_tcp(&self) -> bool {
        self.key.protocol == protocol::TCP
    }

    /// FIN and PSH: the flags that only the last packet of a group may have.
    #[inline]
    fn last_flags(&self) -> u8 {
        if self.is_tcp() {
            self.bytes[self.transport + Tcp::FLAGS_AT] & (TcpFlags::FIN | TcpFlags::PSH)
        } else {
            0
        }
    }
}

impl Group {
    /// A group of one.
    #[must_use]
    pub fn start(first: &Candidate<'_>) -> Self {
        let mut headers = [0; HEADERS_MAX];
        let headers_len = if first.mergeable { first.headers } else { 0 };
        headers[..headers_len].copy_from_slice(&first.bytes[..headers_len]);
        let last_flags = first.last_flags();
        Self {
            key: first.key,
            headers,
            headers_len,
            transport: first.transport,
            stride: first.payload_len(),
            payload_bytes: first.payload_len(),
            count: 1,
            last_flags,
            open: first.mergeable && last_flags == 0,
        }
    }

    /// The flow of the group.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Number of packets.
    #[inline]
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether it might take another packet. If not, it can be written at once.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Takes `next` in, if the super-packet can still be cut into the packets it was made of.
    #[must_use]
    pub fn try_append(&mut self, next: &Candidate<'_>) -> bool {
        let payload = next.payload_len();
        let joins = self.open
            && next.mergeable
            && payload <= self.stride
            && self.headers_len + self.payload_bytes + payload <= SUPER_PACKET_MAX
            && self.key == next.key
            && self.headers_len == next.headers
            && self.ip_agrees(next.bytes)
            && (!next.is_tcp() || self.tcp_agrees(&next.bytes[self.transport..next.headers]));
        if !joins {
            return false;
        }
        self.count += 1;
        self.payload_bytes += payload;
        self.last_flags = next.last_flags();
        self.open = payload == self.stride && self.last_flags == 0 && self.count < GROUP_MAX;
        true
    }

    /// Completes the head of the group's write: the virtio header in the first 10 bytes of `head`,
    /// and, if there is more than one packet, the headers of the super-packet behind it.
    ///
    /// # Panics
    /// If `head` is shorter than that.
    pub fn finish_head(&self, head: &mut [u8]) {
        let (vnet, rest) = head.split_at_mut(VnetHeader::BYTES);
        if self.count == 1 {
            vnet.copy_from_slice(&VnetHeader::default().to_bytes());
            return;
        }
        vnet.copy_from_slice(&self.vnet_header().to_bytes());
        let headers = &mut rest[..self.headers_len];
        headers.copy_from_slice(&self.headers[..self.headers_len]);
        let total = self.headers_len + self.payload_bytes;
        let transport_len = total - self.transport;
        let (ip, transport) = headers.split_at_mut(self.transport);
        match self.key.version {
            Version::V4 => {
                write_u16(ip, 2, total as u16);
                write_u16(ip, 10, 0);
                write_u16(ip, 10, checksum::sum(ip).finish());
            }
            Version::V6 => write_u16(ip, 4, (total - Ipv6::HEADER) as u16),
        }
        let pseudo = checksum::pseudo_of(ip, self.key.protocol, transport_len as u32).fold();
        if self.key.protocol == protocol::TCP {
            transport[Tcp::FLAGS_AT] |= self.last_flags;
            write_u16(transport, Tcp::CHECKSUM_AT, pseudo);
        } else {
            write_u16(transport, Udp::LENGTH_AT, transport_len as u16);
            write_u16(transport, Udp::CHECKSUM_AT, pseudo);
        }
    }

    fn vnet_header(&self) -> VnetHeader {
        let (gso, csum_offset) = match (self.key.protocol, self.key.version) {
            (protocol::TCP, Version::V4) => (GsoType::Tcp4, Tcp::CHECKSUM_AT),
            (protocol::TCP, Version::V6) => (GsoType::Tcp6, Tcp::CHECKSUM_AT),
            _ => (GsoType::UdpL4, Udp::CHECKSUM_AT),
        };
        VnetHeader {
            needs_csum: true,
            gso: Some(gso),
            ecn: false, // A packet with CWR never merges.
            header_len: self.headers_len as u16,
            gso_size: self.stride as u16,
            csum_start: self.transport as u16,
            csum_offset: csum_offset as u16,
        }
    }

    /// All of the IP header but lengths, checksum and, as the head of the module says,
    /// identification.
    #[inline]
    fn ip_agrees(&self, next: &[u8]) -> bool {
        let first = &self.headers;
        match self.key.version {
            Version::V4 => {
                let dont_fragment = first[6] & 0x40 != 0;
                let expected = read_u16(first, 4).wrapping_add(self.count as u16);
                first[..2] == next[..2]
                    && first[6..10] == next[6..10]
                    && (dont_fragment || read_u16(next, 4) == expected)
            }
            Version::V6 => first[..4] == next[..4] && first[6..8] == next[6..8],
        }
    }

    /// All of the TCP header but FIN, PSH and the checksum, with the sequence number that comes
    /// next.
    #[inline]
    fn tcp_agrees(&self, next: &[u8]) -> bool {
        let first = &self.headers[self.transport..self.headers_len];
        let expected = read_u32(first, 4).wrapping_add(self.payload_bytes as u32);
        let flags = first[Tcp::FLAGS_AT] ^ next[Tcp::FLAGS_AT];
        read_u32(next, 4) == expected
            && first[8..13] == next[8..13]
            && flags & !(TcpFlags::FIN | TcpFlags::PSH) == 0
            && first[14..16] == next[14..16]
            && first[18..] == next[18..]
    }
}

/// Only segments that carry data and nothing special. CWR stands for one segment only, and cutting
/// would keep it there, so a segment with it goes alone.
fn tcp_may_merge(tcp: Tcp<'_>) -> bool {
    const SPECIAL: u8 = TcpFlags::SYN | TcpFlags::RST | TcpFlags::URG | TcpFlags::CWR;
    let flags = tcp.flags();
    flags.any(TcpFlags::ACK) && !flags.any(SPECIAL) && !tcp.payload().is_empty()
}

/// Only datagrams that carry data and a checksum: the super-packet is given one.
fn udp_may_merge(udp: Udp<'_>, len: usize) -> bool {
    udp.datagram_len() == len && !udp.payload().is_empty() && udp.checksum() != 0
}

/// No options or extension headers, and an IPv4 header that is intact: it will be written anew.
fn ip_may_merge(bytes: &[u8], packet: &Packet) -> bool {
    match packet.version() {
        Version::V4 => {
            packet.transport_offset() == Ipv4::HEADER_MIN
                && checksum::sum(&bytes[..Ipv4::HEADER_MIN]).fold() == u16::MAX
        }
        Version::V6 => packet.transport_offset() == Ipv6::HEADER,
    }
}

fn transport_checksum_holds(bytes: &[u8], packet: &Packet) -> bool {
    let transport = &bytes[packet.transport_offset()..];
    let sum: Partial = checksum::pseudo_of(bytes, packet.protocol(), transport.len() as u32);
    (sum + checksum::sum(transport)).fold() == u16::MAX
}
