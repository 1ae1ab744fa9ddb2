//! Tokens of programs, found by the hash of their secret. This module must not know the secret.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::{Timestamp, Token, TokenId, UserId};
use super::columns::json;
use super::list::List;
use super::{Columns, Db, taken};

const TOKEN: &str =
    "SELECT id, user_id, name, scopes, expires_at, last_used_at, created_at FROM tokens";

impl Db<'_> {
    /// Adds a token whose secret has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `secret` or `id`, [`StoreError::Missing`] user, and those of the
    /// store.
    pub fn insert_token(
        &mut self,
        token: &Token,
        secret_hash: &[u8; 32],
    ) -> Result<(), StoreError> {
        self.must_have("token", ("users", "user"), Some(token.user))?;
        let sql = "INSERT INTO tokens (id, user_id, name, scopes, expires_at, last_used_at, \
                   created_at, secret_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = [
            token.id.into(),
            token.user.into(),
            (&token.name).into(),
            json(&token.scopes)?,
            token.expires_at.into(),
            token.last_used_at.into(),
            token.created_at.into(),
            secret_hash.into(),
        ];
        taken(self.execute(sql, &values), &[("id", &token.id)])?;
        self.changed("token", token.id)
    }

    /// A token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn token(&mut self, id: TokenId) -> Result<Token, StoreError> {
        match self.first("tokens", &format!("{TOKEN} WHERE id = $1"), &[id.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("token", id)),
        }
    }

    /// The token whose secret has this SHA-256. It may have expired.
    ///
    /// # Errors
    /// Those of the store.
    pub fn token_by_hash(&mut self, secret_hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        let sql = format!("{TOKEN} WHERE secret_hash = $1");
        let row = self.first("tokens", &sql, &[secret_hash.into()])?;
        row.map(|mut row| read(&mut row)).transpose()
    }

    /// Tokens, of a user or of all, by identifier.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn tokens(&mut self, user: Option<UserId>, page: &Page) -> Result<Rows<Token>, StoreError> {
        let mut list = List::by_text("tokens", TOKEN.to_owned(), "id");
        list.filter.and("user_id =", user);
        self.page(list, page, read, |token| token.id.to_string())
    }

    /// Notes that a token was used. This is no change that anybody follows.
    ///
    /// # Errors
    /// Those of the store; an unknown token is passed over.
    pub fn touch_token(&mut self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE tokens SET last_used_at = $2 WHERE id = $1 \
                   AND (last_used_at IS NULL OR last_used_at < $2)";
        self.execute(sql, &[id.into(), at.into()])?;
        Ok(())
    }

    /// How many tokens a user has.
    ///
    /// # Errors
    /// Those of the store.
    pub fn count_tokens(&mut self, user: UserId) -> Result<u64, StoreError> {
        let sql = "SELECT COUNT(*) FROM tokens WHERE user_id = $1";
        let row = self.first("tokens", sql, &[user.into()])?;
        row.map_or(Ok(0), |mut row| row.count())
    }

    /// Removes a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn remove_token(&mut self, id: TokenId) -> Result<(), StoreError> {
        if self.execute("DELETE FROM tokens WHERE id = $1", &[Value::from(id)])? == 0 {
            return Err(StoreError::not_found("token", id));
        }
        self.changed("token", id)
    }
}

fn read(row: &mut Columns) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.parsed()?,
        user: row.parsed()?,
        name: row.text()?,
        scopes: row.json()?,
        expires_at: row.maybe_time()?,
        last_used_at: row.maybe_time()?,
        created_at: row.time()?,
    })
}
