//! Files that the command line writes: with secrets in them, so for their owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::failure::{Failure, Status};

/// Writes a file that only its owner can read. One that is there already is never overwritten: it
/// may hold the only copy of a key.
pub(crate) fn write_private(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    let open = options.write(true).create_new(true).mode(0o600).open(file);
    let mut open = open.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            let message = format!("{} exists already: name another file", file.display());
            return Failure::new(Status::State, message);
        }
        Failure::file("make", file, &error)
    })?;
    let written = open.write_all(bytes).and_then(|()| open.sync_all());
    written.map_err(|error| {
        // Half a file is worse than none.
        let _ = fs::remove_file(file);
        Failure::file("write", file, &error)
    })
}

/// Whether [`write_private`] could write there, before what is to be written is made.
pub(crate) fn check_writable(file: &Path) -> Result<(), Failure> {
    if file.exists() {
        let message = format!("{} exists already: name another file", file.display());
        return Err(Failure::new(Status::State, message));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let found = fs::metadata(folder).and_then(|about| {
        if about.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
    });
    found.map_err(|error| Failure::file("write to", folder, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_for_its_owner_only_and_never_overwritten() {
        let folder = crate::scratch::Scratch::new("cli_files");
        let file = folder.path().join("laptop.conf");
        check_writable(&file).unwrap();
        write_private(&file, b"secret").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for failure in
            [write_private(&file, b"other").unwrap_err(), check_writable(&file).unwrap_err()]
        {
            assert_eq!(failure.status, Status::State);
            assert!(failure.message.contains("exists already"), "{failure}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"secret");
        let nowhere = folder.path().join("none/laptop.conf");
        assert!(check_writable(&nowhere).unwrap_err().message.contains("check the path"));
    }
}
