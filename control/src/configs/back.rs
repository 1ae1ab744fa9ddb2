//! Taking a change on trial back: when its time is over, or when somebody asks.
//!
//! A roll-back is what must always work: file and gateway first, the history when the store answers
//! again, and nothing undoes it half-way. What does not work is tried again, less and less often.
//! A file that somebody edited during the trial is left alone: the edit is newer than the trial.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::trial::Trial;
use super::{ConfigError, Configs, Outcome, ReloadError, Wanted, hash};
use crate::events::Kind;
use crate::store::ids::Timestamp;

/// How long to wait before something is tried again, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest sleep: the wall clock that decides may be set meanwhile.
const PIECE: Duration = Duration::from_secs(5);

/// A roll-back that the history does not have yet.
pub(super) struct Owed {
    at: Timestamp,
    actor: String,
    text: Zeroizing<String>,
}

impl Configs {
    /// Takes the change on trial back now, or goes back to an earlier version.
    ///
    /// # Errors
    /// Why it did not. [`ConfigError::Edited`] ends the trial all the same.
    pub async fn roll_back(
        &self,
        version: Option<u64>,
        actor: &str,
    ) -> Result<Outcome, ConfigError> {
        let Some(number) = version else {
            let _turn = self.turn.lock().await;
            return self.take_back(actor).await;
        };
        let wanted = self.version(number).await?;
        let put = Wanted {
            text: Zeroizing::new(wanted.text),
            tag: "*".to_owned(),
            dry_run: false,
            confirm_within_s: None,
            actor: actor.to_owned(),
        };
        self.put(put).await
    }

    /// Takes trials back when their time is over; runs as long as the API.
    pub async fn watch(self: Arc<Self>) {
        let mut pause = None;
        loop {
            let woken = self.changed.notified();
            let Some(wait) = self.wait(pause) else {
                woken.await;
                continue;
            };
            if tokio::time::timeout(wait, woken).await.is_ok() {
                continue;
            }
            pause = if self.expire().await { None } else { Some(longer(pause)) };
        }
    }

    /// How long there is nothing to do; none until something changes.
    fn wait(&self, pause: Option<Duration>) -> Option<Duration> {
        let until = self.trial().as_ref().map(|trial| trial.deadline);
        let left = until.map(|until| until.since(self.now()).max(0));
        let left = left.map(|ms| Duration::from_millis(ms.unsigned_abs()).min(PIECE));
        match pause {
            Some(pause) => Some(left.map_or(pause, |left| left.max(pause))),
            None if self.owed().is_some() => Some(PAUSE),
            None => left,
        }
    }

    /// Takes the change on trial back if its time is over, and enters what the history lacks. False
    /// if that did not work and is to be tried again.
    pub(super) async fn expire(&self) -> bool {
        let _turn = self.turn.lock().await;
        let now = self.now();
        let over = self.trial().as_ref().is_some_and(|trial| trial.verdict(now, true).is_some());
        if over && let Err(error) = self.take_back("gateway").await {
            if matches!(error, ConfigError::Edited) {
                return true;
            }
            // The journal makes the next start try as well.
            tracing::error!(%error, "The configuration on trial could not be taken back yet");
            return false;
        }
        if let Err(error) = self.settle().await {
            tracing::warn!(%error, "A roll-back is not in the history of the configuration yet");
            return false;
        }
        true
    }

    async fn take_back(&self, actor: &str) -> Result<Outcome, ConfigError> {
        let trial = self.trial().clone().ok_or(ConfigError::NoTrial)?;
        let present = self.read().await?;
        // The file may be back already, from a try at which the gateway did not answer.
        if *present != trial.previous && hash(&present) != trial.new_hash {
            return Err(self.give_up(&trial).await);
        }
        let outcome = self.compare(&present, &trial.previous)?;
        if *present != trial.previous {
            self.write(&trial.previous, Some(hash(&present))).await?;
        }
        // If this fails the file stays as it was before the trial: that is what is wanted.
        self.parts.reloader.reload().await.map_err(|error| match error {
            ReloadError::Refused(why) => ConfigError::RollBackRefused(why),
            ReloadError::Unavailable(why) => ConfigError::Unavailable(why),
        })?;
        self.forget_journal().await?;
        self.set_trial(None);
        let text = Zeroizing::new(trial.previous.clone());
        *self.owed() = Some(Owed { at: self.now(), actor: actor.to_owned(), text });
        let version = match self.settle().await {
            Ok(version) => version,
            Err(error) => {
                tracing::warn!(%error, "The roll-back enters the history of the configuration later");
                None
            }
        };
        self.tell(Kind::ConfigRolledBack, version, actor, None);
        // Without the store there is no tag: whoever wants to change something reads it again.
        let etag = self.tag(&trial.previous).await.unwrap_or_default();
        Ok(Outcome { applied: true, version, etag, ..outcome })
    }

    /// Ends a trial whose file somebody edited.
    async fn give_up(&self, trial: &Trial) -> ConfigError {
        if let Err(error) = self.forget_journal().await {
            // Void at the next start: the file is not what it is about.
            tracing::warn!(%error, "A journal without a trial was left");
        }
        self.set_trial(None);
        let error = ConfigError::Edited;
        tracing::warn!(by = trial.actor, "{error}");
        let detail = json!({ "why": error.to_string(), "actor": trial.actor });
        self.parts.hub.publish(self.now(), Kind::Warning, "configuration", detail);
        error
    }

    /// Enters the roll-back that the history lacks, if there is one; gives its version.
    pub(super) async fn settle(&self) -> Result<Option<u64>, ConfigError> {
        let owed = self.owed().take();
        let Some(owed) = owed else { return Ok(None) };
        match self.enter_at(owed.at, &owed.text, &owed.actor, "config.rollback").await {
            Ok(version) => Ok(Some(version)),
            Err(error) => {
                *self.owed() = Some(owed);
                Err(error)
            }
        }
    }
}

fn longer(pause: Option<Duration>) -> Duration {
    pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_often_but_at_least_once_a_minute() {
        let pauses: Vec<u64> =
            std::iter::successors(Some(longer(None)), |pause| Some(longer(Some(*pause))))
                .take(8)
                .map(|pause| pause.as_secs())
                .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
