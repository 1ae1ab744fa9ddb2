//! Entries by a dense number, with a mark on those that housekeeping has to look at.
//!
//! Entries live in chunks that never move and exist only where there are entries, so the table
//! grows without copying and a gateway without accounts pays nothing. Marks are bits: finding the
//! marked among a hundred thousand takes a microsecond or two. The table must not know what it
//! holds.

/// Entries of a chunk: a bit of a word each.
const CHUNK: usize = u64::BITS as usize;

struct Chunk<T> {
    entries: [Option<T>; CHUNK],
    marked: u64,
    live: u32,
}

/// Entries by number.
pub(crate) struct Table<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
    live: usize,
    marked: usize,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), live: 0, marked: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// Whether any entry is marked.
    pub(crate) const fn has_marked(&self) -> bool {
        self.marked > 0
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, at) = place(number);
        self.chunks.get(chunk)?.as_ref()?.entries[at].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, at) = place(number);
        self.chunks.get_mut(chunk)?.as_mut()?.entries[at].as_mut()
    }

    /// Puts an entry where there is none.
    pub(crate) fn insert(&mut self, number: u32, value: T) {
        let (chunk, at) = place(number);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let vacant =
            || Box::new(Chunk { entries: std::array::from_fn(|_| None), marked: 0, live: 0 });
        let chunk = self.chunks[chunk].get_or_insert_with(vacant);
        if chunk.entries[at].replace(value).is_none() {
            chunk.live += 1;
            self.live += 1;
        }
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        self.unmark(number);
        let (at_chunk, at) = place(number);
        let chunk = self.chunks.get_mut(at_chunk)?.as_mut()?;
        let value = chunk.entries[at].take()?;
        self.live -= 1;
        chunk.live -= 1;
        if chunk.live == 0 {
            self.chunks[at_chunk] = None;
        }
        Some(value)
    }

    pub(crate) fn mark(&mut self, number: u32) {
        let (chunk, at) = place(number);
        if let Some(Some(chunk)) = self.chunks.get_mut(chunk)
            && chunk.entries[at].is_some()
            && chunk.marked >> at & 1 == 0
        {
            chunk.marked |= 1 << at;
            self.marked += 1;
        }
    }

    pub(crate) fn unmark(&mut self, number: u32) {
        let (chunk, at) = place(number);
        if let Some(Some(chunk)) = self.chunks.get_mut(chunk)
            && chunk.marked >> at & 1 == 1
        {
            chunk.marked &= !(1 << at);
            self.marked -= 1;
        }
    }

    /// The first marked entry at or after `number`.
    pub(crate) fn next_marked(&self, number: u32) -> Option<u32> {
        let (first, at) = place(number);
        let mut mask = u64::MAX << at;
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            let marked = chunk.as_ref().map_or(0, |chunk| chunk.marked) & mask;
            mask = u64::MAX;
            if marked != 0 {
                return Some((number * CHUNK) as u32 + marked.trailing_zeros());
            }
        }
        None
    }

    /// The first entry at or after `number`.
    pub(crate) fn next_from(&self, number: u32) -> Option<(u32, &T)> {
        let (first, mut at) = place(number);
        for (number, chunk) in self.chunks.iter().enumerate().skip(first) {
            if let Some(chunk) = chunk {
                let mut entries = chunk.entries.iter().enumerate().skip(at);
                if let Some((at, entry)) = entries.find_map(|(at, e)| Some((at, e.as_ref()?))) {
                    return Some(((number * CHUNK + at) as u32, entry));
                }
            }
            at = 0;
        }
        None
    }

    /// Bytes of the chunks.
    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().flatten().count();
        chunks * size_of::<Chunk<T>>() + self.chunks.capacity() * size_of::<Option<Box<()>>>()
    }
}

const fn place(number: u32) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_number_and_leave_no_memory_behind() {
        let mut table = Table::new();
        assert_eq!((table.get(5), table.bytes()), (None, 0));
        for number in [0, 63, 64, 1_000, 200_000] {
            table.insert(number, number * 2);
        }
        assert_eq!(table.get(64), Some(&128));
        assert_eq!(table.get(65), None);
        assert_eq!(table.get(u32::MAX), None);
        let mut found = Vec::new();
        let mut cursor = 0;
        while let Some((number, value)) = table.next_from(cursor) {
            assert_eq!(*value, number * 2);
            found.push(number);
            cursor = number + 1;
        }
        assert_eq!(found, [0, 63, 64, 1_000, 200_000]);
        let full = table.bytes();
        assert_eq!(table.remove(200_000), Some(400_000));
        assert_eq!(table.remove(200_000), None);
        assert!(table.bytes() < full);
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn marks_are_walked_in_order_and_go_with_their_entries() {
        let mut table = Table::new();
        (0..300).for_each(|number| table.insert(number, ()));
        for number in [299, 3, 64, 64, 9_999] {
            table.mark(number);
        }
        let marked = |table: &Table<()>| {
            let mut found = Vec::new();
            let mut cursor = 0;
            while let Some(number) = table.next_marked(cursor) {
                found.push(number);
                cursor = number + 1;
            }
            found
        };
        assert_eq!(marked(&table), [3, 64, 299]);
        table.remove(64);
        table.unmark(3);
        table.unmark(3);
        assert_eq!(marked(&table), [299]);
        assert!(table.has_marked());
        table.unmark(299);
        assert!(!table.has_marked());
    }
}
