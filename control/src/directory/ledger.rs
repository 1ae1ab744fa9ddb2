//! What is written down and watched over: the audit log, bans, backups.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::actor::Actor;
use super::refusal::Refusal;
use super::{Action, Directory};
use crate::store::query::AuditFilter;
use crate::store::records::{AuditEntry, Ban};
use crate::store::{Page, Rows, StoreError};

/// The whole log is read: some 100,000 entries take a second.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(120);

/// How the audit log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditState {
    /// Whether every entry fits to the one before.
    pub intact: bool,
    /// Entries that were looked at.
    pub entries: u64,
    /// The first that does not fit.
    pub broken_at: Option<u64>,
    /// What does not fit.
    pub why: Option<String>,
    /// Sequence of the last entry. Kept elsewhere with its hash, it proves later that nothing was
    /// cut off.
    pub head_sequence: u64,
    /// Hash of the last entry, in hex.
    pub head_hash: String,
}

impl Directory {
    /// Entries of the audit log.
    ///
    /// # Errors
    /// A page that makes no sense.
    pub async fn audit(
        &self,
        filter: AuditFilter,
        page: Page,
    ) -> Result<Rows<AuditEntry>, Refusal> {
        self.look(move |db| Ok(db.audit(&filter, &page)?)).await
    }

    /// Follows the chain of the audit log from its beginning. It occupies a reader of the store for
    /// as long as that takes, so one at a time may.
    ///
    /// # Errors
    /// Another one is at it; those of the store. A broken chain is an answer.
    pub async fn verify_audit(&self) -> Result<AuditState, Refusal> {
        let Ok(_turn) = self.0.audit_turn.try_lock() else {
            let message = "The audit log is being verified for somebody else: wait for that";
            return Err(Refusal::Conflict(message.to_owned()));
        };
        self.look_within(VERIFY_TIMEOUT, |db| {
            let head = db.audit_head()?;
            let verdict = db.verify_audit()?;
            let (head_sequence, head_hash) = (head.sequence, head.hash);
            Ok(match verdict {
                Ok(entries) => AuditState {
                    intact: true,
                    entries,
                    broken_at: None,
                    why: None,
                    head_sequence,
                    head_hash,
                },
                Err(broken) => AuditState {
                    intact: false,
                    entries: broken.sequence,
                    broken_at: Some(broken.sequence),
                    why: Some(broken.why),
                    head_sequence,
                    head_hash,
                },
            })
        })
        .await
    }

    /// Who is kept out for a while.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bans(&self) -> Result<Vec<Ban>, Refusal> {
        let now = self.now();
        self.look(move |db| Ok(db.bans(now)?)).await
    }

    /// Lets somebody try again.
    ///
    /// # Errors
    /// Nobody of that name is kept out.
    pub async fn lift_ban(&self, actor: &Actor, subject: &str) -> Result<(), Refusal> {
        let subject = subject.to_owned();
        self.change(actor, move |work| {
            if !work.db.remove_ban(&subject)? {
                return Err(Refusal::missing("ban of", subject.escape_debug()));
            }
            work.did(Action::BanLifted, &subject, json!({}))
        })
        .await
    }

    /// Notes that an address which is stored nowhere may try again; which, is not kept either.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_lifted(&self, actor: &Actor) -> Result<(), Refusal> {
        self.change(actor, move |work| work.did(Action::BanLifted, "address", json!({}))).await
    }

    /// Writes a copy of the store to a file of this host that does not exist yet.
    ///
    /// # Errors
    /// A path that is not absolute or exists, no room, a store that has tools of its own for this.
    pub async fn backup(&self, actor: &Actor, path: PathBuf) -> Result<(), Refusal> {
        actor.must_administer("make a backup")?;
        if !path.is_absolute() {
            return Err(Refusal::field(
                "/path",
                "Give the path from / on: it is the gateway's host",
            ));
        }
        let shown = path.display().to_string();
        let copied = self.0.store.backup(&path, false).await;
        if let Err(StoreError::Invalid { why }) = copied {
            return Err(Refusal::field("/path", why));
        }
        copied?;
        self.change(actor, move |work| work.did(Action::BackupMade, &shown, json!({}))).await
    }
}
