//! Whom the API lets in, by what is stored: tokens, users, and the first administrator.
//!
//! [`Accounts`] is what the gatekeeper and the first start ask for; [`StoreAccounts`] is the one
//! over the store. It is asked for every request, so that a user who is disabled, loses a role or
//! changes the password is affected by the next request, whichever gateway of a fleet did it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::logins::hash;
use super::problem::{FieldError, Problem};
use super::reason::Reason;
use super::sign_in::Later;
use crate::store::ids::{Timestamp, TokenId, UserId};
use crate::store::query::UserFilter;
use crate::store::records::{Role, Token, User, UserSecrets, UserState};
use crate::store::{Page, Store, StoreError};

/// A user as the gatekeeper needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The record.
    pub user: User,
    /// Hash of what its password is stored as.
    pub password_print: [u8; 32],
}

impl Account {
    /// Whether the user may come in at `now`.
    #[must_use]
    pub fn may_enter(&self, now: Timestamp) -> bool {
        self.user.state == UserState::Active && self.user.expires_at.is_none_or(|end| now < end)
    }
}

/// Whom the API lets in.
pub trait Accounts: Send + Sync {
    /// The token whose secret has this SHA-256, and its owner.
    fn by_token(&self, secret_hash: [u8; 32]) -> Later<Result<Option<(Token, User)>, StoreError>>;

    /// A user.
    fn by_id(&self, user: UserId) -> Later<Result<Option<Account>, StoreError>>;

    /// Whether a user has this name.
    fn has_user(&self, name: String) -> Later<Result<bool, StoreError>>;

    /// Whether anybody has the role administrator.
    fn has_administrator(&self) -> Later<Result<bool, StoreError>>;

    /// Makes the first administrator, if there is none yet.
    fn make_first(
        &self,
        name: String,
        password: Zeroizing<String>,
        now: Timestamp,
    ) -> Later<Result<UserId, Problem>>;

    /// Notes that a token was used.
    fn touch(&self, token: TokenId, now: Timestamp) -> Later<Result<(), StoreError>>;
}

/// Judges and hashes a new password. `auth` has the rules; this may take 100 ms and is run where
/// blocking does no harm.
pub trait Passwords: Send + Sync {
    /// The PHC string of `password` for the user `name`.
    ///
    /// # Errors
    /// Too weak, or it could not be hashed.
    fn hash(&self, name: &str, password: &str) -> Result<String, PasswordRefused>;
}

/// Why there is no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordRefused {
    /// The password is too weak; the text is for people.
    Weak(String),
    /// Something failed here; the text is for the log.
    Failed(String),
}

/// Accounts in the store.
#[derive(Clone)]
pub struct StoreAccounts {
    store: Store,
    passwords: Arc<dyn Passwords>,
}

impl StoreAccounts {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store, passwords: Arc<dyn Passwords>) -> Self {
        Self { store, passwords }
    }
}

impl Accounts for StoreAccounts {
    fn has_user(&self, name: String) -> Later<Result<bool, StoreError>> {
        let store = self.store.clone();
        Box::pin(async move { store.read(move |db| Ok(db.user_by_name(&name)?.is_some())).await })
    }

    fn by_token(&self, secret_hash: [u8; 32]) -> Later<Result<Option<(Token, User)>, StoreError>> {
        let store = self.store.clone();
        Box::pin(async move {
            let read = store.read(move |db| {
                let Some(token) = db.token_by_hash(&secret_hash)? else { return Ok(None) };
                let user = db.user(token.user)?;
                Ok(Some((token, user)))
            });
            read.await
        })
    }

    fn by_id(&self, user: UserId) -> Later<Result<Option<Account>, StoreError>> {
        let store = self.store.clone();
        Box::pin(async move {
            let read = store.read(move |db| match db.user(user) {
                Ok(user) => {
                    let secrets = db.user_secrets(user.id)?;
                    let stored = secrets.password_hash.as_deref().unwrap_or_default();
                    Ok(Some(Account { password_print: hash(stored.as_bytes()), user }))
                }
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(other) => Err(other),
            });
            read.await
        })
    }

    fn has_administrator(&self) -> Later<Result<bool, StoreError>> {
        let store = self.store.clone();
        Box::pin(async move { store.read(first_administrator).await })
    }

    fn make_first(
        &self,
        name: String,
        password: Zeroizing<String>,
        now: Timestamp,
    ) -> Later<Result<UserId, Problem>> {
        let (store, passwords) = (self.store.clone(), Arc::clone(&self.passwords));
        Box::pin(async move {
            let hashed = tokio::task::spawn_blocking({
                let name = name.clone();
                move || passwords.hash(&name, &password)
            });
            let hashed = hashed.await.map_err(|error| Problem::internal(&error))?;
            let hashed = hashed.map_err(|refused| match refused {
                PasswordRefused::Weak(why) => {
                    Problem::invalid(vec![FieldError::new("/password", why)])
                }
                PasswordRefused::Failed(why) => Problem::internal(&why),
            })?;
            let made = store.write(move |db| {
                // In the same transaction, so that of two first starts one loses.
                if first_administrator(db)? {
                    return Ok(None);
                }
                let user = administrator(name.clone(), now);
                let password_hash = Some(hashed.clone());
                db.insert_user(&user, &UserSecrets { password_hash, ..UserSecrets::default() })?;
                let detail = serde_json::json!({ "name": user.name, "role": "administrator" });
                db.append_audit(now, "gateway", "user.created", &user.id.to_string(), &detail)?;
                Ok(Some(user.id))
            });
            made.await?.ok_or_else(|| {
                Problem::new(Reason::Gone, "There is an administrator already: sign in")
            })
        })
    }

    fn touch(&self, token: TokenId, now: Timestamp) -> Later<Result<(), StoreError>> {
        let store = self.store.clone();
        Box::pin(async move { store.write(move |db| db.touch_token(token, now)).await })
    }
}

fn first_administrator(db: &mut crate::store::Db<'_>) -> Result<bool, StoreError> {
    let filter = UserFilter { role: Some(Role::Administrator), ..UserFilter::default() };
    Ok(!db.users(&filter, &Page { after: None, limit: 1 })?.items.is_empty())
}

fn administrator(name: String, now: Timestamp) -> User {
    User {
        id: UserId::fresh(),
        display_name: name.clone(),
        name,
        group: None,
        policy: None,
        role: Some(Role::Administrator),
        state: UserState::Active,
        expires_at: None,
        rate: None,
        quota: None,
        has_password: true,
        has_totp: false,
        totp_kind: None,
        created_at: now,
        version: 1,
    }
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
