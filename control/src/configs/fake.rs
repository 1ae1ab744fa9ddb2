//! What stands in the place of store and gateway in tests of the configuration.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    /// Nothing is entered.
    pub(crate) fails: AtomicBool,
    /// Nothing is answered.
    pub(crate) is_down: AtomicBool,
}

impl Memory {
    fn answer<T: Send + 'static>(&self, answer: T) -> Later<Result<T, StoreError>> {
        let error = StoreError::Unavailable { why: "told to".to_owned() };
        let answer = if self.is_down.load(Ordering::SeqCst) { Err(error) } else { Ok(answer) };
        Box::pin(std::future::ready(answer))
    }
}

impl History for Memory {
    fn append(&self, entry: Entry) -> Later<Result<u64, StoreError>> {
        let fails = self.fails.load(Ordering::SeqCst) || self.is_down.load(Ordering::SeqCst);
        if fails {
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
        self.answer(Key::new([7; 32]))
    }

    fn last(&self) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let last = self.versions.lock().unwrap().last().cloned();
        self.answer(last)
    }

    fn get(&self, number: u64) -> Later<Result<Option<ConfigVersion>, StoreError>> {
        let found = self.versions.lock().unwrap().iter().find(|v| v.version == number).cloned();
        self.answer(found)
    }

    fn list(&self, _: Page) -> Later<Result<Rows<ConfigVersion>, StoreError>> {
        let items = self.versions.lock().unwrap().iter().rev().cloned().collect();
        self.answer(Rows { items, next: None })
    }
}

/// A gateway that has what it read last, or refuses.
pub(crate) struct Gateway {
    pub(crate) file: PathBuf,
    pub(crate) has: Mutex<String>,
    pub(crate) refuses: AtomicBool,
    /// How often it was told to.
    pub(crate) told: AtomicU32,
}

impl Gateway {
    /// One that has what `file` says.
    pub(crate) fn new(file: PathBuf) -> Self {
        let has = Mutex::new(fs::read_to_string(&file).unwrap());
        Self { file, has, refuses: AtomicBool::new(false), told: AtomicU32::new(0) }
    }
}

impl Reloader for Gateway {
    fn reload(&self) -> Later<Result<String, ReloadError>> {
        self.told.fetch_add(1, Ordering::SeqCst);
        let answer = if self.refuses.load(Ordering::SeqCst) {
            Err(ReloadError::Refused("a core said no".to_owned()))
        } else {
            *self.has.lock().unwrap() = fs::read_to_string(&self.file).unwrap();
            Ok("done".to_owned())
        };
        Box::pin(std::future::ready(answer))
    }
}
