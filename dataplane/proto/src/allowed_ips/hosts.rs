//! Whole addresses: an open-addressing hash table with linear probing.
//!
//! A lookup reads one or two neighbouring slots, whatever the number of addresses. The hash is a
//! multiplication, which spreads runs of neighbouring addresses evenly; it has no secret, because
//! only the operator (or the address management) puts addresses in.

/// What a key must be able to do.
pub(super) trait Key: Copy {
    /// 64 bits of which the high ones are well mixed.
    fn hash(self) -> u64;
    fn is(self, other: Self) -> bool;
}

/// 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key for u32 {
    #[inline]
    fn hash(self) -> u64 {
        u64::from(self).wrapping_mul(GOLDEN)
    }

    #[inline]
    fn is(self, other: Self) -> bool {
        self == other
    }
}

/// Bytes instead of a number, so that a slot of the table has no padding.
impl Key for [u8; 16] {
    #[inline]
    fn hash(self) -> u64 {
        let bits = u128::from_be_bytes(self);
        let (network, host) = ((bits >> 64) as u64, bits as u64);
        // The network half has a multiplication of its own, so that counting in either half
        // spreads; the rotation keeps the two from cancelling each other out.
        let network = network.wrapping_mul(GOLDEN).rotate_left(32);
        (network ^ host).wrapping_mul(GOLDEN)
    }

    #[inline]
    fn is(self, other: Self) -> bool {
        u128::from_ne_bytes(self) == u128::from_ne_bytes(other)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<K, V> {
    key: K,
    /// [`FREE`] where nothing is; then `key` and `value` are fillers.
    record: u32,
    value: V,
}

/// In place of a record, so that the mark of a free slot costs no bytes of its own.
const FREE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Hosts<K, V> {
    slots: Box<[Slot<K, V>]>,
    len: usize,
}

impl<K: Key, V: Copy> Hosts<K, V> {
    pub(super) fn new() -> Self {
        Self { slots: Box::default(), len: 0 }
    }

    /// The record and the owner of `key`.
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<(u32, V)> {
        if self.len == 0 {
            return None;
        }
        let slot = &self.slots[find(&self.slots, key)];
        (!slot.is_free()).then_some((slot.record, slot.value))
    }

    pub(super) fn insert(&mut self, key: K, (record, value): (u32, V)) {
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.grow(Slot { key, record: FREE, value });
        }
        let at = find(&self.slots, key);
        if self.slots[at].is_free() {
            self.len += 1;
        }
        self.slots[at] = Slot { key, record, value };
    }

    /// Removes `key` and moves back what had to step over it, so that no tombstones remain.
    pub(super) fn remove(&mut self, key: K) {
        if self.len == 0 {
            return;
        }
        let mut hole = find(&self.slots, key);
        if self.slots[hole].is_free() {
            return;
        }
        self.len -= 1;
        let count = self.slots.len();
        let mut at = hole;
        loop {
            at = if at + 1 == count { 0 } else { at + 1 };
            if self.slots[at].is_free() {
                break;
            }
            let home = home(self.slots[at].key, count);
            // It may move into the hole unless its home lies behind the hole.
            let from_home = (at + count - home) % count;
            let from_hole = (at + count - hole) % count;
            if from_home >= from_hole {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole].record = FREE;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot<K, V>>()
    }

    /// Half as large again: with at most four fifths full, the table is never less than half full.
    #[cold]
    fn grow(&mut self, free: Slot<K, V>) {
        let count = (self.slots.len() / 2 * 3).max(16);
        let mut slots = vec![free; count].into_boxed_slice();
        for slot in self.slots.iter().filter(|slot| !slot.is_free()) {
            slots[find(&slots, slot.key)] = *slot;
        }
        self.slots = slots;
    }
}

impl<K, V> Slot<K, V> {
    #[inline]
    fn is_free(&self) -> bool {
        self.record == FREE
    }
}

/// The slot of `key`, or the free one where it belongs. Some slot must be free.
#[inline]
fn find<K: Key, V>(slots: &[Slot<K, V>], key: K) -> usize {
    let mut at = home(key, slots.len());
    while !slots[at].is_free() && !slots[at].key.is(key) {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    at
}

/// Where `key` belongs: its hash scaled to the number of slots, which need not be a power of two.
#[inline]
fn home<K: Key>(key: K, count: usize) -> usize {
    ((u128::from(key.hash()) * count as u128) >> 64) as usize
}
