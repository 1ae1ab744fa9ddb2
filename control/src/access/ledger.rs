//! From counters that only grow to what is new in them, once each.
//!
//! The cores count in slots of mapped pages that outlive the process. What of a slot has been
//! entered is remembered here, and in the store in the same transaction that enters it: so after
//! any end of the process exactly the rest is entered by the next one. A slot says whose it is by a
//! tag; with another tag it has begun anew. This module must not know pages or SQL.

use std::collections::BTreeMap;

use super::sessions::Counted;

/// A slot: which page, and which place in it.
pub type Slot = (u16, u32);

/// What of a slot has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose it was.
    pub tag: u64,
    /// Up to here.
    pub seen: Counted,
}

/// What of all slots has been taken.
#[derive(Debug, Default)]
pub struct Ledger {
    marks: BTreeMap<Slot, Mark>,
    /// Slots whose mark in the store is older.
    dirty: BTreeMap<Slot, Mark>,
}

impl Ledger {
    /// A ledger that goes on where another process stopped.
    #[must_use]
    pub fn resume(marks: impl IntoIterator<Item = (Slot, Mark)>) -> Self {
        Self { marks: marks.into_iter().collect(), dirty: BTreeMap::new() }
    }

    /// What is new in a slot that belongs to `tag` and stands at `now`.
    pub fn take(&mut self, slot: Slot, tag: u64, now: Counted) -> Counted {
        let mark = Mark { tag, seen: now };
        let before = self.marks.insert(slot, mark);
        let new = match before {
            Some(before) if before.tag == tag => now.since(before.seen),
            Some(_) | None => now,
        };
        if new != Counted::default() || before.is_none_or(|before| before.tag != tag) {
            self.dirty.insert(slot, mark);
        }
        new
    }

    /// The marks that the store should have, since this was last called.
    pub fn take_dirty(&mut self) -> Vec<(Slot, Mark)> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// The store did not take these: they are kept for the next time, unless newer ones are.
    pub fn keep_dirty(&mut self, marks: Vec<(Slot, Mark)>) {
        for (slot, mark) in marks {
            self.dirty.entry(slot).or_insert(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(up_bytes: u64) -> Counted {
        Counted { up_bytes, ..Counted::default() }
    }

    #[test]
    fn what_was_taken_once_is_not_taken_again_and_another_owner_begins_from_zero() {
        let mut ledger = Ledger::resume([((0, 1), Mark { tag: 7, seen: bytes(100) })]);
        assert_eq!(ledger.take((0, 1), 7, bytes(130)), bytes(30));
        assert_eq!(ledger.take((0, 1), 7, bytes(130)), bytes(0));
        assert_eq!(ledger.take((0, 1), 8, bytes(5)), bytes(5));
        assert_eq!(ledger.take((1, 1), 7, bytes(3)), bytes(3));
    }

    proptest! {
        /// A process that is killed at any moment loses nothing and enters nothing twice.
        #[test]
        fn every_byte_is_entered_once_across_crashes(
            acts in prop::collection::vec((0..2_u16, 0..3_u32, 0..1000_u64, 0..10_u8), 1..200)
        ) {
            let mut pages: BTreeMap<Slot, Counted> = BTreeMap::new();
            let mut stored: BTreeMap<Slot, Mark> = BTreeMap::new();
            let (mut entered, mut waiting, mut moved) = (0, 0, 0);
            let mut ledger = Ledger::default();
            for (page, slot, more, act) in acts {
                let at = pages.entry((page, slot)).or_default();
                *at = at.plus(bytes(more));
                moved += more;
                match act {
                    0..6 => for (slot, now) in &pages {
                        waiting += ledger.take(*slot, u64::from(slot.1) + 1, *now).up_bytes;
                    },
                    6 => {
                        // The store is full: nothing was entered.
                        let marks = ledger.take_dirty();
                        ledger.keep_dirty(marks);
                    }
                    7 | 8 => {
                        stored.extend(ledger.take_dirty());
                        entered += std::mem::take(&mut waiting);
                    }
                    _ => {
                        ledger = Ledger::resume(stored.clone());
                        waiting = 0;
                    }
                }
            }
            for (slot, now) in &pages {
                waiting += ledger.take(*slot, u64::from(slot.1) + 1, *now).up_bytes;
            }
            prop_assert_eq!(entered + waiting, moved);
        }
    }
}
