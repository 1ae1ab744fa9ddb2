//! Users and their secrets. Removing a user removes what is theirs; what they used and when they
//! were there stays for reports until it is erased (`privacy.rs`). This module must not know how a
//! secret is checked.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows, UserFilter};
use super::super::records::{
    DeviceId, OtpKind, Role, TokenId, User, UserId, UserSecrets, UserState,
};
use super::columns::maybe_json;
use super::list::List;
use super::{Columns, Db, taken};

/// Columns of a user, of a table called `u`.
pub(super) const USER: &str = "u.id, u.name, u.display_name, u.group_id, u.policy_id, u.role, \
    u.state, u.expires_at, u.rate, u.quota, u.password_hash IS NOT NULL, \
    u.totp_secret IS NOT NULL, u.totp_kind, u.created_at, u.version";

impl Db<'_> {
    /// Adds a user. Whether there is a password or a second factor is taken from `secrets`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`, [`StoreError::Missing`] group or policy, and
    /// those of the store.
    pub fn insert_user(&mut self, user: &User, secrets: &UserSecrets) -> Result<(), StoreError> {
        self.must_have("user", ("groups", "group"), user.group)?;
        self.must_have("user", ("policies", "policy"), user.policy)?;
        let sql = "INSERT INTO users (id, name, display_name, group_id, policy_id, role, state, \
                   expires_at, rate, quota, password_hash, totp_secret, totp_kind, totp_last_step, \
                   created_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
                   $13, $14, $15, $16)";
        let mut values = vec![Value::from(user.id)];
        values.extend(fields(user)?);
        values.extend(secret_fields(secrets));
        values.extend([user.created_at.into(), user.version.into()]);
        taken(self.execute(sql, &values), &[("name", &user.name), ("id", &user.id)])?;
        self.changed("user", user.id)
    }

    /// Changes a user, if nobody else did since `user` was read, and returns it with its new
    /// version. Secrets and the moment of creation stay.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] on `name`,
    /// [`StoreError::Missing`] group or policy, and those of the store.
    pub fn update_user(&mut self, user: &User) -> Result<User, StoreError> {
        self.must_have("user", ("groups", "group"), user.group)?;
        self.must_have("user", ("policies", "policy"), user.policy)?;
        let sql = "UPDATE users SET name = $3, display_name = $4, group_id = $5, policy_id = $6, \
                   role = $7, state = $8, expires_at = $9, rate = $10, quota = $11, \
                   version = version + 1 WHERE id = $1 AND version = $2";
        let mut values = vec![Value::from(user.id), user.version.into()];
        values.extend(fields(user)?);
        let rows = taken(self.execute(sql, &values), &[("name", &user.name)])?;
        self.updated("user", "users", user.id.into(), rows)?;
        self.changed("user", user.id)?;
        self.user(user.id)
    }

    /// A user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn user(&mut self, id: UserId) -> Result<User, StoreError> {
        let sql = format!("SELECT {USER} FROM users u WHERE u.id = $1");
        match self.first("users", &sql, &[id.into()])? {
            Some(mut row) => read_user(&mut row),
            None => Err(StoreError::not_found("user", id)),
        }
    }

    /// The user with this name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn user_by_name(&mut self, name: &str) -> Result<Option<User>, StoreError> {
        let sql = format!("SELECT {USER} FROM users u WHERE u.name = $1");
        self.first("users", &sql, &[name.into()])?.as_mut().map(read_user).transpose()
    }

    /// What is secret about a user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn user_secrets(&mut self, id: UserId) -> Result<UserSecrets, StoreError> {
        let sql = "SELECT password_hash, totp_secret, totp_kind, totp_last_step FROM users \
                   WHERE id = $1";
        let Some(mut row) = self.first("users", sql, &[id.into()])? else {
            return Err(StoreError::not_found("user", id));
        };
        Ok(UserSecrets {
            password_hash: row.maybe_text()?,
            totp_secret: row.maybe_blob()?,
            totp_kind: row.word(OtpKind::from_word)?,
            totp_last_step: row.count()?,
        })
    }

    /// Replaces what is secret about a user. Its version stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn set_user_secrets(
        &mut self,
        id: UserId,
        secrets: &UserSecrets,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE users SET password_hash = $2, totp_secret = $3, totp_kind = $4, \
                   totp_last_step = $5 WHERE id = $1";
        let mut values = vec![Value::from(id)];
        values.extend(secret_fields(secrets));
        if self.execute(sql, &values)? == 0 {
            return Err(StoreError::not_found("user", id));
        }
        self.changed("user", id)
    }

    /// Uses a one-time password of time step `step` up: true if it is later than all before. Of two
    /// that try the same, one succeeds.
    ///
    /// # Errors
    /// Those of the store; an unknown user is false.
    pub fn accept_totp_step(&mut self, id: UserId, step: u64) -> Result<bool, StoreError> {
        self.accept_code(id, OtpKind::Time, step)
    }

    /// Uses the one-time password of counter `counter` up, and with it all before: true if none so
    /// late was used yet. Of two that try the same, one succeeds.
    ///
    /// # Errors
    /// Those of the store; an unknown user is false.
    pub fn accept_hotp_counter(&mut self, id: UserId, counter: u64) -> Result<bool, StoreError> {
        // Counters begin with 0, so what is kept is how many are used up.
        self.accept_code(id, OtpKind::Counter, counter.saturating_add(1))
    }

    /// Only if the kind is still the one that was looked at: a step of time would use up all
    /// counters of a lifetime.
    fn accept_code(&mut self, id: UserId, kind: OtpKind, to: u64) -> Result<bool, StoreError> {
        let sql = "UPDATE users SET totp_last_step = $2 WHERE id = $1 AND totp_last_step < $2 \
                   AND totp_kind = $3";
        Ok(self.execute(sql, &[id.into(), to.into(), kind.word().into()])? > 0)
    }

    /// Removes a user with its devices, leases, tokens and invitations.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn remove_user(&mut self, id: UserId) -> Result<(), StoreError> {
        let whose = [Value::from(id)];
        let devices =
            self.ids::<DeviceId>("devices", "SELECT id FROM devices WHERE user_id = $1", id)?;
        for device in devices {
            self.remove_device(device)?;
        }
        let tokens =
            self.ids::<TokenId>("tokens", "SELECT id FROM tokens WHERE user_id = $1", id)?;
        for token in tokens {
            self.remove_token(token)?;
        }
        self.execute("DELETE FROM enrolments WHERE user_id = $1", &whose)?;
        if self.execute("DELETE FROM users WHERE id = $1", &whose)? == 0 {
            return Err(StoreError::not_found("user", id));
        }
        self.changed("user", id)
    }

    /// Users, by name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn users(&mut self, filter: &UserFilter, page: &Page) -> Result<Rows<User>, StoreError> {
        let mut list = List::by_text("users", format!("SELECT {USER} FROM users u"), "u.name");
        list.filter
            .and("u.group_id =", filter.group)
            .and("u.state =", filter.state.map(UserState::word))
            .and("u.role =", filter.role.map(Role::word))
            .and_contains("u.name", filter.name_contains.as_ref())
            .and("u.expires_at <", filter.expires_before);
        self.page(list, page, read_user, |user| user.name.clone())
    }

    /// How many users there are.
    ///
    /// # Errors
    /// Those of the store.
    pub fn count_users(&mut self) -> Result<u64, StoreError> {
        let row = self.first("users", "SELECT COUNT(*) FROM users", &[])?;
        row.map_or(Ok(0), |mut row| row.count())
    }

    fn ids<T: std::str::FromStr>(
        &mut self,
        table: &'static str,
        sql: &str,
        user: UserId,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.query(table, sql, &[user.into()])?;
        rows.into_iter().map(|mut row| row.parsed()).collect()
    }
}

/// Reads [`USER`].
pub(super) fn read_user(row: &mut Columns) -> Result<User, StoreError> {
    let mut user = User {
        id: row.parsed()?,
        name: row.text()?,
        display_name: row.text()?,
        group: row.maybe_parsed()?,
        policy: row.maybe_parsed()?,
        role: match row.maybe_text()? {
            Some(word) => Some(Role::from_word(&word).ok_or_else(|| row.damaged("a known word"))?),
            None => None,
        },
        state: row.word(UserState::from_word)?,
        expires_at: row.maybe_time()?,
        rate: row.maybe_json()?,
        quota: row.maybe_json()?,
        has_password: row.truth()?,
        has_totp: row.truth()?,
        totp_kind: Some(row.word(OtpKind::from_word)?),
        created_at: row.time()?,
        version: row.count()?,
    };
    user.totp_kind = user.totp_kind.filter(|_| user.has_totp);
    Ok(user)
}

/// What an update changes.
fn fields(user: &User) -> Result<[Value; 9], StoreError> {
    Ok([
        (&user.name).into(),
        (&user.display_name).into(),
        user.group.into(),
        user.policy.into(),
        user.role.map(Role::word).into(),
        user.state.word().into(),
        user.expires_at.into(),
        maybe_json(user.rate.as_ref())?,
        maybe_json(user.quota.as_ref())?,
    ])
}

fn secret_fields(secrets: &UserSecrets) -> [Value; 4] {
    [
        secrets.password_hash.as_ref().into(),
        secrets.totp_secret.clone().into(),
        secrets.totp_kind.word().into(),
        secrets.totp_last_step.into(),
    ]
}
