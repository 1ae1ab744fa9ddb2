//! What stands in the place of store and gateway in tests of the configuration.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Entry, History, Key, Later, ReloadError, Reloader};
use crate::store::StoreError;
use crate::store::query::{Page, Rows};
use crate::store::records::ConfigVersion;

pub(crate) const SHARED: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

/// A configuration with these peers, each with a preshared key.
pub(crate) fn text(peers: &[u8]) -> String {
    let mut text =
        "[interface]\nname = \"rw0\"\nlisten_port = 51820\npools = [\"10.9.0.0/16\"]\n".to_owned();
    for number in peers {
        let public = crate::keys::show_public(&ringway_proto::crypto::PublicKey([*number; 32]));
        text.push_str(&format!(
            "\n[[peer]]\nname = \"p{number}\"\npublic_key = \"{public}\"\n\
             preshared_key = \"{SHARED}\"\nallowed_ips = [\"10.9.0.{number}/32\"]\n"
        ));
    }
    text
}

/// A history in memory, which can be told to fail.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) versions: Mutex<Vec<ConfigVersion>>,
    pub(crate) fails: AtomicBool,
}

impl History for Memory {
    fn append(&self, entry: Entry) -> Later<Result<u64, StoreError>> {
        if self.fails.load(Ordering::SeqCst) {
            let error = StoreError::Busy { why: "told to".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        let mut versions = self.versions.lock().unwrap();
        let version = versions.len() as u64 + 1;
        let Entry { at, actor, text, hash, .. } = entry;
        versions.push(ConfigVersion { version, at, actor, text, hash });
        Box::pin(std::future::ready(Ok(version)))
    }

    fn key(&self) -> Later<Result<Key, StoreError>> {
        Box::pin(std::future::ready(Ok(Key::new([7; 32]))))
    }

    fn last(&self) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let last = self.versions.lock().unwrap().last().cloned();
        Box::pin(std::future::ready(Ok(last)))
    }

    fn get(&self, number: u64) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let found = self.versions.lock().unwrap().iter().find(|v| v.version == number).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn list(&self, _: Page) -> Later<Result<Rows<ConfigVersion>, StoreError>> {
        let items = self.versions.lock().unwrap().iter().rev().cloned().collect();
        Box::pin(std::future::ready(Ok(Rows { items, next: None })))
    }
}

/// A gateway that has what it read last, or refuses.
pub(crate) struct Gateway {
    pub(crate) file: PathBuf,
    pub(crate) has: Mutex<String>,
    pub(crate) refuses: AtomicBool,
}

impl Reloader for Gateway {
    fn reload(&self) -> Later<Result<String, ReloadError>> {
        let answer = if self.refuses.load(Ordering::SeqCst) {
            Err(ReloadError::Refused("a core said no".to_owned()))
        } else {
            *self.has.lock().unwrap() = fs::read_to_string(&self.file).unwrap();
            Ok("done".to_owned())
        };
        Box::pin(std::future::ready(answer))
    }
}
