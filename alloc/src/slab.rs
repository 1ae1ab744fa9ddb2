//! Entries with a generation: a key that outlived its entry finds nobody.
//!
//! Entries live in chunks that never move, so the slab grows to 100,000 sessions of half a kilobyte
//! and more without copying one. A chunk that becomes empty is given back (all but one), and its
//! slots go on counting generations where they stopped. Walks are in slot order and can be resumed
//! at any slot. The slab must not know what it holds.

use std::fmt;

use crate::forget;

/// The allocator hands out what is larger than its size classes in spans of this many bytes. Where
/// huge pages are used, the unused end of a span is resident too.
const SPAN_BYTES: usize = 64 << 10;

/// Spans of a chunk at most: far more would keep memory for a few entries.
const SPANS_MAX: usize = 4;

/// Names an entry of a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which slot.
    pub slot: u32,
    /// How many entries the slot had before, wrapping.
    pub generation: u32,
}

/// A growing set of entries found by [`Key`].
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    len: usize,
    /// Chunks in memory without an entry; at most one is kept.
    empty_chunks: usize,
    /// No chunk below this one has a free slot in memory.
    full_below: usize,
}

impl<T> Slab<T> {
    /// Entries per chunk.
    const CHUNK: usize = entries_per_chunk(size_of::<Entry<T>>());

    /// An empty slab; takes no memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0, empty_chunks: 0, full_below: 0 }
    }

    /// Puts an entry into the lowest chunk that has room.
    ///
    /// # Panics
    /// Beyond 2^32 entries.
    pub fn insert(&mut self, value: T) -> Key {
        let number = self.chunk_with_room();
        let chunk = &mut self.chunks[number];
        if chunk.live == 0 {
            self.empty_chunks -= 1;
        }
        self.len += 1;
        let (offset, generation) = chunk.insert(value);
        let slot = u32::try_from(number * Self::CHUNK + offset).expect("fewer than 2^32 slots");
        Key { slot, generation }
    }

    /// Takes the entry out, if the key still names one.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (number, offset) = Self::place(key.slot);
        let chunk = self.chunks.get_mut(number)?;
        let value = chunk.remove(offset, key.generation)?;
        self.len -= 1;
        self.full_below = self.full_below.min(number);
        if chunk.live == 0 {
            if self.empty_chunks == 0 {
                self.empty_chunks = 1;
            } else {
                chunk.give_back();
            }
        }
        Some(value)
    }

    /// The entry, if the key still names one.
    #[must_use]
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let (number, offset) = Self::place(key.slot);
        let entry = self.chunks.get(number)?.entries.get(offset)?;
        entry.value().filter(|_| entry.generation == key.generation)
    }

    /// The entry, to be changed.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (number, offset) = Self::place(key.slot);
        let entry = self.chunks.get_mut(number)?.entries.get_mut(offset)?;
        match &mut entry.content {
            Content::Live(value) if entry.generation == key.generation => Some(value),
            Content::Live(_) | Content::Free { .. } => None,
        }
    }

    /// The first entry at or after slot `cursor`. A walk over many turns goes on with
    /// `key.slot + 1`; it meets every entry that is there all the time exactly once.
    #[must_use]
    pub fn next_from(&self, cursor: u32) -> Option<(Key, &T)> {
        let (first, mut offset) = Self::place(cursor);
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            if chunk.live > 0 {
                let found = chunk.entries[offset..]
                    .iter()
                    .zip(offset..)
                    .find_map(|(entry, offset)| Some((offset, entry.generation, entry.value()?)));
                if let Some((offset, generation, value)) = found {
                    let slot = (number * Self::CHUNK + offset) as u32;
                    return Some((Key { slot, generation }, value));
                }
            }
            offset = 0;
        }
        None
    }

    /// All entries in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let mut cursor = Some(0);
        std::iter::from_fn(move || {
            let found = self.next_from(cursor?)?;
            cursor = found.0.slot.checked_add(1);
            Some(found)
        })
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes the slab holds, used or not, without what the entries own.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| size_of_val(&*chunk.entries)).sum::<usize>();
        chunks + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    const fn place(slot: u32) -> (usize, usize) {
        (slot as usize / Self::CHUNK, slot as usize % Self::CHUNK)
    }

    /// The lowest chunk in memory with a free slot; else one that was given back; else a new one.
    fn chunk_with_room(&mut self) -> usize {
        let first = self.full_below;
        let found = self.chunks[first..].iter().position(|chunk| chunk.free.is_some());
        self.full_below = found.map_or(self.chunks.len(), |number| first + number);
        if found.is_some() {
            return self.full_below;
        }
        let absent = self.chunks.iter().position(|chunk| chunk.entries.is_empty());
        let number = absent.unwrap_or_else(|| {
            self.chunks.push(Chunk::absent());
            self.chunks.len() - 1
        });
        self.chunks[number].take(Self::CHUNK);
        self.empty_chunks += 1;
        self.full_below = number;
        number
    }
}

/// Fills one span or a few, of up to [`SPANS_MAX`] those of which the smallest share is wasted.
const fn entries_per_chunk(entry_bytes: usize) -> usize {
    let mut best = 8;
    // Parts of a span that stay unused, in thousandths of the chunk.
    let mut least = usize::MAX;
    let mut spans = 1;
    while spans <= SPANS_MAX {
        let count = spans * SPAN_BYTES / entry_bytes;
        let wasted = (spans * SPAN_BYTES - count * entry_bytes) * 1000 / (spans * SPAN_BYTES);
        if count >= 8 && wasted < least {
            (best, least) = (count, wasted);
        }
        spans += 1;
    }
    best
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab({} entries, {} bytes)", self.len, self.bytes())
    }
}

/// Neighbouring slots whose memory comes and goes together.
struct Chunk<T> {
    /// Empty while the chunk is given back.
    entries: Box<[Entry<T>]>,
    live: u32,
    /// First free slot of the chunk.
    free: Option<u32>,
    /// Where generations begin when the chunk comes back: beyond all it has used.
    generation_floor: u32,
}

impl<T> Chunk<T> {
    fn absent() -> Self {
        Self { entries: Box::default(), live: 0, free: None, generation_floor: 0 }
    }

    fn take(&mut self, count: usize) {
        let generation = self.generation_floor;
        let next = |offset: u32| Some(offset + 1).filter(|next| (*next as usize) < count);
        self.entries = (0..count as u32)
            .map(|offset| Entry { generation, content: Content::Free { next: next(offset) } })
            .collect();
        self.free = Some(0);
    }

    fn give_back(&mut self) {
        let newest = self
            .entries
            .iter()
            .map(|entry| entry.generation.wrapping_sub(self.generation_floor))
            .max()
            .unwrap_or(0);
        self.generation_floor = self.generation_floor.wrapping_add(newest);
        self.entries = Box::default();
        self.free = None;
    }

    fn insert(&mut self, value: T) -> (usize, u32) {
        let offset = self.free.expect("the chunk was chosen because it has room") as usize;
        let entry = &mut self.entries[offset];
        match std::mem::replace(&mut entry.content, Content::Live(value)) {
            Content::Free { next } => self.free = next,
            Content::Live(_) => unreachable!("live slots are not on the free list"),
        }
        self.live += 1;
        (offset, entry.generation)
    }

    fn remove(&mut self, offset: usize, generation: u32) -> Option<T> {
        let entry = self.entries.get_mut(offset)?;
        if entry.generation != generation || entry.value().is_none() {
            return None;
        }
        entry.generation = entry.generation.wrapping_add(1);
        let next = self.free;
        self.free = Some(offset as u32);
        self.live -= 1;
        let content = &mut entry.content;
        let was = if forget::is_on() {
            forget::wipe_value(content, Content::Free { next })
        } else {
            std::mem::replace(content, Content::Free { next })
        };
        match was {
            Content::Live(value) => Some(value),
            Content::Free { .. } => unreachable!("looked at above"),
        }
    }
}

struct Entry<T> {
    /// Generation of the live entry, or of the next one.
    generation: u32,
    content: Content<T>,
}

impl<T> Entry<T> {
    const fn value(&self) -> Option<&T> {
        match &self.content {
            Content::Live(value) => Some(value),
            Content::Free { .. } => None,
        }
    }
}

enum Content<T> {
    Free { next: Option<u32> },
    Live(T),
}

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
