//! Policies: made, changed, listed and removed.
//!
//! What sign-in asks for is changed by administrators only, and not by a token that was made for
//! some things: whoever can weaken it for others could become them. Where an administrator's
//! traffic and names go is nobody else's business either.

use super::actor::{Actor, Ranks};
use super::find::{self, DEFAULT, changed, expect_version, whole};
use super::input::{NewPolicy, Patch, PolicyPatch};
use super::refusal::Refusal;
use super::{Action, Change, Directory};
use crate::store::records::{Factor, Policy, PolicyId};
use crate::store::{Page, Rows};

impl Directory {
    /// Makes a policy.
    ///
    /// # Errors
    /// A wrong input, a name that is taken, factors that only an administrator may ask for.
    pub async fn create_policy(&self, actor: &Actor, form: NewPolicy) -> Result<Policy, Refusal> {
        let policy = form.check(PolicyId::fresh(), self.now())?;
        if !policy.factors.contains(&Factor::Password) {
            let what = "make a policy that asks for no password";
            actor.must_administer(what)?;
            actor.must_be_whole(what)?;
        }
        let wish = form.pool.map_or(Patch::Keep, Patch::Set);
        self.change(actor, move |work| {
            let mut policy = policy.clone();
            let find = |word: &str| Ok(find::pool(work.db, word)?.id);
            policy.pool = find::reference("/pool", &wish, None, find)?;
            work.db.insert_policy(&policy)?;
            work.did(Action::PolicyCreated, &policy.name, whole(&policy))?;
            work.note(Change::Policy(policy.id));
            Ok(policy)
        })
        .await
    }

    /// Changes a policy. With `expected`, only if that is still its version.
    ///
    /// # Errors
    /// A wrong input, a name that is taken, factors changed by somebody who is no administrator,
    /// routes or DNS servers of somebody above the actor, a stale version.
    pub async fn patch_policy(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
        patch: PolicyPatch,
    ) -> Result<Policy, Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let before = find::policy(work.db, &word)?;
            expect_version("policy", before.version, expected)?;
            let mut after = patch.check(&before)?;
            if after.factors != before.factors {
                let what = "change what sign-in asks for";
                work.actor.must_administer(what)?;
                work.actor.must_be_whole(what)?;
            }
            if before.name == DEFAULT && after.name != DEFAULT {
                return Err(Refusal::Conflict(must_stay("policy", "renamed")));
            }
            let find = |word: &str| Ok(find::pool(work.db, word)?.id);
            after.pool = find::reference("/pool", &patch.pool, before.pool, find)?;
            if after == before {
                return Ok(after);
            }
            let ranks = Ranks::before(work.db, work.actor)?;
            let stored = work.db.update_policy(&after)?;
            ranks.after(work.db, work.actor)?;
            work.did(Action::PolicyChanged, &stored.name, changed(&before, &stored))?;
            work.note(Change::Policy(stored.id));
            Ok(stored)
        })
        .await
    }

    /// Removes a policy that nobody refers to.
    ///
    /// # Errors
    /// No such policy, the one called `default`, users or groups with it, a stale version.
    pub async fn remove_policy(
        &self,
        actor: &Actor,
        word: &str,
        expected: Option<u64>,
    ) -> Result<(), Refusal> {
        let word = word.to_owned();
        self.change(actor, move |work| {
            let policy = find::policy(work.db, &word)?;
            expect_version("policy", policy.version, expected)?;
            if policy.name == DEFAULT {
                return Err(Refusal::Conflict(must_stay("policy", "removed")));
            }
            work.db.remove_policy(policy.id)?;
            work.did(Action::PolicyRemoved, &policy.name, whole(&policy))?;
            work.note(Change::Policy(policy.id));
            Ok(())
        })
        .await
    }

    /// A policy by name or identifier.
    ///
    /// # Errors
    /// No such policy.
    pub async fn policy(&self, word: &str) -> Result<Policy, Refusal> {
        let word = word.to_owned();
        self.look(move |db| find::policy(db, &word)).await
    }

    /// Policies by name.
    ///
    /// # Errors
    /// A page that makes no sense.
    pub async fn policies(&self, page: Page) -> Result<Rows<Policy>, Refusal> {
        self.look(move |db| Ok(db.policies(&page)?)).await
    }
}

/// Why the record called `default` is not touched.
pub(super) fn must_stay(kind: &str, verb: &str) -> String {
    format!("The {kind} \"{DEFAULT}\" holds where no other is named, so it cannot be {verb}")
}
