//! What each account used: words that only grow, written by one core and read by anybody.
//!
//! Every account has a slot of one cache line in the page of each core. A core adds to its words
//! when it has delivered a packet; each word stands alone, and there is no publication: whoever
//! reads sees the bytes of the packet before last at the least. A page in a file of the run
//! directory is exact after any end of its process, and the next process goes on counting in it.
//!
//! A slot says whose it is by a tag that control chooses: another tag begins from zero. This module
//! must not know what an account is.
//!
//! Layout, in words: magic and version, slots, epoch, five reserved; then for each slot the tag,
//! bytes both ways, packets both ways, three reserved.

#![allow(clippy::disallowed_types, reason = "usage pages are files of this crate")]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::map::{Access, Mapping, reserve_file};
use crate::primitive::{Arc, AtomicU64, Ordering, fence};

/// First word of every page: "RWUSED" and version 1.
const MAGIC: u64 = u64::from_be_bytes(*b"RWUSED\x00\x01");
const HEADER_WORDS: usize = 8;
const SLOTS: usize = 1;
const EPOCH: usize = 2;

/// Words of a slot: a cache line.
const SLOT_WORDS: usize = 8;
const OWNER: usize = 0;
const BYTES: usize = 1;
const PACKETS: usize = 3;

/// A reader gives up after so many attempts. One fails only if the slot got another owner
/// meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// Slots of a page at the most: 1 GiB.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Why a file is no usage page for us.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The file could not be opened, made or mapped.
    #[error("Usage page {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is something else, was cut, or is of another version.
    #[error("Usage page {path} is not a page of this version; move it away to start from zero")]
    NotAPage {
        /// Which file.
        path: String,
    },
    /// A page for another number of accounts.
    #[error("Usage page {path} has {found} slots, not {wanted}; move it away to start from zero")]
    OtherShape {
        /// Which file.
        path: String,
        /// Slots in the file.
        found: u64,
        /// Slots asked for.
        wanted: u32,
    },
}

/// What was used of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Whose slot it is.
    pub owner: u64,
    /// Inner bytes by direction: to exit, to client.
    pub bytes: [u64; 2],
    /// Inner packets by direction: to exit, to client.
    pub packets: [u64; 2],
}

impl Usage {
    /// With what another core counted for the same owner.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for way in 0..2 {
            self.bytes[way] = self.bytes[way].wrapping_add(other.bytes[way]);
            self.packets[way] = self.packets[way].wrapping_add(other.packets[way]);
        }
        self
    }
}

/// The one thread that counts. Cannot be cloned.
pub struct UsageWriter {
    page: Arc<Page>,
}

impl UsageWriter {
    /// A page that ends with the process. It takes no memory until something is counted.
    ///
    /// # Errors
    /// When there is no room for `slots` in the address space.
    pub fn in_memory(slots: u32) -> io::Result<Self> {
        let slots = slots.min(SLOTS_MAX);
        let mapping = Mapping::anonymous(words_of(slots))?;
        let page = Page { mapping, slots, file: None };
        page.begin(0);
        Ok(Self { page: Arc::new(page) })
    }

    /// A page of `slots` in the file `path`, made (mode 0600, and sparse: only what
    /// [`UsageReader::reserve`] was asked for takes room) if it does not exist. An existing one
    /// keeps its counts and its epoch. Two processes may map one page if only one of them counts,
    /// as in an upgrade.
    ///
    /// `epoch` says when a new page began, in whatever unit control likes.
    ///
    /// # Errors
    /// See [`UsageError`]; nothing is changed then.
    pub fn map_file(path: &Path, slots: u32, epoch: u64) -> Result<Self, UsageError> {
        let slots = slots.min(SLOTS_MAX);
        let at = |source| UsageError::Io { path: path.display().to_string(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(at)?;
        let is_new = file.metadata().map_err(at)?.len() == 0;
        if is_new {
            reserve_file(&file, (HEADER_WORDS * size_of::<u64>()) as u64).map_err(at)?;
            file.set_len((words_of(slots) * size_of::<u64>()) as u64).map_err(at)?;
        }
        let page = Page::map(file, path, Access::Write, is_new.then_some(slots))?;
        if is_new {
            page.begin(epoch);
        } else if page.slots != slots {
            let (path, found) = (path.display().to_string(), page.slots.into());
            return Err(UsageError::OtherShape { path, found, wanted: slots });
        }
        Ok(Self { page: Arc::new(page) })
    }

    /// Says whose a slot is from now on. What another owner used is forgotten.
    pub fn set_owner(&mut self, slot: u32, owner: u64) {
        let Some(words) = self.page.slot(slot) else { return };
        if words[OWNER].load(Ordering::Relaxed) == owner {
            return;
        }
        // Nobody's while it is neither's. Kept in this order for whoever looks at any moment, or
        // after the process was killed.
        words[OWNER].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        words[BYTES..].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        words[OWNER].store(owner, Ordering::Release);
    }

    /// Counts a packet of `bytes` in direction `way`: 0 to exit, 1 to client.
    #[inline]
    pub fn count(&mut self, slot: u32, way: usize, bytes: u64) {
        let Some(words) = self.page.slot(slot) else { return };
        // No other thread writes, so what was loaded is still there.
        let add = |word: &AtomicU64, more: u64| {
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        let way = way & 1;
        add(&words[BYTES + way], bytes);
        add(&words[PACKETS + way], 1);
    }

    /// Another pair of eyes on this page.
    #[must_use]
    pub fn reader(&self) -> UsageReader {
        UsageReader { page: Arc::clone(&self.page) }
    }
}

impl fmt::Debug for UsageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsageWriter({} slots)", self.page.slots)
    }
}

/// Reads a page. Any thread may hold a clone.
#[derive(Clone)]
pub struct UsageReader {
    page: Arc<Page>,
}

impl UsageReader {
    /// Reads the page in the file `path`, whoever counts in it or did.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub fn map_file(path: &Path) -> Result<Self, UsageError> {
        let at = |source| UsageError::Io { path: path.display().to_string(), source };
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(at)?;
        Ok(Self { page: Arc::new(Page::map(file, path, Access::Read, None)?) })
    }

    /// Sees to it that the file has room for the first `slots`: a core that counts where there is
    /// none would be killed by the kernel. To be called before the slots get owners.
    ///
    /// # Errors
    /// When the file system is full; nothing is lost.
    pub fn reserve(&self, slots: u32) -> io::Result<()> {
        let Some(file) = &self.page.file else { return Ok(()) };
        let slots = slots.min(self.page.slots);
        reserve_file(file, (words_of(slots) * size_of::<u64>()) as u64)
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.page.slots
    }

    /// What the page's maker said about its beginning.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.page.mapping.words()[EPOCH].load(Ordering::Relaxed)
    }

    /// What was used of a slot. `None` if it is nobody's, or changes hands all the time.
    #[must_use]
    pub fn read(&self, slot: u32) -> Option<Usage> {
        let words = self.page.slot(slot)?;
        for _ in 0..ATTEMPTS_MAX {
            let owner = words[OWNER].load(Ordering::Acquire);
            let read = |at: usize| words[at].load(Ordering::Relaxed);
            let bytes = [read(BYTES), read(BYTES + 1)];
            let packets = [read(PACKETS), read(PACKETS + 1)];
            fence(Ordering::Acquire);
            if words[OWNER].load(Ordering::Relaxed) == owner {
                return (owner != 0).then_some(Usage { owner, bytes, packets });
            }
        }
        None
    }
}

impl fmt::Debug for UsageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UsageReader({} slots)", self.page.slots)
    }
}

struct Page {
    mapping: Mapping,
    slots: u32,
    /// Where it lies, to be given room.
    file: Option<File>,
}

impl Page {
    /// Maps a file that is a page, or that is about to become one of `new` slots.
    fn map(file: File, path: &Path, access: Access, new: Option<u32>) -> Result<Self, UsageError> {
        let at = |source| UsageError::Io { path: path.display().to_string(), source };
        let not_a_page = || UsageError::NotAPage { path: path.display().to_string() };
        let words = file.metadata().map_err(at)?.len() as usize / size_of::<u64>();
        let slots = words.checked_sub(HEADER_WORDS).ok_or_else(not_a_page)? / SLOT_WORDS;
        let slots = u32::try_from(slots).ok().filter(|slots| *slots <= SLOTS_MAX);
        let slots = slots.ok_or_else(not_a_page)?;
        let mapping = Mapping::new(&file, words_of(slots), access).map_err(at)?;
        let page = Self { mapping, slots, file: Some(file) };
        let head = |at: usize| page.mapping.words()[at].load(Ordering::Acquire);
        let sound = head(0) == MAGIC && head(SLOTS) == u64::from(slots);
        if new == Some(slots) || sound { Ok(page) } else { Err(not_a_page()) }
    }

    /// The magic comes last, so that a file of whose maker only a part came through is no page.
    fn begin(&self, epoch: u64) {
        let words = self.mapping.words();
        words[SLOTS].store(self.slots.into(), Ordering::Relaxed);
        words[EPOCH].store(epoch, Ordering::Relaxed);
        words[0].store(MAGIC, Ordering::Release);
    }

    #[inline]
    fn slot(&self, slot: u32) -> Option<&[AtomicU64; SLOT_WORDS]> {
        let start = HEADER_WORDS + slot as usize * SLOT_WORDS;
        self.mapping.words().get(start..start + SLOT_WORDS)?.first_chunk()
    }
}

const fn words_of(slots: u32) -> usize {
    HEADER_WORDS + slots as usize * SLOT_WORDS
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
