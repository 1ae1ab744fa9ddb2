//! Users: what is made, changed and refused.

use super::*;
use crate::directory::input::{
    GroupPatch, NewGroup, NewPolicy, Patch, QuotaPatch, RatePatch, UserPatch,
};
use crate::events::Kind;
use crate::store::Page;
use crate::store::query::UserFilter;
use crate::store::records::{Period, Quota, QuotaAction, Rate, UserState};

#[tokio::test]
async fn a_user_is_made_as_asked_and_found_by_name_and_identifier() {
    let desk = Desk::new("user_made").await;
    let mut changes = desk.directory.changes();
    let mut events = desk.hub.listen();
    let form = NewUser {
        name: "Ada.Lovelace@example.org".to_owned(),
        password: Some(Secret::new("correct horse")),
        rate: Some(Rate { up_bps: Some(1_000_000), ..Rate::default() }),
        ..NewUser::default()
    };
    let user = desk.directory.create_user(&root(), form).await.unwrap();
    assert_eq!((user.name.as_str(), user.version), ("ada.lovelace@example.org", 1));
    assert_eq!(user.display_name, user.name);
    assert!(user.has_password && !user.has_totp);
    assert_eq!(desk.directory.user(&user.id.to_string()).await.unwrap(), user);
    assert_eq!(desk.directory.user("ADA.lovelace@example.org").await.unwrap(), user);
    assert_eq!(changes.try_recv(), Ok(Change::User(user.id)));
    let Some(crate::events::Heard::Event(event)) = events.try_next() else { panic!("no event") };
    assert_eq!((event.kind, event.subject.clone()), (Kind::UserCreated, user.id.to_string()));
    assert!(!event.detail.to_string().contains("horse"), "{}", event.detail);
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_and_nothing_is_written() {
    let desk = Desk::new("user_wrong").await;
    let form = NewUser {
        name: "a b".to_owned(),
        display_name: Some("x\u{7}".to_owned()),
        rate: Some(Rate {
            up_bps: Some(7_999),
            down_bps: Some(400_000_000_001),
            burst_bytes: Some(1),
        }),
        quota: Some(Quota {
            bytes: (1 << 20) - 1,
            period: Period::Day,
            action: QuotaAction::Throttle,
            throttle_bps: None,
        }),
        expires_at: Some(START),
        ..NewUser::default()
    };
    let refusal = desk.directory.create_user(&root(), form).await.unwrap_err();
    assert_eq!(
        places(&refusal),
        [
            "/name",
            "/display_name",
            "/rate/up_bps",
            "/rate/down_bps",
            "/rate/burst_bytes",
            "/quota/bytes",
            "/quota/throttle_bps",
            "/expires_at"
        ]
    );
    let weak = NewUser { password: Some(Secret::new("short")), ..new_user("ada") };
    let refusal = desk.directory.create_user(&root(), weak).await.unwrap_err();
    assert_eq!(places(&refusal), ["/password"]);
    let lost = NewUser { group: Some("nobody".to_owned()), ..new_user("ada") };
    let refusal = desk.directory.create_user(&root(), lost).await.unwrap_err();
    assert_eq!(places(&refusal), ["/group"]);
    let users = desk.directory.users(UserFilter::default(), None, Page::first()).await.unwrap();
    assert!(users.items.is_empty(), "{users:?}");
}

#[tokio::test]
async fn a_patch_keeps_what_is_absent_clears_what_is_null_and_merges_parts() {
    let desk = Desk::new("user_patch").await;
    let quota = Quota {
        bytes: 1 << 30,
        period: Period::Month,
        action: QuotaAction::Throttle,
        throttle_bps: Some(64_000),
    };
    let form = NewUser {
        quota: Some(quota),
        rate: Some(Rate { up_bps: Some(9_000), down_bps: Some(10_000), burst_bytes: None }),
        expires_at: Some(START.plus_ms(1)),
        ..new_user("ada")
    };
    let before = desk.directory.create_user(&root(), form).await.unwrap();
    let patch: UserPatch = serde_json::from_str(
        r#"{"rate": {"up_bps": null}, "quota": {"action": "disconnect"}, "expires_at": null}"#,
    )
    .unwrap();
    let after = desk.directory.patch_user(&root(), "ada", Some(1), patch).await.unwrap();
    let expected = User {
        rate: Some(Rate { down_bps: Some(10_000), ..Rate::default() }),
        quota: Some(Quota { action: QuotaAction::Disconnect, throttle_bps: None, ..quota }),
        expires_at: None,
        version: 2,
        ..before
    };
    assert_eq!(after, expected);
    let none: UserPatch = serde_json::from_str("{}").unwrap();
    let same = desk.directory.patch_user(&root(), "ada", None, none).await.unwrap();
    assert_eq!(same.version, 2, "a patch without changes writes nothing");
    let half = UserPatch { quota: Patch::Clear, rate: Patch::Clear, ..UserPatch::default() };
    let bare = desk.directory.patch_user(&root(), "ada", None, half).await.unwrap();
    assert_eq!((bare.quota, bare.rate), (None, None));
    let part = QuotaPatch { bytes: Patch::Set(1 << 30), ..QuotaPatch::default() };
    let patch = UserPatch { quota: Patch::Set(part), ..UserPatch::default() };
    let refusal = desk.directory.patch_user(&root(), "ada", None, patch).await.unwrap_err();
    assert_eq!(places(&refusal), ["/quota/period", "/quota/action"]);
}

#[tokio::test]
async fn a_change_to_another_version_is_refused() {
    let desk = Desk::new("user_stale").await;
    desk.user("ada", None).await;
    let name = |name: &str| UserPatch {
        display_name: Patch::Set(name.to_owned()),
        ..UserPatch::default()
    };
    desk.directory.patch_user(&root(), "ada", Some(1), name("one")).await.unwrap();
    let stale = desk.directory.patch_user(&root(), "ada", Some(1), name("two")).await.unwrap_err();
    assert!(matches!(stale, Refusal::Stale { kind: "user" }), "{stale:?}");
    let stale = desk.directory.remove_user(&root(), "ada", Some(1)).await.unwrap_err();
    assert_eq!(stale.reason(), "stale_version");
    assert_eq!(desk.directory.user("ada").await.unwrap().display_name, "one");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_at_its_place() {
    let desk = Desk::new("user_taken").await;
    desk.user("ada", None).await;
    let refusal = desk.directory.create_user(&root(), new_user("Ada")).await.unwrap_err();
    assert_eq!((places(&refusal), refusal.reason()), (vec!["/name"], "taken"));
    desk.user("bob", None).await;
    let patch = UserPatch { name: Patch::Set("ada".to_owned()), ..UserPatch::default() };
    let refusal = desk.directory.patch_user(&root(), "bob", None, patch).await.unwrap_err();
    assert_eq!(places(&refusal), ["/name"]);
}

#[tokio::test]
async fn what_holds_for_a_user_follows_its_group_and_the_groups_policy() {
    let desk = Desk::new("user_effective").await;
    let (one, directory) = (root(), &desk.directory);
    let strict = NewPolicy {
        name: "strict".to_owned(),
        devices_max: Some(1),
        quota: Some(Quota {
            bytes: 1 << 20,
            period: Period::Day,
            action: QuotaAction::Notify,
            throttle_bps: None,
        }),
        ..NewPolicy::default()
    };
    directory.create_policy(&one, strict).await.unwrap();
    let staff = NewGroup {
        name: "staff".to_owned(),
        policy: Some("strict".to_owned()),
        ..NewGroup::default()
    };
    directory.create_group(&one, staff).await.unwrap();
    let ada = NewUser { group: Some("staff".to_owned()), ..new_user("ada") };
    directory.create_user(&one, ada).await.unwrap();
    let view = directory.user_view("ada").await.unwrap();
    assert_eq!((view.effective.policy_name.as_str(), view.effective.devices_max), ("strict", 1));
    assert_eq!(view.quota.unwrap().left_bytes, 1 << 20);
    let patch = GroupPatch { policy: Patch::Clear, ..GroupPatch::default() };
    directory.patch_group(&one, "staff", None, patch).await.unwrap();
    let view = directory.user_view("ada").await.unwrap();
    assert_eq!((view.effective.policy_name.as_str(), view.quota), ("default", None));
    let in_use = directory.remove_group(&one, "staff", None).await.unwrap_err();
    assert_eq!(in_use.reason(), "in_use");
    directory.remove_policy(&one, "strict", None).await.unwrap();
    let kept = directory.remove_policy(&one, "default", None).await.unwrap_err();
    assert_eq!(kept.reason(), "conflict");
}

#[tokio::test]
async fn passwords_need_the_old_one_from_their_owner_and_only_from_it() {
    let desk = Desk::new("user_password").await;
    let ada = desk.user("ada", None).await;
    let (mine, directory) = (as_user(&ada), &desk.directory);
    let first = directory.set_password(&mine, "ada", None, Secret::new("first password")).await;
    assert!(first.unwrap().has_password);
    let new = || Secret::new("second password");
    let missing = directory.set_password(&mine, "ada", None, new()).await.unwrap_err();
    assert_eq!(places(&missing), ["/old"]);
    let wrong = Some(Secret::new("not the first"));
    let wrong = directory.set_password(&mine, "ada", wrong, new()).await.unwrap_err();
    assert_eq!(places(&wrong), ["/old"]);
    let right = Some(Secret::new("first password"));
    directory.set_password(&mine, "ada", right, new()).await.unwrap();
    directory.set_password(&root(), "ada", None, Secret::new("third password")).await.unwrap();
    let weak = directory.set_password(&root(), "ada", None, Secret::new("x")).await.unwrap_err();
    assert_eq!(places(&weak), ["/new"]);
    let bob = as_user(&desk.user("bob", None).await);
    let foreign = directory.set_password(&bob, "ada", None, new()).await.unwrap_err();
    assert_eq!(foreign.reason(), "forbidden");
}

#[tokio::test]
async fn a_second_factor_counts_once_it_is_confirmed_and_its_owner_cannot_drop_it() {
    let desk = Desk::new("user_totp").await;
    let ada = desk.user("ada", None).await;
    let (mine, directory) = (as_user(&ada), &desk.directory);
    let offer = directory.offer_totp(&mine, "ada").await.unwrap();
    assert!(!directory.user("ada").await.unwrap().has_totp);
    let secret = || offer.secret.clone();
    let wrong = directory.confirm_totp(&mine, "ada", secret(), "000000").await.unwrap_err();
    assert_eq!(places(&wrong), ["/code"]);
    let short = Zeroizing::new(vec![1; 15]);
    let short = directory.confirm_totp(&mine, "ada", short, "123456").await.unwrap_err();
    assert_eq!(places(&short), ["/secret"]);
    let codes = directory.confirm_totp(&mine, "ada", secret(), "123456").await.unwrap();
    assert!(directory.user("ada").await.unwrap().has_totp);
    let take = || {
        let hash = crate::auth::totp::recovery_hash(ada.id, &codes[0].0);
        crate::auth::People::take_recovery_code(directory.store(), ada.id, hash)
    };
    assert!(take().await.unwrap() && !take().await.unwrap(), "a recovery code counts once");
    let again = directory.confirm_totp(&mine, "ada", secret(), "123456").await.unwrap_err();
    assert_eq!(again.reason(), "conflict");
    let step = START.0 as u64 / 30_000;
    let id = ada.id;
    let replayed = directory.store().write(move |db| db.accept_totp_step(id, step)).await.unwrap();
    assert!(!replayed, "the code that confirmed it is used up");
    let mine = directory.remove_totp(&mine, "ada").await.unwrap_err();
    assert_eq!(mine.reason(), "forbidden");
    assert!(!directory.remove_totp(&root(), "ada").await.unwrap().has_totp);
}

#[tokio::test]
async fn a_second_factor_may_go_by_a_counter_and_the_other_kind_only_after_it_is_removed() {
    let desk = Desk::new("user_hotp").await;
    let ada = desk.user("ada", None).await;
    let (mine, directory, id) = (as_user(&ada), &desk.directory, ada.id);
    let offer = directory.offer_hotp(&mine, "ada").await.unwrap();
    assert!(offer.url.starts_with("otpauth://hotp/"), "{}", *offer.url);
    let secret = || offer.secret.clone();
    let confirm =
        async |secret, first, code| directory.confirm_hotp(&mine, "ada", secret, first, code).await;
    let wrong = confirm(secret(), 0, "000000").await.unwrap_err();
    assert_eq!(places(&wrong), ["/code"]);
    assert!(wrong.to_string().contains("two codes in a row"), "{wrong}");
    let late = confirm(secret(), u64::MAX, "123456").await.unwrap_err();
    assert_eq!(places(&late), ["/counter"]);
    let short = confirm(Zeroizing::new(vec![1; 15]), 0, "123456").await.unwrap_err();
    assert_eq!(places(&short), ["/secret"]);
    let codes = confirm(secret(), 40, "123456").await.unwrap();
    assert_eq!(codes.len(), 1);
    let kept = directory.user("ada").await.unwrap();
    assert_eq!((kept.has_totp, kept.totp_kind), (true, Some(OtpKind::Counter)));
    let take = async |counter| {
        directory.store().write(move |db| db.accept_hotp_counter(id, counter)).await.unwrap()
    };
    assert!(!take(42).await, "the code that confirmed it is used up");
    assert!(take(43).await);
    let other = directory.confirm_totp(&mine, "ada", secret(), "123456").await.unwrap_err();
    assert_eq!(other.reason(), "conflict");
    let again = confirm(secret(), 0, "123456").await.unwrap_err();
    assert_eq!(again.reason(), "conflict");
    assert_eq!(directory.remove_totp(&root(), "ada").await.unwrap().totp_kind, None);
    directory.confirm_totp(&mine, "ada", secret(), "123456").await.unwrap();
    assert_eq!(directory.user("ada").await.unwrap().totp_kind, Some(OtpKind::Time));
}

#[tokio::test]
async fn a_quota_begins_anew_when_it_is_reset_and_when_its_period_ends() {
    let desk = Desk::new("user_quota").await;
    let directory = &desk.directory;
    let quota = QuotaPatch {
        bytes: Patch::Set(10 << 20),
        period: Patch::Set(Period::Day),
        action: Patch::Set(QuotaAction::Disconnect),
        throttle_bps: Patch::Keep,
    };
    let none = desk.user("ada", None).await;
    let bare = directory.reset_quota(&root(), "ada").await.unwrap_err();
    assert_eq!(bare.reason(), "conflict");
    let patch = UserPatch {
        quota: Patch::Set(quota),
        rate: Patch::Set(RatePatch::default()),
        ..UserPatch::default()
    };
    directory.patch_user(&root(), "ada", None, patch).await.unwrap();
    let device = desk.device("ada", "one").await.view.device.id;
    let used = |day: i32, bytes: u64| crate::store::records::Usage {
        user: none.id,
        device,
        day,
        up_bytes: bytes,
        down_bytes: 0,
        up_packets: 1,
        down_packets: 0,
    };
    let today = quota::day_of(START);
    let add = |usage: crate::store::records::Usage| {
        directory.store().write(move |db| db.add_usage(std::slice::from_ref(&usage), &[]))
    };
    add(used(today - 1, 10 << 20)).await.unwrap();
    add(used(today, 10 << 20)).await.unwrap();
    let view = directory.user_view("ada").await.unwrap();
    assert_eq!(view.kept_out.as_deref(), Some("The quota of ada is used up"));
    let standing = view.quota.unwrap();
    assert_eq!((standing.used_bytes, standing.exceeded), (10 << 20, true));
    let fresh = directory.reset_quota(&root(), "ada").await.unwrap();
    assert_eq!((fresh.used_bytes, fresh.exceeded), (0, false));
    assert_eq!(directory.user_view("ada").await.unwrap().kept_out, None);
    add(used(today, 1)).await.unwrap();
    let rows = directory.quotas(Page::first()).await.unwrap();
    assert_eq!(rows.items[0].standing.as_ref().unwrap().used_bytes, 1);
    desk.pass_ms(86_400_000);
    add(used(today + 1, 5)).await.unwrap();
    let tomorrow = directory.user_view("ada").await.unwrap().quota.unwrap();
    assert_eq!((tomorrow.used_bytes, tomorrow.from_day), (5, today + 1));
}

#[tokio::test]
async fn a_user_who_is_erased_leaves_nothing_but_a_whole_audit_log() {
    let desk = Desk::new("user_erased").await;
    let directory = &desk.directory;
    desk.user("adaline", None).await;
    desk.device("adaline", "adas-phone").await;
    let export = directory.export_user(&root(), "adaline").await.unwrap();
    assert!(export.to_string().contains("adas-phone"), "{export}");
    directory.erase_user(&root(), "adaline", None).await.unwrap();
    assert_eq!(directory.user("adaline").await.unwrap_err().reason(), "not_found");
    let filter = crate::store::query::AuditFilter::default();
    let entries = directory.audit(filter, Page::first()).await.unwrap().items;
    let text = serde_json::to_string(&entries).unwrap();
    assert!(!text.contains("adaline") && !text.contains("adas-phone"), "{text}");
    assert!(directory.verify_audit().await.unwrap().intact);
    // Its address is free again.
    desk.user("bob", None).await;
    let lease = desk.device("bob", "one").await.view.lease.unwrap();
    assert_eq!(lease.address4, "10.77.0.2".parse().ok());
}

#[tokio::test]
async fn users_are_listed_by_group_state_and_name() {
    let desk = Desk::new("user_list").await;
    for name in ["ada", "bob", "adam"] {
        desk.user(name, None).await;
    }
    desk.directory.set_user_state(&root(), "adam", None, UserState::Banned).await.unwrap();
    let filter = UserFilter { name_contains: Some("ad".to_owned()), ..UserFilter::default() };
    let names = |rows: crate::store::Rows<User>| -> Vec<String> {
        rows.items.into_iter().map(|user| user.name).collect()
    };
    let page = Page { after: None, limit: 1 };
    let first = desk.directory.users(filter.clone(), None, page).await.unwrap();
    let page = Page { after: first.next.clone(), limit: 1 };
    assert_eq!(names(first), ["ada"]);
    assert_eq!(names(desk.directory.users(filter, None, page).await.unwrap()), ["adam"]);
    let banned = UserFilter { state: Some(UserState::Banned), ..UserFilter::default() };
    let banned = desk.directory.users(banned, None, Page::first()).await.unwrap();
    assert_eq!(names(banned), ["adam"]);
    let group = Some("staff".to_owned());
    let lost = desk.directory.users(UserFilter::default(), group, Page::first()).await;
    assert_eq!(lost.unwrap_err().reason(), "not_found");
    let view = desk.directory.user_view("adam").await.unwrap();
    assert!(view.kept_out.unwrap().contains("banned"));
}

#[tokio::test]
async fn nothing_may_be_called_what_stands_for_nothing() {
    let desk = Desk::new("user_none").await;
    let d = &desk.directory;
    let group = NewGroup { name: "None".into(), ..NewGroup::default() };
    let policy = NewPolicy { name: "none".into(), ..NewPolicy::default() };
    let refused = [
        d.create_group(&root(), group).await.unwrap_err(),
        d.create_policy(&root(), policy).await.unwrap_err(),
    ];
    for refusal in refused {
        assert!(format!("{refusal:?}").contains("stands for nothing"), "{refusal:?}");
    }
}
