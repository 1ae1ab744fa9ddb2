//! Groups that tokens and client certificates name: whoever signs in with one joins.
//!
//! Only where the configuration says so: from then on who issues them decides which policy holds.
//! That must not reach those who look after the gateway, so whoever has a role is left alone. This
//! module must not know how anything is proved.

use tracing::debug;

use super::Directory;
use super::actor::Actor;
use super::find;
use super::refusal::Refusal;
use super::users::write_user;
use crate::store::records::{Group, User};

impl Directory {
    /// Puts a user without a role into the first of the groups `named` that exists, unless it is in
    /// one of them. It is a change of its own: the policy of that group holds for the access that
    /// is asked for next, and if that asks for more, for the next sign-in.
    ///
    /// # Errors
    /// No such user, and those of the store.
    pub(super) async fn join(&self, user: &str, named: &[String]) -> Result<(), Refusal> {
        if named.is_empty() || !self.surroundings().groups_from_credentials {
            return Ok(());
        }
        let (user, named) = (user.to_owned(), named.to_vec());
        self.change(&Actor::gateway(), move |work| {
            let user = find::user(work.db, &user)?;
            if user.role.is_some() {
                debug!("A credential names groups of somebody with a role, who is left alone");
                return Ok(());
            }
            let mut found: Vec<Group> = Vec::new();
            for name in &named {
                match work.db.group_by_name(&name.to_ascii_lowercase())? {
                    Some(group) => found.push(group),
                    None => debug!("A credential names a group that does not exist: {name:?}"),
                }
            }
            if found.iter().any(|group| user.group == Some(group.id)) {
                return Ok(());
            }
            let Some(group) = found.first() else { return Ok(()) };
            let after = User { group: Some(group.id), ..user.clone() };
            write_user(work, &user, after, None).map(drop)
        })
        .await
    }
}
