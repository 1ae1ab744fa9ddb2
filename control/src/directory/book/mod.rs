//! Which inner addresses are free, by pool: bits in memory, so that one more address of a hundred
//! thousand costs a glance.
//!
//! The book is a hint and never the truth: what is leased stands in the store, which refuses an
//! address that somebody has. A book that is wrong (another gateway of a fleet leased, a change was
//! undone) costs another try, or is read anew before a pool is called full. Numbers and the rule of
//! the same number in both families are those of `peers::ipam`. Pure but for being kept.

mod plan;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

pub use plan::{NUMBERS_MAX, Plan};

use crate::store::records::PoolId;

/// Draws at random before the next free number is taken: with half of a pool free, one in 65,536
/// allocations is not purely random.
const DRAWS: u32 = 16;

/// The sheets of all pools that were asked for.
#[derive(Debug, Default)]
pub struct Book(BTreeMap<PoolId, Sheet>);

impl Book {
    /// The sheet of a pool, if it was read.
    pub fn sheet(&mut self, pool: PoolId) -> Option<&mut Sheet> {
        self.0.get_mut(&pool)
    }

    /// Keeps the sheet of a pool.
    pub fn put(&mut self, pool: PoolId, sheet: Sheet) {
        self.0.insert(pool, sheet);
    }

    /// Reads the pool anew when it is next asked for.
    pub fn forget(&mut self, pool: PoolId) {
        self.0.remove(&pool);
    }

    /// Reads everything anew.
    pub fn forget_all(&mut self) {
        self.0.clear();
    }
}

/// Addresses of a client in a pool.
pub type Pair = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// What is taken of one pool.
#[derive(Clone, Debug)]
pub struct Sheet {
    plan: Plan,
    /// By number; what may never be leased is taken from the beginning.
    taken4: Bits,
    taken6: Bits,
}

impl Sheet {
    /// The sheet of a pool of which `leased` is leased.
    #[must_use]
    pub fn new(plan: Plan, leased: &[Pair]) -> Self {
        let taken4 = Bits::new(plan.size4(), plan.reserved4());
        let taken6 = Bits::new(plan.size6(), plan.reserved6());
        let mut sheet = Self { plan, taken4, taken6 };
        for pair in leased {
            sheet.take(*pair);
        }
        sheet
    }

    /// Free addresses for one more client, which are not taken by asking. `draw` gives a number
    /// below its argument for a pool that leases at random; none leases in order.
    ///
    /// # Errors
    /// The prefix that is full.
    pub fn next(&self, draw: Option<&mut dyn FnMut(u32) -> u32>) -> Result<Pair, String> {
        self.next_of(self.plan.net4().is_some(), self.plan.net6().is_some(), draw)
    }

    /// As [`Self::next`], of these families only.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn next_of(
        &self,
        has4: bool,
        has6: bool,
        mut draw: Option<&mut dyn FnMut(u32) -> u32>,
    ) -> Result<Pair, String> {
        if has4 && has6 {
            let both = [&self.taken4, &self.taken6];
            if let Some(number) = pick(&both, draw.as_deref_mut()) {
                return Ok((self.plan.address4(number), self.plan.address6(number)));
            }
        }
        let mut lowest = |bits: &Bits| pick(&[bits], draw.as_deref_mut());
        let full = |net: Option<ringway_proto::allowed_ips::IpNet>| {
            net.map_or_else(String::new, |net| net.to_string())
        };
        let mut pair = (None, None);
        if has4 {
            let number = lowest(&self.taken4).ok_or_else(|| full(self.plan.net4()))?;
            pair.0 = self.plan.address4(number);
        }
        if has6 {
            let number = lowest(&self.taken6).ok_or_else(|| full(self.plan.net6()))?;
            pair.1 = self.plan.address6(number);
        }
        Ok(pair)
    }

    /// Notes that somebody has these.
    pub fn take(&mut self, pair: Pair) {
        self.mark(pair, true);
    }

    /// Notes that nobody has these any more. What may never be leased stays taken.
    pub fn release(&mut self, pair: Pair) {
        self.mark(pair, false);
    }

    /// How many more clients find an address.
    #[must_use]
    pub fn free(&self) -> u64 {
        let four = self.plan.net4().map(|_| self.taken4.free());
        let six = self.plan.net6().map(|_| self.taken6.free());
        four.into_iter().chain(six).min().unwrap_or(0)
    }

    fn mark(&mut self, (four, six): Pair, taken: bool) {
        if let Some(number) = four.and_then(|address| self.plan.number4(address))
            && (taken || !self.plan.is_reserved4(number))
        {
            self.taken4.set(number, taken);
        }
        if let Some(number) = six.and_then(|address| self.plan.number6(address))
            && (taken || !self.plan.is_reserved6(number))
        {
            self.taken6.set(number, taken);
        }
    }
}

/// A number that is free in all of `bits`.
fn pick(bits: &[&Bits], draw: Option<&mut (dyn FnMut(u32) -> u32 + '_)>) -> Option<u32> {
    let size = bits.iter().map(|bits| bits.size).min()?;
    let Some(draw) = draw else { return first_free(bits, 0, size) };
    if size == 0 {
        return None;
    }
    let mut start = 0;
    for _ in 0..DRAWS {
        start = draw(size).min(size - 1);
        if bits.iter().all(|bits| !bits.get(start)) {
            return Some(start);
        }
    }
    first_free(bits, start, size).or_else(|| first_free(bits, 0, start))
}

/// The lowest number from `from` on and below `to` that is free in all of `bits`.
fn first_free(bits: &[&Bits], from: u32, to: u32) -> Option<u32> {
    // What lies below the first word with a free bit is full in that family, so in both.
    let hint = bits.iter().map(|bits| bits.full_words).max().unwrap_or(0);
    let first = (from / 64).max(hint);
    (first..to.div_ceil(64)).find_map(|index| {
        let taken = bits.iter().fold(0, |taken, bits| taken | bits.word(index));
        let below = if index == from / 64 { (1_u64 << (from % 64)) - 1 } else { 0 };
        let free = !(taken | below);
        let number = index * 64 + free.trailing_zeros();
        (free != 0 && number < to).then_some(number)
    })
}

/// One bit per number: set if it is taken.
#[derive(Clone, Debug)]
struct Bits {
    words: Vec<u64>,
    size: u32,
    /// Words at the beginning that have no free bit.
    full_words: u32,
}

impl Bits {
    /// So many free numbers, but for those reserved.
    fn new(size: u32, reserved: &[std::ops::Range<u32>]) -> Self {
        let words = vec![0; size.div_ceil(64) as usize];
        let mut bits = Self { words, size, full_words: 0 };
        for number in reserved.iter().cloned().flatten() {
            bits.set(number, true);
        }
        bits
    }

    fn word(&self, index: u32) -> u64 {
        self.words.get(index as usize).copied().unwrap_or(u64::MAX)
    }

    fn get(&self, number: u32) -> bool {
        number >= self.size || self.word(number / 64) & (1 << (number % 64)) != 0
    }

    fn set(&mut self, number: u32, taken: bool) {
        let index = number / 64;
        if number >= self.size {
            return;
        }
        let Some(word) = self.words.get_mut(index as usize) else { return };
        if taken {
            *word |= 1 << (number % 64);
            while self.full_words < index + 1 && self.word(self.full_words) == u64::MAX {
                self.full_words += 1;
            }
        } else {
            *word &= !(1 << (number % 64));
            self.full_words = self.full_words.min(index);
        }
    }

    fn free(&self) -> u64 {
        let taken: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        u64::from(self.size) - taken
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
