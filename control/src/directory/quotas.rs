//! Quotas of everybody: who used how much, and a new beginning for one.

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::actor::Actor;
use super::quota::{self, Standing};
use super::refusal::Refusal;
use super::{Action, Change, Directory, effective, find};
use crate::store::query::UserFilter;
use crate::store::records::{Usage, UserId};
use crate::store::{Page, Rows};

/// A user and how it stands with its quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuotaRow {
    /// Who.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// How it stands; none for a user without a quota.
    pub standing: Option<Standing>,
}

impl Directory {
    /// Users by name, each with how it stands.
    ///
    /// # Errors
    /// A page that makes no sense.
    pub async fn quotas(&self, page: Page) -> Result<Rows<QuotaRow>, Refusal> {
        let now = self.now();
        self.look(move |db| {
            let rows = db.users(&UserFilter::default(), &page)?;
            let mut items = Vec::with_capacity(rows.items.len());
            for user in rows.items {
                let quota = effective::of(db, &user)?.quota;
                let standing = quota.map(|quota| quota::standing(db, user.id, quota, now));
                items.push(QuotaRow {
                    user: user.id,
                    name: user.name,
                    standing: standing.transpose()?,
                });
            }
            Ok(Rows { items, next: rows.next })
        })
        .await
    }

    /// Lets a user's quota begin anew now, until its period ends.
    ///
    /// # Errors
    /// No such user, one without a quota, not the actor's business.
    pub async fn reset_quota(&self, actor: &Actor, word: &str) -> Result<Standing, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let user = find::user(work.db, &word)?;
            work.actor.may_change(&user)?;
            let Some(quota) = effective::of(work.db, &user)?.quota else {
                let message = format!("{} has no quota that could begin anew", user.name);
                return Err(Refusal::Conflict(message));
            };
            let forgiven = quota::forgive(work.db, user.id, quota, work.now)?;
            let detail = json!({"forgiven_bytes": forgiven, "quota": quota});
            work.did(Action::QuotaReset, user.id, detail)?;
            work.note(Change::User(user.id));
            // The gateways of a fleet follow what is written of users.
            work.db.update_user(&user)?;
            quota::standing(work.db, user.id, quota, work.now)
        })
        .await
    }

    /// What a user moved, by device and day.
    ///
    /// # Errors
    /// No such user.
    pub async fn usage(
        &self,
        word: &str,
        from_day: i32,
        to_day: i32,
    ) -> Result<Vec<Usage>, Refusal> {
        let word = word.to_owned();
        self.look(move |db| {
            let user = find::user(db, &word)?;
            Ok(db.usage_of(user.id, from_day, to_day)?)
        })
        .await
    }
}
