//! The replay window of one receiving key (section 5.4.6, RFC 6479): a ring of bits over the last
//! counters.
//!
//! Two steps. [`ReplayWindow::is_fresh`] is asked before a message is opened, as an optimisation;
//! [`ReplayWindow::mark`] is asked after its tag has verified, and it alone decides.

use zeroize::Zeroize;

use super::keypair::REJECT_AFTER_MESSAGES;
use crate::record::{Reader, RecordError, Writer};

/// Bits of the ring. 8192, as in the kernel: enough for the reordering of a path at 10 Gbit/s.
pub(super) const RING_BITS: u64 = 8192;
/// How far behind the newest counter one may be: a word less than the ring, because advancing
/// clears whole words.
pub(super) const WINDOW: u64 = RING_BITS - WORD_BITS;

const WORD_BITS: u64 = 64;
const WORDS: usize = (RING_BITS / WORD_BITS) as usize;

/// Bytes of an exported window at most: when no word is all zeros or all ones.
pub(super) const WINDOW_BYTES_MAX: usize = 8 + 2 * 16 + 8 * WORDS;

const _: () = assert!(WORDS == u128::BITS as usize, "a mask has one bit per word");

/// Which counters were seen. Plain data: `next` and the bits are all there is to export.
#[derive(Clone, Zeroize)]
#[repr(C)] // `next` beside what else of a keypair every packet needs
pub struct ReplayWindow {
    /// One more than the newest counter seen; 0 before the first.
    next: u64,
    bits: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, bits: [0; WORDS] }
    }
}

impl ReplayWindow {
    /// Whether `counter` is neither seen nor behind the window.
    #[inline]
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        if self.next - 1 - counter > WINDOW {
            return false;
        }
        let (word, bit) = place(counter);
        self.bits[word] & bit == 0
    }

    /// Marks an authenticated `counter` as seen. False, and nothing changed, if it is not fresh.
    /// `counter` is below `REJECT_AFTER_MESSAGES`.
    #[inline]
    pub fn mark(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let (word, bit) = place(counter);
        self.bits[word] |= bit;
        true
    }

    /// Appends the window to a record: one more than the newest counter, which words are not zero,
    /// which are all ones, and the words that are neither.
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.u64(self.next);
        self.masks().into_iter().for_each(|mask| out.u128(mask));
        let mixed = self.bits.iter().filter(|word| !matches!(**word, 0 | u64::MAX));
        mixed.for_each(|word| out.u64(*word));
    }

    /// Reads a window; one that marking could not have made is refused.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let mut window = Self { next: reader.u64()?, bits: [0; WORDS] };
        let masks = [reader.u128()?, reader.u128()?];
        for (at, word) in window.bits.iter_mut().enumerate() {
            *word = match masks.map(|mask| mask >> at & 1) {
                [0, _] => 0,
                [_, 0] => reader.u64()?,
                [_, _] => u64::MAX,
            };
        }
        if masks == window.masks() && window.is_sound() {
            return Ok(window);
        }
        Err(RecordError::Impossible { field: "replay window" })
    }

    /// One bit per word: which are not zero, and which are all ones.
    fn masks(&self) -> [u128; 2] {
        let mask = |is: fn(u64) -> bool| {
            let words = self.bits.iter().enumerate();
            words.fold(0, |mask, (at, word)| mask | u128::from(is(*word)) << at)
        };
        [mask(|word| word != 0), mask(|word| word == u64::MAX)]
    }

    /// Whether the newest counter is marked, and none after it or before the first.
    fn is_sound(&self) -> bool {
        let Some(newest) = self.next.checked_sub(1) else {
            return self.bits == [0; WORDS];
        };
        let (word, bit) = place(newest);
        let later = !(bit | (bit - 1));
        // Words of the ring that the counters have not reached yet.
        let reached = (newest / WORD_BITS).saturating_add(1).min(WORDS as u64) as usize;
        newest < REJECT_AFTER_MESSAGES
            && self.bits[word] & bit != 0
            && self.bits[word] & later == 0
            && self.bits[reached..].iter().all(|word| *word == 0)
    }

    /// Clears the words between the newest counter and `counter`, which becomes the newest.
    #[inline]
    fn advance(&mut self, counter: u64) {
        // Before the first message all words are clear; afterwards the word of the newest counter
        // keeps its bits.
        let newest_word = self.next.saturating_sub(1) / WORD_BITS;
        let skipped = (counter / WORD_BITS - newest_word).min(WORDS as u64);
        for word in 1..=skipped {
            self.bits[((newest_word + word) % WORDS as u64) as usize] = 0;
        }
        self.next = counter + 1;
    }
}

#[inline]
fn place(counter: u64) -> (usize, u64) {
    (((counter / WORD_BITS) % WORDS as u64) as usize, 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Marks counters in order and compares each answer; asking first must not make a difference.
    fn walk(steps: &[(u64, bool)]) {
        let mut window = ReplayWindow::default();
        for (step, &(counter, fresh)) in steps.iter().enumerate() {
            assert_eq!(window.is_fresh(counter), fresh, "asking in step {step}: {counter}");
            assert_eq!(window.mark(counter), fresh, "marking in step {step}: {counter}");
        }
    }

    #[test]
    fn a_counter_is_fresh_once_in_any_order() {
        let steps = [(0, true), (1, true), (1, false), (9, true), (8, true), (7, true), (7, false)];
        walk(&steps);
        walk(&[(63, true), (64, true), (62, true), (64, false), (63, false), (0, true)]);
    }

    #[test]
    fn what_is_behind_the_window_is_refused_and_its_last_counter_is_not() {
        let far = 4 * RING_BITS;
        walk(&[
            (far, true),
            (far - WINDOW, true),
            (far - WINDOW, false),
            (far - WINDOW - 1, false),
            (far - WINDOW + 1, true),
            (0, false),
            (far + 1, true),
            (far - WINDOW, false),
            (far - WINDOW + 2, true),
        ]);
    }

    #[test]
    fn a_window_is_8128_counters_wide() {
        let mut window = ReplayWindow::default();
        (0..=WINDOW).rev().for_each(|counter| assert!(window.mark(counter), "{counter}"));
        (0..=WINDOW).for_each(|counter| assert!(!window.mark(counter), "{counter}"));
        assert!(window.mark(WINDOW + 1));
        assert_eq!(WINDOW, 8128);
    }

    #[test]
    fn a_leap_forgets_all_that_lies_under_the_ring() {
        for leap in [RING_BITS - 1, RING_BITS, RING_BITS + 1, 1 << 40, u64::MAX - (1 << 14)] {
            let mut window = ReplayWindow::default();
            (0..200).for_each(|counter| assert!(window.mark(counter)));
            assert!(window.mark(leap));
            let newer = leap - WINDOW..leap;
            for counter in newer.filter(|counter| *counter >= 200) {
                assert!(window.mark(counter), "{counter} after {leap}");
            }
            assert!(!window.mark(leap));
        }
    }

    #[test]
    fn asking_changes_nothing() {
        let mut window = ReplayWindow::default();
        assert!(window.mark(5));
        assert!(window.is_fresh(1 << 50) && window.is_fresh(6));
        assert!(window.mark(4));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_counters(
            steps in proptest::collection::vec((0_u64..20_000, any::<bool>()), 1..400),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut base = 0;
            for (step, leaps) in steps {
                base += if leaps { step } else { step % 7 };
                let counter = base.saturating_sub(step % 9_000);
                let newest = seen.last().copied().unwrap_or(0);
                let expected = !seen.contains(&counter) && newest.saturating_sub(counter) <= WINDOW;
                prop_assert_eq!(window.is_fresh(counter), expected);
                prop_assert_eq!(window.mark(counter), expected);
                if expected {
                    seen.insert(counter);
                }
            }
        }
    }
}
