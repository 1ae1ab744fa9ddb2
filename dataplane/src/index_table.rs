//! Receiver indices of one core: random numbers that carry their owner, found without hashing.
//!
//! An index is `(core bits | random bits) XOR secret`. The secret keeps an observer from reading
//! the core out of it; any core (and the kernel's steering program) can undo it. The table is
//! direct-mapped by the low bits of the unmasked index: allocation draws random numbers until a
//! slot is free, so a look-up is one load and one comparison. The table doubles when half full;
//! entries keep their index, because a larger mask separates what a smaller one separated.
//!
//! This module must not know what a keypair or a handshake is.

use ringway_proto::crypto::Random;
use ringway_proto::{CoreId, PeerId, ReceiverIndex};

/// Bits of an index that no core number may take, so that at least 2^19 indices are left per core.
const RANDOM_BITS_MIN: u32 = 19;

/// Slots of a new table: 8 KiB, enough for about 150 sessions (3 keypairs each) before it grows.
const SLOTS_MIN: usize = 1 << 9;

/// Draws before allocation gives up. At half load each draw fails with probability 1/2.
const DRAWS_MAX: u32 = 64;

/// How indices carry their owner: the same on every core and in the steering program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLayout {
    core_bits: u32,
    secret: u32,
}

impl IndexLayout {
    /// For `cores` cores (at least one), masked with `secret`.
    ///
    /// # Panics
    /// If there are so many cores that fewer than 2^19 indices would be left for each.
    #[must_use]
    pub fn new(cores: u16, secret: u32) -> Self {
        let core_bits = u32::from(cores.max(1)).next_power_of_two().trailing_zeros();
        assert!(core_bits <= u32::BITS - RANDOM_BITS_MIN);
        Self { core_bits, secret }
    }

    /// Which core handed this index out.
    #[must_use]
    pub fn owner(self, index: ReceiverIndex) -> CoreId {
        // Shifting in 64 bits: with one core all 32 bits are random and the shift is 32.
        CoreId((u64::from(index.0 ^ self.secret) >> (u32::BITS - self.core_bits)) as u16)
    }

    /// Bits of an index that hold the core.
    #[must_use]
    pub const fn core_bits(self) -> u32 {
        self.core_bits
    }

    /// What masks an index.
    #[must_use]
    pub const fn secret(self) -> u32 {
        self.secret
    }

    fn compose(self, core: CoreId, random: u32) -> ReceiverIndex {
        let shift = u32::BITS - self.core_bits;
        let low = (u64::from(random) & ((1 << shift) - 1)) as u32;
        ReceiverIndex(((u64::from(core.0) << shift) as u32 | low) ^ self.secret)
    }
}

#[derive(Clone, Copy)]
struct Slot {
    index: ReceiverIndex,
    peer: PeerId,
}

/// No slab reaches this slot, so it marks a free entry.
const NOBODY: PeerId = PeerId { slot: u32::MAX, generation: u32::MAX };

/// The indices one core has handed out.
pub struct IndexTable {
    layout: IndexLayout,
    core: CoreId,
    slots: Vec<Slot>,
    used: usize,
}

impl IndexTable {
    /// An empty table of `core`.
    #[must_use]
    pub fn new(layout: IndexLayout, core: CoreId) -> Self {
        Self { layout, core, slots: vec![Self::free_slot(); SLOTS_MIN], used: 0 }
    }

    /// Whose index this is, if it is live and ours.
    #[inline]
    #[must_use]
    pub fn lookup(&self, index: ReceiverIndex) -> Option<PeerId> {
        let slot = self.slots[self.position(index)];
        (slot.index == index && slot.peer != NOBODY).then_some(slot.peer)
    }

    /// Which core handed this index out.
    #[must_use]
    pub fn owner(&self, index: ReceiverIndex) -> CoreId {
        self.layout.owner(index)
    }

    /// Hands out an unused index to `peer`; `None` when the space is exhausted. May grow the table:
    /// only handshakes allocate indices, never packets.
    pub fn allocate(&mut self, peer: PeerId, random: &mut dyn Random) -> Option<ReceiverIndex> {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        for _ in 0..DRAWS_MAX {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            let index = self.layout.compose(self.core, u32::from_le_bytes(bytes));
            let position = self.position(index);
            if self.slots[position].peer == NOBODY {
                self.slots[position] = Slot { index, peer };
                self.used += 1;
                return Some(index);
            }
        }
        None
    }

    /// Enters an index that another process has handed out to `peer`; `false` if it is another
    /// core's or taken. May grow the table.
    #[must_use]
    pub fn adopt(&mut self, index: ReceiverIndex, peer: PeerId) -> bool {
        if self.layout.owner(index) != self.core || self.lookup(index).is_some() {
            return false;
        }
        while self.slots[self.position(index)].peer != NOBODY {
            let slots = self.slots.len();
            self.grow();
            if self.slots.len() == slots {
                return false;
            }
        }
        let position = self.position(index);
        self.slots[position] = Slot { index, peer };
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
        true
    }

    /// Takes an index back. One that is not live is ignored.
    pub fn release(&mut self, index: ReceiverIndex) {
        let position = self.position(index);
        let slot = &mut self.slots[position];
        if slot.index == index && slot.peer != NOBODY {
            *slot = Self::free_slot();
            self.used -= 1;
            if self.used == 0 && self.slots.len() > SLOTS_MIN {
                // Memory returns to the base line with the last session.
                self.slots = vec![Self::free_slot(); SLOTS_MIN];
            }
        }
    }

    /// Indices handed out.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Bytes of the table.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    const fn free_slot() -> Slot {
        Slot { index: ReceiverIndex(0), peer: NOBODY }
    }

    #[inline]
    fn position(&self, index: ReceiverIndex) -> usize {
        (index.0 ^ self.layout.secret) as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let limit = 1usize << (u32::BITS - self.layout.core_bits).min(26);
        if self.slots.len() >= limit {
            return;
        }
        let doubled = vec![Self::free_slot(); self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, doubled);
        for slot in old.into_iter().filter(|slot| slot.peer != NOBODY) {
            let position = self.position(slot.index);
            self.slots[position] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(u64);

    impl Random for Counter {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (self.0 >> 56) as u8;
            }
        }
    }

    const fn peer(slot: u32) -> PeerId {
        PeerId { slot, generation: 7 }
    }

    #[test]
    fn every_index_names_its_core_through_the_mask() {
        for cores in [1, 2, 3, 4, 64] {
            let layout = IndexLayout::new(cores, 0xdead_beef);
            for core in 0..cores {
                let mut table = IndexTable::new(layout, CoreId(core));
                let mut random = Counter(u64::from(core) + 1);
                for slot in 0..100 {
                    let index = table.allocate(peer(slot), &mut random).expect("space is left");
                    assert_eq!(layout.owner(index), CoreId(core));
                    assert_eq!(table.lookup(index), Some(peer(slot)));
                }
            }
        }
    }

    #[test]
    fn growth_keeps_every_index_and_release_forgets_it() {
        let mut table = IndexTable::new(IndexLayout::new(4, 0x1234_5678), CoreId(3));
        let mut random = Counter(1);
        let mut live = Vec::new();
        for slot in 0..20_000 {
            live.push((table.allocate(peer(slot), &mut random).expect("space is left"), slot));
        }
        for &(index, slot) in &live {
            assert_eq!(table.lookup(index), Some(peer(slot)));
        }
        for &(index, _) in &live {
            table.release(index);
            assert_eq!(table.lookup(index), None);
            table.release(index);
        }
        assert_eq!(table.used(), 0);
        assert_eq!(table.bytes(), SLOTS_MIN * size_of::<Slot>(), "memory goes with the last one");
    }

    #[test]
    fn indices_of_another_process_are_entered_once_and_only_by_their_core() {
        let layout = IndexLayout::new(2, 0x1234_5678);
        let mut before = IndexTable::new(layout, CoreId(1));
        let mut random = Counter(5);
        let live: Vec<_> = (0..5_000)
            .map(|slot| (before.allocate(peer(slot), &mut random).expect("space is left"), slot))
            .collect();
        let mut table = IndexTable::new(layout, CoreId(1));
        for &(index, slot) in &live {
            assert!(table.adopt(index, peer(slot)));
            assert!(!table.adopt(index, peer(slot)));
        }
        assert!(live.iter().all(|&(index, slot)| table.lookup(index) == Some(peer(slot))));
        assert_eq!(table.used(), live.len());
        assert!(!IndexTable::new(layout, CoreId(0)).adopt(live[0].0, peer(0)));
    }

    #[test]
    fn an_index_of_nobody_finds_nobody() {
        let table = IndexTable::new(IndexLayout::new(1, 0), CoreId(0));
        for raw in [0, 1, u32::MAX, 0x8000_0000] {
            assert_eq!(table.lookup(ReceiverIndex(raw)), None);
        }
    }
}
