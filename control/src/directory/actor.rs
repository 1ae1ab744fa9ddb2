//! Who does something, and the rules about that which need records to be judged.
//!
//! The API's table of needs says which role a route asks for. Here is the rest: nobody changes a
//! user above himself, only administrators give roles and say what sign-in asks for, and somebody
//! who can administer always remains.

use super::effective::{self, Effective};
use super::refusal::Refusal;
use crate::store::query::UserFilter;
use crate::store::records::{Role, User, UserId, UserState};
use crate::store::{Db, Page, StoreError};

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// As the audit log writes it: `user:NAME`, `token:ID`, `local:UID` or `gateway`.
    pub name: String,
    /// Its role; none for somebody who only sees to his own things.
    pub role: Option<Role>,
    /// The user behind it, if there is one.
    pub user: Option<UserId>,
    /// Whether it is a program whose token was made for some things only.
    pub is_narrow: bool,
}

impl Actor {
    /// The gateway by itself.
    #[must_use]
    pub fn gateway() -> Self {
        Self { name: "gateway".to_owned(), role: Some(Role::Administrator), ..Self::nobody() }
    }

    /// Root, or the gateway's own user, on this host.
    #[must_use]
    pub fn local(uid: u32) -> Self {
        let name = format!("local:{uid}");
        Self { name, role: Some(Role::Administrator), ..Self::nobody() }
    }

    /// A user about itself, whatever its role is: it is nobody's superior there.
    #[must_use]
    pub fn oneself(name: &str, user: UserId) -> Self {
        Self { name: format!("user:{name}"), user: Some(user), ..Self::nobody() }
    }

    const fn nobody() -> Self {
        Self { name: String::new(), role: None, user: None, is_narrow: false }
    }

    /// Whether it has at least this role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.role >= Some(role)
    }

    /// Refuses who may not change `user`: whoever could change the password of somebody above
    /// himself would be that somebody.
    pub(super) fn may_change(&self, user: &User) -> Result<(), Refusal> {
        if self.has(Role::Operator) && self.role >= user.role {
            return Ok(());
        }
        let role = user.role.map_or("none", Role::word);
        Err(Refusal::Forbidden(format!(
            "{} may not change {}, whose role is {role}: only somebody of the same role or above may",
            self.name, user.name
        )))
    }

    /// Refuses who may change neither `user` nor is it.
    pub(super) fn may_change_or_is(&self, user: &User) -> Result<(), Refusal> {
        if self.user == Some(user.id) { Ok(()) } else { self.may_change(user) }
    }

    /// Refuses a program whose token was made for some things only, for `what`: by passwords,
    /// second factors, what sign-in asks for, roles and changes of those who have one, such a token
    /// would become one for all.
    pub(super) fn must_be_whole(&self, what: &str) -> Result<(), Refusal> {
        if !self.is_narrow {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!(
            "A token that was made for some things only may not {what}: sign in, or use a token \
             with the scope *"
        )))
    }

    /// Refuses a program whose token was made for some things only if sign-in would ask for less of
    /// a user than `before`: that is as good as taking a factor away.
    pub(super) fn must_not_ask_less(
        &self,
        db: &mut Db<'_>,
        before: &User,
        after: &User,
    ) -> Result<(), Refusal> {
        if !self.is_narrow {
            return Ok(());
        }
        let (before, after) = (effective::of(db, before)?, effective::of(db, after)?);
        if before.is_weakened_by(&after) {
            return self.must_be_whole("ask a user for less at sign-in");
        }
        Ok(())
    }

    /// As [`Self::may_change`], for the record of a user itself.
    pub(super) fn may_write(&self, user: &User) -> Result<(), Refusal> {
        self.may_change(user)?;
        if user.role.is_some() { self.must_be_whole("change a user with a role") } else { Ok(()) }
    }

    /// Refuses who gives or takes a role without being an administrator.
    pub(super) fn may_set_role(
        &self,
        before: Option<Role>,
        after: Option<Role>,
    ) -> Result<(), Refusal> {
        if before == after {
            return Ok(());
        }
        self.must_be_whole("give and take roles")?;
        if self.has(Role::Administrator) {
            return Ok(());
        }
        Err(Refusal::Forbidden("Only an administrator gives and takes roles".to_owned()))
    }

    /// Refuses who is no administrator, for `what`.
    pub(super) fn must_administer(&self, what: &str) -> Result<(), Refusal> {
        if self.has(Role::Administrator) {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!("Only an administrator may {what}")))
    }
}

/// What holds for whoever is of the same rank or above, before a change of somebody who is no
/// administrator. A policy, a group and a user may each decide what sign-in asks for, and where the
/// traffic and the names of a client go: whoever could weaken that for somebody above himself would
/// be on the way to become that somebody.
pub(super) struct Ranks(Vec<(User, Effective)>);

impl Ranks {
    /// Nobody, if an administrator acts.
    pub(super) fn before(db: &mut Db<'_>, actor: &Actor) -> Result<Self, Refusal> {
        let mut ranks = Vec::new();
        let Some(own) = actor.role.filter(|role| *role < Role::Administrator) else {
            return Ok(Self(ranks));
        };
        for role in Role::ALL.iter().copied().filter(|role| *role >= own) {
            let filter = UserFilter { role: Some(role), ..UserFilter::default() };
            let mut page = Page::first();
            loop {
                let rows = db.users(&filter, &page)?;
                for user in rows.items {
                    let effective = effective::of(db, &user)?;
                    ranks.push((user, effective));
                }
                let Some(next) = rows.next else { break };
                page.after = Some(next);
            }
        }
        Ok(Self(ranks))
    }

    /// Refuses the change if less is asked of one of them now, or if one above the actor has other
    /// routes or DNS servers.
    pub(super) fn after(self, db: &mut Db<'_>, actor: &Actor) -> Result<(), Refusal> {
        for (user, before) in self.0 {
            let stored = db.user(user.id)?;
            let after = effective::of(db, &stored)?;
            if before.is_weakened_by(&after) {
                let what = format!("ask {} for less at sign-in", user.name);
                return actor.must_administer(&what);
            }
            let is_led_elsewhere = before.routes != after.routes || before.dns != after.dns;
            if user.role > actor.role && is_led_elsewhere {
                let what = format!("change the routes or DNS servers of {}", user.name);
                return actor.must_administer(&what);
            }
        }
        Ok(())
    }
}

/// Refuses a change after which no administrator could sign in. `after` is none if the user goes.
pub(super) fn keep_an_administrator(
    db: &mut Db<'_>,
    before: &User,
    after: Option<&User>,
) -> Result<(), Refusal> {
    if !administers(before) || after.is_some_and(administers) || others_administer(db, before)? {
        return Ok(());
    }
    Err(Refusal::LastAdministrator(before.name.clone()))
}

/// Whether a user can administer for good: one whose time ends would leave nobody.
fn administers(user: &User) -> bool {
    user.role == Some(Role::Administrator)
        && user.state == UserState::Active
        && user.expires_at.is_none()
}

fn others_administer(db: &mut Db<'_>, but: &User) -> Result<bool, StoreError> {
    let filter = UserFilter {
        role: Some(Role::Administrator),
        state: Some(UserState::Active),
        ..UserFilter::default()
    };
    let mut page = Page::first();
    loop {
        let rows = db.users(&filter, &page)?;
        if rows.items.iter().any(|user| user.id != but.id && administers(user)) {
            return Ok(true);
        }
        let Some(next) = rows.next else { return Ok(false) };
        page.after = Some(next);
    }
}
