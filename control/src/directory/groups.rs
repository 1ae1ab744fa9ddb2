//! Groups: made, changed, listed and removed.

use super::actor::{Actor, Ranks};
use super::find::{self, changed, expect_version, whole};
use super::input::{GroupPatch, NewGroup, Patch};
use super::refusal::Refusal;
use super::{Action, Change, Directory};
use crate::store::records::{Group, GroupId};
use crate::store::{Page, Rows};

impl Directory {
    /// Makes a group.
    ///
    /// # Errors
    /// A wrong input, a name that is taken.
    pub async fn create_group(&self, actor: &Actor, form: NewGroup) -> Result<Group, Refusal> {
        let group = form.check(GroupId::fresh(), self.now())?;
        let wish = form.policy.map_or(Patch::Keep, Patch::Set);
        self.change(actor, move |work| {
            let mut group = group.clone();
            let find = |word: &str| Ok(find::policy(work.db, word)?.id);
            group.policy = find::reference("/policy", &wish, None, find)?;
            work.db.insert_group(&group)?;
            work.did(Action::GroupCreated, &group.name, whole(&group))?;
            work.note(Change::Group(group.id));
            Ok(group)
        })
        .await
    }

    /// Changes a group. With `expected`, only if that is still its version.
    ///
    /// # Errors
    /// A wrong input, a name that is taken, a policy that asks somebody of the actor's rank or
    /// above for less, another policy by a token for some things only, a stale version.
    pub async fn patch_group(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
        patch: GroupPatch,
    ) -> Result<Group, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let before = find::group(work.db, &word)?;
            expect_version("group", before.version, expected)?;
            let mut after = patch.check(&before)?;
            let find = |word: &str| Ok(find::policy(work.db, word)?.id);
            after.policy = find::reference("/policy", &patch.policy, before.policy, find)?;
            if after == before {
                return Ok(after);
            }
            if after.policy != before.policy {
                work.actor.must_be_whole("change the policy of a group")?;
            }
            let ranks = Ranks::before(work.db, work.actor)?;
            let stored = work.db.update_group(&after)?;
            ranks.after(work.db, work.actor)?;
            work.did(Action::GroupChanged, &stored.name, changed(&before, &stored))?;
            work.note(Change::Group(stored.id));
            Ok(stored)
        })
        .await
    }

    /// Removes a group that nobody is in.
    ///
    /// # Errors
    /// No such group, users in it, a stale version.
    pub async fn remove_group(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let group = find::group(work.db, &word)?;
            expect_version("group", group.version, expected)?;
            work.db.remove_group(group.id)?;
            work.did(Action::GroupRemoved, &group.name, whole(&group))?;
            work.note(Change::Group(group.id));
            Ok(())
        })
        .await
    }

    /// A group by name or identifier.
    ///
    /// # Errors
    /// No such group.
    pub async fn group(&self, word: &str) -> Result<Group, Refusal> {
        let word = word.to_owned();
        self.look(move |db| find::group(db, &word)).await
    }

    /// Groups by name.
    ///
    /// # Errors
    /// A page that makes no sense.
    pub async fn groups(&self, page: Page) -> Result<Rows<Group>, Refusal> {
        self.look(move |db| Ok(db.groups(&page)?)).await
    }
}
