//! What the gateway changed on the host, written down before it is changed.
//!
//! The journal is a file in the state folder. It is there while something of ours is on the host,
//! so a start that finds one knows that the last run was killed, and puts the host back first. It
//! is only believed on the same boot and in the same network namespace: elsewhere the changes are
//! gone already, and undoing them would be a change of its own. A lock says whether its writer is
//! alive.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sysctl::Setting;
use crate::failure::{Failure, Status};
use crate::keys;

/// Form of the file; another one is from another version and cannot be undone by this one.
const VERSION: u32 = 1;

/// How long to wait for another gateway to let go: it may be on its way out, or a child of this
/// process may hold the descriptor between its fork and its exec.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// Time between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Everything of ours on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    version: u32,
    place: Place,
    /// Firewall table.
    pub table: Option<String>,
    /// Kernel switches, in the order in which they were set.
    pub settings: Vec<Setting>,
}

/// Which kernel, and which network of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    boot: String,
    network: String,
}

impl Journal {
    /// A journal of changes made here and now.
    ///
    /// # Errors
    /// `/proc` that cannot be read.
    pub fn new(table: Option<String>, settings: Vec<Setting>) -> Result<Self, Failure> {
        Ok(Self { version: VERSION, place: Place::here()?, table, settings })
    }
}

impl Place {
    fn here() -> Result<Self, Failure> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let network = Path::new("/proc/thread-self/ns/net");
        Ok(Self {
            boot: fs::read_to_string(boot)
                .map_err(|error| Failure::file("read", boot, &error))?
                .trim()
                .to_owned(),
            network: fs::read_link(network)
                .map_err(|error| Failure::file("read", network, &error))?
                .display()
                .to_string(),
        })
    }
}

/// The file, held by this process.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    /// Held while we live; the kernel lets go of it even after kill -9.
    lock: fs::File,
}

impl JournalFile {
    /// Takes the journal of the gateway with this interface, and gives what a killed run left in
    /// it.
    ///
    /// # Errors
    /// Another gateway holds it ([`Status::InterfaceExists`]); a folder that cannot be written; a
    /// journal that is not one.
    pub fn open(folder: &Path, interface: &str) -> Result<(Self, Option<Journal>), Failure> {
        let lock_path = folder.join(format!("exit-{interface}.lock"));
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| Failure::file("open", &lock_path, &error))?;
        if !try_for(LOCK_WAIT, || lock.try_lock())
            .map_err(|error| Failure::file("lock", &lock_path, &error))?
        {
            return Err(running(interface, folder));
        }
        let file = Self { path: folder.join(format!("exit-{interface}.journal")), lock };
        let left = file.read()?;
        Ok((file, left))
    }

    /// Takes the journal over from another process, with its lock, and gives what is in it.
    ///
    /// # Errors
    /// A journal that is not one.
    pub fn adopt(
        folder: &Path,
        interface: &str,
        lock: OwnedFd,
    ) -> Result<(Self, Option<Journal>), Failure> {
        let path = folder.join(format!("exit-{interface}.journal"));
        let file = Self { path, lock: lock.into() };
        let left = file.read()?;
        Ok((file, left))
    }

    /// The lock, for another process. It is held until the last descriptor of it is closed.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from)
    }

    /// Writes down what is about to be changed. Durable when it returns.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, journal: &Journal) -> Result<(), Failure> {
        let failed = |error: &io::Error| Failure::file("write the journal", &self.path, error);
        let text = serde_json::to_vec_pretty(journal).map_err(|error| failed(&error.into()))?;
        let aside = keys::aside(&self.path);
        keys::write_aside(&aside, &text)
            .and_then(|()| fs::rename(&aside, &self.path))
            .and_then(|()| keys::sync_folder(&self.path))
            .map_err(|error| failed(&error))
    }

    /// Nothing of ours is on the host any more.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn clear(&self) -> Result<(), Failure> {
        let removed = fs::remove_file(&self.path).and_then(|()| keys::sync_folder(&self.path));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::file("remove the journal", &self.path, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What was left, if it concerns this boot and this network.
    fn read(&self) -> Result<Option<Journal>, Failure> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("read the journal", &self.path, &error)),
        };
        let journal: Journal =
            serde_json::from_slice(&text).map_err(|error| self.broken(&error))?;
        if journal.version != VERSION {
            return Err(self.broken(&format!("version {}", journal.version)));
        }
        if journal.place == Place::here()? {
            return Ok(Some(journal));
        }
        self.clear()?;
        Ok(None)
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Failure {
        let message = format!(
            "The journal {} of an earlier run cannot be understood ({why}): put the host back by \
             hand (nft list tables; sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding), then \
             remove the file",
            self.path.display()
        );
        Failure::new(Status::State, message)
    }
}

/// Tries to take a lock for a while; says whether it was taken.
fn try_for(
    limit: Duration,
    try_lock: impl Fn() -> Result<(), fs::TryLockError>,
) -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    loop {
        match try_lock() {
            Ok(()) => return Ok(true),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if waited >= limit => return Ok(false),
            Err(fs::TryLockError::WouldBlock) => {}
        }
        std::thread::sleep(LOCK_PAUSE);
        waited += LOCK_PAUSE;
    }
}

fn running(interface: &str, folder: &Path) -> Failure {
    let message = format!(
        "A gateway with the interface {interface} is running with the state folder {}: stop it \
         first, or choose another name and --state-dir",
        folder.display()
    );
    Failure::new(Status::InterfaceExists, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn journal() -> Journal {
        let setting = Setting {
            name: "net/ipv4/ip_forward".to_owned(),
            before: "0".to_owned(),
            during: Some("1".to_owned()),
        };
        Journal::new(Some("ringway_a".to_owned()), vec![setting]).unwrap()
    }

    #[test]
    fn what_a_killed_run_left_is_found_by_the_next() {
        let folder = Scratch::new("journal_left");
        let (file, left) = JournalFile::open(folder.path(), "a").unwrap();
        assert_eq!(left, None);
        file.write(&journal()).unwrap();
        drop(file);
        let (file, left) = JournalFile::open(folder.path(), "a").unwrap();
        assert_eq!(left, Some(journal()));
        file.clear().unwrap();
        drop(file);
        assert_eq!(JournalFile::open(folder.path(), "a").unwrap().1, None);
    }

    #[test]
    fn the_lock_goes_from_one_process_to_the_next_without_a_gap() {
        let folder = Scratch::new("journal_next");
        let (old, _) = JournalFile::open(folder.path(), "a").unwrap();
        old.write(&journal()).unwrap();
        let (new, left) = JournalFile::adopt(folder.path(), "a", old.lock().unwrap()).unwrap();
        drop(old);
        assert_eq!(left, Some(journal()));
        assert!(JournalFile::open(folder.path(), "a").is_err(), "the new one holds it");
        drop(new);
        assert!(JournalFile::open(folder.path(), "a").is_ok());
    }

    #[test]
    fn two_gateways_of_one_interface_are_refused() {
        let folder = Scratch::new("journal_lock");
        let (_file, _) = JournalFile::open(folder.path(), "a").unwrap();
        let failure = JournalFile::open(folder.path(), "a").unwrap_err();
        assert_eq!(failure.status, Status::InterfaceExists);
        assert!(JournalFile::open(folder.path(), "b").is_ok());
    }

    #[test]
    fn a_journal_of_another_boot_or_network_is_forgotten() {
        let folder = Scratch::new("journal_boot");
        for change in [
            |journal: &mut Journal| journal.place.boot.push('x'),
            |journal: &mut Journal| journal.place.network.push('x'),
        ] {
            let (file, _) = JournalFile::open(folder.path(), "a").unwrap();
            let mut journal = journal();
            change(&mut journal);
            file.write(&journal).unwrap();
            drop(file);
            assert_eq!(JournalFile::open(folder.path(), "a").unwrap().1, None);
            assert!(!folder.path().join("exit-a.journal").exists());
        }
    }

    #[test]
    fn a_broken_journal_stops_the_start_with_what_to_do_by_hand() {
        let folder = Scratch::new("journal_broken");
        for text in [
            "",
            "{}",
            "{\"version\":9,\"place\":{\"boot\":\"\",\"network\":\"\"},\
            \"table\":null,\"settings\":[]}",
        ] {
            fs::write(folder.path().join("exit-a.journal"), text).unwrap();
            let failure = JournalFile::open(folder.path(), "a").unwrap_err();
            assert!(failure.message.contains("by hand"), "{failure}");
        }
    }
}
