//! What a violated constraint means, by the name it has on each engine. This module must not know
//! how it was violated.

use super::error::StoreError;

/// Name on PostgreSQL, columns on SQLite, kind of record, field.
const UNIQUE: &[(&str, &str, &str, &str)] = &[
    ("users_pkey", "users.id", "user", "id"),
    ("users_name", "users.name", "user", "name"),
    ("groups_pkey", "groups.id", "group", "id"),
    ("groups_name", "groups.name", "group", "name"),
    ("policies_pkey", "policies.id", "policy", "id"),
    ("policies_name", "policies.name", "policy", "name"),
    ("pools_pkey", "pools.id", "pool", "id"),
    ("pools_name", "pools.name", "pool", "name"),
    ("devices_pkey", "devices.id", "device", "id"),
    ("devices_name", "devices.user_id, devices.name", "device", "name"),
    ("devices_key", "devices.public_key", "device", "public_key"),
    ("leases_pkey", "leases.device_id", "lease", "device"),
    ("leases_address4", "leases.address4", "lease", "address4"),
    ("leases_address6", "leases.address6", "lease", "address6"),
    ("tokens_pkey", "tokens.id", "token", "id"),
    ("tokens_secret", "tokens.secret_hash", "token", "secret"),
    ("enrolments_pkey", "enrolments.id", "enrolment", "id"),
    ("enrolments_secret", "enrolments.secret_hash", "enrolment", "secret"),
    ("configs_by_gateway", "configs.gateway, configs.version", "configuration", "version"),
];

/// The conflict that a unique index stands for; `name` is as an engine tells it. What was taken is
/// filled in by who knows.
pub(crate) fn conflict(name: &str) -> StoreError {
    let known = UNIQUE.iter().find(|(index, columns, _, _)| name == *index || name == *columns);
    match known {
        Some((_, _, kind, field)) => StoreError::Conflict { kind, field, value: String::new() },
        None => StoreError::Invalid { why: format!("{name} must be unique") },
    }
}
