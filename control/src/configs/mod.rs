//! The configuration while the gateway runs: read, changed, put on trial, taken back.
//!
//! The file is the truth; the store has its history. A change is validated whole, written aside
//! and renamed, applied by [`Reloader`], and entered into the history; if one of these fails,
//! file and gateway are as before. A change on trial ([`trial`]) takes itself back unless it is
//! confirmed, also after a crash. Secrets never leave ([`redact`]). Blocking work runs
//! beside the API's thread. This room must not know HTTP.

mod back;
mod change;
#[cfg(test)]
pub(crate) mod fake;
mod history;
pub mod lines;
pub mod redact;
#[cfg(test)]
mod tests;
pub mod trial;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::config::Overrides;
use crate::events::Hub;
use crate::store::StoreError;
use crate::store::ids::Timestamp;
use crate::store::query::{Page, Rows};
use crate::store::records::ConfigVersion;
use trial::Trial;

pub use history::{Entry, History, Key, StoreHistory};

/// What a call that takes a while gives back.
pub type Later<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Shortest and longest trial, in seconds.
pub const CONFIRM_WITHIN_S: std::ops::RangeInclusive<u32> = 10..=3600;

/// Makes the running gateway read its file again.
pub trait Reloader: Send + Sync {
    /// Applies all of the file or none of it; says in one sentence what changed.
    fn reload(&self) -> Later<Result<String, ReloadError>>;
}

/// Why the running gateway did not take the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It refused, with the reason.
    #[error("{0}")]
    Refused(String),
    /// It does not answer.
    #[error("the gateway does not answer ({0})")]
    Unavailable(String),
}

/// Why the configuration was not changed. It is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It was changed since it was read.
    #[error("The configuration was changed meanwhile, it is {have} now: read it again")]
    Stale {
        /// What it is now.
        have: String,
    },
    /// It is wrong: line, column (0 for none) and message.
    #[error("The configuration is wrong; nothing was changed")]
    Invalid(Vec<(usize, usize, String)>),
    /// These options cannot change while the gateway runs.
    #[error("{} cannot change while the gateway runs: change the file and restart it", .0.join(", "))]
    NeedsRestart(Vec<String>),
    /// Another change is on trial.
    #[error("A change is on trial until {until}: confirm it or roll it back first")]
    OnTrial {
        /// When it ends.
        until: Timestamp,
    },
    /// There is nothing to confirm or to take back.
    #[error("No change is on trial; to go back to an earlier configuration name its version")]
    NoTrial,
    /// There is no such version.
    #[error("There is no version {0} of the configuration")]
    NoVersion(u64),
    /// Somebody edited the file during a trial.
    #[error(
        "The file was edited while the change was on trial: the edit stays, and the trial is over; \
         the gateway goes on with the change until it reads the file (\"ringway reload\")"
    )]
    Edited,
    /// The running gateway refused what was in force before a trial.
    #[error(
        "The file is as it was before the trial, but the gateway refused it ({0}); this is tried \
         again until it takes the file"
    )]
    RollBackRefused(String),
    /// The running gateway refused it.
    #[error("The gateway refused it, and nothing was changed: {0}")]
    Refused(String),
    /// The running gateway does not answer.
    #[error("The gateway does not answer, and nothing was changed: {0}")]
    Unavailable(String),
    /// There is no room on the disk.
    #[error("There is no room for the configuration on the disk: {0}")]
    Full(String),
    /// The file cannot be read or written. For the log: it names paths.
    #[error("{0}")]
    File(String),
    /// The history.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The configuration as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// Version and hash: what a change must name.
    pub tag: String,
    /// Without secrets.
    pub text: String,
    /// The change on trial, if there is one.
    pub on_trial: Option<TrialView>,
}

/// A change on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TrialView {
    /// When it takes itself back.
    pub until: Timestamp,
    /// Who made it.
    pub actor: String,
}

/// What is to be changed.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The new text; redacted values mean "as it is".
    pub text: Zeroizing<String>,
    /// [`Current::tag`] of what it starts from; `*` for whatever it is.
    pub tag: String,
    /// Only says what would change.
    pub dry_run: bool,
    /// Take it back after so many seconds unless it is confirmed.
    pub confirm_within_s: Option<u32>,
    /// Who.
    pub actor: String,
}

/// What changed, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Outcome {
    /// Whether it was applied; false for a trial run.
    pub applied: bool,
    /// Its version in the history; absent for a trial run, and for a roll-back while the store
    /// cannot be reached, which is entered later.
    pub version: Option<u64>,
    /// What the next change must name in `If-Match`; empty while the store cannot be reached.
    pub etag: String,
    /// What changes, line by line, as `diff -u` writes it; without secrets.
    pub diff: String,
    /// Peers that come.
    pub peers_added: u64,
    /// Peers that change.
    pub peers_changed: u64,
    /// Peers that go.
    pub peers_removed: u64,
    /// Options that would need a restart: such a change is refused.
    pub needs_restart: Vec<String>,
    /// Warnings about the new text.
    pub warnings: Vec<String>,
    /// When it takes itself back unless it is confirmed.
    pub confirm_by: Option<Timestamp>,
}

/// What [`Configs`] is made of.
pub struct ConfigParts {
    /// The file.
    pub file: PathBuf,
    /// Where the journal of a trial is.
    pub state_dir: PathBuf,
    /// The command line, which goes before the file.
    pub overrides: Overrides,
    /// The running gateway.
    pub reloader: Arc<dyn Reloader>,
    /// What was in force.
    pub history: Arc<dyn History>,
    /// Who hears of changes.
    pub hub: Hub,
    /// The time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What [`trial::recover`] found at the start.
    pub trial: Option<Trial>,
}

/// The configuration while the gateway runs.
pub struct Configs {
    parts: ConfigParts,
    /// One change at a time. Held while a change is on its way, not during a trial.
    turn: tokio::sync::Mutex<()>,
    trial: Mutex<Option<Trial>>,
    /// What the history lacks.
    owed: Mutex<Option<back::Owed>>,
    /// Wakes [`Self::watch`] when a trial begins or ends.
    changed: Notify,
    /// The key of the history, once the store has told it.
    key: tokio::sync::OnceCell<Key>,
}

impl Configs {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(mut parts: ConfigParts) -> Self {
        let trial = Mutex::new(parts.trial.take());
        let (changed, key) = (Notify::new(), tokio::sync::OnceCell::new());
        let turn = tokio::sync::Mutex::default();
        Self { parts, turn, trial, owed: Mutex::default(), changed, key }
    }

    /// Enters the file into the history if it was changed while nobody looked (by hand, by
    /// `ringway peer`, before the first start).
    ///
    /// # Errors
    /// A file that cannot be read, a store that does not answer.
    pub async fn note_file(&self) -> Result<(), ConfigError> {
        let _turn = self.turn.lock().await;
        let text = self.read().await?;
        self.note(&text).await
    }

    /// Enters what is in force into the history if it is not its last version.
    async fn note(&self, text: &str) -> Result<(), ConfigError> {
        let last = self.parts.history.last().await?;
        let hash = self.seal(text).await?;
        if last.is_some_and(|last| last.hash == hash) {
            return Ok(());
        }
        self.enter(text, "gateway", "config.found").await.map(|_| ())
    }

    /// The configuration as it is.
    ///
    /// # Errors
    /// A file that cannot be read, a store that does not answer.
    pub async fn current(&self) -> Result<Current, ConfigError> {
        let text = self.read().await?;
        let on_trial = self.trial().as_ref().map(Trial::view);
        Ok(Current { tag: self.tag(&text).await?, text: redact::redact(&text), on_trial })
    }

    /// What `ringway check` prints: every option with its value and where it comes from.
    ///
    /// # Errors
    /// A file that cannot be read or is wrong.
    pub async fn effective(&self) -> Result<String, ConfigError> {
        let text = self.read().await?;
        Ok(self.parse(&text)?.explain())
    }

    /// Versions that were in force.
    ///
    /// # Errors
    /// A store that does not answer.
    pub async fn versions(&self, page: Page) -> Result<Rows<ConfigVersion>, ConfigError> {
        Ok(self.parts.history.list(page).await?)
    }

    /// One version.
    ///
    /// # Errors
    /// There is none of this number.
    pub async fn version(&self, number: u64) -> Result<ConfigVersion, ConfigError> {
        self.parts.history.get(number).await?.ok_or(ConfigError::NoVersion(number))
    }

    fn trial(&self) -> std::sync::MutexGuard<'_, Option<Trial>> {
        // A trial is replaced whole, so a poisoned lock is as good as any.
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Option<back::Owed>> {
        // As above.
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }

    async fn tag(&self, text: &str) -> Result<String, ConfigError> {
        let version = self.parts.history.last().await?.map_or(0, |last| last.version);
        Ok(format!("v{version}-{}", &self.seal(text).await?[..16]))
    }

    /// The hash of a text that others may see.
    async fn seal(&self, text: &str) -> Result<String, ConfigError> {
        let key = self.key.get_or_try_init(|| self.parts.history.key()).await?;
        Ok(seal(key, text))
    }
}

/// The hash of a text under `key`, in hex: the same text gives the same, and says nothing else.
#[must_use]
pub fn seal(key: &Key, text: &str) -> String {
    let hash = ringway_proto::crypto::hmac(key, &[text.as_bytes()]);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a text, in hex. For comparisons on this host: it must not be shown, because a
/// password in the text could be guessed from it.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
