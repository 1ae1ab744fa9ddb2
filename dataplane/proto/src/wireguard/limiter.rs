//! What a core does about floods of handshakes: the signal that it is under load, and the share of
//! each source. Used only under load, after a good second MAC, so the sources are not spoofed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Instant;
use crate::crypto::{Random, mac};
use crate::limits::HANDSHAKES_QUEUED_MAX;

/// Handshake messages per second of one source.
pub const PER_SECOND: u32 = 20;
/// Handshake messages of one source at once.
pub const BURST: u32 = 5;
/// How long a core stays under load after its queue was last long.
pub const UNDER_LOAD_FOR: Duration = Duration::from_secs(1);
/// Handshake messages waiting from which a core is under load: an eighth of the queue.
pub const UNDER_LOAD_FROM: usize = HANDSHAKES_QUEUED_MAX / 8;

/// Whether a core is under load. Global to the core, never per source: a flood from spoofed
/// addresses has to bring cookies out too.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadGauge {
    until: Option<Instant>,
}

impl LoadGauge {
    /// Tells the length of the queue and asks whether the core is under load.
    pub fn observe(&mut self, queued: usize, now: Instant) -> bool {
        if queued >= UNDER_LOAD_FROM {
            self.until = Some(now + UNDER_LOAD_FOR);
        }
        self.until.is_some_and(|until| now < until)
    }
}

/// A token bucket per source, an IPv4 address or an IPv6 /64, in a table of fixed size.
///
/// The table is a set-associative cache under a keyed hash, so nobody can aim at a set. A full set
/// gives up an entry whose bucket is full again, which loses nothing; if there is none, a new
/// source is refused.
pub struct HandshakeLimiter {
    hash_key: [u8; 16],
    entries: Box<[Entry]>,
}

impl HandshakeLimiter {
    /// Sources that are remembered at the same time. 4096 sources at 20/s are sixteen times what a
    /// core can answer.
    pub const SOURCES_MAX: usize = SETS * WAYS;

    /// An empty table, the only allocation (128 KiB).
    #[must_use]
    pub fn new(random: &mut dyn Random) -> Self {
        let mut hash_key = [0; 16];
        random.fill(&mut hash_key);
        Self { hash_key, entries: vec![Entry::default(); Self::SOURCES_MAX].into_boxed_slice() }
    }

    /// Takes a token of the source, if it has one.
    pub fn allow(&mut self, from: SocketAddr, now: Instant) -> bool {
        let source = Source::of(from.ip());
        let set = self.set_of(source);
        let entries = &mut self.entries[set * WAYS..(set + 1) * WAYS];
        if let Some(entry) = entries.iter_mut().find(|entry| entry.source == Some(source)) {
            return entry.take(now);
        }
        let Some(entry) = entries.iter_mut().find(|entry| entry.is_full(now)) else {
            return false;
        };
        *entry = Entry { source: Some(source), tokens: TOKENS_MAX, updated: now };
        entry.take(now)
    }

    fn set_of(&self, source: Source) -> usize {
        let digest = mac(&self.hash_key, &[&source.prefix, &[u8::from(source.is_v6)]]);
        usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS
    }
}

const SETS: usize = 512;
const WAYS: usize = 8;
/// What one message costs: tokens are nanoseconds.
const COST: u64 = 1_000_000_000 / PER_SECOND as u64;
const TOKENS_MAX: u64 = COST * BURST as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    prefix: [u8; 8],
    is_v6: bool,
}

impl Source {
    fn of(ip: IpAddr) -> Self {
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
    fn tokens_at(&self, now: Instant) -> u64 {
        let earned = now.since(self.updated).as_nanos().min(u128::from(TOKENS_MAX)) as u64;
        (self.tokens + earned).min(TOKENS_MAX)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.source.is_none() || self.tokens_at(now) == TOKENS_MAX
    }

    fn take(&mut self, now: Instant) -> bool {
        self.tokens = self.tokens_at(now);
        self.updated = now;
        let allowed = self.tokens >= COST;
        if allowed {
            self.tokens -= COST;
        }
        allowed
    }
}
