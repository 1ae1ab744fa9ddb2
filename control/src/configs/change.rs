//! The changes: put and confirm.
//!
//! In the order that a crash at any point leaves something whole: journal, file, gateway, history.
//! What fails is undone in the reverse order, and the undoing is loud if it fails itself.

use std::io;
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::trial::Trial;
use super::{
    ConfigError, Configs, Current, Entry, Outcome, ReloadError, Wanted, hash, lines, redact,
};
use crate::config::{self, Config};
use crate::events::Kind;
use crate::failure::Failure;
use crate::peers::file::Locked;
use crate::store::ids::Timestamp;

/// A text that is to be in force, and how it is entered.
struct Step<'a> {
    text: &'a str,
    actor: &'a str,
    action: &'static str,
}

impl Configs {
    /// Changes the configuration, or says what would change.
    ///
    /// # Errors
    /// Why it did not; nothing is changed then.
    pub async fn put(&self, wanted: Wanted) -> Result<Outcome, ConfigError> {
        let _turn = self.turn.lock().await;
        let until = self.trial().as_ref().map(|trial| trial.deadline);
        if let (Some(until), false) = (until, wanted.dry_run) {
            return Err(ConfigError::OnTrial { until });
        }
        let before = self.read().await?;
        let have = self.tag(&before).await?;
        if wanted.tag != "*" && wanted.tag != have {
            return Err(ConfigError::Stale { have });
        }
        let text = redact::restore(&wanted.text, &before).map_err(|missing| {
            let message = |what: &String| {
                format!(
                    "{what} is \"{}\", but the present configuration has none that could be \
                     meant: write it, or leave the line out",
                    redact::REDACTED
                )
            };
            ConfigError::Invalid(missing.iter().map(|what| (0, 0, message(what))).collect())
        })?;
        let mut outcome = self.compare(&before, &text)?;
        if wanted.dry_run {
            outcome.etag = have;
            return Ok(outcome);
        }
        if !outcome.needs_restart.is_empty() {
            return Err(ConfigError::NeedsRestart(outcome.needs_restart));
        }
        // Versions are entered in the order in which they were in force: what a reload or a command
        // on the host has made of the file too, or a way back would lose it.
        self.settle().await?;
        self.note(&before).await?;
        let trial = wanted.confirm_within_s.map(|seconds| {
            let now = self.now();
            Trial {
                started_at: now,
                deadline: now.plus_ms(i64::from(seconds) * 1000),
                actor: wanted.actor.clone(),
                new_hash: hash(&text),
                previous: before.to_string(),
                starts: 0,
            }
        });
        let step = Step { text: &text, actor: &wanted.actor, action: "config.put" };
        let version = self.apply(&before, &step, trial.as_ref()).await?;
        outcome.applied = true;
        outcome.version = Some(version);
        outcome.etag = self.tag(&text).await?;
        outcome.confirm_by = trial.as_ref().map(|trial| trial.deadline);
        self.tell(Kind::ConfigApplied, Some(version), &wanted.actor, outcome.confirm_by);
        self.set_trial(trial);
        Ok(outcome)
    }

    /// Keeps the change on trial.
    ///
    /// # Errors
    /// [`ConfigError::NoTrial`], or a journal that cannot be removed: the trial goes on then.
    pub async fn confirm(&self, actor: &str) -> Result<Current, ConfigError> {
        let turn = self.turn.lock().await;
        if self.trial().is_none() {
            return Err(ConfigError::NoTrial);
        }
        self.forget_journal().await?;
        self.set_trial(None);
        let version = self.parts.history.last().await.ok().flatten().map(|last| last.version);
        self.tell(Kind::ConfigConfirmed, version, actor, None);
        drop(turn);
        self.current().await
    }

    /// Makes `step` the configuration, with journal, file, gateway and history; or nothing.
    async fn apply(
        &self,
        before: &str,
        step: &Step<'_>,
        trial: Option<&Trial>,
    ) -> Result<u64, ConfigError> {
        if let Some(trial) = trial {
            let (trial, state_dir) = (trial.clone(), self.parts.state_dir.clone());
            let saved = blocking(move || trial.save(&state_dir)).await?;
            saved.map_err(|error| disk(&error, "the journal of the trial"))?;
        }
        let done = self.apply_text(before, step).await;
        if done.is_err()
            && trial.is_some()
            && let Err(error) = self.forget_journal().await
        {
            // Void at the next start: the file is not what it is about.
            tracing::warn!(%error, "A journal without a trial was left");
        }
        done
    }

    async fn apply_text(&self, before: &str, step: &Step<'_>) -> Result<u64, ConfigError> {
        self.write(step.text, Some(hash(before))).await?;
        if let Err(error) = self.parts.reloader.reload().await {
            self.undo(before, step.text, false).await;
            return Err(match error {
                ReloadError::Refused(why) => ConfigError::Refused(why),
                ReloadError::Unavailable(why) => ConfigError::Unavailable(why),
            });
        }
        match self.enter(step.text, step.actor, step.action).await {
            Ok(version) => Ok(version),
            Err(error) => {
                self.undo(before, step.text, true).await;
                Err(error)
            }
        }
    }

    /// Puts the file, and if it was applied the gateway, back to `before`.
    async fn undo(&self, before: &str, present: &str, applied: bool) {
        if let Err(error) = self.write(before, Some(hash(present))).await {
            tracing::error!(%error, "A change of the configuration failed and its file stays");
            return;
        }
        if !applied {
            return;
        }
        if let Err(error) = self.parts.reloader.reload().await {
            tracing::error!(%error, "The gateway did not take its former configuration back");
        }
    }

    pub(super) async fn enter(
        &self,
        text: &str,
        actor: &str,
        action: &'static str,
    ) -> Result<u64, ConfigError> {
        self.enter_at(self.now(), text, actor, action).await
    }

    pub(super) async fn enter_at(
        &self,
        at: Timestamp,
        text: &str,
        actor: &str,
        action: &'static str,
    ) -> Result<u64, ConfigError> {
        let hash = self.seal(text).await?;
        let text = redact::redact(text);
        let entry = Entry { at, actor: actor.to_owned(), text, hash, action };
        Ok(self.parts.history.append(entry).await?)
    }

    pub(super) fn compare(&self, before: &str, after: &str) -> Result<Outcome, ConfigError> {
        let new = self.parse(after)?;
        let diff = lines::diff(&redact::redact(before), &redact::redact(after));
        let (mut changes, mut needs_restart) = (config::Changes::default(), Vec::new());
        // A file that somebody broke by hand has no parts to compare: the gateway decides.
        if let Ok(old) = self.parse(before) {
            match config::diff(&old, &new) {
                Ok(found) => changes = found,
                Err(error) => needs_restart = error.options,
            }
        }
        let file = self.parts.file.file_name().unwrap_or_default().to_string_lossy();
        Ok(Outcome {
            applied: false,
            version: None,
            etag: String::new(),
            diff,
            peers_added: changes.added.len() as u64,
            peers_changed: changes.changed.len() as u64,
            peers_removed: changes.removed.len() as u64,
            needs_restart,
            warnings: new.show_warnings(&file),
            confirm_by: None,
        })
    }

    pub(super) fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        let file = &self.parts.file;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let parsed =
            Config::parse(text, &file.display().to_string(), &folder, &self.parts.overrides);
        parsed.map_err(|problems| {
            let place =
                |problem: &config::Problem| (problem.line, problem.column, problem.message.clone());
            ConfigError::Invalid(problems.list.iter().map(place).collect())
        })
    }

    /// Publishes what happened to a version; none if the history does not have it yet.
    pub(super) fn tell(
        &self,
        kind: Kind,
        version: Option<u64>,
        actor: &str,
        until: Option<Timestamp>,
    ) {
        let subject =
            version.map_or_else(|| "version unknown".to_owned(), |it| format!("version {it}"));
        let detail = json!({ "actor": actor, "confirm_by": until });
        self.parts.hub.publish(self.now(), kind, subject, detail);
    }

    pub(super) fn set_trial(&self, trial: Option<Trial>) {
        *self.trial() = trial;
        self.changed.notify_one();
    }

    pub(super) async fn read(&self) -> Result<Zeroizing<String>, ConfigError> {
        let path = self.parts.file.clone();
        let read = blocking(move || std::fs::read_to_string(path)).await?;
        read.map(Zeroizing::new).map_err(|error| disk(&error, "the configuration"))
    }

    /// Replaces the file, if it still is what `expected` is the hash of.
    pub(super) async fn write(
        &self,
        text: &str,
        expected: Option<String>,
    ) -> Result<(), ConfigError> {
        let (path, text) = (self.parts.file.clone(), Zeroizing::new(text.to_owned()));
        let written = blocking(move || {
            let file = Locked::open(&path).map_err(failed)?;
            if expected.is_some_and(|expected| hash(file.text()) != expected) {
                let have = "edited by somebody else".to_owned();
                return Err(ConfigError::Stale { have });
            }
            file.try_replace(&text).map_err(|error| disk(&error, "the configuration"))
        });
        written.await?
    }

    pub(super) async fn forget_journal(&self) -> Result<(), ConfigError> {
        let state_dir = self.parts.state_dir.clone();
        let gone = blocking(move || Trial::forget(&state_dir)).await?;
        gone.map_err(|error| disk(&error, "the journal of the trial"))
    }
}

/// Runs file work beside the API's thread: a disk may hang.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConfigError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ConfigError::File(format!("File work did not end: {error}")))
}

fn failed(failure: Failure) -> ConfigError {
    ConfigError::File(failure.message)
}

fn disk(error: &io::Error, what: &str) -> ConfigError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return ConfigError::Full(format!("{what} was not written ({error})"));
    }
    ConfigError::File(format!("Cannot read or write {what}: {error}"))
}
