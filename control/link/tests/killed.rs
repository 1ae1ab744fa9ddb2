//! Counter pages and usage pages outlive a writer that is killed at any instruction. The writer is
//! this same test in a process of its own: it finds the page that its parent made.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::thread;

use ringway_link::page::{PageReader, PageWriter};
use ringway_link::usage::{UsageReader, UsageWriter};

const WORDS: usize = 500;
const KILLS: u64 = 25;

#[test]
fn a_page_is_whole_after_its_writer_was_killed() {
    if page_of(parent_id()).exists() {
        write_until_killed();
        return;
    }
    let page = page_of(id());
    drop(PageWriter::map_file(&page, WORDS).unwrap());
    let mut counted = 0;
    for _ in 0..KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_page_is_whole_after_its_writer_was_killed", "--nocapture"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let reader = PageReader::map_file(&page).unwrap();
        let busy = |reader: &PageReader| read(reader) >= Some(counted + 1000);
        while !busy(&reader) {
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
            thread::yield_now();
        }
        let seen = read(&reader).unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();
        let left = read(&PageReader::map_file(&page).unwrap()).unwrap();
        assert!(left >= seen);
        counted = left;
    }
    std::fs::remove_file(&page).unwrap();
}

fn page_of(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("ringway-page-{process}-killed"))
}

/// Goes on from what the page holds, as a restarted gateway does.
fn write_until_killed() {
    let parent = parent_id();
    let mut writer = PageWriter::map_file(&page_of(parent), WORDS).unwrap();
    let mut count = read(&writer.reader()).unwrap_or(0);
    while parent_id() == parent {
        count += 1;
        writer.publish(&[count; WORDS]);
    }
}

fn read(reader: &PageReader) -> Option<u64> {
    let mut words = [0; WORDS];
    reader.read(&mut words).then(|| {
        assert_eq!(words, [words[0]; WORDS], "parts of two publications");
        words[0]
    })
}

const COUNTED: u32 = 5;

#[test]
fn what_was_used_is_exact_after_the_one_who_counts_was_killed() {
    let pages = |process: u32| {
        let name = |what| format!("ringway-usage-{process}-killed-{what}");
        ["counts", "told"].map(|what| std::env::temp_dir().join(name(what)))
    };
    let [counts, told] = pages(parent_id());
    if counts.exists() {
        let mut writer = UsageWriter::map_file(&counts, 64, 0).unwrap();
        let mut told = UsageWriter::map_file(&told, 1, 0).unwrap();
        let parent = parent_id();
        while parent_id() == parent {
            // The other page says afterwards what was counted before: at most one packet apart.
            writer.count(COUNTED, 0, 1_400);
            told.count(0, 0, 1_400);
        }
        return;
    }
    let [counts, told] = pages(id());
    let mut writer = UsageWriter::map_file(&counts, 64, 0).unwrap();
    writer.set_owner(COUNTED, 9);
    writer.reader().reserve(64).unwrap();
    UsageWriter::map_file(&told, 1, 0).unwrap().set_owner(0, 9);
    drop(writer);
    let mut before = 0;
    for kill in 1..=KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_used_is_exact_after_the_one_who_counts_was_killed"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let reader = UsageReader::map_file(&counts).unwrap();
        while reader.read(COUNTED).unwrap().packets[0] < before + 1_000 {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = UsageReader::map_file(&counts).unwrap().read(COUNTED).unwrap();
        let told = UsageReader::map_file(&told).unwrap().read(0).unwrap();
        // Each kill may have come between the two words of one packet: bytes first, then the
        // packet.
        let whole = left.packets[0] * 1_400;
        assert!(left.bytes[0].is_multiple_of(1_400), "{left:?}");
        assert!((whole..=whole + kill * 1_400).contains(&left.bytes[0]), "{left:?}");
        assert!(left.bytes[0] >= told.bytes[0], "something that was told of is not counted");
        // As many kills as there were may each have cut off what is told, by one packet.
        assert!(left.bytes[0] - told.bytes[0] <= KILLS * 1_400, "{left:?} {told:?}");
        before = left.packets[0];
    }
    std::fs::remove_file(&counts).unwrap();
    std::fs::remove_file(&told).unwrap();
}
