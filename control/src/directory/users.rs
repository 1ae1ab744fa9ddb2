//! Users: made, changed, listed and removed.

use serde::Serialize;
use utoipa::ToSchema;

use super::actor::{Actor, Ranks, keep_an_administrator};
use super::effective::{self, Effective};
use super::find::{self, changed, expect_version, whole};
use super::input::{NewUser, UserPatch};
use super::quota::{self, Standing};
use super::refusal::Refusal;
use super::work::Work;
use super::{Action, Change, Directory};
use crate::auth::recovery_setting;
use crate::store::query::UserFilter;
use crate::store::records::{QuotaAction, Role, User, UserId, UserSecrets, UserState};
use crate::store::{Page, Rows};

/// A user with what holds for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UserView {
    /// The record.
    pub user: User,
    /// What holds for it, and where each value comes from.
    pub effective: Effective,
    /// How it stands with its quota, if it has one.
    pub quota: Option<Standing>,
    /// How many devices it has.
    pub devices: usize,
    /// Why it may not come in now, if so.
    pub kept_out: Option<String>,
}

impl Directory {
    /// Makes a user.
    ///
    /// # Errors
    /// A wrong input, a name that is taken, a role that the actor may not give.
    pub async fn create_user(&self, actor: &Actor, form: NewUser) -> Result<User, Refusal> {
        actor.may_set_role(None, form.role)?;
        let (user, refs) = form.check(UserId::fresh(), self.now())?;
        let secrets = match &form.password {
            Some(password) => {
                let hash = self.hash_password(&user.name, password, "/password").await?;
                UserSecrets { password_hash: Some(hash), ..UserSecrets::default() }
            }
            None => UserSecrets::default(),
        };
        let user = User { has_password: secrets.password_hash.is_some(), ..user };
        self.change(actor, move |work| {
            let user = find::resolve_user(work.db, &refs, user.clone())?;
            work.db.insert_user(&user, &secrets)?;
            work.did(Action::UserCreated, user.id, whole(&user))?;
            work.note(Change::User(user.id));
            Ok(user)
        })
        .await
    }

    /// Changes a user. With `expected`, only if that is still its version.
    ///
    /// # Errors
    /// A wrong input, a user above the actor, the last administrator, a group or policy that asks
    /// somebody of the actor's rank for less, a stale version.
    pub async fn patch_user(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
        patch: UserPatch,
    ) -> Result<User, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let before = find::user(work.db, &word)?;
            let (after, refs) = patch.check(&before, work.now)?;
            let after = find::resolve_user(work.db, &refs, after)?;
            write_user(work, &before, after, expected)
        })
        .await
    }

    /// Lets a user in, or keeps it out: `active`, `disabled` or `banned`.
    ///
    /// # Errors
    /// As [`Self::patch_user`].
    pub async fn set_user_state(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
        state: UserState,
    ) -> Result<User, Refusal> {
        let patch = UserPatch { state: super::input::Patch::Set(state), ..UserPatch::default() };
        self.patch_user(actor, word, expected, patch).await
    }

    /// Removes a user with its devices, addresses, tokens and invitations. Its usage stays for the
    /// reports; to remove that too, see [`Self::erase_user`].
    ///
    /// # Errors
    /// No such user, one above the actor, the last administrator, a stale version.
    pub async fn remove_user(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let user = removable(work, &word, expected)?;
            release(work, &user)?;
            work.db.remove_user(user.id)?;
            work.did(Action::UserRemoved, user.id, whole(&user))?;
            work.note(Change::User(user.id));
            Ok(())
        })
        .await
    }

    /// A user by name or identifier.
    ///
    /// # Errors
    /// No such user.
    pub async fn user(&self, word: &str) -> Result<User, Refusal> {
        let word = word.to_owned();
        self.look(move |db| find::user(db, &word)).await
    }

    /// A user with what holds for it.
    ///
    /// # Errors
    /// No such user.
    pub async fn user_view(&self, word: &str) -> Result<UserView, Refusal> {
        let (word, now) = (word.to_owned(), self.now());
        self.look(move |db| {
            let user = find::user(db, &word)?;
            let effective = effective::of(db, &user)?;
            let standing = effective.quota.map(|quota| quota::standing(db, user.id, quota, now));
            let standing = standing.transpose()?;
            let by_quota = standing
                .as_ref()
                .filter(|standing| standing.action == Some(QuotaAction::Disconnect))
                .map(|_| format!("The quota of {} is used up", user.name));
            Ok(UserView {
                quota: standing,
                devices: db.devices_of(user.id)?.len(),
                kept_out: effective::kept_out(&user, now).or(by_quota),
                user,
                effective,
            })
        })
        .await
    }

    /// Users by name.
    ///
    /// # Errors
    /// A page that makes no sense; a group that does not exist.
    pub async fn users(
        &self,
        filter: UserFilter,
        group: Option<String>,
        page: Page,
    ) -> Result<Rows<User>, Refusal> {
        self.look(move |db| {
            let mut filter = filter.clone();
            if let Some(word) = &group {
                filter.group = Some(find::group(db, word)?.id);
            }
            Ok(db.users(&filter, &page)?)
        })
        .await
    }

    /// Whether there is somebody who can administer: none at the first start.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn has_administrator(&self) -> Result<bool, Refusal> {
        let filter = UserFilter { role: Some(Role::Administrator), ..UserFilter::default() };
        let page = Page { after: None, limit: 1 };
        let rows = self.look(move |db| Ok(db.users(&filter, &page)?)).await?;
        Ok(!rows.items.is_empty())
    }
}

/// Writes a changed user, if the actor may and nobody is locked out by it.
pub(super) fn write_user(
    work: &mut Work<'_, '_>,
    before: &User,
    after: User,
    expected: Option<u64>,
) -> Result<User, Refusal> {
    work.actor.may_write(before)?;
    work.actor.may_set_role(before.role, after.role)?;
    expect_version("user", before.version, expected)?;
    if after == *before {
        return Ok(after);
    }
    keep_an_administrator(work.db, before, Some(&after))?;
    work.actor.must_not_ask_less(work.db, before, &after)?;
    let ranks = Ranks::before(work.db, work.actor)?;
    let stored = work.db.update_user(&after)?;
    ranks.after(work.db, work.actor)?;
    work.did(Action::UserChanged, stored.id, changed(before, &stored))?;
    work.note(Change::User(stored.id));
    Ok(stored)
}

/// The user, if the actor may remove it and nobody is locked out by it.
pub(super) fn removable(
    work: &mut Work<'_, '_>,
    word: &str,
    expected: Option<u64>,
) -> Result<User, Refusal> {
    let user = find::user(work.db, word)?;
    work.actor.may_write(&user)?;
    expect_version("user", user.version, expected)?;
    keep_an_administrator(work.db, &user, None)?;
    Ok(user)
}

/// Lets go of what hangs on a user and has no table that knows whose it is: addresses of its
/// devices, recovery codes, what a reset of its quota forgave.
pub(super) fn release(work: &mut Work<'_, '_>, user: &User) -> Result<(), Refusal> {
    for device in work.db.devices_of(user.id)? {
        work.release(device.id)?;
    }
    work.db.remove_setting(&recovery_setting(user.id))?;
    work.db.remove_setting(&quota::key(user.id))?;
    Ok(())
}
