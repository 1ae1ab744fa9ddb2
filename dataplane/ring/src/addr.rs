//! Socket addresses as the kernel writes them.
//!
//! Reading and writing is done on bytes, so that a malformed address is a `None` and never a wild
//! read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of `sockaddr_in6`, the larger of the two families.
pub(crate) const NAME_BYTES: usize = 28;

const IPV4_NAME_BYTES: usize = 16;

/// A socket address in the kernel's form, aligned for it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Name([u8; NAME_BYTES]);

impl Default for Name {
    fn default() -> Self {
        Self([0; NAME_BYTES])
    }
}

impl Name {
    /// Writes an address; returns how many bytes it takes.
    pub(crate) fn set(&mut self, address: &SocketAddr) -> usize {
        let bytes = &mut self.0;
        match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                bytes[8..IPV4_NAME_BYTES].fill(0);
                IPV4_NAME_BYTES
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                NAME_BYTES
            }
        }
    }

    #[cfg(test)]
    pub(crate) const fn as_bytes(&self) -> &[u8; NAME_BYTES] {
        &self.0
    }

    /// The address written here, if it is one of the two families.
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        parse_name(&self.0)
    }
}

/// Reads a socket address as the kernel wrote it. `None` if it is cut short or of another family.
pub(crate) fn parse_name(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.first_chunk().copied()?));
    match family {
        libc::AF_INET => {
            let bytes: &[u8; 8] = bytes.first_chunk()?;
            let [_, _, p0, p1, a, b, c, d] = *bytes;
            let ip = Ipv4Addr::new(a, b, c, d);
            Some(SocketAddrV4::new(ip, u16::from_be_bytes([p0, p1])).into())
        }
        libc::AF_INET6 => {
            let bytes: &[u8; NAME_BYTES] = bytes.first_chunk()?;
            let port = u16::from_be_bytes([bytes[2], bytes[3]]);
            let ip: [u8; 16] = bytes[8..24].first_chunk().copied()?;
            let scope = u32::from_ne_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_written_is_read_back() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%3]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().expect("a literal");
            let mut name = Name([0xff; NAME_BYTES]);
            let len = name.set(&address);
            assert_eq!(len, if address.is_ipv4() { 16 } else { 28 });
            assert_eq!(name.get(), Some(address));
        }
    }

    #[test]
    fn a_cut_or_foreign_name_is_no_address() {
        let mut name = Name::default();
        name.set(&"[::1]:5".parse().expect("a literal"));
        for len in 0..NAME_BYTES {
            assert_eq!(parse_name(&name.0[..len]), None, "{len} bytes");
        }
        assert_eq!(parse_name(&[0xee; 28]), None);
        assert_eq!(parse_name(&[0; 28]), None);
    }
}
