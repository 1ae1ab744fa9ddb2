//! A page of words that one thread writes and others read, whole and without a lock.
//!
//! A core publishes its counters here in housekeeping; control reads them when it likes. The page
//! may lie in a file of the run directory: then it outlives the process, however that ends, and the
//! next one goes on from the last publication. This module must not know what the words count.
//!
//! Layout, in words: magic and version, words per publication, `begun`, `published`, four reserved,
//! bank 0, bank 1.

use std::fmt;
#[cfg(not(loom))]
use std::{fs, io, os::fd::OwnedFd, path::Path};

use crate::primitive::{Arc, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub use self::file::PageError;

/// First word of every page: "RWPAGE" and version 1.
#[cfg(not(loom))]
const MAGIC: u64 = u64::from_be_bytes(*b"RWPAGE\x00\x01");
const HEADER_WORDS: usize = 8;
const BEGUN: usize = 2;
const PUBLISHED: usize = 3;

/// A reader gives up after this many attempts. One fails only if the writer published twice
/// meanwhile, and a core publishes ten times a second.
const ATTEMPTS_MAX: u32 = 64;

/// The one thread that writes a page. Cannot be cloned.
pub struct PageWriter {
    page: Arc<Page>,
    /// Publications so far.
    published: u64,
}

impl PageWriter {
    /// A page of `words` words in memory.
    #[must_use]
    pub fn new(words: usize) -> Self {
        let memory = (0..HEADER_WORDS + 2 * words).map(|_| AtomicU64::new(0)).collect();
        Self { page: Arc::new(Page { memory: Memory::Heap(memory), words }), published: 0 }
    }

    /// Words per publication.
    #[must_use]
    pub fn words(&self) -> usize {
        self.page.words
    }

    /// Shows `values` to all readers, as one.
    ///
    /// # Panics
    /// If there are not exactly as many values as the page has words.
    pub fn publish(&mut self, values: &[u64]) {
        assert_eq!(values.len(), self.page.words, "a publication is all words of the page");
        let next = self.published + 1;
        self.page.memory()[BEGUN].store(next, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.page.bank(next).iter().zip(values) {
            word.store(*value, Ordering::Relaxed);
        }
        self.page.memory()[PUBLISHED].store(next, Ordering::Release);
        self.published = next;
    }

    /// Another pair of eyes on this page.
    #[must_use]
    pub fn reader(&self) -> PageReader {
        PageReader { page: Arc::clone(&self.page) }
    }
}

impl fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageWriter({} words, {} publications)", self.page.words, self.published)
    }
}

/// Reads a page. Any thread may hold a clone.
#[derive(Clone)]
pub struct PageReader {
    page: Arc<Page>,
}

impl PageReader {
    /// Words per publication.
    #[must_use]
    pub fn words(&self) -> usize {
        self.page.words
    }

    /// Copies the last publication to `out`. Returns whether `out` now holds one: not if nothing
    /// was published yet, or if the writer was faster than every attempt; then the content of `out`
    /// means nothing.
    ///
    /// # Panics
    /// If `out` is not exactly as long as the page.
    #[must_use]
    pub fn read(&self, out: &mut [u64]) -> bool {
        assert_eq!(out.len(), self.page.words, "a publication is all words of the page");
        (0..ATTEMPTS_MAX).any(|_| self.read_once(out))
    }

    /// One attempt of [`PageReader::read`], for a thread that must not repeat anything.
    #[must_use]
    pub fn read_once(&self, out: &mut [u64]) -> bool {
        let published = self.page.memory()[PUBLISHED].load(Ordering::Acquire);
        if published == 0 {
            return false;
        }
        for (value, word) in out.iter_mut().zip(self.page.bank(published)) {
            *value = word.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        self.page.memory()[BEGUN].load(Ordering::Relaxed) < published.saturating_add(2)
    }
}

impl fmt::Debug for PageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageReader({} words)", self.page.words)
    }
}

struct Page {
    memory: Memory,
    words: usize,
}

impl Page {
    fn memory(&self) -> &[AtomicU64] {
        match &self.memory {
            Memory::Heap(memory) => memory,
            #[cfg(not(loom))]
            Memory::File(mapping, _) => mapping.words(),
        }
    }

    /// The words of publication `number`.
    fn bank(&self, number: u64) -> &[AtomicU64] {
        let start = HEADER_WORDS + if number.is_multiple_of(2) { 0 } else { self.words };
        &self.memory()[start..start + self.words]
    }
}

enum Memory {
    Heap(Box<[AtomicU64]>),
    /// The file stays open because it carries the writer's lock.
    #[cfg(not(loom))]
    File(crate::map::Mapping, #[allow(dead_code, reason = "held for its lock")] OwnedFd),
}

#[cfg(not(loom))]
mod file {
    //! Pages in files.

    #![allow(clippy::disallowed_types, reason = "counter pages are the files of this crate")]

    use super::{
        Arc, BEGUN, HEADER_WORDS, MAGIC, Memory, Ordering, PUBLISHED, Page, PageReader, PageWriter,
        Path, fs, io,
    };
    use crate::map::{Access, Mapping, lock_exclusively};
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::OpenOptionsExt;

    /// Why a file is no page for us.
    #[derive(Debug, thiserror::Error)]
    pub enum PageError {
        /// The file could not be opened, made or mapped.
        #[error("Counter page {path}: {source}")]
        Io {
            /// Which file.
            path: String,
            /// What the kernel said.
            source: io::Error,
        },
        /// The file is something else, was cut, or is of another version.
        #[error(
            "Counter page {path} is not a page of this version; move it away to start from zero"
        )]
        NotAPage {
            /// Which file.
            path: String,
        },
        /// A page of another program version.
        #[error(
            "Counter page {path} has {found} words, not {wanted}; move it away to start from zero"
        )]
        OtherShape {
            /// Which file.
            path: String,
            /// Words in the file.
            found: u64,
            /// Words asked for.
            wanted: usize,
        },
        /// Another process, or another thread, writes this page.
        #[error("Counter page {path} is written by another process; stop it first")]
        Busy {
            /// Which file.
            path: String,
        },
    }

    impl PageWriter {
        /// A page of `words` words in the file `path`, made (mode 0600) if it does not exist. An
        /// existing page keeps its last publication and goes on from it. The directory must be ours
        /// alone: a file that somebody shortens while it is mapped is a fault.
        ///
        /// # Errors
        /// See [`PageError`]; nothing is changed then.
        pub fn map_file(path: &Path, words: usize) -> Result<Self, PageError> {
            let at = |source| PageError::Io { path: path.display().to_string(), source };
            let mut file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(at)?;
            lock_exclusively(&file).map_err(|error| {
                if error.kind() == io::ErrorKind::WouldBlock {
                    PageError::Busy { path: path.display().to_string() }
                } else {
                    at(error)
                }
            })?;
            if file.metadata().map_err(at)?.len() == 0 {
                create(&mut file, words).map_err(at)?;
            }
            let found = check(&mut file, path)?;
            if found != words as u64 {
                let path = path.display().to_string();
                return Err(PageError::OtherShape { path, found, wanted: words });
            }
            let mapping =
                Mapping::new(&file, HEADER_WORDS + 2 * words, Access::Write).map_err(at)?;
            let published = mapping.words()[PUBLISHED].load(Ordering::Relaxed);
            // A publication that was cut short is forgotten: its bank is the next one to be
            // written.
            mapping.words()[BEGUN].store(published, Ordering::Relaxed);
            Ok(Self {
                page: Arc::new(Page { memory: Memory::File(mapping, file.into()), words }),
                published,
            })
        }
    }

    impl PageReader {
        /// Reads the page in the file `path`, whoever writes it or wrote it.
        ///
        /// # Errors
        /// See [`PageError`].
        pub fn map_file(path: &Path) -> Result<Self, PageError> {
            let at = |source| PageError::Io { path: path.display().to_string(), source };
            let mut file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(at)?;
            let words = check(&mut file, path)? as usize;
            let mapping =
                Mapping::new(&file, HEADER_WORDS + 2 * words, Access::Read).map_err(at)?;
            Ok(Self { page: Arc::new(Page { memory: Memory::File(mapping, file.into()), words }) })
        }
    }

    /// Writes an empty page. The header comes last, so that a file cut short by a full disk or a
    /// kill is no page.
    fn create(file: &mut fs::File, words: usize) -> io::Result<()> {
        file.write_all(&vec![0; (HEADER_WORDS + 2 * words) * size_of::<u64>()])?;
        file.rewind()?;
        let header = [MAGIC.to_ne_bytes(), (words as u64).to_ne_bytes()];
        file.write_all(header.as_flattened())
    }

    /// Whether the file is a page, and of how many words.
    fn check(file: &mut fs::File, path: &Path) -> Result<u64, PageError> {
        let not_a_page = || PageError::NotAPage { path: path.display().to_string() };
        let mut header = [[0; size_of::<u64>()]; 2];
        file.rewind()
            .and_then(|()| file.read_exact(header.as_flattened_mut()))
            .map_err(|_| not_a_page())?;
        let [magic, words] = header.map(u64::from_ne_bytes);
        let bytes = words
            .checked_mul(2)
            .and_then(|banks| banks.checked_add(HEADER_WORDS as u64))
            .and_then(|all| all.checked_mul(size_of::<u64>() as u64));
        let length = file.metadata().map_err(|_| not_a_page())?.len();
        if magic == MAGIC && bytes == Some(length) { Ok(words) } else { Err(not_a_page()) }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "page_tests.rs"]
mod tests;
