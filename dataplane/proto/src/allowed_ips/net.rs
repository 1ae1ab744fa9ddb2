//! A prefix: an address whose bits beyond the prefix length are zero.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address prefix. The bits beyond the prefix length are zero by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The part before the slash is neither an IPv4 nor an IPv6 address.
    #[error("\"{0}\" is not an IP address")]
    Address(String),
    /// The part after the slash is not a number within the address length.
    #[error("\"{0}\" is not a prefix length from 0 to {1}")]
    Prefix(String, u8),
}

impl IpNet {
    /// The prefix of `prefix` bits that holds `address`; `None` if the address has fewer bits.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let (bits, v4) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        (prefix <= width(v4)).then(|| Self::of_bits(bits & mask(prefix), prefix, v4))
    }

    /// The prefix that holds exactly `address`.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, prefix: width(address.is_ipv4()) }
    }

    /// The lowest address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Prefix length in bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it holds one address only.
    #[must_use]
    pub const fn is_host(self) -> bool {
        self.prefix == width(self.address.is_ipv4())
    }

    /// Whether `address` is inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|net| net == self)
    }

    /// The address as the high bits of 128.
    pub(super) fn bits(self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    /// From masked bits, of which an IPv4 prefix has the high 32.
    pub(super) fn of_bits(bits: u128, prefix: u8, v4: bool) -> Self {
        let address = if v4 {
            IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        Self { address, prefix }
    }
}

impl FromStr for IpNet {
    type Err = NetError;

    /// `10.0.0.0/8`, `fd00::/8`, or a bare address, which means that address alone.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address =
            address.parse::<IpAddr>().map_err(|_| NetError::Address(address.to_owned()))?;
        let Some(prefix) = prefix else { return Ok(Self::host(address)) };
        let wrong = || NetError::Prefix(prefix.to_owned(), width(address.is_ipv4()));
        // `u8::from_str` would accept a plus sign.
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(wrong)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

const fn width(v4: bool) -> u8 {
    if v4 { 32 } else { 128 }
}

/// The high `prefix` bits.
pub(super) const fn mask(prefix: u8) -> u128 {
    match u128::MAX.checked_shl(128 - prefix as u32) {
        Some(mask) => mask,
        None => 0,
    }
}
