//! The scanner for addresses against what was planted, in files and in the memory of a child: it
//! must find it all, and nothing where nothing is.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ringway_tests::scan::{Found, distinctive, files, memory, needles};

/// What a child is asked to keep: `text`, `bytes` or `erased`. The address itself is never an
/// argument, as that would be in its memory.
const ROLE: &str = "RINGWAY_SCAN_CHILD";

/// Bytes among which a child keeps it.
const KEPT_BYTES: usize = 4 << 20;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway_scan_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("below")).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address that no program has as a constant: made when it is needed.
fn secret(salt: u8) -> [u8; 4] {
    let mut octets = distinctive().octets();
    octets[3] = octets[3].wrapping_add(std::hint::black_box(salt));
    octets[1] ^= std::hint::black_box(0x5a);
    octets
}

#[test]
fn every_spelling_is_found_in_files_also_across_the_pieces_that_are_read() {
    let v6: IpAddr = "2001:db8:7:77::d5".parse().unwrap();
    for address in [IpAddr::from(distinctive()), v6] {
        let needles = needles(address);
        assert!(needles.len() >= 8, "{needles:?}");
        for (number, needle) in needles.iter().enumerate() {
            let folder = Folder::new("spelling");
            // Around the end of the first mebibyte.
            let before = (1 << 20) - number % needle.bytes.len();
            let text = [&vec![b'.'; before][..], &needle.bytes, b" more"].concat();
            fs::write(folder.0.join("below/file"), text).unwrap();
            let found = files(&[&folder.0], &needles).unwrap();
            let hit = |found: &&Found| found.what == needle.what && found.at == before as u64;
            assert_eq!(found.iter().filter(hit).count(), 1, "{needle:?}: {found:?}");
        }
    }
}

#[test]
fn a_name_of_a_file_counts_and_other_addresses_do_not() {
    let folder = Folder::new("name");
    let needles = needles(distinctive().into());
    fs::write(folder.0.join("below/file"), "198.51.100.21 198.51.100.2 13").unwrap();
    assert_eq!(files(&[&folder.0], &needles).unwrap(), []);
    fs::write(folder.0.join(format!("below/{}.log", distinctive())), "").unwrap();
    assert_eq!(files(&[&folder.0], &needles).unwrap().len(), 1);
    assert!(
        files(&[&folder.0.join("nowhere")], &needles).is_err(),
        "what is not read is not clean"
    );
}

/// Not a test by itself: the process whose memory is looked at.
#[test]
fn child_that_keeps_what_it_is_asked_to() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut kept = vec![0_u8; KEPT_BYTES];
    match role.as_str() {
        "text" => {
            let text = IpAddr::from(secret(1)).to_string();
            kept[1 << 20..][..text.len()].copy_from_slice(text.as_bytes());
        }
        "bytes" => kept[1 << 20..][..4].copy_from_slice(&secret(2)),
        _ => {
            kept[1 << 20..][..4].copy_from_slice(&secret(3));
            std::hint::black_box(&mut kept)[1 << 20..][..4].fill(0);
        }
    }
    let place = std::hint::black_box(&mut kept).as_ptr() as u64;
    let mut out = std::io::stdout();
    out.write_all(format!("\nready {place}\n").as_bytes()).unwrap();
    out.flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    std::hint::black_box(&mut kept);
}

/// A child of ours in this role, once it keeps what it is to keep, and where it does.
fn child(role: &str) -> (Child, Range<u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_keeps_what_it_is_asked_to", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let place = output.find_map(|line| line.unwrap().strip_prefix("ready ")?.parse::<u64>().ok());
    let place = place.unwrap_or_else(|| panic!("{role} ended"));
    (child, place..place + KEPT_BYTES as u64)
}

#[test]
fn what_a_process_keeps_is_found_in_its_memory_and_what_it_erased_is_not() {
    for (role, salt, expected) in [("text", 1, true), ("bytes", 2, true), ("erased", 3, false)] {
        let (mut child, kept) = child(role);
        let needles = needles(IpAddr::from(secret(salt)));
        let wanted = |found: &Found| match role {
            "text" => found.what.starts_with("as text"),
            _ => found.what == "as bytes",
        };
        let (found, bytes) = memory(child.id(), &needles).unwrap();
        // In its buffer: the stack of whoever made it is not what is meant.
        let seen = found.iter().filter(|hit| wanted(hit) && kept.contains(&hit.at)).count();
        assert!(bytes > 1 << 20, "{role}: only {bytes} bytes were there");
        assert_eq!(seen > 0, expected, "{role}: {found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
