//! What is kept of people, devices and rules: plain data, as both engines store it and the API
//! shows it.
//!
//! What is secret is in a field of its own that is never serialised. A record that has passed
//! `directory` is valid: names are short and plain, rates and times are in range. This module must
//! not know SQL, HTTP or the packet path.

use std::net::IpAddr;

use ringway_proto::crypto::{PresharedKey, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::ids::{
    DeviceId, EnrolmentId, GroupId, PolicyId, PoolId, Timestamp, TokenId, UserId,
};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident $word:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)* }

        // Written out: the macro of utoipa does not see words that another macro hands on.
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let words = [$($word,)*];
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(words))
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it, in the store, the API and the CLI.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// What `word` stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    )*};
}

words! {
    /// Whether a user may come in.
    UserState {
        /// May.
        Active "active",
        /// May not until an administrator says otherwise.
        Disabled "disabled",
        /// Thrown out: as disabled, and shown as a sanction.
        Banned "banned",
    }

    /// What a user may do with the API, each including the one before.
    Role {
        /// Sees everything but secrets.
        Viewer "viewer",
        /// Also changes users, devices, groups, policies and sessions.
        Operator "operator",
        /// Also changes the configuration, roles, pools and tokens of others.
        Administrator "administrator",
    }

    /// How often a quota begins anew, at midnight UTC (weeks on Monday, months on the first).
    Period {
        /// Every day.
        Day "day",
        /// Every Monday.
        Week "week",
        /// Every first of a month.
        Month "month",
        /// Never.
        Total "total",
    }

    /// What happens when a quota is used up.
    QuotaAction {
        /// Goes on at `throttle_bps` each way.
        Throttle "throttle",
        /// All sessions of the user end until the quota begins anew or is raised.
        Disconnect "disconnect",
        /// Only an event.
        Notify "notify",
    }

    /// What happens to one session too many.
    Excess {
        /// The new one is refused.
        Refuse "refuse",
        /// The oldest one ends.
        KickOldest "kick-oldest",
    }

    /// How a user proves to be one; a policy asks for some of these in order.
    Factor {
        /// A local password.
        Password "password",
        /// A one-time password, of RFC 6238 or RFC 4226 as the user has it.
        Totp "totp",
        /// A signed access token (JWT).
        Token "token",
        /// A client certificate.
        Certificate "certificate",
        /// Nothing: whoever comes.
        Anonymous "anonymous",
    }

    /// What makes the next one-time password of an authenticator another one.
    OtpKind {
        /// Time: each half minute has one (TOTP, RFC 6238).
        Time "time",
        /// A counter: each press of the button gives one (HOTP, RFC 4226).
        Counter "counter",
    }

    /// Where a device's private key was made.
    KeyOrigin {
        /// On the device, which never showed it.
        Device "device",
        /// Here, handed out once and not kept.
        Gateway "gateway",
    }
}

/// Limits of speed, each way apart. Absent is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rate {
    /// From the client, in bits per second.
    pub up_bps: Option<u64>,
    /// To the client, in bits per second.
    pub down_bps: Option<u64>,
    /// Bytes that may pass at once before the rate counts; by default what fits the rate.
    pub burst_bytes: Option<u64>,
}

/// How much a user may move, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Inner bytes per period.
    pub bytes: u64,
    /// When it begins anew.
    pub period: Period,
    /// What happens at its end.
    pub action: QuotaAction,
    /// Bits per second each way after it, for [`QuotaAction::Throttle`].
    #[serde(default)]
    pub throttle_bps: Option<u64>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// Its identifier.
    pub id: UserId,
    /// What it signs in with: unique, 1 to 64 of `a-z 0-9 . _ @ -`, in lower case.
    pub name: String,
    /// For people; at most 128 characters.
    pub display_name: String,
    /// Its group, if any.
    pub group: Option<GroupId>,
    /// Its own policy, before that of its group.
    pub policy: Option<PolicyId>,
    /// What it may do with the API; none if it may not use it.
    pub role: Option<Role>,
    /// Whether it may come in.
    pub state: UserState,
    /// From when on it may not.
    pub expires_at: Option<Timestamp>,
    /// Its own rate, before that of its policy.
    pub rate: Option<Rate>,
    /// Its own quota, before that of its policy.
    pub quota: Option<Quota>,
    /// Whether there is a password.
    pub has_password: bool,
    /// Whether there is a second factor.
    pub has_totp: bool,
    /// Of which kind, if there is one.
    pub totp_kind: Option<OtpKind>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change.
    pub version: u64,
}

impl Default for OtpKind {
    /// What nearly every authenticator is.
    fn default() -> Self {
        Self::Time
    }
}

/// What is secret about a user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserSecrets {
    /// A PHC string, argon2id.
    pub password_hash: Option<String>,
    /// The shared secret of one-time passwords.
    pub totp_secret: Option<Vec<u8>>,
    /// What it goes by.
    pub totp_kind: OtpKind,
    /// The last time step that was accepted, or how many counters are used up: no one-time password
    /// counts twice.
    pub totp_last_step: u64,
}

/// Users with something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Group {
    /// Its identifier.
    pub id: GroupId,
    /// Unique, as a user's.
    pub name: String,
    /// Policy of its users; none is the default policy.
    pub policy: Option<PolicyId>,
    /// What all its users share.
    pub rate: Rate,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change.
    pub version: u64,
}

/// What users may do. There is always one called `default`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Policy {
    /// Its identifier.
    pub id: PolicyId,
    /// Unique, as a user's.
    pub name: String,
    /// What is asked for at sign-in, in this order; at least one.
    pub factors: Vec<Factor>,
    /// Of each session.
    pub session_rate: Rate,
    /// Of all sessions of one user together.
    pub user_rate: Rate,
    /// Of each user.
    pub quota: Option<Quota>,
    /// Seconds of access that a sign-in gives, 60 to 31,536,000; 0 for no end.
    pub session_timeout_s: u32,
    /// Seconds without a packet after which access ends; 0 for never.
    pub idle_timeout_s: u32,
    /// Most devices of a user, 1 to 1000.
    pub devices_max: u32,
    /// Most sessions of a user at the same time, 1 to 1000.
    pub sessions_max: u32,
    /// What happens to one more.
    pub excess: Excess,
    /// Where addresses come from; none is the pool `default`.
    pub pool: Option<PoolId>,
    /// What clients send into the tunnel; empty for the configuration's choice.
    #[schema(value_type = Vec<String>)]
    pub routes: Vec<String>,
    /// DNS servers of clients; empty for the configuration's choice.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change.
    pub version: u64,
}

/// A client with a key of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Device {
    /// Its identifier.
    pub id: DeviceId,
    /// Whose it is.
    pub user: UserId,
    /// Unique among the user's devices, as a user's name.
    pub name: String,
    /// Unique among all.
    #[schema(value_type = String)]
    #[serde(serialize_with = "show_key")]
    pub public_key: PublicKey,
    /// Where its private key was made.
    pub key_origin: KeyOrigin,
    /// Whether it may connect at all.
    pub enabled: bool,
    /// When the last sign-in gave it access.
    pub access_from: Option<Timestamp>,
    /// When that access ends; none while there is no access, or if it has no end.
    pub access_until: Option<Timestamp>,
    /// When it was last seen, to the minute; absent in no-log mode.
    pub last_seen: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change.
    pub version: u64,
}

/// What is secret about a device.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DeviceSecrets {
    /// Zeros if there is none.
    pub preshared: PresharedKey,
}

/// Inner addresses to lease from. The pool `default` is made from `[interface] pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pool {
    /// Its identifier.
    pub id: PoolId,
    /// Unique, as a user's.
    pub name: String,
    /// IPv4 prefix, inside the interface's.
    pub net4: Option<String>,
    /// IPv6 prefix, inside the interface's.
    pub net6: Option<String>,
    /// First and last address that may be leased, if not all of `net4`.
    #[schema(value_type = Option<Vec<String>>)]
    pub range4: Option<(IpAddr, IpAddr)>,
    /// Whether addresses are drawn at random rather than in order.
    pub random: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Grows with every change.
    pub version: u64,
}

/// Inner addresses of a device. It keeps them until it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Lease {
    /// Whose.
    pub device: DeviceId,
    /// From where.
    pub pool: PoolId,
    /// In the pool's IPv4 prefix.
    #[schema(value_type = Option<String>)]
    pub address4: Option<std::net::Ipv4Addr>,
    /// In the pool's IPv6 prefix.
    #[schema(value_type = Option<String>)]
    pub address6: Option<std::net::Ipv6Addr>,
    /// Chosen by an administrator.
    pub is_static: bool,
    /// When it was given.
    pub created_at: Timestamp,
}

/// A secret that stands for a user. The secret itself is shown once and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// Its identifier.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// For people; at most 64 characters.
    pub name: String,
    /// What it may be used for: `KIND:read` or `KIND:write`, or `*`.
    pub scopes: Vec<String>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A one-time invitation: whoever has its secret may add one device to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Enrolment {
    /// Its identifier.
    pub id: EnrolmentId,
    /// Whose device it will be.
    pub user: UserId,
    /// What the device will be called.
    pub device_name: String,
    /// From when on it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was used, and what came of it.
    pub used_by: Option<DeviceId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Bytes of one device in one day (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Whose.
    pub user: UserId,
    /// Of which device.
    pub device: DeviceId,
    /// Days since the Unix epoch.
    pub day: i32,
    /// Inner bytes from the client.
    pub up_bytes: u64,
    /// Inner bytes to the client.
    pub down_bytes: u64,
    /// Packets from the client.
    pub up_packets: u64,
    /// Packets to the client.
    pub down_packets: u64,
}

/// One change, and who made it. Each carries the hash of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEntry {
    /// From 1 on, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Who: `user:NAME`, `token:ID`, `local:UID` or `gateway`.
    pub actor: String,
    /// What was done, as `KIND.VERB`.
    pub action: String,
    /// What it was done to: a name or an identifier.
    pub object: String,
    /// What changed; never a secret.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// SHA-256 over the hash before and everything above, in hex.
    pub hash: String,
}

/// A session that began or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnectionEntry {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub user: UserId,
    /// With which device.
    pub device: DeviceId,
    /// `connected` or `disconnected`.
    pub event: String,
    /// Where the client was; absent in no-log mode.
    pub endpoint: Option<String>,
    /// Why it ended.
    pub reason: Option<String>,
    /// How long it lasted, in seconds.
    pub duration_s: Option<u64>,
    /// Inner bytes from the client.
    pub up_bytes: u64,
    /// Inner bytes to the client.
    pub down_bytes: u64,
}

/// A session that lives, as the store keeps it while it does: what its end is made of if the
/// gateway does not come to tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OpenSession {
    /// Its number.
    pub session: u64,
    /// Whose.
    pub user: UserId,
    /// With which device.
    pub device: DeviceId,
    /// Since when.
    pub since: Timestamp,
    /// Where the client was when this was last noted.
    pub endpoint: Option<String>,
    /// Inner bytes from the client, as far as they are in its usage.
    pub up_bytes: u64,
    /// Inner bytes to the client, as far as they are in its usage.
    pub down_bytes: u64,
}

/// A configuration that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConfigVersion {
    /// From 1 on.
    pub version: u64,
    /// Since when.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// The text, without secrets.
    pub text: String,
    /// Hash of the text as it was, in hex, under a key of the store: equal hashes are equal texts.
    pub hash: String,
}

/// Somebody who is kept out for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ban {
    /// `user:NAME` or a source prefix.
    pub subject: String,
    /// Until when.
    pub until: Timestamp,
    /// Failures that led to it.
    pub score: u32,
    /// Code of the reason.
    pub reason: String,
}

fn show_key<S: serde::Serializer>(key: &PublicKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::keys::show_public(key))
}
