//! The IPv6 header and the walk over its extension headers (RFC 8200).

use std::net::Ipv6Addr;

use super::{Fragment, Malformed, protocol, read_u16, read_u32};

/// Extension headers followed before the walk gives up. RFC 8200 names six that may each stand
/// once, one of them twice.
const EXTENSION_HEADERS_MAX: usize = 8;

/// A packet whose fixed IPv6 header is whole, and whose payload length fits the bytes at hand.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a [u8]);

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Protocol found there: an upper protocol, or the extension header that could not be followed.
    pub protocol: u8,
    /// Its offset from the start of the packet.
    pub offset: usize,
    /// What the fragment header said, if there was one.
    pub fragment: Fragment,
}

impl<'a> Ipv6<'a> {
    /// Bytes of the fixed header.
    pub const HEADER: usize = 40;

    /// Checks version and payload length. A jumbogram (RFC 2675) is read as a packet without
    /// payload.
    ///
    /// # Errors
    /// What is wrong with the header.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < Self::HEADER {
            return Err(Malformed::Truncated);
        }
        if bytes[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let total_len = Self::HEADER + usize::from(read_u16(bytes, 4));
        if total_len > bytes.len() {
            return Err(Malformed::Length);
        }
        Ok(Self(&bytes[..total_len]))
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(self) -> usize {
        self.0.len()
    }

    /// Differentiated services and congestion bits.
    #[must_use]
    pub fn traffic_class(self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// The 20 bits of the flow label.
    #[must_use]
    pub fn flow_label(self) -> u32 {
        read_u32(self.0, 0) & 0x000f_ffff
    }

    /// Protocol of what follows the fixed header.
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hops left.
    #[must_use]
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(self) -> Ipv6Addr {
        address(self.0, 8)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(self) -> Ipv6Addr {
        address(self.0, 24)
    }

    /// What follows the fixed header, extension headers included.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[Self::HEADER..]
    }

    /// Walks over the extension headers. A header that is truncated or unknown ends the walk where
    /// it begins.
    #[inline]
    #[must_use]
    pub fn upper_layer(self) -> UpperLayer {
        let mut at = UpperLayer {
            protocol: self.next_header(),
            offset: Self::HEADER,
            fragment: Fragment::Whole,
        };
        for _ in 0..EXTENSION_HEADERS_MAX {
            match self.step(at) {
                Some(next) => at = next,
                None => break,
            }
            if at.fragment == Fragment::Later {
                break; // What follows is the middle of something.
            }
        }
        at
    }

    fn step(self, at: UpperLayer) -> Option<UpperLayer> {
        let header = self.0[at.offset..].first_chunk::<8>()?;
        let mut fragment = at.fragment;
        let len = match at.protocol {
            protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY => 8 + usize::from(header[1]) * 8,
            protocol::AUTHENTICATION => 8 + usize::from(header[1]) * 4,
            protocol::FRAGMENT => {
                let field = read_u16(header, 2);
                fragment = match (field & 0xfff8, field & 1) {
                    (0, 0) => fragment, // An atomic fragment is a whole packet (RFC 6946).
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => return None,
        };
        let offset = at.offset + len;
        (offset <= self.0.len()).then_some(UpperLayer { protocol: header[0], offset, fragment })
    }
}

fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}
