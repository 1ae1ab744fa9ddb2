//! Records: how state that outlives a process is written down.
//!
//! Little-endian numbers of fixed width, one after the other, without padding. [`Reader`] is given
//! bytes that anybody may have written: it never reads past their end, and it never panics.
//! [`Writer`] fills memory that its caller reserved: it never grows it, because growing would leave
//! a copy of keys behind.
//!
//! This module must not know what the numbers mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("The record is cut off")]
    Truncated,
    /// The record ends before the bytes do.
    #[error("Something follows the record")]
    Trailing,
    /// Written by another version.
    #[error("The record is of version {found}, this program reads version {known}")]
    Version {
        /// In the record.
        found: u16,
        /// What this program reads.
        known: u16,
    },
    /// A field that cannot be as it is.
    #[error("The field {field:?} of the record is impossible")]
    Impossible {
        /// Which one.
        field: &'static str,
    },
}

/// "None" of an optional span of time.
const NO_SPAN: u64 = u64::MAX;

/// Reads a record from its beginning.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A byte.
    ///
    /// # Errors
    /// [`RecordError::Truncated`], as for every number below.
    pub fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn u128(&mut self) -> Result<u128, RecordError> {
        self.array().map(|bytes| u128::from_le_bytes(*bytes))
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`RecordError::Truncated`]; [`RecordError::Impossible`] for other values.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Impossible { field }),
        }
    }

    /// A span of time, in nanoseconds; at most 584 years.
    ///
    /// # Errors
    /// [`RecordError::Truncated`].
    pub fn span(&mut self) -> Result<Option<Duration>, RecordError> {
        let nanos = self.u64()?;
        Ok((nanos != NO_SPAN).then(|| Duration::from_nanos(nanos)))
    }

    /// An IP address.
    ///
    /// # Errors
    /// [`RecordError::Truncated`]; [`RecordError::Impossible`] for another family.
    pub fn address(&mut self) -> Result<IpAddr, RecordError> {
        match self.u8()? {
            4 => self.array::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
            6 => self.array::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
            _ => Err(RecordError::Impossible { field: "address family" }),
        }
    }

    /// A port and an address, with the scope of an IPv6 one.
    ///
    /// # Errors
    /// As [`Reader::address`].
    pub fn socket(&mut self) -> Result<SocketAddr, RecordError> {
        let (port, scope) = (self.u16()?, self.u32()?);
        let mut socket = SocketAddr::new(self.address()?, port);
        match &mut socket {
            SocketAddr::V6(socket) => socket.set_scope_id(scope),
            SocketAddr::V4(_) if scope != 0 => {
                return Err(RecordError::Impossible { field: "scope" });
            }
            SocketAddr::V4(_) => {}
        }
        Ok(socket)
    }

    /// All that was not read yet.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether all was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// [`RecordError::Trailing`].
    pub const fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing) }
    }
}

/// Appends to memory with enough room.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    #[must_use]
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// If there is no room for them: the caller's invariant, independent of contents. So for
    /// everything below.
    pub fn bytes(&mut self, bytes: &[u8]) {
        assert!(self.out.capacity() - self.out.len() >= bytes.len(), "a record has room");
        self.out.extend_from_slice(bytes);
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    /// Appends a span of time.
    pub fn span(&mut self, span: Option<Duration>) {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(NO_SPAN - 1);
        self.u64(span.map_or(NO_SPAN, |span| nanos(span).min(NO_SPAN - 1)));
    }

    /// Appends an address.
    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.u8(4);
                self.bytes(&address.octets());
            }
            IpAddr::V6(address) => {
                self.u8(6);
                self.bytes(&address.octets());
            }
        }
    }

    /// Appends a port and an address.
    pub fn socket(&mut self, socket: SocketAddr) {
        self.u16(socket.port());
        self.u32(match socket {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(socket) => socket.scope_id(),
        });
        self.address(socket.ip());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_anywhere_is_noticed() {
        let mut bytes = Vec::with_capacity(256);
        let sockets = ["192.0.2.1:7".parse().unwrap(), "[fe80::1%3]:9".parse().unwrap()];
        let spans = [None, Some(Duration::from_nanos(5)), Some(Duration::MAX)];
        let mut writer = Writer::new(&mut bytes);
        writer.u8(1);
        writer.u16(2);
        writer.u32(3);
        writer.u64(4);
        writer.u128(5);
        spans.into_iter().for_each(|span| writer.span(span));
        sockets.into_iter().for_each(|socket| writer.socket(socket));
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            assert!(reader.flag("flag")?);
            assert_eq!((reader.u16()?, reader.u32()?, reader.u64()?), (2, 3, 4));
            assert_eq!(reader.u128()?, 5);
            let longest = Some(Duration::from_nanos(u64::MAX - 1));
            assert_eq!([reader.span()?, reader.span()?, reader.span()?], [None, spans[1], longest]);
            assert_eq!([reader.socket()?, reader.socket()?], sockets);
            reader.end()
        };
        assert_eq!(read(&bytes), Ok(()));
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), Err(RecordError::Truncated));
        }
        bytes.push(0);
        assert_eq!(read(&bytes), Err(RecordError::Trailing));
    }

    #[test]
    fn impossible_values_are_named() {
        let field = |error| match error {
            RecordError::Impossible { field } => field,
            RecordError::Truncated | RecordError::Trailing | RecordError::Version { .. } => "",
        };
        assert_eq!(Reader::new(&[2]).flag("this").map_err(field), Err("this"));
        assert_eq!(Reader::new(&[5]).address().map_err(field), Err("address family"));
        let scoped = [0, 0, 1, 0, 0, 0, 4, 127, 0, 0, 1];
        assert_eq!(Reader::new(&scoped).socket().map_err(field), Err("scope"));
    }
}
