//! Forms of users, and of the rates and quotas that users, groups and policies have in common.

use serde::Deserialize;
use utoipa::ToSchema;

use super::check::DISPLAY_CHARS_MAX;
use super::{Checks, Patch, Secret};
use crate::directory::refusal::Refusal;
use crate::store::records::{
    Period, Quota, QuotaAction, Rate, Role, Timestamp, User, UserId, UserState,
};

/// A user to be made.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "ada", "display_name": "Ada Lovelace", "group": "staff",
    "rate": {"up_bps": 50_000_000, "down_bps": 100_000_000},
    "quota": {"bytes": 100_000_000_000_u64, "period": "month", "action": "throttle",
              "throttle_bps": 1_000_000},
    "expires_at": "2030-01-01T00:00:00Z"
}))]
pub struct NewUser {
    /// 1 to 64 of `a-z 0-9 . _ @ -`; capitals become small.
    pub name: String,
    /// At most 128 characters; the name if it is left out.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Name or identifier of a group.
    #[serde(default)]
    pub group: Option<String>,
    /// Name or identifier of a policy.
    #[serde(default)]
    pub policy: Option<String>,
    /// Only an administrator gives roles.
    #[serde(default)]
    pub role: Option<Role>,
    /// From when on it may not come in any more.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Its own rate, before that of its policy.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Its own quota, before that of its policy.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// A first password.
    #[serde(default)]
    pub password: Option<Secret>,
}

/// References of a user that the store has to resolve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRefs {
    /// Name or identifier of its group.
    pub group: Patch<String>,
    /// Name or identifier of its policy.
    pub policy: Patch<String>,
}

impl NewUser {
    /// The record, if everything in the form is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, id: UserId, now: Timestamp) -> Result<(User, UserRefs), Refusal> {
        let mut checks = Checks::default();
        let name = checks.name("/name", &self.name);
        if let Some(text) = &self.display_name {
            checks.display("/display_name", text, DISPLAY_CHARS_MAX);
        }
        let display_name = self.display_name.clone().unwrap_or_else(|| name.clone());
        if let Some(rate) = &self.rate {
            checks.rate("/rate", rate);
        }
        if let Some(quota) = &self.quota {
            checks.quota("/quota", quota);
        }
        if let Some(moment) = self.expires_at {
            checks.future("/expires_at", moment, now);
        }
        checks.finish()?;
        let user = User {
            id,
            name,
            display_name,
            group: None,
            policy: None,
            role: self.role,
            state: UserState::Active,
            expires_at: self.expires_at,
            rate: self.rate,
            quota: self.quota,
            has_password: false,
            has_totp: false,
            totp_kind: None,
            created_at: now,
            version: 1,
        };
        let set = |word: &Option<String>| word.clone().map_or(Patch::Keep, Patch::Set);
        Ok((user, UserRefs { group: set(&self.group), policy: set(&self.policy) }))
    }
}

/// Changes to a user: what is absent stays, what is `null` is taken away.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"display_name": "Ada King", "quota": {"bytes": 200_000_000_000_u64},
    "expires_at": null}))]
pub struct UserPatch {
    /// A new name.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Patch<String>,
    /// Shown to people; `null` shows the name.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub display_name: Patch<String>,
    /// Name or identifier of a group.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub group: Patch<String>,
    /// Name or identifier of a policy.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub policy: Patch<String>,
    /// Only an administrator gives and takes roles.
    #[serde(default)]
    #[schema(value_type = Option<Role>)]
    pub role: Patch<Role>,
    /// `active`, `disabled` or `banned`.
    #[serde(default)]
    #[schema(value_type = Option<UserState>)]
    pub state: Patch<UserState>,
    /// From when on it may not come in any more.
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    pub expires_at: Patch<Timestamp>,
    /// Its own rate; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<RatePatch>)]
    pub rate: Patch<RatePatch>,
    /// Its own quota; merged with the one before.
    #[serde(default)]
    #[schema(value_type = Option<QuotaPatch>)]
    pub quota: Patch<QuotaPatch>,
}

impl UserPatch {
    /// The record after the patch, if everything in it is right.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with every problem.
    pub fn check(&self, before: &User, now: Timestamp) -> Result<(User, UserRefs), Refusal> {
        let mut checks = Checks::default();
        let mut user = before.clone();
        if !self.name.is_keep() {
            user.name = checks.required("/name", &self.name, &before.name);
            user.name = checks.name("/name", &user.name);
        }
        let display = self.display_name.clone();
        if let Patch::Set(text) = &display {
            checks.display("/display_name", text, DISPLAY_CHARS_MAX);
        }
        user.display_name = display.apply_or(user.display_name, user.name.clone());
        user.role = self.role.clone().apply(user.role);
        user.state = checks.required("/state", &self.state, &user.state);
        if let Patch::Set(moment) = self.expires_at {
            checks.future("/expires_at", moment, now);
        }
        user.expires_at = self.expires_at.clone().apply(user.expires_at);
        user.rate = RatePatch::merge(&self.rate, before.rate);
        if let (Patch::Set(_), Some(rate)) = (&self.rate, &user.rate) {
            checks.rate("/rate", rate);
        }
        user.quota = QuotaPatch::merge(&self.quota, before.quota, "/quota", &mut checks);
        checks.finish()?;
        Ok((user, UserRefs { group: self.group.clone(), policy: self.policy.clone() }))
    }
}

/// Changes to a rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RatePatch {
    /// From the client, in bits per second; `null` for unlimited.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub up_bps: Patch<u64>,
    /// To the client, in bits per second; `null` for unlimited.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub down_bps: Patch<u64>,
    /// Bytes that may pass at once before the rate counts.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub burst_bytes: Patch<u64>,
}

impl RatePatch {
    /// The rate after the patch.
    #[must_use]
    pub fn merge(patch: &Patch<Self>, before: Option<Rate>) -> Option<Rate> {
        match patch {
            Patch::Keep => before,
            Patch::Clear => None,
            Patch::Set(wish) => Some(wish.clone().apply(before.unwrap_or_default())),
        }
    }

    fn apply(self, before: Rate) -> Rate {
        Rate {
            up_bps: self.up_bps.apply(before.up_bps),
            down_bps: self.down_bps.apply(before.down_bps),
            burst_bytes: self.burst_bytes.apply(before.burst_bytes),
        }
    }
}

/// Changes to a quota. One that was not there needs at least `bytes`, `period` and `action`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaPatch {
    /// Inner bytes per period, both ways together.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub bytes: Patch<u64>,
    /// When it begins anew.
    #[serde(default)]
    #[schema(value_type = Option<Period>)]
    pub period: Patch<Period>,
    /// What happens at its end.
    #[serde(default)]
    #[schema(value_type = Option<QuotaAction>)]
    pub action: Patch<QuotaAction>,
    /// Bits per second each way after it, for the action `throttle`.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub throttle_bps: Patch<u64>,
}

impl QuotaPatch {
    /// The quota after the patch; what is wrong with it goes to `checks`.
    pub fn merge(
        patch: &Patch<Self>,
        before: Option<Quota>,
        pointer: &str,
        checks: &mut Checks,
    ) -> Option<Quota> {
        let wish = match patch {
            Patch::Keep => return before,
            Patch::Clear => return None,
            Patch::Set(wish) => wish,
        };
        let at = |field: &str| format!("{pointer}/{field}");
        let bytes = part(&wish.bytes, before.map(|b| b.bytes), &at("bytes"), checks);
        let period = part(&wish.period, before.map(|b| b.period), &at("period"), checks);
        let action = part(&wish.action, before.map(|b| b.action), &at("action"), checks);
        let (bytes, period, action) = (bytes?, period?, action?);
        // A rate that only the action before had goes with it, unless this patch says otherwise.
        let rate_before =
            before.and_then(|b| b.throttle_bps).filter(|_| action == QuotaAction::Throttle);
        let throttle_bps = wish.throttle_bps.clone().apply(rate_before);
        let quota = Quota { bytes, period, action, throttle_bps };
        checks.quota(pointer, &quota);
        Some(quota)
    }
}

fn part<T: Clone>(
    patch: &Patch<T>,
    before: Option<T>,
    pointer: &str,
    checks: &mut Checks,
) -> Option<T> {
    let after = patch.clone().apply(before);
    if after.is_none() {
        checks.wrong(pointer, "A quota needs this: give it, or null for no quota at all");
    }
    after
}
