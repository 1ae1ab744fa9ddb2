//! People in the store.
//!
//! For a name that nobody has, the same look-ups are made as for one that somebody has, with an
//! identifier that nothing has: how long the store takes tells nothing. Recovery codes are a
//! setting per user, the hashes one behind the other. This module must not know credentials.

use uuid::Uuid;

use super::backend::Eventually;
use super::people::{Found, People, Person, Trouble};
use crate::store::db::Db;
use crate::store::error::StoreError;
use crate::store::handle::Store;
use crate::store::records::{
    Ban, Factor, Group, GroupId, Policy, PolicyId, Timestamp, UserId, UserSecrets,
};

/// Name of the policy of whoever has none.
const DEFAULT_POLICY: &str = "default";
/// Bytes of a recovery code's hash.
const HASH_BYTES: usize = 32;

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl People for Store {
    fn find(&self, name: String) -> Eventually<Result<Found, Trouble>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.read(move |db| find(db, &name)).await?) })
    }

    fn accept_totp_step(&self, user: UserId, step: u64) -> Eventually<Result<bool, Trouble>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.write(move |db| db.accept_totp_step(user, step)).await?) })
    }

    fn accept_hotp_counter(&self, user: UserId, counter: u64) -> Eventually<Result<bool, Trouble>> {
        let store = self.clone();
        let take = move |db: &mut Db<'_>| db.accept_hotp_counter(user, counter);
        Box::pin(async move { Ok(store.write(take).await?) })
    }

    fn take_recovery_code(
        &self,
        user: UserId,
        hash: [u8; 32],
    ) -> Eventually<Result<bool, Trouble>> {
        let store = self.clone();
        let take = move |db: &mut Db<'_>| {
            let name = recovery_setting(user);
            let hashes = db.setting(&name)?.unwrap_or_default();
            let rest: Vec<u8> =
                hashes.chunks(HASH_BYTES).filter(|one| *one != hash).flatten().copied().collect();
            let is_there = rest.len() < hashes.len();
            // Written only if it was there: then nobody's codes and somebody's wrong ones take the
            // same time.
            if is_there {
                db.put_setting(&name, &rest)?;
            }
            Ok(is_there)
        };
        Box::pin(async move { Ok(store.write(take).await?) })
    }

    fn put_recovery_codes(
        &self,
        user: UserId,
        hashes: Vec<[u8; 32]>,
    ) -> Eventually<Result<(), Trouble>> {
        let store = self.clone();
        let put = move |db: &mut Db<'_>| db.put_setting(&recovery_setting(user), &hashes.concat());
        Box::pin(async move { Ok(store.write(put).await?) })
    }

    fn rehash(&self, user: UserId, old: String, new: String) -> Eventually<Result<(), Trouble>> {
        let store = self.clone();
        let put = move |db: &mut Db<'_>| {
            let mut secrets = db.user_secrets(user)?;
            if secrets.password_hash.as_ref() != Some(&old) {
                return Ok(());
            }
            secrets.password_hash = Some(new.clone());
            db.set_user_secrets(user, &secrets)
        };
        Box::pin(async move { Ok(store.write(put).await?) })
    }

    fn bans(&self, now: Timestamp) -> Eventually<Result<Vec<Ban>, Trouble>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.read(move |db| db.bans(now)).await?) })
    }

    fn put_ban(&self, ban: Ban) -> Eventually<Result<(), Trouble>> {
        let store = self.clone();
        Box::pin(async move { Ok(store.write(move |db| db.put_ban(&ban)).await?) })
    }

    fn remove_ban(&self, subject: String) -> Eventually<Result<(), Trouble>> {
        let store = self.clone();
        let remove = move |db: &mut Db<'_>| db.remove_ban(&subject).map(drop);
        Box::pin(async move { Ok(store.write(remove).await?) })
    }
}

fn find(db: &mut Db<'_>, name: &str) -> Result<Found, StoreError> {
    let user = db.user_by_name(name)?;
    let id = user.as_ref().map_or(UserId(Uuid::nil()), |user| user.id);
    let group = user.as_ref().and_then(|user| user.group).unwrap_or(GroupId(Uuid::nil()));
    let secrets: Option<UserSecrets> = there(db.user_secrets(id))?;
    let group: Option<Group> = there(db.group(group))?;
    let own = user.as_ref().and_then(|user| user.policy);
    let policy = own.or_else(|| group.and_then(|group| group.policy));
    let policy: Option<Policy> = there(db.policy(policy.unwrap_or(PolicyId(Uuid::nil()))))?;
    let default = db.policy_by_name(DEFAULT_POLICY)?;
    let default_factors = default.map_or_else(|| vec![Factor::Password], |policy| policy.factors);
    let factors = policy.map_or_else(|| default_factors.clone(), |policy| policy.factors);
    let person = user.zip(secrets).map(|(user, secrets)| Person {
        id: user.id,
        name: user.name,
        state: user.state,
        expires_at: user.expires_at,
        factors,
        secrets,
    });
    Ok(Found { person, default_factors })
}

fn there<T>(found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Under which name the store keeps the hashes of a user's recovery codes.
pub(crate) fn recovery_setting(user: UserId) -> String {
    format!("auth.recovery.{user}")
}

#[cfg(test)]
#[path = "people_store_tests.rs"]
mod tests;
