//! API tokens: made, shown once, listed and revoked.
//!
//! A token never allows more than its user's role does, now or later: scopes are checked when it is
//! made, and the role again whenever it is used. Whoever gives a token to somebody else must be an
//! administrator, as he sees the secret.

use super::actor::Actor;
use super::find::{self, whole};
use super::input::{NewToken, Secret};
use super::refusal::Refusal;
use super::secret::{self, Purpose};
use super::{Action, Directory};
use crate::keys::SystemRandom;
use crate::store::records::{Role, Timestamp, Token, TokenId, User};
use crate::store::{Page, Rows, StoreError};

/// A token as it is shown once.
#[derive(Clone, Debug)]
pub struct MadeToken {
    /// The record.
    pub token: Token,
    /// The secret, for `Authorization: Bearer`.
    pub secret: Secret,
}

/// Tokens of one user: one for each program, and nobody runs that many.
pub(super) const TOKENS_MAX: u64 = 50;

/// `last_used_at` is kept to the minute, so that a busy program does not write all the time.
const TOUCH_MS: i64 = 60_000;

impl Directory {
    /// Makes a token for a user.
    ///
    /// # Errors
    /// A wrong input, scopes beyond the user's role, fifty tokens already, not the actor's
    /// business.
    pub async fn create_token(
        &self,
        actor: &Actor,
        user: &str,
        form: NewToken,
    ) -> Result<MadeToken, Refusal> {
        let secret = secret::make(Purpose::Token, &mut SystemRandom);
        let Some(hash) = secret::hash(Purpose::Token, &secret) else {
            return Err(Refusal::Conflict("The secret cannot be read back: try again".to_owned()));
        };
        let (user, id) = (user.to_owned(), TokenId::fresh());
        let token = self.change(actor, move |work| {
            let user = find::user(work.db, &user)?;
            may_handle(work.actor, &user)?;
            form.check(user.role, work.now)?;
            if work.db.count_tokens(user.id)? >= TOKENS_MAX {
                return Err(Refusal::Full(format!(
                    "{} has {TOKENS_MAX} tokens: revoke one that is not used any more",
                    user.name
                )));
            }
            let token = Token {
                id,
                user: user.id,
                name: form.name.clone(),
                scopes: form.scopes.clone(),
                expires_at: form.expires_at,
                last_used_at: None,
                created_at: work.now,
            };
            work.db.insert_token(&token, &hash)?;
            work.did(Action::TokenCreated, token.id, whole(&token))?;
            Ok(token)
        });
        Ok(MadeToken { token: token.await?, secret: Secret(secret) })
    }

    /// Revokes a token. It is worth nothing from the next request on.
    ///
    /// # Errors
    /// No such token, not the actor's business.
    pub async fn remove_token(&self, actor: &Actor, id: TokenId) -> Result<(), Refusal> {
        self.change(actor, move |work| {
            let token = work.db.token(id)?;
            let user = work.db.user(token.user)?;
            may_handle(work.actor, &user)?;
            work.db.remove_token(id)?;
            work.did(Action::TokenRemoved, id, whole(&token))?;
            Ok(())
        })
        .await
    }

    /// The token with this secret and its user, if both are good now. Notes that it was used.
    ///
    /// # Errors
    /// Those of the store; a secret that is no token's is no error but nothing.
    pub async fn token_user(&self, secret: &str) -> Result<Option<(Token, User)>, Refusal> {
        let Some(hash) = secret::hash(Purpose::Token, secret) else { return Ok(None) };
        let now = self.now();
        let found = self.look(move |db| {
            let Some(token) = db.token_by_hash(&hash)? else { return Ok(None) };
            let user = db.user(token.user)?;
            let is_good = token.expires_at.is_none_or(|end| end > now)
                && super::effective::kept_out(&user, now).is_none();
            Ok(is_good.then_some((token, user)))
        });
        let found = found.await?;
        if let Some((token, _)) = &found
            && token.last_used_at.is_none_or(|last| now.since(last) >= TOUCH_MS)
        {
            self.touch_token(token.id, now).await;
        }
        Ok(found)
    }

    /// Tokens of a user, or of all.
    ///
    /// # Errors
    /// No such user, or a page that makes no sense.
    pub async fn tokens(&self, user: Option<String>, page: Page) -> Result<Rows<Token>, Refusal> {
        self.look(move |db| {
            let user = user.as_deref().map(|word| find::user(db, word)).transpose()?;
            Ok(db.tokens(user.map(|user| user.id), &page)?)
        })
        .await
    }

    /// Notes the use of a token. A request does not fail because that could not be noted.
    async fn touch_token(&self, id: TokenId, now: Timestamp) {
        let touched = self.0.store.write(move |db| db.touch_token(id, now)).await;
        match touched {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => tracing::debug!(%id, %error, "The use of a token was not noted"),
        }
    }
}

fn may_handle(actor: &Actor, user: &User) -> Result<(), Refusal> {
    if actor.user == Some(user.id) || actor.has(Role::Administrator) {
        return Ok(());
    }
    Err(Refusal::Forbidden("Only an administrator handles the tokens of others".to_owned()))
}
