//! Records by name or identifier, and what changed between two states of one.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::input::{Patch, UserRefs};
use super::refusal::Refusal;
use crate::store::Db;
use crate::store::records::{Device, Group, GroupId, Policy, PolicyId, Pool, PoolId, User, UserId};

/// The policy that holds where no other is named, and the pool that it leases from.
pub(super) const DEFAULT: &str = "default";

macro_rules! finders {
    ($($name:ident $kind:literal $id:ident $record:ident $get:ident $by_name:ident,)*) => {$(
        #[doc = concat!("The ", $kind, " with this name or identifier.")]
        pub(super) fn $name(db: &mut Db<'_>, word: &str) -> Result<$record, Refusal> {
            if let Ok(id) = word.parse::<$id>() {
                return db.$get(id).map_err(|error| not_found(error.into(), $kind, word));
            }
            let found = db.$by_name(&word.to_ascii_lowercase())?;
            found.ok_or_else(|| Refusal::missing($kind, word.escape_debug()))
        }
    )*};
}

finders! {
    user "user" UserId User user user_by_name,
    group "group" GroupId Group group group_by_name,
    policy "policy" PolicyId Policy policy policy_by_name,
    pool "pool" PoolId Pool pool pool_by_name,
}

/// The user's device with this name, or the device with this identifier if it is the user's.
pub(super) fn device_of(db: &mut Db<'_>, user: &User, word: &str) -> Result<Device, Refusal> {
    let name = word.to_ascii_lowercase();
    let devices = db.devices_of(user.id)?;
    let found =
        devices.into_iter().find(|device| device.name == name || device.id.to_string() == name);
    found.ok_or_else(|| Refusal::missing("device", word.escape_debug()))
}

/// Resolves the references of a user. What does not exist is a problem of the input.
pub(super) fn resolve_user(
    db: &mut Db<'_>,
    refs: &UserRefs,
    mut user: User,
) -> Result<User, Refusal> {
    user.group = reference("/group", &refs.group, user.group, |word| Ok(group(db, word)?.id))?;
    user.policy = reference("/policy", &refs.policy, user.policy, |word| Ok(policy(db, word)?.id))?;
    Ok(user)
}

/// Resolves a reference at `pointer` of the input.
pub(super) fn reference<T>(
    pointer: &str,
    patch: &Patch<String>,
    before: Option<T>,
    mut find: impl FnMut(&str) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    let word = match patch {
        Patch::Keep => return Ok(before),
        Patch::Clear => return Ok(None),
        Patch::Set(word) => word,
    };
    match find(word) {
        Ok(id) => Ok(Some(id)),
        Err(missing @ Refusal::NotFound { .. }) => {
            Err(Refusal::field(pointer, missing.to_string()))
        }
        Err(other) => Err(other),
    }
}

/// Refuses a change of what is not as the caller saw it.
pub(super) fn expect_version(
    kind: &'static str,
    stored: u64,
    expected: Option<u64>,
) -> Result<(), Refusal> {
    match expected {
        Some(version) if version != stored => Err(Refusal::Stale { kind }),
        Some(_) | None => Ok(()),
    }
}

/// The fields that differ, each as `[before, after]`. Records never show secrets.
pub(super) fn changed<T: Serialize>(before: &T, after: &T) -> Value {
    let (before, after) = (fields(before), fields(after));
    let differs = |(name, value): (String, Value)| {
        let old = before.get(&name).cloned().unwrap_or_default();
        (old != value && name != "version").then(|| (name, json!([old, value])))
    };
    Value::Object(after.into_iter().filter_map(differs).collect())
}

/// All fields of a record, for an entry about one that came or went.
pub(super) fn whole<T: Serialize>(record: &T) -> Value {
    let unset = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    Value::Object(fields(record).into_iter().filter(|(_, value)| !unset(value)).collect())
}

fn fields<T: Serialize>(record: &T) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        // Records are plain structs: they always become objects.
        Ok(other) => Map::from_iter([("value".to_owned(), other)]),
        Err(error) => Map::from_iter([("error".to_owned(), json!(error.to_string()))]),
    }
}

fn not_found(refusal: Refusal, kind: &'static str, word: &str) -> Refusal {
    if let Refusal::NotFound { .. } = refusal { Refusal::missing(kind, word) } else { refusal }
}
