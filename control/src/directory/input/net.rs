//! Forms of devices, pools, tokens and enrolments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PrivateKey, PublicKey};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Checks, Patch, Secret};
use crate::directory::refusal::Refusal;
use crate::keys::{self, SystemRandom};
use crate::store::records::{Pool, PoolId, Role, Timestamp};

/// A device to be made for a user.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "laptop", "public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="}))]
pub struct NewDevice {
    /// Unique among the user's devices: 1 to 64 of `a-z 0-9 . _ @ -`; capitals become small.
    pub name: String,
    /// The key that the device made for itself. Left out, a pair is made here: the private half is
    /// in the answer once and not kept.
    #[serde(default)]
    pub public_key: Option<String>,
    /// A certain IPv4 address of the pool. Only operators choose.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub address4: Option<Ipv4Addr>,
    /// A certain IPv6 address of the pool. Only operators choose.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub address6: Option<Ipv6Addr>,
}

impl NewDevice {
    /// The checked name, and the key if one was given.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self) -> Result<(String, Option<PublicKey>), Refusal> {
        let mut checks = Checks::default();
        let name = checks.name("/name", &self.name);
        let given = self.public_key.as_deref();
        let key = given.and_then(|text| checks.public_key("/public_key", text));
        checks.finish()?;
        Ok((name, key))
    }
}

/// Changes to a device.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "old-laptop", "enabled": false}))]
pub struct DevicePatch {
    /// A new name.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Whether it may connect.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    pub enabled: Patch<bool>,
}

impl DevicePatch {
    /// Name and state after the patch.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, name: &str, enabled: bool) -> Result<(String, bool), Refusal> {
        let mut checks = Checks::default();
        let mut name = checks.required("/name", &self.name, &name.to_owned());
        if !self.name.is_keep() {
            name = checks.name("/name", &name);
        }
        let enabled = checks.required("/enabled", &self.enabled, &enabled);
        checks.finish()?;
        Ok((name, enabled))
    }
}

/// A new key for a device, which keeps its addresses.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="}))]
pub struct RotateKey {
    /// The new key that the device made for itself. Left out, a pair is made here.
    pub public_key: Option<String>,
}

impl RotateKey {
    /// The key, if one was given.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn check(&self) -> Result<Option<PublicKey>, Refusal> {
        let mut checks = Checks::default();
        let given = self.public_key.as_deref();
        let key = given.and_then(|text| checks.public_key("/public_key", text));
        checks.finish()?;
        Ok(key)
    }
}

/// A pool to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "guests", "net4": "10.77.8.0/24", "net6": "fd00:77:8::/64",
    "range4": ["10.77.8.100", "10.77.8.200"], "random": true}))]
pub struct NewPool {
    /// 1 to 64 of `a-z 0-9 . _ @ -`; capitals become small.
    pub name: String,
    /// IPv4 prefix inside the interface's.
    #[serde(default)]
    pub net4: Option<String>,
    /// IPv6 prefix inside the interface's.
    #[serde(default)]
    pub net6: Option<String>,
    /// First and last address that may be leased, if not all of `net4`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub range4: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Whether addresses are drawn at random rather than in order.
    #[serde(default)]
    pub random: bool,
}

impl NewPool {
    /// The record, if everything in the form is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, id: PoolId, now: Timestamp) -> Result<Pool, Refusal> {
        let mut checks = Checks::default();
        let pool = Pool {
            id,
            name: checks.name("/name", &self.name),
            net4: self.net4.clone(),
            net6: self.net6.clone(),
            range4: self.range4.map(|(first, last)| (first.into(), last.into())),
            random: self.random,
            created_at: now,
            version: 1,
        };
        check_pool(&pool, &mut checks);
        checks.finish()?;
        Ok(pool)
    }
}

/// Changes to a pool.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"range4": null, "random": true}))]
pub struct PoolPatch {
    /// A new name; the pool `default` keeps its own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// IPv4 prefix inside the interface's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub net4: Patch<String>,
    /// IPv6 prefix inside the interface's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub net6: Patch<String>,
    /// First and last address that may be leased.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub range4: Patch<(Ipv4Addr, Ipv4Addr)>,
    /// Whether addresses are drawn at random.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    pub random: Patch<bool>,
}

impl PoolPatch {
    /// The record after the patch, if everything in it is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, before: &Pool) -> Result<Pool, Refusal> {
        let mut checks = Checks::default();
        let mut pool = before.clone();
        if !self.name.is_keep() {
            pool.name = checks.required("/name", &self.name, &before.name);
            pool.name = checks.name("/name", &pool.name);
        }
        pool.net4 = self.net4.clone().apply(pool.net4);
        pool.net6 = self.net6.clone().apply(pool.net6);
        pool.range4 = match self.range4 {
            Patch::Keep => pool.range4,
            Patch::Clear => None,
            Patch::Set((first, last)) => Some((first.into(), last.into())),
        };
        pool.random = checks.required("/random", &self.random, &pool.random);
        check_pool(&pool, &mut checks);
        checks.finish()?;
        Ok(pool)
    }
}

fn check_pool(pool: &Pool, checks: &mut Checks) {
    let net4 = pool.net4.as_deref().and_then(|text| checks.net("/net4", text));
    let net6 = pool.net6.as_deref().and_then(|text| checks.net("/net6", text));
    if pool.net4.is_none() && pool.net6.is_none() {
        checks.wrong("/net4", "A pool needs net4, net6 or both");
    }
    if net4.is_some_and(|net| net.address().is_ipv6()) {
        checks.wrong("/net4", "This is an IPv6 prefix: it belongs in net6");
    }
    if net6.is_some_and(|net| net.address().is_ipv4()) {
        checks.wrong("/net6", "This is an IPv4 prefix: it belongs in net4");
    }
    if net4.is_some_and(|net| net.address().is_ipv4() && net.prefix() > 30) {
        checks.wrong("/net4", "Network, broadcast and a client need a prefix of /30 or shorter");
    }
    if net6.is_some_and(|net| net.address().is_ipv6() && net.prefix() > 126) {
        checks.wrong("/net6", "Network and clients need a prefix of /126 or shorter");
    }
    if let Some((first, last)) = pool.range4 {
        check_range(net4, first, last, checks);
    }
}

fn check_range(net4: Option<IpNet>, first: IpAddr, last: IpAddr, checks: &mut Checks) {
    let Some(net4) = net4 else {
        checks.wrong("/range4", "A range needs a valid net4 that it lies in");
        return;
    };
    for (pointer, address) in [("/range4/0", first), ("/range4/1", last)] {
        if !net4.contains(address) {
            checks.wrong(pointer, format!("{address} is not in {net4}"));
        }
    }
    if first > last {
        checks.wrong("/range4", format!("{first} comes after {last}: swap them"));
    }
}

/// A token to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "monitoring", "scopes": ["users:read", "sessions:read"],
    "expires_at": "2030-01-01T00:00:00Z"}))]
pub struct NewToken {
    /// For people; 1 to 64 characters.
    pub name: String,
    /// What it may be used for: `KIND:read`, `KIND:write`, or `*` for all that its user may.
    pub scopes: Vec<String>,
    /// From when on it is worth nothing; none for no end.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl NewToken {
    /// Whether everything in the form is right, for a user with this role.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, role: Option<Role>, now: Timestamp) -> Result<(), Refusal> {
        let mut checks = Checks::default();
        if self.name.is_empty() {
            checks.wrong("/name", "A token needs a name, so that people know what it is for");
        }
        checks.display("/name", &self.name, 64);
        scopes::check(&mut checks, &self.scopes, role);
        if let Some(moment) = self.expires_at {
            checks.future("/expires_at", moment, now);
        }
        checks.finish()
    }
}

/// What a token may be used for.
pub mod scopes {
    use super::{Checks, Role};

    /// What a user without a role may have in a token: what is about itself.
    pub const OWN: &[&str] = &["me", "session"];
    /// What there is to read and to write.
    pub const KINDS: &[&str] = &[
        "audit", "bans", "config", "devices", "drain", "events", "groups", "me", "metrics",
        "nodes", "policies", "pools", "quotas", "reports", "session", "sessions", "status",
        "tokens", "users",
    ];
    /// What only administrators may write.
    pub const ADMINISTRATIVE: &[&str] = &["config", "drain", "pools", "tokens"];

    pub(super) fn check(checks: &mut Checks, scopes: &[String], role: Option<Role>) {
        if scopes.is_empty() {
            checks
                .wrong("/scopes", "A token without scopes is good for nothing: give at least one");
        }
        for (index, scope) in scopes.iter().enumerate() {
            let pointer = format!("/scopes/{index}");
            if scopes[..index].contains(scope) {
                checks.wrong(&pointer, format!("\"{scope}\" stands here twice"));
            }
            if scope == "*" {
                continue;
            }
            let Some((kind, verb)) = known(scope) else {
                let message = format!(
                    "\"{}\" is no scope: write * or KIND:read or KIND:write with a KIND of {}",
                    scope.escape_debug(),
                    KINDS.join(", ")
                );
                checks.wrong(&pointer, message);
                continue;
            };
            let needed = needed(kind, verb);
            if role < needed {
                let has = role.map_or("no role", Role::word);
                let needs = needed.map_or("", Role::word);
                let message = format!("\"{scope}\" needs the role {needs}, and its user has {has}");
                checks.wrong(&pointer, message);
            }
        }
    }

    fn known(scope: &str) -> Option<(&str, &str)> {
        let (kind, verb) = scope.split_once(':')?;
        (KINDS.contains(&kind) && ["read", "write"].contains(&verb)).then_some((kind, verb))
    }

    fn needed(kind: &str, verb: &str) -> Option<Role> {
        match (kind, verb) {
            (kind, _) if OWN.contains(&kind) => None,
            (_, "read") => Some(Role::Viewer),
            (kind, _) if ADMINISTRATIVE.contains(&kind) => Some(Role::Administrator),
            _ => Some(Role::Operator),
        }
    }
}

/// A one-time link to be made for a user.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"device_name": "phone", "valid_s": 86_400}))]
pub struct NewEnrolment {
    /// What the device will be called.
    pub device_name: String,
    /// Seconds for which the link is good: 60 to 2,592,000 (30 days); a day if left out.
    #[serde(default)]
    pub valid_s: Option<u32>,
}

impl NewEnrolment {
    /// The checked name, and when the link ends.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, now: Timestamp) -> Result<(String, Timestamp), Refusal> {
        let mut checks = Checks::default();
        let name = checks.name("/device_name", &self.device_name);
        let valid_s = self.valid_s.unwrap_or(86_400);
        checks.within("/valid_s", valid_s, 60, 2_592_000, "seconds");
        checks.finish()?;
        Ok((name, now.plus_ms(i64::from(valid_s) * 1000)))
    }
}

/// What whoever has a one-time link sends for its device.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "secret": "re_0000000000000000000000000000000000000000000000000000000000000000_00000000",
    "public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="}))]
pub struct Redeem {
    /// What stands behind `#` in the link.
    pub secret: Secret,
    /// The key that the device made for itself. Its private half stays there.
    pub public_key: String,
}

impl Redeem {
    /// The key.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub fn check(&self) -> Result<PublicKey, Refusal> {
        let mut checks = Checks::default();
        let key = checks.public_key("/public_key", &self.public_key);
        checks.finish()?;
        key.ok_or(Refusal::LinkRefused)
    }
}

impl Checks {
    /// A public key that somebody can have the private half of.
    pub(super) fn public_key(&mut self, pointer: &str, text: &str) -> Option<PublicKey> {
        let key = match keys::parse_public(text) {
            Ok(key) => key,
            Err(error) => {
                self.wrong(pointer, error.to_string());
                return None;
            }
        };
        // A number of 2^255 - 19 or more is a second spelling of a smaller one: one private key
        // could be registered twice. No program makes such a key.
        if !is_reduced(&key) {
            self.wrong(
                pointer,
                "This is no canonical X25519 key: give the one that wg pubkey prints",
            );
            return None;
        }
        // A point of low order gives a shared secret of zeros with everybody.
        if PrivateKey::generate(&mut SystemRandom).agree(&key).is_none() {
            self.wrong(pointer, "This key is known to be weak: let the device make a new one");
            return None;
        }
        Some(key)
    }
}

fn is_reduced(key: &PublicKey) -> bool {
    let [low, middle @ .., high] = &key.0;
    *high < 0x7f || (*high == 0x7f && (middle.iter().any(|byte| *byte != 0xff) || *low < 0xed))
}
