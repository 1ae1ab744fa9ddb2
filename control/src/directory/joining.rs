//! Groups that tokens and client certificates name: whoever signs in with one joins.
//!
//! Only where the configuration says so: from then on who issues them decides which policy holds.
//! That must not reach those who look after the gateway, so whoever has a role is left alone. This
//! module must not know how anything is proved.

use tracing::debug;

use super::Directory;
use super::access::{Proved, until};
use super::actor::Actor;
use super::effective::kept_out;
use super::refusal::Refusal;
use super::users::write_user;
use crate::store::Db;
use crate::store::records::{Group, Timestamp, User, UserId};

/// Most names of one credential that are looked at.
const NAMES_MAX: usize = 100;

impl Directory {
    /// Puts a user without a role, who just presented a credential, into the first of the groups
    /// named there that exists, unless it is in one of them. Nothing happens if the user may not
    /// come in by what was proved. It is a change of its own: the policy of that group holds for
    /// the access that is asked for next, and if that asks for more, for the next sign-in.
    ///
    /// # Errors
    /// No such user, and those of the store.
    pub async fn join(&self, user: UserId, proved: &Proved) -> Result<(), Refusal> {
        if proved.groups.is_empty() || !self.surroundings().groups_from_credentials {
            return Ok(());
        }
        let mut proved = proved.clone();
        if proved.groups.len() > NAMES_MAX {
            debug!("A credential names more than {NAMES_MAX} groups: the rest is passed over");
            proved.groups.truncate(NAMES_MAX);
        }
        for name in &mut proved.groups {
            name.make_ascii_lowercase();
        }
        // Most who sign in are where they belong: no writer waits for them.
        let (seen, now) = (proved.clone(), self.now());
        if self.look(move |db| moved(db, user, &seen, now)).await?.is_none() {
            return Ok(());
        }
        self.change(&Actor::gateway(), move |work| {
            let Some((before, group)) = moved(work.db, user, &proved, work.now)? else {
                return Ok(());
            };
            let after = User { group: Some(group.id), ..before.clone() };
            write_user(work, &before, after, None).map(drop)
        })
        .await
    }
}

/// The user and the group that it is to be moved into, if it is.
fn moved(
    db: &mut Db<'_>,
    user: UserId,
    proved: &Proved,
    now: Timestamp,
) -> Result<Option<(User, Group)>, Refusal> {
    let user = db.user(user)?;
    if user.role.is_some() {
        debug!("A credential names groups of somebody with a role, who is left alone");
        return Ok(None);
    }
    if kept_out(&user, now).is_some() {
        return Ok(None);
    }
    match until(db, now, &user, Some(proved)) {
        Ok(_) => (),
        Err(Refusal::Store(error)) => return Err(error.into()),
        Err(why) => {
            debug!("A credential that gives no access moves nobody: {why}");
            return Ok(None);
        }
    }
    let mut found = db.groups_named(&proved.groups)?;
    if found.iter().any(|group| user.group == Some(group.id)) {
        return Ok(None);
    }
    let first = proved.groups.iter().find_map(|name| {
        let at = found.iter().position(|group| group.name == *name);
        if at.is_none() {
            debug!("A credential names a group that does not exist: {name:?}");
        }
        at
    });
    Ok(first.map(|at| (user, found.swap_remove(at))))
}
