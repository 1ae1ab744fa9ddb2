//! What a core does about floods of handshakes: the share of each source. Used only under load,
//! after a good second MAC, so the sources are not spoofed.

use std::net::{IpAddr, SocketAddr};

use crate::Instant;
use crate::crypto::{Random, mac};
use crate::limits::{HANDSHAKES_PER_SOURCE_BURST, HANDSHAKES_PER_SOURCE_SECOND};

/// A token bucket per source, an IPv4 address or an IPv6 /64, in a table of fixed size.
///
/// The table is a set-associative cache under a keyed hash, so nobody can aim at a set. A source
/// may be in either of two sets. Full sets give up an entry whose bucket is full again, which loses
/// nothing; if there is none, a new source is refused. So nobody is forgotten for coming back, and
/// memory never grows: an own entry cannot be pushed out by sending from many other sources, as it
/// can be from a table that forgets the oldest.
///
/// Nor can many sources of one owner keep others out. All of an IPv6 /48, which one site has, share
/// the same two sets: 160 newcomers per second. Who is in another /48 has to share both with it to
/// be refused. IPv4 has sets of its own.
pub struct HandshakeLimiter {
    hash_key: [u8; 16],
    entries: Box<[Entry]>,
    /// What one message costs: tokens are nanoseconds.
    cost: u64,
}

impl HandshakeLimiter {
    /// Sources that are remembered at the same time, half of them of each family: 2048 sources at
    /// 10/s are four times what a core can answer.
    pub const SOURCES_MAX: usize = 2 * FAMILY_SETS * WAYS;

    /// An empty table, the only allocation (128 KiB).
    #[must_use]
    pub fn new(random: &mut dyn Random) -> Self {
        let mut hash_key = [0; 16];
        random.fill(&mut hash_key);
        let entries = vec![Entry::default(); Self::SOURCES_MAX].into_boxed_slice();
        Self { hash_key, entries, cost: cost(HANDSHAKES_PER_SOURCE_SECOND) }
    }

    /// Allows each source so many messages in a second from now on, at least one. The burst stays
    /// [`HANDSHAKES_PER_SOURCE_BURST`].
    pub fn set_rate(&mut self, per_second: u32) {
        self.cost = cost(per_second);
    }

    /// Takes a token of the source, if it has one.
    pub fn allow(&mut self, from: SocketAddr, now: Instant) -> bool {
        let source = Source::of(from.ip());
        let sets = self.sets_of(source);
        let known = self.place(sets, |entry| entry.source == Some(source));
        let Some(at) = known.or_else(|| self.place(sets, |entry| entry.is_full(self.cost, now)))
        else {
            return false;
        };
        let entry = &mut self.entries[at];
        if known.is_none() {
            *entry = Entry { source: Some(source), tokens: tokens_max(self.cost), updated: now };
        }
        entry.take(self.cost, now)
    }

    /// The first entry of two sets that is as asked for.
    fn place(&self, sets: [usize; 2], wanted: impl Fn(&Entry) -> bool) -> Option<usize> {
        let mut places = sets.into_iter().flat_map(|set| set * WAYS..(set + 1) * WAYS);
        places.find(|&at| wanted(&self.entries[at]))
    }

    fn sets_of(&self, source: Source) -> [usize; 2] {
        let owner = if source.is_v6 { &source.prefix[..SITE_BYTES] } else { &source.prefix };
        let digest = mac(&self.hash_key, &[owner, &[u8::from(source.is_v6)]]);
        let first = if source.is_v6 { FAMILY_SETS } else { 0 };
        [0, 2].map(|at| {
            let number = u16::from_le_bytes([digest[at], digest[at + 1]]);
            first + usize::from(number) % FAMILY_SETS
        })
    }
}

/// Sets of each family.
const FAMILY_SETS: usize = 256;
const WAYS: usize = 8;
/// Bytes of the prefix that one site has: a /48.
const SITE_BYTES: usize = 6;

/// Nanoseconds that one of so many messages in a second costs.
fn cost(per_second: u32) -> u64 {
    1_000_000_000 / u64::from(per_second.max(1))
}

/// A full bucket.
const fn tokens_max(cost: u64) -> u64 {
    cost * HANDSHAKES_PER_SOURCE_BURST as u64
}

/// Who is counted as one: an IPv4 address, or an IPv6 /64, of which anybody has all addresses
/// (section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    prefix: [u8; 8],
    is_v6: bool,
}

impl Source {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let mut prefix = [0; 8];
        let is_v6 = match ip.to_canonical() {
            IpAddr::V4(ip) => {
                prefix[..4].copy_from_slice(&ip.octets());
                false
            }
            IpAddr::V6(ip) => {
                prefix.copy_from_slice(&ip.octets()[..8]);
                true
            }
        };
        Self { prefix, is_v6 }
    }
}

#[derive(Clone, Copy, Default)]
struct Entry {
    source: Option<Source>,
    /// Nanoseconds of credit at `updated`.
    tokens: u64,
    updated: Instant,
}

impl Entry {
    fn tokens_at(&self, cost: u64, now: Instant) -> u64 {
        let most = tokens_max(cost);
        let earned = now.since(self.updated).as_nanos().min(u128::from(most)) as u64;
        (self.tokens + earned).min(most)
    }

    fn is_full(&self, cost: u64, now: Instant) -> bool {
        self.source.is_none() || self.tokens_at(cost, now) == tokens_max(cost)
    }

    fn take(&mut self, cost: u64, now: Instant) -> bool {
        self.tokens = self.tokens_at(cost, now);
        self.updated = now;
        let allowed = self.tokens >= cost;
        if allowed {
            self.tokens -= cost;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Random for Zeros {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
        }
    }

    fn limiter() -> HandshakeLimiter {
        HandshakeLimiter::new(&mut Zeros)
    }

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000_000 + ms * 1_000_000)
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 51820)
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut limiter = limiter();
        let source = from("192.0.2.1");
        limiter.set_rate(2);
        (0..5).for_each(|_| assert!(limiter.allow(source, at_ms(0))));
        assert!(!limiter.allow(source, at_ms(499)));
        assert!(limiter.allow(source, at_ms(500)));
        limiter.set_rate(1000);
        assert_eq!((501..1501).filter(|ms| limiter.allow(source, at_ms(*ms))).count(), 1000);
    }

    #[test]
    fn a_source_has_a_burst_of_five_and_then_ten_a_second() {
        let mut limiter = limiter();
        let source = from("192.0.2.1");
        (0..5).for_each(|_| assert!(limiter.allow(source, at_ms(0))));
        assert!(!limiter.allow(source, at_ms(0)));
        assert!(!limiter.allow(source, at_ms(99)));
        assert!(limiter.allow(source, at_ms(100)));
        assert!(!limiter.allow(source, at_ms(100)));
        assert!(!limiter.allow(source, at_ms(199)));
        assert!(limiter.allow(source, at_ms(200)));
        // Refused attempts cost nothing, and rest fills no more than the burst.
        (0..5).for_each(|_| assert!(limiter.allow(source, at_ms(10_000))));
        assert!(!limiter.allow(source, at_ms(10_000)));
    }

    #[test]
    fn ten_a_second_is_the_long_run() {
        let mut limiter = limiter();
        let source = from("2001:db8::1");
        let allowed = (0..10_000).filter(|ms| limiter.allow(source, at_ms(*ms))).count();
        assert!((100..=105).contains(&allowed), "{allowed} in ten seconds");
    }

    #[test]
    fn an_ipv6_source_is_its_slash_64_and_an_ipv4_source_is_itself() {
        let mut limiter = limiter();
        (0..5).for_each(|_| assert!(limiter.allow(from("2001:db8::1"), at_ms(0))));
        assert!(!limiter.allow(from("2001:db8::ffff:1"), at_ms(0)));
        assert!(limiter.allow(from("2001:db8:0:1::1"), at_ms(0)));
        (0..5).for_each(|_| assert!(limiter.allow(from("192.0.2.1"), at_ms(0))));
        assert!(!limiter.allow(from("::ffff:192.0.2.1"), at_ms(0)));
        assert!(limiter.allow(from("192.0.2.2"), at_ms(0)));
        // The same eight bytes of the other family are another source.
        assert!(limiter.allow(from("c000:201::"), at_ms(0)));
    }

    #[test]
    fn a_port_is_not_a_source() {
        let mut limiter = limiter();
        let source = |port| SocketAddr::new(IpAddr::from([192, 0, 2, 1]), port);
        let allowed = (0..100).filter(|port| limiter.allow(source(*port), at_ms(0))).count();
        assert_eq!(allowed, 5);
    }

    #[test]
    fn a_full_table_refuses_newcomers_until_somebody_has_rested() {
        let mut limiter = limiter();
        let source = |number: u32| SocketAddr::new(IpAddr::from(number.to_be_bytes()), 1);
        let newcomers = 1..40_000;
        let allowed = newcomers.filter(|number| limiter.allow(source(*number), at_ms(0))).count();
        assert_eq!(allowed, HandshakeLimiter::SOURCES_MAX / 2, "all places of this family");
        assert!(!limiter.allow(source(50_000), at_ms(99)));
        assert!(limiter.allow(source(50_000), at_ms(100)));
    }

    #[test]
    fn a_whole_slash_48_keeps_nobody_else_out() {
        let mut limiter = limiter();
        let site = |site: u16, subnet: u16| {
            SocketAddr::new(IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1]), 1)
        };
        let mut of_attacker = 0;
        let mut refused = 0;
        for ms in 0..1_000_u16 {
            let now = at_ms(ms.into());
            // Each of its networks again and again, so that none of them rests.
            let from = (0..65).map(|n| site(0, ms.wrapping_mul(65).wrapping_add(n)));
            of_attacker += from.filter(|from| limiter.allow(*from, now)).count();
            refused += usize::from(!limiter.allow(site(1 + ms, 0), now));
            let v4 = SocketAddr::new(IpAddr::from([192, 0, (ms >> 8) as u8, ms as u8]), 1);
            refused += usize::from(!limiter.allow(v4, now));
        }
        assert_eq!(refused, 0, "of two thousand newcomers");
        assert!((100..=176).contains(&of_attacker), "{of_attacker} in a second");
    }

    #[test]
    fn nobody_is_forgotten_while_others_push() {
        let mut limiter = limiter();
        let attacker = from("192.0.2.1");
        let crowd = |number: u32| SocketAddr::new(IpAddr::from(number.to_be_bytes()), 1);
        let allowed = (0..2_000_u32)
            .filter(|ms| {
                // Twenty times the table, within half a second, and again and again.
                (0..40).for_each(|n| {
                    limiter.allow(crowd(1 + 40 * ms + n), at_ms(u64::from(*ms)));
                });
                limiter.allow(attacker, at_ms(u64::from(*ms)))
            })
            .count();
        assert!(allowed <= 25, "{allowed} in two seconds: an entry was forgotten");
    }
}
