//! Which policy holds, and where each value comes from.

use proptest::prelude::*;

use super::*;
use crate::store::records::{GroupId, Period, QuotaAction, UserId};

fn policy(name: &str, devices_max: u32) -> Policy {
    Policy {
        id: PolicyId::fresh(),
        name: name.to_owned(),
        factors: vec![Factor::Password],
        session_rate: Rate::default(),
        user_rate: Rate { up_bps: Some(1_000_000), ..Rate::default() },
        quota: None,
        session_timeout_s: 60,
        idle_timeout_s: 0,
        devices_max,
        sessions_max: 1,
        excess: Excess::Refuse,
        pool: None,
        routes: Vec::new(),
        dns: Vec::new(),
        created_at: Timestamp(0),
        version: 1,
    }
}

fn user() -> User {
    User {
        id: UserId::fresh(),
        name: "ada".to_owned(),
        display_name: "Ada".to_owned(),
        group: None,
        policy: None,
        role: None,
        state: UserState::Active,
        expires_at: None,
        rate: None,
        quota: None,
        has_password: false,
        has_totp: false,
        totp_kind: None,
        created_at: Timestamp(0),
        version: 1,
    }
}

fn group() -> Group {
    Group {
        id: GroupId::fresh(),
        name: "staff".to_owned(),
        policy: None,
        rate: Rate { down_bps: Some(5_000_000), ..Rate::default() },
        created_at: Timestamp(0),
        version: 1,
    }
}

#[test]
fn the_nearest_policy_holds_as_a_whole() {
    let (own, of_group, default) = (policy("own", 1), policy("group", 2), policy("default", 3));
    for (own, group, devices, origin) in [
        (Some(&own), Some(&of_group), 1, Origin::UserPolicy),
        (Some(&own), None, 1, Origin::UserPolicy),
        (None, Some(&of_group), 2, Origin::GroupPolicy),
        (None, None, 3, Origin::DefaultPolicy),
    ] {
        let candidates = Candidates { own, group, default: &default };
        let effective = Effective::resolve(&user(), None, &candidates);
        assert_eq!(effective.devices_max, devices);
        assert_eq!(effective.origins["devices_max"], origin);
        assert_eq!(effective.origins["user_rate"], origin);
        assert_eq!(effective.origins["dns"], Origin::Configuration);
        assert!(!effective.origins.contains_key("group_rate"));
    }
}

#[test]
fn a_user_who_is_disabled_banned_or_past_its_time_is_kept_out() {
    let now = Timestamp(1000);
    let mut user = user();
    assert_eq!(kept_out(&user, now), None);
    user.expires_at = Some(Timestamp(1001));
    assert_eq!(kept_out(&user, now), None);
    assert!(
        kept_out(&user, Timestamp(1001)).unwrap().contains("ended at 1970-01-01T00:00:01.001Z")
    );
    user.state = UserState::Banned;
    assert!(kept_out(&user, now).unwrap().contains("banned"));
    user.state = UserState::Disabled;
    assert!(kept_out(&user, now).unwrap().contains("disabled"));
}

proptest! {
    #[test]
    fn a_users_own_values_come_before_any_policys(
        own_policy in any::<bool>(), in_group in any::<bool>(), bps in any::<Option<u64>>(),
        bytes in any::<Option<u64>>()
    ) {
        let (own, default) = (policy("own", 1), policy("default", 3));
        let mut user = user();
        user.rate = bps.map(|bps| Rate { down_bps: Some(bps), ..Rate::default() });
        let quota = |bytes| Quota {
            bytes, period: Period::Day, action: QuotaAction::Notify, throttle_bps: None,
        };
        user.quota = bytes.map(quota);
        let group = in_group.then(group);
        let own_one = own_policy.then_some(&own);
        let candidates = Candidates { own: own_one, group: None, default: &default };
        let effective = Effective::resolve(&user, group.as_ref(), &candidates);
        prop_assert_eq!(effective.user_rate, user.rate.unwrap_or(own.user_rate));
        prop_assert_eq!(effective.quota, user.quota);
        prop_assert_eq!(effective.origins["user_rate"] == Origin::User, bps.is_some());
        prop_assert_eq!(effective.origins["quota"] == Origin::User, bytes.is_some());
        let shared = group.map(|group| group.rate).unwrap_or_default();
        prop_assert_eq!(effective.group_rate, shared);
    }
}
