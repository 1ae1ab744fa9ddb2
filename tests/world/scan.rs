//! Looks for an address where none may be: in files, and in the memory of a process.
//!
//! An address can stand there as text, as bytes of either order, or as a number; all of them are
//! looked for. Files are read whole, without following links; memory is read page by page through
//! `/proc/PID/mem`, as far as pages are there at all. What is found is told with its place, so that
//! whoever keeps it can be found too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Bytes of a page, the smallest there is; larger pages are several of these.
const PAGE: u64 = 4096;

/// One spelling of what is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needle {
    /// Which spelling.
    pub what: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The file, or the mapping.
    pub place: String,
    /// Bytes from its beginning; for memory the address.
    pub at: u64,
    /// Which spelling.
    pub what: String,
}

/// All spellings of an address that somebody could keep.
#[must_use]
pub fn needles(address: IpAddr) -> Vec<Needle> {
    let mut spellings: BTreeSet<(String, Vec<u8>)> = BTreeSet::new();
    let mut text = |what: &str, text: String| {
        spellings.insert((format!("{what} {text}"), text.clone().into_bytes()));
        let wide = text.encode_utf16().flat_map(u16::to_le_bytes);
        spellings.insert((format!("{what} {text} in UTF-16"), wide.collect()));
    };
    let octets = match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let mapped = v4.to_ipv6_mapped().segments();
            text("as text", v4.to_string());
            text("as a list", format!("{a}, {b}, {c}, {d}"));
            text("as a list", format!("{a},{b},{c},{d}"));
            text("as a mapped address", format!("{:x}:{:x}", mapped[6], mapped[7]));
            text("as a number", u32::from(v4).to_string());
            v4.octets().to_vec()
        }
        IpAddr::V6(v6) => {
            let full: Vec<String> = v6.segments().map(|part| format!("{part:04x}")).to_vec();
            let short: Vec<String> = v6.segments().map(|part| format!("{part:x}")).to_vec();
            text("as text", v6.to_string());
            text("as text", v6.to_string().to_uppercase());
            text("as full text", full.join(":"));
            text("as text", short.join(":"));
            v6.octets().to_vec()
        }
    };
    let hex: String = octets.iter().map(|byte| format!("{byte:02x}")).collect();
    text("as hexadecimal", hex.to_uppercase());
    text("as hexadecimal", hex);
    let reversed = octets.iter().rev().copied().collect();
    spellings.insert(("as bytes".to_owned(), octets));
    spellings.insert(("as bytes of a number".to_owned(), reversed));
    spellings.into_iter().map(|(what, bytes)| Needle { what, bytes }).collect()
}

/// An address whose bytes hardly stand anywhere by chance, for tests: of a network for
/// documentation.
#[must_use]
pub fn distinctive() -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 213)
}

/// Looks through files, and through folders with all that is in them.
///
/// # Errors
/// A file that cannot be read: then nothing is proven.
pub fn files(roots: &[&Path], needles: &[Needle]) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(path) = open.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        let name = path.as_os_str().as_encoded_bytes();
        look(&path.display().to_string(), 0, name, needles, &mut found);
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if kind.is_file() {
            let mut file = File::open(&path)?;
            let place = path.display().to_string();
            let mut haystack = Haystack::new(&place, needles);
            let mut chunk = vec![0; CHUNK];
            loop {
                let count = file.read(&mut chunk)?;
                if count == 0 {
                    break;
                }
                haystack.feed(&chunk[..count], &mut found);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Looks through the memory of a process, and says how many bytes were there.
///
/// # Errors
/// Not allowed to, or the process is gone.
pub fn memory(pid: u32, needles: &[Needle]) -> io::Result<(Vec<Found>, u64)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut found = Vec::new();
    let mut seen = 0;
    for line in maps.lines() {
        let Some((from, to, name)) = mapping(line) else { continue };
        let place = format!("{from:x}-{to:x} {name}");
        let mut haystack = Haystack::new(&place, needles);
        let mut at = from;
        let mut chunk = vec![0; CHUNK];
        while at < to {
            let length = (CHUNK as u64).min(to - at);
            for (start, end) in present(&pages, at, at + length)? {
                let bytes = &mut chunk[..(end - start) as usize];
                // A page that went away in between is nobody's memory any more.
                if memory.read_exact_at(bytes, start).is_ok() {
                    haystack.go_to(start);
                    haystack.feed(bytes, &mut found);
                    seen += end - start;
                }
            }
            at += length;
        }
    }
    found.sort();
    Ok((found, seen))
}

/// Beginning, end and name of a mapping that can be read; not those that are the kernel's.
fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let readable = words.next()?.starts_with('r');
    let name = words.nth(3).unwrap_or("(no name)");
    let kernels = ["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&name);
    let address = |text| u64::from_str_radix(text, 16).ok();
    let range = (address(from)?, address(to)?, name);
    (readable && !kernels).then_some(range)
}

/// The parts of a range that are in memory or in swap; the rest was never touched.
fn present(pages: &File, from: u64, to: u64) -> io::Result<Vec<(u64, u64)>> {
    let count = ((to - from) / PAGE) as usize;
    let mut entries = vec![0; count * 8];
    pages.read_exact_at(&mut entries, from / PAGE * 8)?;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (at, entry) in entries.chunks_exact(8).enumerate() {
        let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
        if entry >> 62 == 0 {
            continue;
        }
        let start = from + at as u64 * PAGE;
        match ranges.last_mut() {
            Some((_, end)) if *end == start => *end += PAGE,
            _ => ranges.push((start, start + PAGE)),
        }
    }
    Ok(ranges)
}

/// Bytes that come in pieces; what lies across two of them is found too.
struct Haystack<'a> {
    place: &'a str,
    needles: &'a [Needle],
    /// The end of what was looked at.
    at: u64,
    tail: Vec<u8>,
    longest: usize,
}

impl<'a> Haystack<'a> {
    fn new(place: &'a str, needles: &'a [Needle]) -> Self {
        let longest = needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or(1);
        Self { place, needles, at: 0, tail: Vec::new(), longest }
    }

    /// The next bytes begin here; what came before goes on only if it ended here.
    fn go_to(&mut self, at: u64) {
        if self.at != at {
            self.tail.clear();
            self.at = at;
        }
    }

    fn feed(&mut self, bytes: &[u8], found: &mut Vec<Found>) {
        let from = self.at - self.tail.len() as u64;
        let mut whole = std::mem::take(&mut self.tail);
        whole.extend_from_slice(bytes);
        look(self.place, from, &whole, self.needles, found);
        self.at += bytes.len() as u64;
        self.tail = whole.split_off(whole.len().saturating_sub(self.longest - 1));
    }
}

/// Looks for all of them at once: by their first byte, which is one of a few.
fn look(place: &str, from: u64, bytes: &[u8], needles: &[Needle], found: &mut Vec<Found>) {
    let mut first = [false; 256];
    needles.iter().filter_map(|needle| needle.bytes.first()).for_each(|byte| {
        first[usize::from(*byte)] = true;
    });
    for (at, byte) in bytes.iter().enumerate() {
        if !first[usize::from(*byte)] {
            continue;
        }
        for needle in needles.iter().filter(|needle| bytes[at..].starts_with(&needle.bytes)) {
            let (place, what) = (place.to_owned(), needle.what.clone());
            let hit = Found { place, at: from + at as u64, what };
            // The end of a piece is looked at again with the next one.
            if !found.contains(&hit) {
                found.push(hit);
            }
        }
    }
}
