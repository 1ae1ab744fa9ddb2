//! One timer per peer, in a hierarchical wheel of intrusive lists.
//!
//! A tunnel knows its own deadlines and tells the earliest; the wheel only remembers when to ask
//! again. A deadline that moves later is left alone and re-armed when it fires early; one that
//! moves earlier is moved at once. Arming, moving and disarming are O(1) and allocate nothing: the
//! node of a peer lives beside its slab slot. There is no sweep over peers.
//!
//! Level `l` has 64 slots of `4.2 ms * 64^l`: about 0.27 s, 17 s, 18 min, 19 h. A deadline beyond
//! that waits in the last slot.

use std::time::Duration;

use ringway_proto::{Instant, PeerId};

/// Nanoseconds of a slot of the lowest level, as a power of two: 4.19 ms, below every protocol
/// timer (20 ms is the least).
const TICK_SHIFT: u32 = 22;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 4;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    peer: PeerId,
    deadline: Instant,
    list: u32,
    before: u32,
    after: u32,
}

/// The timers of one core.
pub struct Wheel {
    /// Ticks up to and including this one have been handled.
    tick: u64,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
}

impl Wheel {
    /// An empty wheel that starts at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            tick: now.as_nanos() >> TICK_SHIFT,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            nodes: Vec::new(),
        }
    }

    /// Makes room for the peer's node. May allocate: peers are added by commands, never by packets.
    pub fn admit(&mut self, peer: PeerId) {
        let slot = peer.slot as usize;
        if slot >= self.nodes.len() {
            let vacant =
                Node { peer, deadline: Instant::ZERO, list: NONE, before: NONE, after: NONE };
            if slot >= self.nodes.capacity() {
                // By an eighth instead of double: at 100,000 peers the slack is what counts.
                self.nodes.reserve_exact(slot + 1 + slot / 8 + 8 - self.nodes.len());
            }
            self.nodes.resize(slot + 1, vacant);
        }
        self.disarm(peer.slot);
        self.nodes[slot].peer = peer;
    }

    /// Forgets the peer.
    pub fn retire(&mut self, peer: PeerId) {
        self.disarm(peer.slot);
    }

    /// Gives the nodes back: the last peer was retired.
    pub fn retire_all(&mut self) {
        assert!(self.occupied == [0; LEVELS], "whoever retires disarms");
        self.nodes = Vec::new();
    }

    /// Bytes of the nodes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// Sees to it that the peer is asked at `deadline` or before.
    #[inline]
    pub fn arm(&mut self, peer: PeerId, deadline: Instant) {
        let node = &self.nodes[peer.slot as usize];
        if node.list != NONE && node.deadline <= deadline {
            return;
        }
        self.disarm(peer.slot);
        self.insert(peer.slot, deadline);
    }

    /// The next peer whose deadline is not after `now`, taken out of the wheel.
    pub fn expire(&mut self, now: Instant) -> Option<PeerId> {
        let now_tick = now.as_nanos() >> TICK_SHIFT;
        loop {
            let slot = self.tick as usize & (SLOTS - 1);
            let node = self.heads[0][slot];
            if node != NONE {
                self.disarm(node);
                return Some(self.nodes[node as usize].peer);
            }
            if self.tick >= now_tick {
                return None;
            }
            self.advance(now_tick);
        }
    }

    /// How long the loop may sleep; `None` if nothing is armed.
    #[must_use]
    pub fn sleep(&self, now: Instant) -> Option<Duration> {
        let mut earliest: Option<u64> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let position = self.tick >> shift;
            let ahead = self.occupied[level].rotate_right((position & (SLOTS as u64 - 1)) as u32);
            let tick = (position + u64::from(ahead.trailing_zeros())) << shift;
            earliest = Some(earliest.map_or(tick, |best| best.min(tick)));
        }
        // The end of the tick: every deadline in it has passed then.
        earliest.map(|tick| Instant::from_nanos(tick << TICK_SHIFT).since(now))
    }

    /// Moves to the next tick that has something to do, at most to `until`.
    fn advance(&mut self, until: u64) {
        self.tick += 1;
        for level in 1..LEVELS {
            let shift = SLOT_BITS * level as u32;
            if self.tick & ((1 << shift) - 1) != 0 {
                break;
            }
            self.cascade(level, (self.tick >> shift) as usize & (SLOTS - 1));
        }
        // Nothing near: jump to just before the next time a higher level has to be looked at.
        if self.occupied[0] == 0 && self.tick < until {
            let boundary = (self.tick | (SLOTS as u64 - 1)).min(until);
            self.tick = self.tick.max(boundary);
        }
    }

    fn cascade(&mut self, level: usize, slot: usize) {
        let mut node = self.heads[level][slot];
        while node != NONE {
            let after = self.nodes[node as usize].after;
            let deadline = self.nodes[node as usize].deadline;
            self.disarm(node);
            self.insert(node, deadline);
            node = after;
        }
    }

    fn insert(&mut self, slot: u32, deadline: Instant) {
        // Rounded up, so that a timer never fires early; at least the current tick, which is still
        // to be handled.
        let tick = (deadline.as_nanos().div_ceil(1 << TICK_SHIFT)).max(self.tick);
        let distance = tick - self.tick;
        let mut level = 0;
        while level + 1 < LEVELS && distance >= 1 << (SLOT_BITS * (level as u32 + 1)) {
            level += 1;
        }
        let shift = SLOT_BITS * level as u32;
        let furthest = (self.tick >> shift) + SLOTS as u64 - 1;
        let place = (tick >> shift).min(furthest) as usize & (SLOTS - 1);
        let head = self.heads[level][place];
        let node = &mut self.nodes[slot as usize];
        node.deadline = deadline;
        node.list = (level * SLOTS + place) as u32;
        node.before = NONE;
        node.after = head;
        if head != NONE {
            self.nodes[head as usize].before = slot;
        }
        self.heads[level][place] = slot;
        self.occupied[level] |= 1 << place;
    }

    fn disarm(&mut self, slot: u32) {
        let Node { list, before, after, .. } = self.nodes[slot as usize];
        if list == NONE {
            return;
        }
        let (level, place) = (list as usize / SLOTS, list as usize % SLOTS);
        if before == NONE {
            self.heads[level][place] = after;
            if after == NONE {
                self.occupied[level] &= !(1 << place);
            }
        } else {
            self.nodes[before as usize].after = after;
        }
        if after != NONE {
            self.nodes[after as usize].before = before;
        }
        let node = &mut self.nodes[slot as usize];
        node.list = NONE;
        node.before = NONE;
        node.after = NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(slot: u32) -> PeerId {
        PeerId { slot, generation: 0 }
    }

    const fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn drain(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| wheel.expire(now)).map(|peer| peer.slot).collect()
    }

    #[test]
    fn a_timer_never_fires_before_its_deadline_and_at_most_a_tick_after_it() {
        for delay_ms in [1, 5, 20, 267, 269, 5_000, 17_000, 25_000, 120_000, 540_000, 4_000_000] {
            let start = ms(123_456);
            let mut wheel = Wheel::new(start);
            wheel.admit(peer(0));
            let deadline = start + Duration::from_millis(delay_ms);
            wheel.arm(peer(0), deadline);
            let mut now = start;
            let mut sleeps = 0;
            loop {
                if !drain(&mut wheel, now).is_empty() {
                    break;
                }
                now = now + wheel.sleep(now).expect("armed").max(Duration::from_millis(1));
                sleeps += 1;
                assert!(sleeps < 400, "{delay_ms} ms woke the loop too often");
            }
            assert!(now >= deadline, "{delay_ms} ms fired early");
            assert!(now.since(deadline) <= Duration::from_millis(6), "{delay_ms} ms fired late");
        }
    }

    #[test]
    fn many_timers_fire_once_each_in_the_order_of_their_ticks() {
        let mut wheel = Wheel::new(ms(0));
        let mut random = 1u64;
        let mut deadlines = Vec::new();
        for slot in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            wheel.admit(peer(slot));
            let deadline = ms((random >> 33) % 600_000);
            wheel.arm(peer(slot), deadline);
            deadlines.push(deadline);
        }
        let mut fired = vec![false; deadlines.len()];
        for step in 0..700_u64 {
            let now = ms(step * 1_000);
            for slot in drain(&mut wheel, now) {
                assert!(deadlines[slot as usize] <= now);
                assert!(!std::mem::replace(&mut fired[slot as usize], true));
            }
            let late = now - Duration::from_millis(10);
            for (slot, deadline) in deadlines.iter().enumerate() {
                assert!(fired[slot] || *deadline > late, "peer {slot} is late at {step} s");
            }
        }
        assert!(wheel.sleep(ms(700_000)).is_none());
    }

    #[test]
    fn an_earlier_deadline_replaces_a_later_one_and_a_later_one_waits_its_turn() {
        let mut wheel = Wheel::new(ms(0));
        wheel.admit(peer(3));
        wheel.arm(peer(3), ms(10_000));
        wheel.arm(peer(3), ms(50));
        wheel.arm(peer(3), ms(20_000));
        assert!(drain(&mut wheel, ms(40)).is_empty());
        assert_eq!(drain(&mut wheel, ms(60)), [3]);
        assert!(drain(&mut wheel, ms(60_000)).is_empty());
    }

    #[test]
    fn memory_goes_with_the_last_peer_and_comes_back_with_the_next() {
        let mut wheel = Wheel::new(ms(0));
        for slot in 0..10_000 {
            wheel.admit(peer(slot));
            wheel.arm(peer(slot), ms(50));
        }
        assert!(wheel.bytes() <= 10_000 * size_of::<Node>() * 9 / 8 + 1_024);
        (0..10_000).for_each(|slot| wheel.retire(peer(slot)));
        wheel.retire_all();
        assert_eq!(wheel.bytes(), 0);
        wheel.admit(peer(7));
        wheel.arm(peer(7), ms(80));
        assert_eq!(drain(&mut wheel, ms(100)), [7]);
    }

    #[test]
    fn a_retired_peer_never_fires() {
        let mut wheel = Wheel::new(ms(0));
        for slot in 0..3 {
            wheel.admit(peer(slot));
            wheel.arm(peer(slot), ms(50));
        }
        wheel.retire(peer(1));
        let mut fired = drain(&mut wheel, ms(100));
        fired.sort_unstable();
        assert_eq!(fired, [0, 2]);
    }
}
