//! What is kept about one user: given to it, or erased.

use serde_json::{Value, json};

use super::actor::Actor;
use super::refusal::Refusal;
use super::users::{release_leases, removable};
use super::{Action, Change, Directory, find};

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
        self.change(actor, move |work| {
            let user = removable(work, &word, expected)?;
            release_leases(work, &user)?;
            work.db.erase_user(user.id, work.now, &work.actor.name)?;
            work.told(Action::UserErased, user.id, json!({}));
            work.note(Change::User(user.id));
            Ok(())
        })
        .await
    }
}
