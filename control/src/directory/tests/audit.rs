//! Everything that changes something is written down, with what it was and what it became.

use super::*;
use crate::directory::input::*;
use crate::store::Page;
use crate::store::query::AuditFilter;
use crate::store::records::{Ban, Period, Quota, QuotaAction, UserState};

/// Does everything that the directory can do, once.
async fn everything(desk: &Desk, folder: &Scratch) {
    let (one, directory) = (root(), &desk.directory);
    let policy = NewPolicy { name: "p".to_owned(), ..NewPolicy::default() };
    directory.create_policy(&one, policy).await.unwrap();
    let patch = PolicyPatch { devices_max: Patch::Set(7), ..PolicyPatch::default() };
    directory.patch_policy(&one, "p", None, patch).await.unwrap();
    let group = NewGroup { name: "g".to_owned(), ..NewGroup::default() };
    directory.create_group(&one, group).await.unwrap();
    let patch = GroupPatch { policy: Patch::Set("p".to_owned()), ..GroupPatch::default() };
    directory.patch_group(&one, "g", None, patch).await.unwrap();
    let pool = NewPool {
        name: "pool".to_owned(),
        net4: Some("10.77.9.0/24".to_owned()),
        ..NewPool::default()
    };
    directory.create_pool(&one, pool).await.unwrap();
    let patch = PoolPatch { random: Patch::Set(true), ..PoolPatch::default() };
    directory.patch_pool(&one, "pool", None, patch).await.unwrap();
    let quota = Quota {
        bytes: 1 << 30,
        period: Period::Month,
        action: QuotaAction::Notify,
        throttle_bps: None,
    };
    directory.create_user(&one, NewUser { quota: Some(quota), ..new_user("ada") }).await.unwrap();
    directory.set_user_state(&one, "ada", None, UserState::Disabled).await.unwrap();
    directory.set_user_state(&one, "ada", None, UserState::Active).await.unwrap();
    directory.set_password(&one, "ada", None, Secret::new("secret-password")).await.unwrap();
    let offer = directory.offer_totp(&one, "ada").await.unwrap();
    directory.confirm_totp(&one, "ada", offer.secret, "123456").await.unwrap();
    directory.remove_totp(&one, "ada").await.unwrap();
    directory.reset_quota(&one, "ada").await.unwrap();
    directory.add_device(&one, "ada", new_device("one")).await.unwrap();
    let patch = DevicePatch { name: Patch::Set("two".to_owned()), ..DevicePatch::default() };
    directory.patch_device(&one, "ada", "one", None, patch).await.unwrap();
    directory.rotate_key(&one, "ada", "two", None, RotateKey::default()).await.unwrap();
    directory.grant_access(&one, "ada", None).await.unwrap();
    directory.end_access(&one, "ada", None).await.unwrap();
    let invitation = || NewEnrolment { device_name: "three".to_owned(), valid_s: None };
    let made = directory.invite(&one, "ada", invitation()).await.unwrap();
    let form = Redeem { secret: made.secret, public_key: key(1) };
    directory.redeem(form).await.unwrap();
    let made = directory.invite(&one, "ada", invitation()).await.unwrap();
    directory.remove_enrolment(&one, made.enrolment.id).await.unwrap();
    let token =
        NewToken { name: "t".to_owned(), scopes: vec!["me:read".to_owned()], expires_at: None };
    let made = directory.create_token(&one, "ada", token).await.unwrap();
    directory.remove_token(&one, made.token.id).await.unwrap();
    directory.remove_device(&one, "ada", "two", None).await.unwrap();
    let ban = Ban {
        subject: "user:ada".to_owned(),
        until: START.plus_ms(1000),
        score: 9,
        reason: "x".to_owned(),
    };
    directory.store().write(move |db| db.put_ban(&ban)).await.unwrap();
    directory.lift_ban(&one, "user:ada").await.unwrap();
    directory.backup(&one, folder.path().join("copy.db")).await.unwrap();
    directory.export_user(&one, "ada").await.unwrap();
    directory.remove_user(&one, "ada", None).await.unwrap();
    desk.user("bob", None).await;
    directory.erase_user(&one, "bob", None).await.unwrap();
    directory.remove_pool(&one, "pool", None).await.unwrap();
    directory.remove_group(&one, "g", None).await.unwrap();
    directory.remove_policy(&one, "p", None).await.unwrap();
}

#[tokio::test]
async fn every_action_there_is_leaves_an_entry_and_none_has_a_secret() {
    let (desk, folder) = (Desk::new("audit_all").await, Scratch::new("directory_audit_copy"));
    everything(&desk, &folder).await;
    let entries = desk.directory.audit(AuditFilter::default(), Page::first()).await.unwrap().items;
    let done: std::collections::BTreeSet<&str> =
        entries.iter().map(|entry| entry.action.as_str()).collect();
    let missing: Vec<&str> = Action::ALL
        .iter()
        .map(|action| action.word())
        .filter(|word| !done.contains(word))
        .collect();
    assert!(missing.is_empty(), "without an entry: {missing:?} of {done:?}");
    let state = desk.directory.verify_audit().await.unwrap();
    assert!(state.intact, "{state:?}");
    assert_eq!(state.entries, entries.len() as u64);
    let text = serde_json::to_string(&entries).unwrap();
    for secret in ["secret-password", "plain:", "re_", "rw_", "otpauth"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn an_entry_says_what_a_field_was_and_what_it_became() {
    let desk = Desk::new("audit_diff").await;
    let ada = desk.user("ada", None).await;
    let patch = UserPatch { name: Patch::Set("grace".to_owned()), ..UserPatch::default() };
    desk.directory.patch_user(&root(), "ada", None, patch).await.unwrap();
    let filter = AuditFilter {
        action: Some("user.changed".to_owned()),
        object: Some(ada.id.to_string()),
        ..AuditFilter::default()
    };
    let entries = desk.directory.audit(filter, Page::first()).await.unwrap().items;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].actor, "local:0");
    assert_eq!(entries[0].detail, serde_json::json!({"name": ["ada", "grace"]}));
}

#[tokio::test]
async fn a_refused_change_leaves_no_entry_no_event_and_no_note() {
    let desk = Desk::new("audit_refused").await;
    desk.user("ada", None).await;
    let before = desk.directory.verify_audit().await.unwrap();
    let (mut notes, mut events) = (desk.directory.changes(), desk.hub.listen());
    desk.directory.create_user(&root(), new_user("ada")).await.unwrap_err();
    desk.directory.add_device(&root(), "nobody", new_device("x")).await.unwrap_err();
    desk.directory.remove_group(&root(), "nothing", None).await.unwrap_err();
    assert_eq!(desk.directory.verify_audit().await.unwrap(), before);
    assert!(notes.try_recv().is_err());
    assert_eq!(events.try_next(), None);
}

#[tokio::test]
async fn one_at_a_time_verifies_the_audit_log() {
    let desk = Desk::new("audit_turn").await;
    let turn = desk.directory.0.audit_turn.lock().await;
    let refusal = desk.directory.verify_audit().await.unwrap_err();
    assert!(matches!(refusal, Refusal::Conflict(_)), "{refusal:?}");
    drop(turn);
    assert!(desk.directory.verify_audit().await.unwrap().intact);
}
