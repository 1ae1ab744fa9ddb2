//! A seeded model of a bad link: loss, delay, jitter, reordering, duplication, corruption, a rate
//! with a queue, and a black hole for packets above an MTU.
//!
//! Sans-IO: packets go in with a time, and come out when they are due. The same seed and the same
//! inputs give the same run. The simulated world uses it between its shards and clients;
//! [`crate::impair`] applies it to real datagrams, because this kernel has no `netem`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use ringway_proto::Instant;

/// Probabilities are parts per million, so that a configuration is exact and prints as it was
/// written.
pub type Ppm = u32;

const MILLION: u64 = 1_000_000;

/// What a link does to packets. The default is a perfect wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// Packets lost.
    pub loss: Ppm,
    /// Packets delivered a second time, `duplicate_after` later.
    pub duplicate: Ppm,
    /// How much later the second copy comes; long delays make it a replay.
    pub duplicate_after: Duration,
    /// Packets held back by `reorder_by`, while later ones pass.
    pub reorder: Ppm,
    /// How long a reordered packet is held back.
    pub reorder_by: Duration,
    /// Packets with one bit flipped.
    pub corrupt: Ppm,
    /// One-way delay.
    pub delay: Duration,
    /// Added to the delay: uniform between zero and this. Does not reorder by itself.
    pub jitter: Duration,
    /// Bits per second; `None` for infinitely fast.
    pub rate_bps: Option<u64>,
    /// Bytes that wait for the rate before the tail is dropped; 0 for no limit.
    pub queue_bytes: u64,
    /// Larger packets vanish without a word.
    pub mtu_bytes: Option<usize>,
}

/// What happened to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Offered.
    pub offered: u64,
    /// Handed out, copies included.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped at the end of a full queue.
    pub queue_full: u64,
    /// Larger than the MTU.
    pub too_big: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Changed by one bit.
    pub corrupted: u64,
}

/// One direction of a link. `T` goes with each packet, for example its addresses.
#[derive(Clone, Debug)]
pub struct Link<T> {
    config: LinkConfig,
    random: SplitMix,
    counts: LinkCounts,
    /// When the transmitter has sent everything accepted so far.
    idle_at: Instant,
    /// The latest delivery of packets that keep their order.
    in_order_until: Instant,
    serial: u64,
    waiting: BinaryHeap<Waiting<T>>,
}

impl<T: Clone> Link<T> {
    /// A link whose chances are drawn from `seed`.
    #[must_use]
    pub const fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            random: SplitMix::new(seed),
            counts: LinkCounts {
                offered: 0,
                delivered: 0,
                lost: 0,
                queue_full: 0,
                too_big: 0,
                duplicated: 0,
                reordered: 0,
                corrupted: 0,
            },
            idle_at: Instant::ZERO,
            in_order_until: Instant::ZERO,
            serial: 0,
            waiting: BinaryHeap::new(),
        }
    }

    /// Changes what the link does from now on; packets under way keep their fate.
    pub const fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// What it does.
    #[must_use]
    pub const fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Accepts a packet and decides its fate. `wire_bytes` is its size on the wire, headers
    /// included.
    pub fn offer(&mut self, mut bytes: Vec<u8>, wire_bytes: usize, tag: T, now: Instant) {
        // Each chance is drawn for each packet, so that changing one probability leaves the others'
        // draws alone.
        let lost = self.random.chance(self.config.loss);
        let duplicated = self.random.chance(self.config.duplicate);
        let reordered = self.random.chance(self.config.reorder);
        let corrupted = self.random.chance(self.config.corrupt);
        let jitter = self.random.up_to(self.config.jitter);
        let flipped = self.random.next_u64();

        self.counts.offered += 1;
        if self.config.mtu_bytes.is_some_and(|mtu| wire_bytes > mtu) {
            self.counts.too_big += 1;
            return;
        }
        let Some(sent_at) = self.transmit(wire_bytes, now) else {
            self.counts.queue_full += 1;
            return;
        };
        if lost {
            self.counts.lost += 1;
            return;
        }
        if corrupted && !bytes.is_empty() {
            flip_bit(&mut bytes, flipped);
            self.counts.corrupted += 1;
        }
        let mut at = (sent_at + self.config.delay + jitter).max(self.in_order_until);
        self.in_order_until = at;
        if reordered {
            at = at + self.config.reorder_by;
            self.counts.reordered += 1;
        }
        if duplicated {
            self.counts.duplicated += 1;
            self.enqueue(at + self.config.duplicate_after, bytes.clone(), tag.clone());
        }
        self.enqueue(at, bytes, tag);
    }

    /// Hands out the next packet that is due at `now`.
    pub fn take(&mut self, now: Instant) -> Option<(Vec<u8>, T)> {
        if self.next_due()? > now {
            return None;
        }
        let waiting = self.waiting.pop()?;
        self.counts.delivered += 1;
        Some((waiting.bytes, waiting.tag))
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|waiting| waiting.at)
    }

    /// When the last bit of the packet leaves, or `None` when the queue is full.
    fn transmit(&mut self, wire_bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate_bps) = self.config.rate_bps else { return Some(now) };
        let backlog = self.idle_at.since(now);
        let queued_bytes = backlog.as_nanos() * u128::from(rate_bps) / (8 * 1_000_000_000);
        if self.config.queue_bytes != 0 && queued_bytes > u128::from(self.config.queue_bytes) {
            return None;
        }
        let bits = u64::try_from(wire_bytes).unwrap_or(u64::MAX).saturating_mul(8);
        let nanos = bits.saturating_mul(1_000_000_000) / rate_bps.max(1);
        self.idle_at = self.idle_at.max(now) + Duration::from_nanos(nanos);
        Some(self.idle_at)
    }

    fn enqueue(&mut self, at: Instant, bytes: Vec<u8>, tag: T) {
        self.serial += 1;
        self.waiting.push(Waiting { at, serial: self.serial, bytes, tag });
    }
}

fn flip_bit(bytes: &mut [u8], chosen: u64) {
    let bits = bytes.len() as u64 * 8;
    let bit = chosen % bits.max(1);
    let byte = usize::try_from(bit / 8).unwrap_or(0);
    if let Some(byte) = bytes.get_mut(byte) {
        *byte ^= 1 << (bit % 8);
    }
}

/// A small seeded generator (SplitMix64): not for secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitMix {
    state: u64,
}

impl SplitMix {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with the given probability.
    pub const fn chance(&mut self, probability: Ppm) -> bool {
        self.next_u64() % MILLION < probability as u64
    }

    /// Uniform between zero and `limit`, both included.
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1);
        Duration::from_nanos(self.next_u64() % (nanos + 1))
    }
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    at: Instant,
    serial: u64,
    bytes: Vec<u8>,
    tag: T,
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the largest first: the earliest, and among equals the first that came.
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn number(index: u32) -> Vec<u8> {
        index.to_be_bytes().to_vec()
    }

    /// Sends `count` packets, one per millisecond, and returns what came out with its time.
    fn run(config: LinkConfig, seed: u64, count: u32) -> (Vec<(Instant, Vec<u8>)>, LinkCounts) {
        let mut link = Link::new(config, seed);
        let mut out = Vec::new();
        for step in 0..count + 1_000 {
            let now = at(u64::from(step));
            if step < count {
                link.offer(number(step), 100, (), now);
            }
            while let Some((bytes, ())) = link.take(now) {
                out.push((now, bytes));
            }
        }
        assert_eq!(link.next_due(), None, "everything was handed out");
        (out, link.counts())
    }

    fn bad() -> LinkConfig {
        LinkConfig {
            loss: 100_000,
            duplicate: 50_000,
            duplicate_after: 7 * MS,
            reorder: 50_000,
            reorder_by: 5 * MS,
            corrupt: 10_000,
            delay: 20 * MS,
            jitter: 3 * MS,
            ..LinkConfig::default()
        }
    }

    #[test]
    fn a_perfect_wire_delivers_everything_at_once_and_in_order() {
        let (out, counts) = run(LinkConfig::default(), 1, 100);
        let expected: Vec<_> = (0..100).map(|i| (at(u64::from(i)), number(i))).collect();
        assert_eq!(out, expected);
        assert_eq!((counts.offered, counts.delivered), (100, 100));
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_seed_another() {
        assert_eq!(run(bad(), 7, 2_000), run(bad(), 7, 2_000));
        assert_ne!(run(bad(), 7, 2_000).0, run(bad(), 8, 2_000).0);
    }

    #[test]
    fn chances_come_true_about_as_often_as_asked() {
        let (_, counts) = run(bad(), 3, 20_000);
        assert!((1_800..2_200).contains(&counts.lost), "{counts:?}");
        assert!((700..1_100).contains(&counts.duplicated), "{counts:?}");
        assert!((700..1_100).contains(&counts.reordered), "{counts:?}");
        assert!((100..300).contains(&counts.corrupted), "{counts:?}");
        assert_eq!(counts.delivered, counts.offered - counts.lost + counts.duplicated);
    }

    #[test]
    fn jitter_alone_keeps_the_order() {
        let config = LinkConfig { jitter: 50 * MS, delay: MS, ..LinkConfig::default() };
        let (out, _) = run(config, 5, 500);
        assert!(out.is_sorted_by_key(|(_, bytes)| bytes.clone()));
    }

    #[test]
    fn a_reordered_packet_arrives_after_later_ones() {
        let config = LinkConfig { reorder: 100_000, reorder_by: 10 * MS, ..LinkConfig::default() };
        let (out, counts) = run(config, 5, 500);
        assert!(counts.reordered > 0);
        assert!(!out.is_sorted_by_key(|(_, bytes)| bytes.clone()));
    }

    #[test]
    fn a_rate_spreads_packets_and_a_full_queue_drops_the_tail() {
        // 100 bytes at 80 kbit/s take 10 ms; the queue holds three.
        let config =
            LinkConfig { rate_bps: Some(80_000), queue_bytes: 300, ..LinkConfig::default() };
        let mut link = Link::new(config, 1);
        for index in 0..10 {
            link.offer(number(index), 100, (), at(0));
        }
        assert_eq!(link.counts().queue_full, 6);
        let mut arrivals = Vec::new();
        for millis in 0..100 {
            while link.take(at(millis)).is_some() {
                arrivals.push(millis);
            }
        }
        assert_eq!(arrivals, [10, 20, 30, 40]);
    }

    #[test]
    fn packets_above_the_mtu_vanish_and_the_others_do_not() {
        let config = LinkConfig { mtu_bytes: Some(1_280), ..LinkConfig::default() };
        let mut link = Link::new(config, 1);
        link.offer(number(1), 1_281, (), at(0));
        link.offer(number(2), 1_280, (), at(0));
        assert_eq!(link.take(at(0)), Some((number(2), ())));
        assert_eq!(link.take(at(0)), None);
        assert_eq!(link.counts().too_big, 1);
    }

    #[test]
    fn corruption_flips_exactly_one_bit() {
        let config = LinkConfig { corrupt: 1_000_000, ..LinkConfig::default() };
        let (out, _) = run(config, 9, 50);
        for (index, (_, bytes)) in (0..).zip(out) {
            let changed: u32 =
                bytes.iter().zip(number(index)).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(changed, 1);
        }
    }
}
