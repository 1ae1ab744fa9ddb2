//! What is kept about one user: given to it, or erased.

use std::time::Duration;

use serde_json::{Value, json};

use super::actor::Actor;
use super::refusal::Refusal;
use super::users::{release, removable};
use super::{Action, Change, Directory, find};
use crate::events::{Event, Kind};
use crate::store::Erased;

/// The whole audit log is walked: 10 million entries take half of this on a slow disk.
const ERASE_TIMEOUT: Duration = Duration::from_secs(30);

impl Directory {
    /// Everything that is kept about a user, without secrets. Whoever looks is written down.
    ///
    /// # Errors
    /// No such user, not the actor's business.
    pub async fn export_user(&self, actor: &Actor, word: &str) -> Result<Value, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &word)?;
            work.actor.may_change_or_is(&user)?;
            let export = work.db.export_user(user.id)?;
            work.did(Action::UserExported, user.id, json!({}))?;
            Ok(export)
        })
        .await
    }

    /// Removes a user and everything that is kept about it. The audit log keeps that it was done,
    /// and identifiers that lead to nobody any more.
    ///
    /// # Errors
    /// No such user, one above the actor, the last administrator, a stale version.
    pub async fn erase_user(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let word = word.to_owned();
        let erased = self.change_within(ERASE_TIMEOUT, actor, move |work| {
            let user = removable(work, &word, expected)?;
            release(work, &user)?;
            let erased = work.db.erase_user(user.id, work.now, &work.actor.name)?;
            work.told(Action::UserErased, user.id, json!({}));
            work.note(Change::User(user.id));
            Ok(erased)
        });
        let erased = erased.await?;
        self.0.hub.erase(|event| is_about(event, &erased));
        Ok(())
    }
}

/// Whether an event that is still kept says something about who was erased. By name only where a
/// name is a user's.
fn is_about(event: &Event, erased: &Erased) -> bool {
    let subject = event.subject.as_str();
    // A user's name and the device's, or a device's number.
    let is_of_device = matches!(
        event.kind,
        Kind::SessionStarted
            | Kind::SessionEnded
            | Kind::SessionMoved
            | Kind::AccessGranted
            | Kind::AccessEnded
    );
    let is_name = matches!(
        event.kind,
        Kind::SignInAccepted | Kind::SignInRefused | Kind::QuotaReached | Kind::QuotaReset
    );
    let by_name = if is_of_device {
        subject.split_once('/').map(|(name, _)| name)
    } else if is_name {
        Some(subject)
    } else {
        subject.strip_prefix("user:")
    };
    by_name.is_some_and(|name| erased.names.contains(name))
        || erased.ids.contains(&event.subject)
        || mentions(&event.detail, erased)
}

fn mentions(detail: &Value, erased: &Erased) -> bool {
    match detail {
        Value::String(text) => {
            let name = text.strip_prefix("user:");
            erased.ids.contains(text) || name.is_some_and(|name| erased.names.contains(name))
        }
        Value::Array(items) => items.iter().any(|item| mentions(item, erased)),
        Value::Object(fields) => fields.values().any(|value| mentions(value, erased)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
