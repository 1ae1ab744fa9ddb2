//! The virtio network header in front of every packet of a TUN with IFF_VNET_HDR (virtio 1.2
//! section 5.1.6, `struct virtio_net_hdr` of linux/virtio_net.h, 10 bytes, little endian).

use crate::DropReason;

/// What a TUN packet still needs: checksum, segmentation, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum at `csum_start + csum_offset` holds the sum of the pseudo-header; the rest is
    /// still to be summed from `csum_start` to the end.
    pub needs_csum: bool,
    /// What kind of super-packet this is.
    pub gso: Option<GsoType>,
    /// The super-packet carries a congestion window reduced flag, for its first segment.
    pub ecn: bool,
    /// Bytes of the headers: a hint that says nothing reliable (a forwarding kernel puts the length
    /// of the first packet here).
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Offset in the packet where the checksum begins: the transport header.
    pub csum_start: u16,
    /// Offset of the checksum field after `csum_start`.
    pub csum_offset: u16,
}

/// Kinds of super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GsoType {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one flow (USO), over either.
    UdpL4,
}

impl VnetHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 10;

    const FLAG_NEEDS_CSUM: u8 = 1;
    const GSO_NONE: u8 = 0;
    const GSO_TCPV4: u8 = 1;
    const GSO_TCPV6: u8 = 4;
    const GSO_UDP_L4: u8 = 5;
    const GSO_ECN: u8 = 0x80;

    /// Splits what was read from a TUN into header and packet.
    ///
    /// # Errors
    /// [`DropReason::InsideOffloadBad`] if there is no whole header, or its type is one that was
    /// never offered to the kernel.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let (header, packet) =
            bytes.split_first_chunk::<{ Self::BYTES }>().ok_or(DropReason::InsideOffloadBad)?;
        let gso = match header[1] & !Self::GSO_ECN {
            Self::GSO_NONE => None,
            Self::GSO_TCPV4 => Some(GsoType::Tcp4),
            Self::GSO_TCPV6 => Some(GsoType::Tcp6),
            Self::GSO_UDP_L4 => Some(GsoType::UdpL4),
            _ => return Err(DropReason::InsideOffloadBad),
        };
        let field = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let parsed = Self {
            needs_csum: header[0] & Self::FLAG_NEEDS_CSUM != 0,
            gso,
            ecn: header[1] & Self::GSO_ECN != 0,
            header_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
        };
        Ok((parsed, packet))
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let kind = match self.gso {
            None => Self::GSO_NONE,
            Some(GsoType::Tcp4) => Self::GSO_TCPV4,
            Some(GsoType::Tcp6) => Self::GSO_TCPV6,
            Some(GsoType::UdpL4) => Self::GSO_UDP_L4,
        };
        let [header_len, gso_size, csum_start, csum_offset] =
            [self.header_len, self.gso_size, self.csum_start, self.csum_offset]
                .map(u16::to_le_bytes);
        [
            if self.needs_csum { Self::FLAG_NEEDS_CSUM } else { 0 },
            if self.ecn { kind | Self::GSO_ECN } else { kind },
            header_len[0],
            header_len[1],
            gso_size[0],
            gso_size[1],
            csum_start[0],
            csum_start[1],
            csum_offset[0],
            csum_offset[1],
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_header_reads_back_what_it_writes() {
        let header = VnetHeader {
            needs_csum: true,
            gso: Some(GsoType::Tcp6),
            ecn: true,
            header_len: 72,
            gso_size: 1348,
            csum_start: 40,
            csum_offset: 16,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [1, 0x84, 72, 0, 0x44, 5, 40, 0, 16, 0]);
        assert_eq!(VnetHeader::parse(&bytes), Ok((header, &[][..])));
        assert_eq!(VnetHeader::default().to_bytes(), [0; 10]);
    }

    #[test]
    fn an_unknown_kind_of_super_packet_is_refused() {
        for kind in (0..=u8::MAX).filter(|kind| ![0, 1, 4, 5].contains(&(kind & 0x7f))) {
            let bytes = [0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0x45];
            assert_eq!(VnetHeader::parse(&bytes), Err(DropReason::InsideOffloadBad));
        }
        assert_eq!(VnetHeader::parse(&[0; 9]), Err(DropReason::InsideOffloadBad));
    }
}
