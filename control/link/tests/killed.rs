//! A counter page outlives a writer that is killed at any instruction. The writer is this same test
//! in a process of its own: it finds the page that its parent made.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::thread;

use ringway_link::page::{PageReader, PageWriter};

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
