//! What a page promises its readers, in memory and in a file.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

/// A file name of this test and process, removed again at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let file = format!("ringway-page-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap_or_default();
    }
}

#[test]
fn nothing_is_read_before_the_first_publication() {
    let writer = PageWriter::new(2);
    assert!(!writer.reader().read(&mut [0; 2]));
}

#[test]
fn the_last_publication_is_read() {
    let mut writer = PageWriter::new(3);
    let reader = writer.reader();
    let mut out = [0; 3];
    for round in 0..5 {
        writer.publish(&[round, round + 1, round + 2]);
        assert!(reader.read(&mut out));
        assert_eq!(out, [round, round + 1, round + 2]);
    }
}

#[test]
fn readers_never_see_parts_of_two_publications() {
    let mut writer = PageWriter::new(16);
    let reader = writer.reader();
    let read_to_the_end = || {
        let mut out = [0; 16];
        let mut last = 0;
        while last < 100_000 {
            if reader.read(&mut out) {
                assert_eq!(out, [out[0]; 16]);
                assert!(out[0] >= last);
                last = out[0];
            }
        }
    };
    thread::scope(|threads| {
        threads.spawn(read_to_the_end);
        threads.spawn(read_to_the_end);
        for round in 1..=100_000 {
            writer.publish(&[round; 16]);
        }
    });
}

#[test]
fn a_file_page_is_private_and_outlives_its_writer() {
    let scratch = Scratch::new("outlives");
    let mut writer = PageWriter::map_file(&scratch.0, 4).unwrap();
    writer.publish(&[1, 2, 3, 4]);
    writer.publish(&[5, 6, 7, 8]);
    assert_eq!(fs::metadata(&scratch.0).unwrap().permissions().mode() & 0o777, 0o600);
    drop(writer);

    let mut out = [0; 4];
    let other = PageReader::map_file(&scratch.0).unwrap();
    assert!(other.read(&mut out));
    assert_eq!(out, [5, 6, 7, 8]);

    let mut writer = PageWriter::map_file(&scratch.0, 4).unwrap();
    assert!(writer.reader().read(&mut out));
    assert_eq!(out, [5, 6, 7, 8]);
    writer.publish(&[9; 4]);
    assert!(other.read(&mut out));
    assert_eq!(out, [9; 4]);
}

#[test]
fn a_publication_cut_short_leaves_the_one_before() {
    let scratch = Scratch::new("cut-short");
    let mut writer = PageWriter::map_file(&scratch.0, 2).unwrap();
    writer.publish(&[1, 1]);
    // What a kill in the middle of `publish` leaves behind.
    writer.page.memory()[BEGUN].store(2, Ordering::Relaxed);
    writer.page.bank(2)[0].store(2, Ordering::Relaxed);
    drop(writer);

    let mut out = [0; 2];
    let mut writer = PageWriter::map_file(&scratch.0, 2).unwrap();
    assert!(writer.reader().read(&mut out));
    assert_eq!(out, [1, 1]);
    writer.publish(&[3, 3]);
    assert!(writer.reader().read(&mut out));
    assert_eq!(out, [3, 3]);
}

#[test]
fn a_page_has_one_writer_at_a_time() {
    let scratch = Scratch::new("one-writer");
    let writer = PageWriter::map_file(&scratch.0, 2).unwrap();
    assert!(matches!(PageWriter::map_file(&scratch.0, 2), Err(PageError::Busy { .. })));
    drop(writer);
    assert!(PageWriter::map_file(&scratch.0, 2).is_ok());
}

#[test]
fn a_page_of_another_shape_is_refused_and_left_alone() {
    let scratch = Scratch::new("shape");
    PageWriter::map_file(&scratch.0, 2).unwrap().publish(&[1, 2]);
    let refused = PageWriter::map_file(&scratch.0, 3);
    assert!(matches!(refused, Err(PageError::OtherShape { found: 2, wanted: 3, .. })));
    let mut out = [0; 2];
    assert!(PageReader::map_file(&scratch.0).unwrap().read(&mut out));
    assert_eq!(out, [1, 2]);
}

#[test]
fn a_file_that_is_no_page_is_refused_and_left_alone() {
    let scratch = Scratch::new("no-page");
    let huge = [MAGIC.to_ne_bytes(), u64::MAX.to_ne_bytes()];
    for content in [&b"some other file"[..], &[0; 80], huge.as_flattened()] {
        fs::write(&scratch.0, content).unwrap();
        assert!(matches!(PageWriter::map_file(&scratch.0, 1), Err(PageError::NotAPage { .. })));
        assert!(matches!(PageReader::map_file(&scratch.0), Err(PageError::NotAPage { .. })));
        assert_eq!(fs::read(&scratch.0).unwrap(), content);
    }
}
