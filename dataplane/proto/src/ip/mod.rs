//! Checked views of IP packets and what they carry.
//!
//! [`Packet::parse`] looks at the IP header once and says what the rest of the gateway needs: both
//! addresses, the upper protocol and where it begins. The views of one header ([`Ipv4`], [`Ipv6`],
//! [`Tcp`], [`Udp`], [`Icmp`]) check its length when made, so that reading a field never fails.
//!
//! Nothing here knows tunnels, flows or policies, and nothing trusts a length that it has not
//! compared with the bytes at hand.

pub mod checksum;
mod icmp;
mod ipv4;
mod ipv6;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::net::IpAddr;

pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::{Ipv6, UpperLayer};
pub use tcp::{Options as TcpOptions, Tcp, TcpFlags};
pub use udp::Udp;

/// Protocol numbers (IANA), as found in IPv4's protocol and IPv6's next header fields.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// IPsec authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
}

/// The bytes are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the header needs.
    #[error("Header is truncated")]
    Truncated,
    /// Neither version 4 nor version 6.
    #[error("Not an IP packet")]
    Version,
    /// A header length below the minimum of its protocol.
    #[error("Header length is below the minimum")]
    HeaderLength,
    /// A length field that disagrees with the bytes at hand or with the header.
    #[error("Length field disagrees with the packet")]
    Length,
}

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Whether a packet is a part of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// The whole packet.
    Whole,
    /// The first part: the transport header is here, the end is not.
    First,
    /// A later part: there is no transport header.
    Later,
}

/// What the IP header says, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    version: Version,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    type_of_service: u8,
    fragment: Fragment,
    transport: usize,
    total_len: usize,
}

impl Packet {
    /// Reads the IP header of `bytes`, which may be longer than the packet (padding).
    ///
    /// # Errors
    /// What makes the header unusable. Malformed extension headers do not: they end the walk.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Ok(Self::of_ipv4(Ipv4::parse(bytes)?)),
            6 => Ok(Self::of_ipv6(Ipv6::parse(bytes)?)),
            _ => Err(Malformed::Version),
        }
    }

    /// IP version.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// Upper protocol; where an IPv6 extension header cannot be followed, the number of that
    /// header. Means nothing in a later fragment of IPv6.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The two congestion bits (RFC 3168).
    #[inline]
    #[must_use]
    pub const fn ecn(&self) -> u8 {
        self.type_of_service & 3
    }

    /// Whether this is a part of a larger packet.
    #[inline]
    #[must_use]
    pub const fn fragment(&self) -> Fragment {
        self.fragment
    }

    /// Offset of the upper protocol's header, in bytes; at most `total_len`.
    #[inline]
    #[must_use]
    pub const fn transport_offset(&self) -> usize {
        self.transport
    }

    /// Bytes of the whole packet as the header says; at most the bytes given.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.total_len
    }

    /// The transport header and what follows it, if `bytes` is the packet that was parsed and the
    /// transport header is in it.
    #[must_use]
    pub fn transport_of<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self.fragment {
            Fragment::Whole | Fragment::First => bytes.get(self.transport..self.total_len),
            Fragment::Later => None,
        }
    }

    fn of_ipv4(ip: Ipv4<'_>) -> Self {
        Self {
            version: Version::V4,
            source: IpAddr::V4(ip.source()),
            destination: IpAddr::V4(ip.destination()),
            protocol: ip.protocol(),
            type_of_service: ip.type_of_service(),
            fragment: ip.fragment(),
            transport: ip.header_len(),
            total_len: ip.total_len(),
        }
    }

    fn of_ipv6(ip: Ipv6<'_>) -> Self {
        let upper = ip.upper_layer();
        Self {
            version: Version::V6,
            source: IpAddr::V6(ip.source()),
            destination: IpAddr::V6(ip.destination()),
            protocol: upper.protocol,
            type_of_service: ip.traffic_class(),
            fragment: upper.fragment,
            transport: upper.offset,
            total_len: ip.total_len(),
        }
    }
}

/// A 16-bit field in network order.
///
/// # Panics
/// If it is not inside `bytes`; views check their length once, when made.
#[inline]
#[must_use]
pub fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A 32-bit field in network order.
///
/// # Panics
/// As [`read_u16`].
#[inline]
#[must_use]
pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes a 16-bit field in network order.
///
/// # Panics
/// As [`read_u16`].
#[inline]
pub fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a 32-bit field in network order.
///
/// # Panics
/// As [`read_u16`].
#[inline]
pub fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
