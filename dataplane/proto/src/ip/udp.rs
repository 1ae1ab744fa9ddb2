//! The UDP header (RFC 768).

use super::{Malformed, read_u16};

/// A datagram whose header is whole and whose length field fits the bytes at hand.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(&'a [u8]);

impl<'a> Udp<'a> {
    /// Bytes of the header.
    pub const HEADER: usize = 8;
    /// Offset of the length field.
    pub const LENGTH_AT: usize = 4;
    /// Offset of the checksum.
    pub const CHECKSUM_AT: usize = 6;

    /// Checks the length field.
    ///
    /// # Errors
    /// What is wrong with the header.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < Self::HEADER {
            return Err(Malformed::Truncated);
        }
        let len = usize::from(read_u16(bytes, Self::LENGTH_AT));
        if len < Self::HEADER || len > bytes.len() {
            return Err(Malformed::Length);
        }
        Ok(Self(&bytes[..len]))
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn source_port(self) -> u16 {
        read_u16(self.0, 0)
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(self) -> u16 {
        read_u16(self.0, 2)
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn datagram_len(self) -> usize {
        self.0.len()
    }

    /// The checksum field; 0 over IPv4 means that the sender made none.
    #[must_use]
    pub fn checksum(self) -> u16 {
        read_u16(self.0, Self::CHECKSUM_AT)
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[Self::HEADER..]
    }
}
