//! Where an attempt comes from: the address, the prefix that it is counted under, and the lists of
//! prefixes that may or may not come in at all.
//!
//! An IPv4 address counts alone. An IPv6 host has a whole /64 to draw addresses from, so a /64
//! counts as one. When much of a neighbourhood misbehaves, the neighbourhood counts: a /24, a /56.
//! This module must not know why somebody is counted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::allowed_ips::IpNet;

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A process of root or of the gateway's own user on a Unix socket, by its user id. Never
    /// limited: it needs no password to do harm, and must be able to lift a ban.
    Local(u32),
    /// A process of another user of this host on a Unix socket: whoever is in the socket's group
    /// may try, and no more often than somebody from elsewhere.
    Unix(u32),
    /// An address on the network.
    Address(IpAddr),
}

impl Source {
    /// What it is counted under.
    #[must_use]
    pub const fn prefix(self) -> Prefix {
        match self {
            Self::Local(_) => Prefix::Local,
            Self::Unix(uid) => Prefix::Unix(uid),
            Self::Address(address) => match address.to_canonical() {
                IpAddr::V4(address) => Prefix::V4 { bits: address.to_bits(), len: 32 },
                IpAddr::V6(address) => Prefix::V6 { bits: address.to_bits() & V6_HOST, len: 64 },
            },
        }
    }

    /// Whether many may stand behind it whom nobody can tell apart: a proxy on this host, which all
    /// of its clients come through. What one of them does must not shut out the others, so only the
    /// user whose password is guessed is kept out then.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        match self {
            Self::Local(_) | Self::Unix(_) => false,
            Self::Address(address) => address.to_canonical().is_loopback(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(uid) | Self::Unix(uid) => write!(f, "local:{uid}"),
            Self::Address(address) => address.to_canonical().fmt(f),
        }
    }
}

const V6_HOST: u128 = !0 << 64;
const V6_SITE: u128 = !0 << 72;
const V4_SITE: u32 = !0 << 8;

/// What attempts are counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// This host.
    Local,
    /// A user of this host who is neither root nor the gateway's own.
    Unix(u32),
    /// A /32 or /24.
    V4 {
        /// The address, zeros behind the prefix.
        bits: u32,
        /// 32 or 24.
        len: u8,
    },
    /// A /64 or /56.
    V6 {
        /// The address, zeros behind the prefix.
        bits: u128,
        /// 64 or 56.
        len: u8,
    },
}

impl Prefix {
    /// The neighbourhood: /24 or /56.
    #[must_use]
    pub const fn site(self) -> Self {
        match self {
            Self::Local | Self::Unix(_) => self,
            Self::V4 { bits, .. } => Self::V4 { bits: bits & V4_SITE, len: 24 },
            Self::V6 { bits, .. } => Self::V6 { bits: bits & V6_SITE, len: 56 },
        }
    }

    /// Who is meant where somebody names a subject of bans: an address stands for its own prefix,
    /// and a prefix is written as `Display` writes it. All else is left as it is.
    #[must_use]
    pub fn subject(text: &str) -> String {
        let address = text.parse().ok().map(|address| Source::Address(address).prefix());
        address.or_else(|| Self::parse(text)).map_or_else(|| text.to_owned(), |one| one.to_string())
    }

    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(uid) = text.strip_prefix("local:") {
            return uid.parse().ok().map(Self::Unix);
        }
        let net: IpNet = text.parse().ok()?;
        let host = Source::Address(net.address()).prefix();
        match (net.address(), net.prefix()) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 64) => Some(host),
            (IpAddr::V4(_), 24) | (IpAddr::V6(_), 56) => Some(host.site()),
            _ => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Local => f.write_str("local"),
            Self::Unix(uid) => write!(f, "local:{uid}"),
            Self::V4 { bits, len } => write!(f, "{}/{len}", Ipv4Addr::from_bits(bits)),
            Self::V6 { bits, len } => write!(f, "{}/{len}", Ipv6Addr::from_bits(bits)),
        }
    }
}

/// Who may try at all. The deny list wins; an empty allow list allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// If there is any, whoever is in none of these is refused.
    pub allow: Vec<IpNet>,
    /// Whoever is in one of these is refused.
    pub deny: Vec<IpNet>,
}

impl Lists {
    /// Most prefixes of a list: they are walked one by one for each attempt, in some microseconds.
    pub const PREFIXES_MAX: usize = 4096;

    /// Whether `source` may try. This host always may.
    #[must_use]
    pub fn admit(&self, source: Source) -> bool {
        let Source::Address(address) = source else { return true };
        let address = address.to_canonical();
        let is_in = |list: &[IpNet]| list.iter().any(|net| net.contains(address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Source {
        Source::Address(text.parse().unwrap())
    }

    #[test]
    fn a_host_is_an_ipv4_address_or_a_64() {
        assert_eq!(at("192.0.2.7").prefix().to_string(), "192.0.2.7/32");
        assert_eq!(at("::ffff:192.0.2.7").prefix(), at("192.0.2.7").prefix());
        assert_eq!(at("2001:db8:1:2:3::4").prefix().to_string(), "2001:db8:1:2::/64");
        assert_eq!(at("2001:db8:1:2::").prefix(), at("2001:db8:1:2:ffff::").prefix());
        assert_eq!(at("192.0.2.7").prefix().site().to_string(), "192.0.2.0/24");
        assert_eq!(at("2001:db8:1:2::").prefix().site().to_string(), "2001:db8:1::/56");
        assert_eq!(Source::Local(7).prefix(), Source::Local(8).prefix());
    }

    #[test]
    fn the_deny_list_wins_and_an_allow_list_shuts_out_the_rest() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let lists = Lists {
            allow: nets(&["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/32"]),
            deny: nets(&["10.1.0.0/16", "2001:db8:1::/48"]),
        };
        let admitted = ["10.2.3.4", "2001:db8:2::1", "::ffff:10.9.9.9"];
        let refused = ["10.1.3.4", "2001:db8:1::1", "192.0.2.1", "::1", "::ffff:10.1.9.9"];
        assert!(admitted.iter().all(|text| lists.admit(at(text))));
        assert!(refused.iter().all(|text| !lists.admit(at(text))));
        assert!(lists.admit(Source::Local(1000)));
        assert!(Lists::default().admit(at("192.0.2.1")));
        let all = Lists { allow: Vec::new(), deny: nets(&["0.0.0.0/0"]) };
        assert!(!all.admit(at("192.0.2.1")) && all.admit(at("2001:db8::1")));
    }

    #[test]
    fn a_subject_may_be_an_address_or_a_prefix_however_it_is_written() {
        for (named, meant) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("2001:DB8:0::7", "2001:db8::/64"),
            ("2001:db8::7/56", "2001:db8::/56"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("local:1000", "local:1000"),
            ("user:192.0.2.7", "user:192.0.2.7"),
            ("192.0.2.0/25", "192.0.2.0/25"),
            ("", ""),
        ] {
            assert_eq!(Prefix::subject(named), meant, "{named}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_is_read_as_it_was_written(bits: u128, is_v4: bool) {
            let address = if is_v4 { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) }
                else { IpAddr::V6(Ipv6Addr::from_bits(bits)) };
            let host = Source::Address(address).prefix();
            prop_assert_eq!(Prefix::parse(&host.to_string()), Some(host));
            let site = host.site();
            prop_assert_eq!(Prefix::parse(&site.to_string()), Some(site));
            let uid = Source::Unix(bits as u32).prefix();
            prop_assert_eq!(Prefix::parse(&uid.to_string()), Some(uid));
        }

        #[test]
        fn a_list_covers_what_shares_its_first_bits(net: u32, address: u32, len in 0_u8..=32) {
            let list = IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(net)), len).unwrap();
            let expected = (0..len).all(|bit| (net ^ address) >> (31 - bit) & 1 == 0);
            let lists = Lists { allow: vec![list], deny: Vec::new() };
            let source = Source::Address(IpAddr::V4(Ipv4Addr::from_bits(address)));
            prop_assert_eq!(lists.admit(source), expected);
        }
    }
}
