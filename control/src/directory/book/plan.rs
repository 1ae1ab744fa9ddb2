//! The numbers of a pool: which address has which, and which may never be leased.
//!
//! Number 0 is the network itself. Reserved are the network, the broadcast address of IPv4, the
//! gateway's own addresses, whatever peers of the configuration file use, and in IPv4 what is
//! outside the pool's range. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ringway_proto::allowed_ips::IpNet;

use crate::directory::surroundings::Surroundings;
use crate::store::records::{Lease, Pool};

/// Most numbers of a pool; larger prefixes lease their first million addresses. Two families cost
/// 250 KB then.
pub const NUMBERS_MAX: u32 = 1 << 20;

/// The numbers of a pool.
#[derive(Clone, Debug)]
pub struct Plan {
    net4: Option<IpNet>,
    net6: Option<IpNet>,
    reserved4: Vec<Range<u32>>,
    /// As `reserved4`, without what is only outside the range.
    fixed4: Vec<Range<u32>>,
    reserved6: Vec<Range<u32>>,
}

impl Plan {
    /// The numbers of `pool` beside what the configuration says.
    #[must_use]
    pub fn new(pool: &Pool, here: &Surroundings) -> Self {
        // A pool in the store was checked when it was written; what does not read has no numbers.
        let net = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let (net4, net6): (Option<IpNet>, Option<IpNet>) = (net(&pool.net4), net(&pool.net6));
        let fixed4 = net4.map(|net| reserved(net, here)).unwrap_or_default();
        let mut reserved4 = fixed4.clone();
        if let (Some(net), Some((first, last))) = (net4, pool.range4) {
            reserved4.push(0..number(net, first).unwrap_or(0));
            reserved4.push(number(net, last).map_or(0, |last| last + 1)..size(net));
        }
        let reserved6 = net6.map(|net| reserved(net, here)).unwrap_or_default();
        Self { net4, net6, reserved4, fixed4, reserved6 }
    }

    /// IPv4 prefix.
    #[must_use]
    pub const fn net4(&self) -> Option<IpNet> {
        self.net4
    }

    /// IPv6 prefix.
    #[must_use]
    pub const fn net6(&self) -> Option<IpNet> {
        self.net6
    }

    /// Whether a device may have the addresses of `lease`. What an administrator chose may be
    /// outside the range and beyond the first million, yet neither outside the pool nor somebody
    /// else's.
    #[must_use]
    pub fn may_have(&self, lease: &Lease) -> bool {
        let four = lease.address4.is_none_or(|address| {
            let kept_free = if lease.is_static { &self.fixed4 } else { &self.reserved4 };
            self.net4.is_some_and(|net| free_in(net, kept_free, address.into()))
        });
        let six = lease.address6.is_none_or(|address| {
            self.net6.is_some_and(|net| free_in(net, &self.reserved6, address.into()))
        });
        four && six
    }

    pub(super) fn size4(&self) -> u32 {
        self.net4.map_or(0, size)
    }

    pub(super) fn size6(&self) -> u32 {
        self.net6.map_or(0, size)
    }

    pub(super) fn reserved4(&self) -> &[Range<u32>] {
        &self.reserved4
    }

    pub(super) fn reserved6(&self) -> &[Range<u32>] {
        &self.reserved6
    }

    pub(super) fn is_reserved4(&self, number: u32) -> bool {
        self.reserved4.iter().any(|range| range.contains(&number))
    }

    pub(super) fn is_reserved6(&self, number: u32) -> bool {
        self.reserved6.iter().any(|range| range.contains(&number))
    }

    /// The number of an address, if it is in the pool and among the first million.
    #[must_use]
    pub fn number4(&self, address: Ipv4Addr) -> Option<u32> {
        number(self.net4?, address.into())
    }

    /// As [`Self::number4`].
    #[must_use]
    pub fn number6(&self, address: Ipv6Addr) -> Option<u32> {
        number(self.net6?, address.into())
    }

    pub(super) fn address4(&self, number: u32) -> Option<Ipv4Addr> {
        match self.net4?.address() {
            IpAddr::V4(base) => base.to_bits().checked_add(number).map(Ipv4Addr::from_bits),
            IpAddr::V6(_) => None,
        }
    }

    pub(super) fn address6(&self, number: u32) -> Option<Ipv6Addr> {
        match self.net6?.address() {
            IpAddr::V6(base) => {
                base.to_bits().checked_add(u128::from(number)).map(Ipv6Addr::from_bits)
            }
            IpAddr::V4(_) => None,
        }
    }
}

/// Addresses of a prefix, up to [`NUMBERS_MAX`].
fn size(net: IpNet) -> u32 {
    let width = if net.address().is_ipv4() { 32 } else { 128 };
    let bits = u32::from(width - net.prefix());
    1_u32.checked_shl(bits).unwrap_or(NUMBERS_MAX).min(NUMBERS_MAX)
}

fn number(net: IpNet, address: IpAddr) -> Option<u32> {
    if !net.contains(address) {
        return None;
    }
    let offset = match (net.address(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => u128::from(address.to_bits() - base.to_bits()),
        (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits() - base.to_bits(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    u32::try_from(offset).ok().filter(|number| *number < size(net))
}

fn free_in(net: IpNet, reserved: &[Range<u32>], address: IpAddr) -> bool {
    let is_reserved = |number| reserved.iter().any(|range: &Range<u32>| range.contains(&number));
    // The broadcast address of a large prefix has no number.
    let last = match (net.address(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            address.to_bits()
                == base.to_bits() | u32::MAX.checked_shr(net.prefix().into()).unwrap_or(0)
        }
        _ => false,
    };
    net.contains(address) && !last && !number(net, address).is_some_and(is_reserved)
}

fn reserved(net: IpNet, here: &Surroundings) -> Vec<Range<u32>> {
    let all = size(net);
    let network = 0..1;
    let mut reserved = Vec::from([network]);
    if net.address().is_ipv4() && u64::from(all) == 1_u64 << (32 - net.prefix()) {
        reserved.push(all - 1..all);
    }
    for taken in here.taken_in(net) {
        if taken.prefix() <= net.prefix() {
            reserved.push(0..all);
        } else if let Some(first) = number(net, taken.address()) {
            reserved.push(first..first.saturating_add(size(taken)).min(all));
        }
    }
    reserved
}
