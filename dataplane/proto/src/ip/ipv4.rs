//! The IPv4 header (RFC 791).

use std::net::Ipv4Addr;

use super::{Fragment, Malformed, checksum, read_u16};

/// A packet whose IPv4 header, options included, is whole, and whose total length fits the bytes at
/// hand.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(&'a [u8]);

impl<'a> Ipv4<'a> {
    /// Bytes of a header without options.
    pub const HEADER_MIN: usize = 20;

    /// Checks version, header length and total length; not the header checksum.
    ///
    /// # Errors
    /// What is wrong with the header.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < Self::HEADER_MIN {
            return Err(Malformed::Truncated);
        }
        if bytes[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = usize::from(bytes[0] & 0x0f) * 4;
        if header_len < Self::HEADER_MIN {
            return Err(Malformed::HeaderLength);
        }
        let total_len = usize::from(read_u16(bytes, 2));
        if total_len < header_len || total_len > bytes.len() {
            return Err(Malformed::Length);
        }
        Ok(Self(&bytes[..total_len]))
    }

    /// Bytes of the header, 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(self) -> usize {
        self.0.len()
    }

    /// Differentiated services and congestion bits.
    #[must_use]
    pub fn type_of_service(self) -> u8 {
        self.0[1]
    }

    /// Identification; meaningless unless the packet may be fragmented (RFC 6864).
    #[must_use]
    pub fn identification(self) -> u16 {
        read_u16(self.0, 4)
    }

    /// Whether routers may not fragment it.
    #[must_use]
    pub fn dont_fragment(self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// Whether this is a part of a packet.
    #[inline]
    #[must_use]
    pub fn fragment(self) -> Fragment {
        let field = read_u16(self.0, 6);
        if field & 0x1fff != 0 {
            Fragment::Later
        } else if field & 0x2000 != 0 {
            Fragment::First
        } else {
            Fragment::Whole
        }
    }

    /// Hops left.
    #[must_use]
    pub fn time_to_live(self) -> u8 {
        self.0[8]
    }

    /// Upper protocol.
    #[inline]
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// The header with its options.
    #[must_use]
    pub fn header(self) -> &'a [u8] {
        &self.0[..self.header_len()]
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    /// Whether the header checksum holds.
    #[must_use]
    pub fn checksum_holds(self) -> bool {
        checksum::sum(self.header()).fold() == u16::MAX
    }
}
