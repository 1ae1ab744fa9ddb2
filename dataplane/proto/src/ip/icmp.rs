//! The head of ICMP messages of both versions (RFC 792, RFC 4443).

use super::{Malformed, read_u16};

/// A message whose first eight bytes are whole.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<'a>(&'a [u8]);

impl<'a> Icmp<'a> {
    /// Bytes of type, code, checksum and the word that depends on the type.
    pub const HEADER: usize = 8;
    /// Offset of the checksum.
    pub const CHECKSUM_AT: usize = 2;

    /// ICMPv4 echo reply.
    pub const V4_ECHO_REPLY: u8 = 0;
    /// ICMPv4 destination unreachable.
    pub const V4_UNREACHABLE: u8 = 3;
    /// ICMPv4 echo request.
    pub const V4_ECHO_REQUEST: u8 = 8;
    /// ICMPv6 destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// ICMPv6 packet too big.
    pub const V6_PACKET_TOO_BIG: u8 = 2;
    /// ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;

    /// Checks the length.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < Self::HEADER {
            return Err(Malformed::Truncated);
        }
        Ok(Self(bytes))
    }

    /// Message type.
    #[must_use]
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// Code within the type.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0[1]
    }

    /// The checksum field.
    #[must_use]
    pub fn checksum(self) -> u16 {
        read_u16(self.0, Self::CHECKSUM_AT)
    }

    /// Identifier of an echo message.
    #[must_use]
    pub fn identifier(self) -> u16 {
        read_u16(self.0, 4)
    }

    /// Sequence number of an echo message.
    #[must_use]
    pub fn sequence(self) -> u16 {
        read_u16(self.0, 6)
    }

    /// What follows the first eight bytes: echo data, or the packet that an error is about.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[Self::HEADER..]
    }

    /// Whether an ICMPv4 message is an error, or unknown and therefore treated as one (RFC 1122
    /// section 3.2.2).
    #[must_use]
    pub fn v4_is_error(kind: u8) -> bool {
        !matches!(kind, 0 | 8..=10 | 13..=18)
    }

    /// Whether an ICMPv6 message is an error (RFC 4443 section 2.1: the high bit is clear) or a
    /// redirect (137).
    #[must_use]
    pub fn v6_is_error(kind: u8) -> bool {
        kind < 128 || kind == 137
    }
}
