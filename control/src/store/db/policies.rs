//! Policies. What nothing searches for is one text, so that a policy may grow without a migration.
//! There is always one called `default`. This module must not know what a policy does.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::{Excess, Factor, Policy, PolicyId, Quota, Rate, Timestamp};
use super::columns::json;
use super::list::List;
use super::{Columns, Db, taken};

/// The policy of who has no other.
pub(super) const DEFAULT: &str = "default";

const POLICY: &str = "SELECT id, name, pool_id, body, created_at, version FROM policies";

/// What is kept as one text.
#[derive(Serialize, Deserialize)]
struct Body {
    factors: Vec<Factor>,
    #[serde(default)]
    session_rate: Rate,
    #[serde(default)]
    user_rate: Rate,
    #[serde(default)]
    quota: Option<Quota>,
    session_timeout_s: u32,
    idle_timeout_s: u32,
    devices_max: u32,
    sessions_max: u32,
    excess: Excess,
    #[serde(default)]
    routes: Vec<String>,
    #[serde(default)]
    dns: Vec<IpAddr>,
}

impl Db<'_> {
    /// Adds a policy.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`, [`StoreError::Missing`] pool, and those of the
    /// store.
    pub fn insert_policy(&mut self, policy: &Policy) -> Result<(), StoreError> {
        self.must_have("policy", ("pools", "pool"), policy.pool)?;
        let sql = "INSERT INTO policies (id, name, pool_id, body, created_at, version) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            policy.id.into(),
            (&policy.name).into(),
            policy.pool.into(),
            json(&body(policy))?,
            policy.created_at.into(),
            policy.version.into(),
        ];
        taken(self.execute(sql, &values), &[("name", &policy.name), ("id", &policy.id)])?;
        self.changed("policy", policy.id)
    }

    /// Changes a policy, if nobody else did since `policy` was read, and returns it with its new
    /// version. The policy `default` keeps its name.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] on `name`,
    /// [`StoreError::Missing`] pool, [`StoreError::Invalid`], and those of the store.
    pub fn update_policy(&mut self, policy: &Policy) -> Result<Policy, StoreError> {
        self.must_have("policy", ("pools", "pool"), policy.pool)?;
        if policy.name != DEFAULT {
            self.must_not_be_default(policy.id, "renamed")?;
        }
        let sql = "UPDATE policies SET name = $3, pool_id = $4, body = $5, version = version + 1 \
                   WHERE id = $1 AND version = $2";
        let values = [
            policy.id.into(),
            policy.version.into(),
            (&policy.name).into(),
            policy.pool.into(),
            json(&body(policy))?,
        ];
        let rows = taken(self.execute(sql, &values), &[("name", &policy.name)])?;
        self.updated("policy", "policies", policy.id.into(), rows)?;
        self.changed("policy", policy.id)?;
        self.policy(policy.id)
    }

    /// A policy.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn policy(&mut self, id: PolicyId) -> Result<Policy, StoreError> {
        match self.first("policies", &format!("{POLICY} WHERE id = $1"), &[id.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("policy", id)),
        }
    }

    /// The policy with this name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn policy_by_name(&mut self, name: &str) -> Result<Option<Policy>, StoreError> {
        let row = self.first("policies", &format!("{POLICY} WHERE name = $1"), &[name.into()])?;
        row.map(|mut row| read(&mut row)).transpose()
    }

    /// Policies, by name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn policies(&mut self, page: &Page) -> Result<Rows<Policy>, StoreError> {
        let list = List::by_text("policies", POLICY.to_owned(), "name");
        self.page(list, page, read, |policy| policy.name.clone())
    }

    /// Removes a policy that no user and no group has, other than `default`.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NotFound`], [`StoreError::Invalid`] for `default`, and
    /// those of the store.
    pub fn remove_policy(&mut self, id: PolicyId) -> Result<(), StoreError> {
        self.must_not_be_default(id, "removed")?;
        let groups = "SELECT name FROM groups WHERE policy_id = $1 ORDER BY name LIMIT 4";
        let users = "SELECT name FROM users WHERE policy_id = $1 ORDER BY name LIMIT 4";
        let by = [("group", groups), ("user", users)];
        self.must_be_free("policy", &id.to_string(), &by)?;
        if self.execute("DELETE FROM policies WHERE id = $1", &[Value::from(id)])? == 0 {
            return Err(StoreError::not_found("policy", id));
        }
        self.changed("policy", id)
    }

    fn must_not_be_default(&mut self, id: PolicyId, done: &str) -> Result<(), StoreError> {
        let found = self.policy_by_name(DEFAULT)?;
        if found.is_some_and(|policy| policy.id == id) {
            let why = format!(
                "the policy \"{DEFAULT}\" holds for all that have no other, and cannot be {done}"
            );
            return Err(StoreError::Invalid { why });
        }
        Ok(())
    }
}

/// The policy that a new store begins with.
pub(crate) fn first(now: Timestamp) -> Policy {
    Policy {
        id: PolicyId::fresh(),
        name: DEFAULT.to_owned(),
        factors: vec![Factor::Password],
        session_rate: Rate::default(),
        user_rate: Rate::default(),
        quota: None,
        session_timeout_s: 86_400,
        idle_timeout_s: 0,
        devices_max: 5,
        sessions_max: 5,
        excess: Excess::Refuse,
        pool: None,
        routes: Vec::new(),
        dns: Vec::new(),
        created_at: now,
        version: 1,
    }
}

fn body(policy: &Policy) -> Body {
    Body {
        factors: policy.factors.clone(),
        session_rate: policy.session_rate,
        user_rate: policy.user_rate,
        quota: policy.quota,
        session_timeout_s: policy.session_timeout_s,
        idle_timeout_s: policy.idle_timeout_s,
        devices_max: policy.devices_max,
        sessions_max: policy.sessions_max,
        excess: policy.excess,
        routes: policy.routes.clone(),
        dns: policy.dns.clone(),
    }
}

fn read(row: &mut Columns) -> Result<Policy, StoreError> {
    let (id, name, pool) = (row.parsed()?, row.text()?, row.maybe_parsed()?);
    let body: Body = row.json()?;
    Ok(Policy {
        id,
        name,
        factors: body.factors,
        session_rate: body.session_rate,
        user_rate: body.user_rate,
        quota: body.quota,
        session_timeout_s: body.session_timeout_s,
        idle_timeout_s: body.idle_timeout_s,
        devices_max: body.devices_max,
        sessions_max: body.sessions_max,
        excess: body.excess,
        pool,
        routes: body.routes,
        dns: body.dns,
        created_at: row.time()?,
        version: row.count()?,
    })
}
