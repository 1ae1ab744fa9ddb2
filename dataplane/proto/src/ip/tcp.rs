//! The TCP header (RFC 9293).

use super::{Malformed, read_u16, read_u32};

/// A segment whose header, options included, is whole.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a>(&'a [u8]);

/// The eight flag bits of byte 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number is meant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is meant.
    pub const URG: u8 = 0x20;
    /// ECN echo (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// Whether any of `bits` is set.
    #[inline]
    #[must_use]
    pub const fn any(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}

impl<'a> Tcp<'a> {
    /// Bytes of a header without options.
    pub const HEADER_MIN: usize = 20;
    /// Offset of the flag bits.
    pub const FLAGS_AT: usize = 13;
    /// Offset of the checksum.
    pub const CHECKSUM_AT: usize = 16;

    /// Checks the header length.
    ///
    /// # Errors
    /// What is wrong with the header.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < Self::HEADER_MIN {
            return Err(Malformed::Truncated);
        }
        let header_len = usize::from(bytes[12] >> 4) * 4;
        if header_len < Self::HEADER_MIN {
            return Err(Malformed::HeaderLength);
        }
        if header_len > bytes.len() {
            return Err(Malformed::Truncated);
        }
        Ok(Self(bytes))
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

    /// Sequence number of the first payload byte.
    #[inline]
    #[must_use]
    pub fn sequence(self) -> u32 {
        read_u32(self.0, 4)
    }

    /// Acknowledgment number.
    #[must_use]
    pub fn acknowledgment(self) -> u32 {
        read_u32(self.0, 8)
    }

    /// Bytes of the header, 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// Flag bits.
    #[inline]
    #[must_use]
    pub fn flags(self) -> TcpFlags {
        TcpFlags(self.0[Self::FLAGS_AT])
    }

    /// Receive window, unscaled.
    #[must_use]
    pub fn window(self) -> u16 {
        read_u16(self.0, 14)
    }

    /// The checksum field.
    #[must_use]
    pub fn checksum(self) -> u16 {
        read_u16(self.0, Self::CHECKSUM_AT)
    }

    /// The options, in order.
    #[must_use]
    pub fn options(self) -> Options<'a> {
        Options { rest: &self.0[Self::HEADER_MIN..self.header_len()], offset: Self::HEADER_MIN }
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }
}

/// Walks over TCP options; ends at the end-of-list option or at the first malformed one.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl Options<'_> {
    /// Maximum segment size.
    pub const MAXIMUM_SEGMENT_SIZE: u8 = 2;
}

impl<'a> Iterator for Options<'a> {
    /// Kind, offset of the option in the TCP header, and the option whole (kind, length, value).
    type Item = (u8, usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.rest.first()? {
                0 => return None,
                1 => {
                    self.rest = &self.rest[1..];
                    self.offset += 1;
                }
                kind => {
                    let len = usize::from(*self.rest.get(1)?);
                    if len < 2 || len > self.rest.len() {
                        self.rest = &[];
                        return None;
                    }
                    let (option, rest) = self.rest.split_at(len);
                    let offset = self.offset;
                    self.rest = rest;
                    self.offset += len;
                    return Some((kind, offset, option));
                }
            }
        }
    }
}
