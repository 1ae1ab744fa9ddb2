//! Pages in memory and in files, whole and broken.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::*;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringway-usage-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn usage(owner: u64, bytes: [u64; 2], packets: [u64; 2]) -> Option<Usage> {
    Some(Usage { owner, bytes, packets })
}

#[test]
fn what_is_counted_is_read_by_slot_and_direction() {
    let mut writer = UsageWriter::in_memory(100).unwrap();
    let reader = writer.reader();
    assert_eq!((reader.read(7), reader.slots()), (None, 100));
    writer.set_owner(7, 42);
    writer.set_owner(99, 43);
    writer.count(7, 0, 1_400);
    writer.count(7, 0, 60);
    writer.count(7, 1, 9_000);
    writer.count(99, 1, 1);
    assert_eq!(reader.read(7), usage(42, [1_460, 9_000], [2, 1]));
    assert_eq!(reader.read(99), usage(43, [0, 1], [0, 1]));
    assert_eq!(reader.read(8), None);
}

#[test]
fn slots_that_are_not_there_are_nobodys() {
    let mut writer = UsageWriter::in_memory(4).unwrap();
    for slot in [4, 5, u32::MAX] {
        writer.set_owner(slot, 1);
        writer.count(slot, 0, 1);
        assert_eq!(writer.reader().read(slot), None);
    }
}

#[test]
fn another_owner_begins_from_zero_and_the_same_one_goes_on() {
    let mut writer = UsageWriter::in_memory(1).unwrap();
    writer.set_owner(0, 1);
    writer.count(0, 0, 500);
    writer.set_owner(0, 1);
    assert_eq!(writer.reader().read(0), usage(1, [500, 0], [1, 0]));
    writer.set_owner(0, 2);
    assert_eq!(writer.reader().read(0), usage(2, [0, 0], [0, 0]));
    writer.set_owner(0, 0);
    assert_eq!(writer.reader().read(0), None);
}

#[test]
fn a_file_keeps_counts_and_epoch_and_stays_sparse() {
    let path = scratch("keeps");
    for round in 1..=5_u64 {
        let mut writer = UsageWriter::map_file(&path, 1 << 18, 1_000 + round).unwrap();
        writer.reader().reserve(10).unwrap();
        writer.set_owner(9, 77);
        writer.count(9, 1, 100);
        drop(writer);
        let reader = UsageReader::map_file(&path).unwrap();
        assert_eq!(reader.read(9), usage(77, [0, 100 * round], [0, round]));
        assert_eq!((reader.epoch(), reader.slots()), (1_001, 1 << 18));
    }
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), (8 + (8 << 18)) * 8);
    assert!(meta.blocks() * 512 <= 64 << 10, "{} blocks", meta.blocks());
    assert_eq!(meta.mode() & 0o777, 0o600);
    fs::remove_file(&path).unwrap();
}

#[test]
fn an_old_and_a_new_process_map_one_page() {
    let path = scratch("both");
    let mut old = UsageWriter::map_file(&path, 16, 5).unwrap();
    old.set_owner(3, 1);
    old.count(3, 0, 10);
    let mut new = UsageWriter::map_file(&path, 16, 6).unwrap();
    new.set_owner(3, 1);
    // The old one counts until it is paused.
    old.count(3, 0, 20);
    drop(old);
    new.count(3, 0, 30);
    assert_eq!(new.reader().read(3), usage(1, [60, 0], [3, 0]));
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_no_page_of_this_shape_is_refused_and_left_alone() {
    let path = scratch("refused");
    let refused = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        let written = UsageWriter::map_file(&path, 16, 0).unwrap_err();
        assert!(matches!(written, UsageError::NotAPage { .. }), "{written}");
        let read = UsageReader::map_file(&path).unwrap_err();
        assert!(matches!(read, UsageError::NotAPage { .. }), "{read}");
        assert_eq!(fs::read(&path).unwrap(), text);
    };
    refused(b"something else");
    refused(&[0; 8 * (8 + 16 * 8)]);
    fs::remove_file(&path).unwrap();
    drop(UsageWriter::map_file(&path, 16, 0).unwrap());
    let other = UsageWriter::map_file(&path, 32, 0).unwrap_err();
    assert!(matches!(other, UsageError::OtherShape { found: 16, wanted: 32, .. }), "{other}");
    // A version from tomorrow.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_at(&(MAGIC + 1).to_ne_bytes(), 0).unwrap();
    assert!(UsageReader::map_file(&path).is_err());
    fs::remove_file(&path).unwrap();
    assert!(matches!(UsageReader::map_file(&path), Err(UsageError::Io { .. })));
}
