//! Forms of groups and policies.

use std::net::IpAddr;

use serde::Deserialize;
use utoipa::ToSchema;

use super::{Checks, Patch, QuotaPatch, RatePatch};
use crate::directory::refusal::Refusal;
use crate::store::records::{
    Excess, Factor, Group, GroupId, Policy, PolicyId, Quota, Rate, Timestamp,
};

/// Longest time of access and of idleness: a year.
const SECONDS_MAX: u32 = 31_536_000;
/// Shortest of both: a client needs as long to notice and to renew.
const SECONDS_MIN: u32 = 60;
/// Most devices and sessions of a user.
const COUNT_MAX: u32 = 1000;

/// A group to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "staff", "policy": "strict", "rate": {"down_bps": 1_000_000_000}
}))]
pub struct NewGroup {
    /// 1 to 64 of `a-z 0-9 . _ @ -`; capitals become small.
    pub name: String,
    /// Name or identifier of a policy; none is the default policy.
    #[serde(default)]
    pub policy: Option<String>,
    /// What all its users share.
    #[serde(default)]
    pub rate: Rate,
}

impl NewGroup {
    /// The record, if everything in the form is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, id: GroupId, now: Timestamp) -> Result<Group, Refusal> {
        let mut checks = Checks::default();
        let name = checks.name("/name", &self.name);
        checks.rate("/rate", &self.rate);
        checks.finish()?;
        Ok(Group { id, name, policy: None, rate: self.rate, created_at: now, version: 1 })
    }
}

/// Changes to a group: what is absent stays, what is `null` is taken away.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"policy": null, "rate": {"down_bps": 500_000_000}}))]
pub struct GroupPatch {
    /// A new name.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Name or identifier of a policy.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub policy: Patch<String>,
    /// What all its users share; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<RatePatch>)]
    pub rate: Patch<RatePatch>,
}

impl GroupPatch {
    /// The record after the patch, if everything in it is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, before: &Group) -> Result<Group, Refusal> {
        let mut checks = Checks::default();
        let mut group = before.clone();
        if !self.name.is_keep() {
            group.name = checks.required("/name", &self.name, &before.name);
            group.name = checks.name("/name", &group.name);
        }
        group.rate = merged(&self.rate, before.rate);
        checks.rate("/rate", &group.rate);
        checks.finish()?;
        Ok(group)
    }
}

/// A policy to be made. What is left out is as in the policy that a new store begins with.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "strict", "factors": ["password", "totp"], "session_timeout_s": 28_800,
    "devices_max": 2, "sessions_max": 1, "excess": "kick-oldest",
    "user_rate": {"down_bps": 200_000_000}, "routes": ["10.0.0.0/8"], "dns": ["10.0.0.53"]
}))]
pub struct NewPolicy {
    /// 1 to 64 of `a-z 0-9 . _ @ -`; capitals become small.
    pub name: String,
    /// What is asked for at sign-in, in this order; `["password"]` if left out.
    #[serde(default)]
    pub factors: Option<Vec<Factor>>,
    /// Of each session.
    #[serde(default)]
    pub session_rate: Rate,
    /// Of all sessions of one user together.
    #[serde(default)]
    pub user_rate: Rate,
    /// Of each user.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// Seconds of access that a sign-in gives, 60 to 31,536,000; 0 for no end; a day if left out.
    #[serde(default)]
    pub session_timeout_s: Option<u32>,
    /// Seconds without a packet after which access ends, 60 to 31,536,000; 0 for never.
    #[serde(default)]
    pub idle_timeout_s: u32,
    /// Most devices of a user, 1 to 1000; 5 if left out.
    #[serde(default)]
    pub devices_max: Option<u32>,
    /// Most sessions of a user at the same time, 1 to 1000; 5 if left out.
    #[serde(default)]
    pub sessions_max: Option<u32>,
    /// What happens to one session more; it is refused if left out.
    #[serde(default)]
    pub excess: Option<Excess>,
    /// Name or identifier of the pool that addresses come from; the pool `default` if left out.
    #[serde(default)]
    pub pool: Option<String>,
    /// What clients send into the tunnel; empty for the configuration's choice.
    #[serde(default)]
    pub routes: Vec<String>,
    /// DNS servers of clients, at most 8; empty for the configuration's choice.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
}

impl NewPolicy {
    /// The record, if everything in the form is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, id: PolicyId, now: Timestamp) -> Result<Policy, Refusal> {
        let mut checks = Checks::default();
        let policy = Policy {
            id,
            name: checks.name("/name", &self.name),
            factors: self.factors.clone().unwrap_or_else(|| vec![Factor::Password]),
            session_rate: self.session_rate,
            user_rate: self.user_rate,
            quota: self.quota,
            session_timeout_s: self.session_timeout_s.unwrap_or(86_400),
            idle_timeout_s: self.idle_timeout_s,
            devices_max: self.devices_max.unwrap_or(5),
            sessions_max: self.sessions_max.unwrap_or(5),
            excess: self.excess.unwrap_or(Excess::Refuse),
            pool: None,
            routes: self.routes.clone(),
            dns: self.dns.clone(),
            created_at: now,
            version: 1,
        };
        check_policy(&policy, &mut checks);
        checks.finish()?;
        Ok(policy)
    }
}

/// Changes to a policy: what is absent stays, what is `null` is taken away.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"sessions_max": 3, "quota": null}))]
pub struct PolicyPatch {
    /// A new name; the policy `default` keeps its own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// What is asked for at sign-in, in this order. Only an administrator changes it.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Factor>>)]
    pub factors: Patch<Vec<Factor>>,
    /// Of each session; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<RatePatch>)]
    pub session_rate: Patch<RatePatch>,
    /// Of all sessions of one user together; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<RatePatch>)]
    pub user_rate: Patch<RatePatch>,
    /// Of each user; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<QuotaPatch>)]
    pub quota: Patch<QuotaPatch>,
    /// Seconds of access that a sign-in gives; 0 for no end.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub session_timeout_s: Patch<u32>,
    /// Seconds without a packet after which access ends; 0 for never.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub idle_timeout_s: Patch<u32>,
    /// Most devices of a user. Devices that are there already stay.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub devices_max: Patch<u32>,
    /// Most sessions of a user at the same time.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub sessions_max: Patch<u32>,
    /// What happens to one session more.
    #[serde(default)]
    #[schema(value_type = Option<Excess>)]
    pub excess: Patch<Excess>,
    /// Name or identifier of a pool. Devices keep the addresses that they have.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub pool: Patch<String>,
    /// What clients send into the tunnel.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub routes: Patch<Vec<String>>,
    /// DNS servers of clients.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Patch<Vec<IpAddr>>,
}

impl PolicyPatch {
    /// The record after the patch, if everything in it is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, before: &Policy) -> Result<Policy, Refusal> {
        let mut checks = Checks::default();
        let mut policy = before.clone();
        if !self.name.is_keep() {
            policy.name = checks.required("/name", &self.name, &before.name);
            policy.name = checks.name("/name", &policy.name);
        }
        policy.factors = checks.required("/factors", &self.factors, &before.factors);
        policy.session_rate = merged(&self.session_rate, before.session_rate);
        policy.user_rate = merged(&self.user_rate, before.user_rate);
        policy.quota = QuotaPatch::merge(&self.quota, before.quota, "/quota", &mut checks);
        let mut number = |pointer: &str, patch: &Patch<u32>, value: &mut u32| {
            *value = checks.required(pointer, patch, value);
        };
        number("/session_timeout_s", &self.session_timeout_s, &mut policy.session_timeout_s);
        number("/idle_timeout_s", &self.idle_timeout_s, &mut policy.idle_timeout_s);
        number("/devices_max", &self.devices_max, &mut policy.devices_max);
        number("/sessions_max", &self.sessions_max, &mut policy.sessions_max);
        policy.excess = checks.required("/excess", &self.excess, &before.excess);
        policy.routes = self.routes.clone().apply_or(policy.routes, Vec::new());
        policy.dns = self.dns.clone().apply_or(policy.dns, Vec::new());
        // The quota was judged when it was merged, and keeps its one list of problems.
        check_policy(&Policy { quota: None, ..policy.clone() }, &mut checks);
        checks.finish()?;
        Ok(policy)
    }
}

/// Everything about a policy but its name and the pool that it refers to.
fn check_policy(policy: &Policy, checks: &mut Checks) {
    checks.factors("/factors", &policy.factors);
    checks.rate("/session_rate", &policy.session_rate);
    checks.rate("/user_rate", &policy.user_rate);
    if let Some(quota) = &policy.quota {
        checks.quota("/quota", quota);
    }
    checks.seconds("/session_timeout_s", policy.session_timeout_s, SECONDS_MIN, SECONDS_MAX);
    checks.seconds("/idle_timeout_s", policy.idle_timeout_s, SECONDS_MIN, SECONDS_MAX);
    checks.within("/devices_max", policy.devices_max, 1, COUNT_MAX, "devices");
    checks.within("/sessions_max", policy.sessions_max, 1, COUNT_MAX, "sessions");
    checks.routes("/routes", &policy.routes);
    checks.dns("/dns", &policy.dns);
}

fn merged(patch: &Patch<RatePatch>, before: Rate) -> Rate {
    RatePatch::merge(patch, Some(before)).unwrap_or_default()
}
