//! Forwarding is a switch of the whole host, and several gateways may want it on.
//!
//! Each that does holds a lock for as long as it runs, which the kernel lets go of even after
//! kill -9. Who stops while others hold it leaves the switches as they are and writes down what it
//! found before; the last one to stop puts all of it back, oldest last. Where the folder cannot be
//! written each gateway is on its own.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::sysctl::Setting;

/// The places where gateways of one network namespace meet.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    folder: PathBuf,
    network: u64,
}

/// One gateway's claim that the host has to forward.
#[derive(Debug)]
pub(super) struct Claim {
    held: File,
}

impl Meeting {
    /// In this folder, for the network namespace with this number.
    pub(super) fn new(folder: &Path, network: u64) -> Self {
        Self { folder: folder.to_owned(), network }
    }

    /// Claims that the host has to forward, until the claim is dropped.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn claim(&self) -> io::Result<Claim> {
        let _turn = self.turn()?;
        let held = self.open("claims")?;
        held.lock_shared()?;
        Ok(Claim { held })
    }

    /// Takes over from whoever stops, or has been killed, what it would put back. Returns what is
    /// to be put back now: nothing while others claim, else everything that was left.
    ///
    /// # Errors
    /// A folder that cannot be written; nothing was taken over then.
    pub(super) fn settle(
        &self,
        claim: Option<Claim>,
        settings: Vec<Setting>,
    ) -> io::Result<Vec<Setting>> {
        let _turn = self.turn()?;
        if let Some(claim) = claim {
            // Closing it is not enough: a child between its fork and its exec holds it too.
            claim.held.unlock()?;
        }
        let path = self.path("left");
        let mut all = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // Settings are undone from the last to the first: what was found first is restored last.
        all.extend(settings);
        match self.open("claims")?.try_lock() {
            Ok(()) => {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                Ok(all)
            }
            Err(TryLockError::WouldBlock) => {
                fs::write(&path, serde_json::to_vec(&all)?)?;
                Ok(Vec::new())
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// One gateway at a time comes or goes.
    fn turn(&self) -> io::Result<File> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.folder)?;
        let turn = self.open("turn")?;
        turn.lock()?;
        Ok(turn)
    }

    fn open(&self, what: &str) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.path(what))
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!(".forwarding-{}.{what}", self.network))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn setting(name: &str) -> Setting {
        Setting { name: name.into(), before: "0".into(), during: Some("1".into()) }
    }

    #[test]
    fn the_last_gateway_puts_back_what_the_first_one_found() {
        let folder = Scratch::new("forwarding_shared");
        let meeting = Meeting::new(&folder.path().join("run"), 7);
        let (first, second) = (meeting.claim().unwrap(), meeting.claim().unwrap());
        let left = meeting.settle(Some(first), vec![setting("a")]).unwrap();
        assert!(left.is_empty(), "another one still needs it");
        let third = meeting.claim().unwrap();
        assert!(meeting.settle(Some(second), vec![setting("b")]).unwrap().is_empty());
        let last = meeting.settle(Some(third), Vec::new()).unwrap();
        assert_eq!(last, [setting("a"), setting("b")]);
        assert!(meeting.settle(None, Vec::new()).unwrap().is_empty(), "once");
    }

    #[test]
    fn what_a_killed_gateway_left_is_kept_while_another_needs_it() {
        let folder = Scratch::new("forwarding_killed");
        let meeting = Meeting::new(folder.path(), 7);
        let claim = meeting.claim().unwrap();
        assert!(meeting.settle(None, vec![setting("a")]).unwrap().is_empty());
        assert_eq!(meeting.settle(Some(claim), Vec::new()).unwrap(), [setting("a")]);
        // Nobody claims: it is put back at once.
        assert_eq!(meeting.settle(None, vec![setting("b")]).unwrap(), [setting("b")]);
    }

    #[test]
    fn other_networks_are_none_of_its_business() {
        let folder = Scratch::new("forwarding_networks");
        let _other = Meeting::new(folder.path(), 8).claim().unwrap();
        let meeting = Meeting::new(folder.path(), 7);
        assert_eq!(meeting.settle(None, vec![setting("a")]).unwrap(), [setting("a")]);
    }
}
