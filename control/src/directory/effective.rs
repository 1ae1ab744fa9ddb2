//! What holds for one user: resolved in one place, with where each value comes from.
//!
//! One policy holds as a whole: the user's own, else that of the user's group, else the one called
//! `default`. On top of it a user may have a rate and a quota of its own. Pure: the live projection
//! and the API both ask here, so they cannot differ.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use super::find::DEFAULT;
use super::refusal::Refusal;
use crate::store::Db;
use crate::store::records::{
    Excess, Factor, Group, Policy, PolicyId, PoolId, Quota, Rate, Timestamp, User, UserState,
};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The user itself.
    User,
    /// The user's own policy.
    UserPolicy,
    /// The policy of the user's group.
    GroupPolicy,
    /// The policy called `default`.
    DefaultPolicy,
    /// The user's group.
    Group,
    /// The configuration of the gateway.
    Configuration,
}

/// What holds for a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Effective {
    /// The policy that holds.
    pub policy: PolicyId,
    /// Its name.
    pub policy_name: String,
    /// What is asked for at sign-in, in this order.
    pub factors: Vec<Factor>,
    /// Of each session.
    pub session_rate: Rate,
    /// Of all sessions of the user together.
    pub user_rate: Rate,
    /// Of all users of the group together.
    pub group_rate: Rate,
    /// How much the user may move.
    pub quota: Option<Quota>,
    /// Seconds of access that a sign-in gives; 0 for no end.
    pub session_timeout_s: u32,
    /// Seconds without a packet after which access ends; 0 for never.
    pub idle_timeout_s: u32,
    /// Most devices.
    pub devices_max: u32,
    /// Most sessions at the same time.
    pub sessions_max: u32,
    /// What happens to one session more.
    pub excess: Excess,
    /// Where addresses come from; none is the pool `default`.
    pub pool: Option<PoolId>,
    /// What clients send into the tunnel; empty for the configuration's choice.
    pub routes: Vec<String>,
    /// DNS servers of clients; empty for the configuration's choice.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Where each of these comes from, by its name.
    pub origins: BTreeMap<&'static str, Origin>,
}

/// The policies that may hold for a user.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// The user's own.
    pub own: Option<&'a Policy>,
    /// That of its group.
    pub group: Option<&'a Policy>,
    /// The one called `default`.
    pub default: &'a Policy,
}

impl Effective {
    /// Whether `after` does not ask for all that this asks for at sign-in.
    pub(super) fn is_weakened_by(&self, after: &Self) -> bool {
        self.factors.iter().any(|factor| !after.factors.contains(factor))
    }

    /// Resolves what holds for `user`, who is in `group`.
    #[must_use]
    pub fn resolve(user: &User, group: Option<&Group>, candidates: &Candidates<'_>) -> Self {
        let (policy, origin) = match (candidates.own, candidates.group) {
            (Some(own), _) => (own, Origin::UserPolicy),
            (None, Some(group)) => (group, Origin::GroupPolicy),
            (None, None) => (candidates.default, Origin::DefaultPolicy),
        };
        let mut origins = BTreeMap::from(FIELDS.map(|field| (field, origin)));
        let mut overrides = |field: &'static str, holds: bool, origin: Origin| {
            if holds {
                origins.insert(field, origin);
            }
        };
        overrides("user_rate", user.rate.is_some(), Origin::User);
        overrides("quota", user.quota.is_some(), Origin::User);
        overrides("routes", policy.routes.is_empty(), Origin::Configuration);
        overrides("dns", policy.dns.is_empty(), Origin::Configuration);
        overrides("group_rate", group.is_some(), Origin::Group);
        Self {
            policy: policy.id,
            policy_name: policy.name.clone(),
            factors: policy.factors.clone(),
            session_rate: policy.session_rate,
            user_rate: user.rate.unwrap_or(policy.user_rate),
            group_rate: group.map(|group| group.rate).unwrap_or_default(),
            quota: user.quota.or(policy.quota),
            session_timeout_s: policy.session_timeout_s,
            idle_timeout_s: policy.idle_timeout_s,
            devices_max: policy.devices_max,
            sessions_max: policy.sessions_max,
            excess: policy.excess,
            pool: policy.pool,
            routes: policy.routes.clone(),
            dns: policy.dns.clone(),
            origins,
        }
    }
}

/// What holds for `user`, read from the store.
///
/// # Errors
/// Those of the store.
pub fn of(db: &mut Db<'_>, user: &User) -> Result<Effective, Refusal> {
    let group = user.group.map(|id| db.group(id)).transpose()?;
    let own = user.policy.map(|id| db.policy(id)).transpose()?;
    let of_group = match (&own, group.as_ref().and_then(|group| group.policy)) {
        (None, Some(id)) => Some(db.policy(id)?),
        _ => None,
    };
    let default = match own.as_ref().or(of_group.as_ref()) {
        // Nobody will ask for the default then.
        Some(policy) => policy.clone(),
        None => super::find::policy(db, DEFAULT)?,
    };
    let candidates = Candidates { own: own.as_ref(), group: of_group.as_ref(), default: &default };
    Ok(Effective::resolve(user, group.as_ref(), &candidates))
}

/// Why a user may not come in at `now`, in words for people; none if it may.
#[must_use]
pub fn kept_out(user: &User, now: Timestamp) -> Option<String> {
    match (user.state, user.expires_at) {
        (UserState::Disabled, _) => Some(format!("{} is disabled", user.name)),
        (UserState::Banned, _) => Some(format!("{} is banned", user.name)),
        (UserState::Active, Some(end)) if end <= now => {
            Some(format!("The time of {} ended at {end}", user.name))
        }
        (UserState::Active, _) => None,
    }
}

/// What can come from a policy.
const FIELDS: [&str; 12] = [
    "factors",
    "session_rate",
    "user_rate",
    "quota",
    "session_timeout_s",
    "idle_timeout_s",
    "devices_max",
    "sessions_max",
    "excess",
    "pool",
    "routes",
    "dns",
];

#[cfg(test)]
#[path = "effective_tests.rs"]
mod tests;
