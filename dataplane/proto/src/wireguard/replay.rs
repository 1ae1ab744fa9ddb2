//! The replay window of one receiving key (section 5.4.6, RFC 6479): a ring of bits over the last
//! counters.
//!
//! Two steps. [`ReplayWindow::is_fresh`] is asked before a message is opened, as an optimisation;
//! [`ReplayWindow::mark`] is asked after its tag has verified, and it alone decides.

use zeroize::Zeroize;

/// Bits of the ring. 8192, as in the kernel: enough for the reordering of a path at 10 Gbit/s.
pub(super) const RING_BITS: u64 = 8192;
/// How far behind the newest counter one may be: a word less than the ring, because advancing
/// clears whole words.
pub(super) const WINDOW: u64 = RING_BITS - WORD_BITS;

const WORD_BITS: u64 = 64;
const WORDS: usize = (RING_BITS / WORD_BITS) as usize;

/// Which counters were seen. Plain data: `next` and the bits are all there is to export.
#[derive(Clone, Zeroize)]
pub(super) struct ReplayWindow {
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
    pub(super) fn is_fresh(&self, counter: u64) -> bool {
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
    pub(super) fn mark(&mut self, counter: u64) -> bool {
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
