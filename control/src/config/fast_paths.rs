//! What makes packets cheap and can be left out, one by one.
//!
//! Kernels, drivers and network cards have bugs in just these places; an operator must be able to
//! do without one and keep the others. What is left out is decided at start, so no packet pays for
//! the choice. What a fast path is made of is the business of whoever has it.

use std::fmt;

/// One way of doing things faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPath {
    /// Datagrams that arrive together are received together.
    Gro,
    /// The kernel, or the card, cuts a train into datagrams.
    Gso,
    /// The TUN hands over super-packets, and packets without their checksums.
    TunOffload,
    /// Packets of a flow are written to the TUN as one.
    Coalescing,
    /// Eight packets are sealed or opened at once.
    Avx512,
    /// Large trains are sent from where they lie.
    ZeroCopy,
    /// One submission reads the TUN again and again.
    Multishot,
    /// The ring works when it is asked to, on registered descriptors.
    Deferred,
    /// Packet memory lies in huge pages.
    HugePages,
}

impl FastPath {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Gro,
        Self::Gso,
        Self::TunOffload,
        Self::Coalescing,
        Self::Avx512,
        Self::ZeroCopy,
        Self::Multishot,
        Self::Deferred,
        Self::HugePages,
    ];

    /// Its name in flags and files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gro => "gro",
            Self::Gso => "gso",
            Self::TunOffload => "tun-offload",
            Self::Coalescing => "coalescing",
            Self::Avx512 => "avx512",
            Self::ZeroCopy => "zero-copy",
            Self::Multishot => "multishot",
            Self::Deferred => "deferred",
            Self::HugePages => "huge-pages",
        }
    }
}

/// Some of the fast paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastPaths(u16);

impl FastPaths {
    /// All of them.
    pub const ALL: Self = Self((1 << FastPath::ALL.len()) - 1);

    /// These and that one.
    #[must_use]
    pub const fn and(self, path: FastPath) -> Self {
        Self(self.0 | 1 << path as u16)
    }

    /// These and those.
    #[must_use]
    pub const fn or(self, those: Self) -> Self {
        Self(self.0 | those.0)
    }

    /// Whether that one is among them.
    #[must_use]
    pub const fn has(self, path: FastPath) -> bool {
        self.0 & 1 << path as u16 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds what a word of a flag or a file names: one, or `all`.
    ///
    /// # Errors
    /// What is wrong with the word.
    pub fn and_word(self, word: &str) -> Result<Self, String> {
        if word == "all" {
            return Ok(Self::ALL);
        }
        let found = FastPath::ALL.into_iter().find(|path| path.word() == word);
        found.map(|path| self.and(path)).ok_or_else(|| "names no fast path".to_owned())
    }

    /// Reads the words of a flag, separated by commas; `none` alone is none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_words(words: &str) -> Result<Self, String> {
        if words == "none" {
            return Ok(Self::default());
        }
        words.split(',').try_fold(Self::default(), |paths, word| paths.and_word(word.trim()))
    }

    /// Their names, in a fixed order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        FastPath::ALL.into_iter().filter(move |path| self.has(*path)).map(FastPath::word)
    }
}

impl fmt::Display for FastPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn every_name_stands_for_one_and_is_among_what_may_be_written() {
        let wants = options::find("workers", "without").unwrap().wants;
        let mut all = FastPaths::default();
        for path in FastPath::ALL {
            let one = FastPaths::from_words(path.word()).unwrap();
            assert!(one.has(path) && one.words().eq([path.word()]));
            assert!(!all.has(path), "two have one bit");
            assert!(wants.contains(path.word()), "{} is not advised", path.word());
            all = all.and(path);
        }
        assert_eq!(all, FastPaths::ALL);
        assert_eq!(FastPaths::from_words("all"), Ok(all));
        assert_eq!(FastPaths::from_words("none"), Ok(FastPaths::default()));
        assert_eq!(FastPaths::from_words("gso, gro").unwrap().to_string(), "gro, gso");
        assert_eq!(FastPaths::default().to_string(), "none");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "gros", "gro,", "gro,,gso", "none,gro", "GRO", "uring"] {
            assert!(FastPaths::from_words(wrong).is_err(), "{wrong}");
        }
    }
}
