//! Cuts what was read from the TUN into packets that can be sent.
//!
//! One [`Segments`] stands for one packet or super-packet. Each packet of it can be written by its
//! number, as often and in as many batches as the caller likes: a small segment size makes more of
//! them than fit one train. Headers are corrected (lengths, identification, sequence number, flags,
//! checksums) and the payload is copied and summed in one pass. What was summed once for all
//! segments is kept.
//!
//! The virtio header is not trusted: one that does not fit its packet is refused.

use super::virtio::{GsoType, VnetHeader};
use crate::DropReason;
use crate::ip::checksum::{self, Partial};
use crate::ip::{
    Fragment, Ipv4, Ipv6, Packet, Tcp, TcpFlags, Udp, Version, protocol, read_u16, read_u32,
    write_u16, write_u32,
};

/// A packet from the TUN, seen as the packets that it stands for.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    bytes: &'a [u8],
    packet: Packet,
    /// Bytes of IP and transport headers, which every segment repeats.
    headers: usize,
    /// Payload bytes of every segment but the last.
    stride: usize,
    count: usize,
    work: Work,
}

/// What there is to do besides copying.
#[derive(Clone, Copy, Debug)]
enum Work {
    Nothing,
    /// Sum from `start`, write at `field`.
    Checksum {
        start: usize,
        field: usize,
    },
    Tcp {
        ip: Partial,
        transport: Partial,
    },
    Udp {
        ip: Partial,
        transport: Partial,
        checksum: bool,
    },
}

impl<'a> Segments<'a> {
    /// Checks `vnet` against the `packet` behind it.
    ///
    /// # Errors
    /// [`DropReason::InsideNotIp`] or [`DropReason::InsideOffloadBad`].
    pub fn new(vnet: &VnetHeader, packet: &'a [u8]) -> Result<Self, DropReason> {
        let parsed = Packet::parse(packet).map_err(|_| DropReason::InsideNotIp)?;
        if usize::from(vnet.header_len) > packet.len() {
            return Err(DropReason::InsideOffloadBad);
        }
        match vnet.gso {
            None => Self::single(vnet, &packet[..parsed.total_len()], parsed),
            Some(kind) => Self::super_packet(vnet, kind, packet, parsed),
        }
        .ok_or(DropReason::InsideOffloadBad)
    }

    /// What the IP header says, for finding the peer: the same for all segments but for lengths.
    #[inline]
    #[must_use]
    pub fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Number of packets, at least 1.
    #[inline]
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the longest packet.
    #[inline]
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.len_of(0)
    }

    /// Bytes of packet `index`.
    ///
    /// # Panics
    /// If there is no such packet.
    #[inline]
    #[must_use]
    pub fn len_of(&self, index: usize) -> usize {
        self.headers + self.payload_of(index).len()
    }

    /// Writes packet `index` to the start of `out` and returns its length.
    ///
    /// # Panics
    /// If there is no such packet, or `out` is shorter than it.
    #[inline]
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let payload = self.payload_of(index);
        let out = &mut out[..self.headers + payload.len()];
        let (headers, rest) = out.split_at_mut(self.headers);
        headers.copy_from_slice(&self.bytes[..self.headers]);
        match self.work {
            Work::Nothing => rest.copy_from_slice(payload),
            Work::Checksum { start, field } => {
                // All that is summed counts as payload: `headers` ends at `start`.
                let sum = checksum::copy_and_sum(payload, rest);
                write_u16(rest, field - start, sum.finish_nonzero());
            }
            Work::Tcp { ip, transport } => {
                let sum = checksum::copy_and_sum(payload, rest);
                self.finish_ip(index, headers, payload.len(), ip);
                self.finish_tcp(index, headers, payload.len(), transport + sum);
            }
            Work::Udp { ip, transport, checksum } => {
                let sum = checksum::copy_and_sum(payload, rest);
                self.finish_ip(index, headers, payload.len(), ip);
                let sum = checksum.then_some(transport + sum);
                self.finish_udp(headers, payload.len(), sum);
            }
        }
        out.len()
    }

    fn single(vnet: &VnetHeader, bytes: &'a [u8], packet: Packet) -> Option<Self> {
        let (headers, work) = if vnet.needs_csum {
            let start = usize::from(vnet.csum_start);
            let field = start + usize::from(vnet.csum_offset);
            if start < fixed_header(packet.version()) || field + 2 > bytes.len() {
                return None;
            }
            (start, Work::Checksum { start, field })
        } else {
            (0, Work::Nothing)
        };
        Some(Self { bytes, packet, headers, stride: bytes.len() - headers, count: 1, work })
    }

    fn super_packet(
        vnet: &VnetHeader,
        kind: GsoType,
        bytes: &'a [u8],
        packet: Packet,
    ) -> Option<Self> {
        let stride = usize::from(vnet.gso_size);
        let (expected, field) = match kind {
            GsoType::Tcp4 => ((Some(Version::V4), protocol::TCP), Tcp::CHECKSUM_AT),
            GsoType::Tcp6 => ((Some(Version::V6), protocol::TCP), Tcp::CHECKSUM_AT),
            GsoType::UdpL4 => ((None, protocol::UDP), Udp::CHECKSUM_AT),
        };
        let fits = stride > 0
            && packet.total_len() == bytes.len()
            && packet.fragment() == Fragment::Whole
            && packet.protocol() == expected.1
            && expected.0.is_none_or(|version| version == packet.version())
            && (!vnet.needs_csum
                || (usize::from(vnet.csum_start) == packet.transport_offset()
                    && usize::from(vnet.csum_offset) == field));
        if !fits {
            return None;
        }
        let (ip_header, rest) = bytes.split_at(packet.transport_offset());
        let ip = ip_sum(ip_header, packet.version());
        let pseudo = checksum::pseudo_of(ip_header, packet.protocol(), 0);
        let (header_len, work) = match kind {
            GsoType::Tcp4 | GsoType::Tcp6 => {
                let header_len = Tcp::parse(rest).ok()?.header_len();
                let transport = pseudo + tcp_sum(&rest[..header_len]);
                (header_len, Work::Tcp { ip, transport })
            }
            GsoType::UdpL4 => {
                let udp = Udp::parse(rest).ok()?;
                if udp.datagram_len() != rest.len() {
                    return None;
                }
                // Over IPv4 a sender may do without a checksum; nobody then asks for one.
                let none =
                    packet.version() == Version::V4 && !vnet.needs_csum && udp.checksum() == 0;
                let transport = pseudo + checksum::sum(&rest[..4]);
                (Udp::HEADER, Work::Udp { ip, transport, checksum: !none })
            }
        };
        let headers = packet.transport_offset() + header_len;
        let count = (bytes.len() - headers).div_ceil(stride).max(1);
        Some(Self { bytes, packet, headers, stride, count, work })
    }

    #[inline]
    fn payload_of(&self, index: usize) -> &'a [u8] {
        assert!(index < self.count);
        let start = self.headers + index * self.stride;
        &self.bytes[start..self.bytes.len().min(start + self.stride)]
    }

    #[inline]
    fn finish_ip(&self, index: usize, headers: &mut [u8], payload: usize, sum: Partial) {
        let len = self.headers + payload;
        match self.packet.version() {
            Version::V4 => {
                let id = read_u16(headers, 4).wrapping_add(index as u16);
                write_u16(headers, 2, len as u16);
                write_u16(headers, 4, id);
                let sum = sum + Partial::of_u16(len as u16) + Partial::of_u16(id);
                write_u16(headers, 10, sum.finish());
            }
            Version::V6 => write_u16(headers, 4, (len - Ipv6::HEADER) as u16),
        }
    }

    #[inline]
    fn finish_tcp(&self, index: usize, headers: &mut [u8], payload: usize, sum: Partial) {
        let tcp = &mut headers[self.packet.transport_offset()..];
        let sequence = read_u32(tcp, 4).wrapping_add((index * self.stride) as u32);
        write_u32(tcp, 4, sequence);
        if index > 0 {
            // The congestion window was reduced once, not once for each segment (RFC 3168 section
            // 6.1.2).
            tcp[Tcp::FLAGS_AT] &= !TcpFlags::CWR;
        }
        if index + 1 < self.count {
            tcp[Tcp::FLAGS_AT] &= !(TcpFlags::FIN | TcpFlags::PSH);
        }
        let sum = sum
            + Partial::of_u16((tcp.len() + payload) as u16)
            + Partial::of_u32(sequence)
            + Partial::of_u16(read_u16(tcp, 12));
        write_u16(tcp, Tcp::CHECKSUM_AT, sum.finish());
    }

    #[inline]
    fn finish_udp(&self, headers: &mut [u8], payload: usize, sum: Option<Partial>) {
        let udp = &mut headers[self.packet.transport_offset()..];
        let len = (Udp::HEADER + payload) as u16;
        write_u16(udp, Udp::LENGTH_AT, len);
        if let Some(sum) = sum {
            // Once in the pseudo-header, once in the header.
            let sum = sum + Partial::of_u16(len) + Partial::of_u16(len);
            write_u16(udp, Udp::CHECKSUM_AT, sum.finish_nonzero());
        }
    }
}

const fn fixed_header(version: Version) -> usize {
    match version {
        Version::V4 => Ipv4::HEADER_MIN,
        Version::V6 => Ipv6::HEADER,
    }
}

/// The IPv4 header without what changes: total length, identification, checksum.
fn ip_sum(header: &[u8], version: Version) -> Partial {
    match version {
        Version::V4 => {
            checksum::sum(&header[..2])
                + checksum::sum(&header[6..10])
                + checksum::sum(&header[12..])
        }
        Version::V6 => Partial::ZERO,
    }
}

/// The TCP header without what changes: sequence number, flags (with the header length), checksum.
fn tcp_sum(header: &[u8]) -> Partial {
    checksum::sum(&header[..4])
        + checksum::sum(&header[8..12])
        + checksum::sum(&header[14..16])
        + checksum::sum(&header[18..])
}
