//! Where lines end: standard error, or a file that is kept to a size.
//!
//! A file that is full becomes `NAME.1`, that one `NAME.2`, and so on; the oldest goes. What cannot
//! be written is an error that the caller counts; the next line tries again, so a disk that has
//! room again or a folder that is back needs nobody. This module must not know what a line is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes after which a new one begins; 0 for never, for those who turn it themselves and then
    /// have it opened again.
    pub bytes_max: u64,
    /// Older files that are kept beside it, 0 to [`OLD_FILES_MAX`].
    pub old_files: u32,
}

/// Most older files.
pub const OLD_FILES_MAX: u32 = 100;

/// 16 MiB, a day of a busy gateway at `info`; with five older ones 96 MiB in all.
pub const BYTES_DEFAULT: u64 = 16 << 20;

/// See [`BYTES_DEFAULT`].
pub const OLD_FILES_DEFAULT: u32 = 5;

/// Where lines go.
pub trait Sink: Send {
    /// Takes one line, whole or not at all as far as can be told.
    ///
    /// # Errors
    /// The line is lost.
    fn write(&mut self, line: &[u8]) -> io::Result<()>;

    /// Opens anew what has a name: it may have been moved away.
    fn reopen(&mut self);
}

/// Standard error.
#[derive(Debug, Default)]
pub struct Stderr;

impl Sink for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(line)
    }

    fn reopen(&mut self) {}
}

/// A file with its older ones.
#[derive(Debug)]
pub struct Rotating {
    settings: FileSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Rotating {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(settings: FileSettings) -> io::Result<Self> {
        let open = Some(append(&settings.path)?);
        Ok(Self { settings, open })
    }

    /// Moves every file one number up. A step that fails leaves the line where it is: the file then
    /// grows beyond its size rather than lose what is in it.
    fn turn(&mut self) {
        let FileSettings { path, old_files, .. } = &self.settings;
        let old_files = (*old_files).min(OLD_FILES_MAX);
        for number in (1..old_files).rev() {
            let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
        }
        let moved = match old_files {
            0 => fs::remove_file(path),
            _ => fs::rename(path, numbered(path, 1)),
        };
        if moved.is_ok() {
            self.open = None;
        }
    }
}

impl Sink for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let full = |open: &Open| open.bytes > 0 && open.bytes + length > self.settings.bytes_max;
        if self.settings.bytes_max > 0 && self.open.as_ref().is_some_and(full) {
            self.turn();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(append(&self.settings.path)?),
        };
        let written = open.file.write_all(line);
        match &written {
            Ok(()) => open.bytes += length,
            // Perhaps half of it is there: the file is looked at again.
            Err(_) => self.open = None,
        }
        written
    }

    fn reopen(&mut self) {
        // What cannot be opened now is tried again with the next line.
        self.open = append(&self.settings.path).ok();
    }
}

/// Readable by its owner alone: it says who is connected. A line that was cut short is ended first.
fn append(path: &Path) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > 0 && !ends_with_newline(path, bytes)? {
        file.write_all(b"\n")?;
    }
    Ok(Open { file, bytes })
}

fn ends_with_newline(path: &Path, bytes: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0];
    let file = File::open(path)?;
    // A pipe or a device has no end to look at.
    if !file.metadata()?.is_file() {
        return Ok(true);
    }
    file.read_exact_at(&mut last, bytes - 1)?;
    Ok(last == *b"\n")
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn settings(folder: &Path, bytes_max: u64, old_files: u32) -> FileSettings {
        FileSettings { path: folder.join("log"), bytes_max, old_files }
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn files_are_turned_at_their_size_and_the_oldest_goes() {
        let scratch = Scratch::new("log_turned");
        let mut log = Rotating::open(settings(scratch.path(), 10, 2)).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        let path = scratch.path().join("log");
        assert_eq!(text(&path), "six\nseven\n");
        assert_eq!(text(&numbered(&path, 1)), "four\nfive\n");
        assert_eq!(text(&numbered(&path, 2)), "three\n");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_line_longer_than_the_size_has_a_file_of_its_own() {
        let scratch = Scratch::new("log_own");
        let mut log = Rotating::open(settings(scratch.path(), 4, 1)).unwrap();
        for _ in 0..3 {
            log.write(b"much too long\n").unwrap();
        }
        assert_eq!(text(&scratch.path().join("log")), "much too long\n");
        assert_eq!(text(&scratch.path().join("log.1")), "much too long\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again_when_asked() {
        let scratch = Scratch::new("log_moved");
        let path = scratch.path().join("log");
        let mut log = Rotating::open(settings(scratch.path(), 0, 0)).unwrap();
        log.write(b"before\n").unwrap();
        fs::rename(&path, scratch.path().join("moved")).unwrap();
        log.reopen();
        log.write(b"after\n").unwrap();
        assert_eq!(text(&path), "after\n");
        assert_eq!(text(&scratch.path().join("moved")), "before\n");
    }

    #[test]
    fn a_folder_that_is_gone_costs_lines_and_nothing_else() {
        let scratch = Scratch::new("log_gone");
        let folder = scratch.path().join("logs");
        fs::create_dir(&folder).unwrap();
        let mut log = Rotating::open(settings(&folder, 0, 0)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        log.reopen();
        assert!(log.write(b"lost\n").is_err());
        fs::create_dir(&folder).unwrap();
        log.write(b"kept\n").unwrap();
        assert_eq!(text(&folder.join("log")), "kept\n");
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_swallow_the_next_one() {
        let scratch = Scratch::new("log_cut");
        let path = scratch.path().join("log");
        fs::write(&path, "cut sho").unwrap();
        let mut log = Rotating::open(settings(scratch.path(), 0, 0)).unwrap();
        log.write(b"whole\n").unwrap();
        assert_eq!(text(&path), "cut sho\nwhole\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_more() {
        let full = FileSettings { path: "/dev/full".into(), bytes_max: 0, old_files: 0 };
        let mut log = Rotating::open(full).unwrap();
        for _ in 0..3 {
            assert_eq!(log.write(b"x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
