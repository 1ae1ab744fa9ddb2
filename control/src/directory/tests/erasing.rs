//! What is left of a user who is erased or removed, and what of everybody else.

use super::*;
use crate::auth::recovery_setting;
use crate::directory::input::{NewGroup, Patch, UserPatch};
use crate::events::{Heard, Kind};
use crate::store::Page;
use crate::store::query::AuditFilter;
use crate::store::records::{AuditEntry, ConfigVersion, Period, Quota, QuotaAction};

async fn entries(desk: &Desk) -> Vec<AuditEntry> {
    desk.directory.audit(AuditFilter::default(), Page::first()).await.unwrap().items
}

#[tokio::test]
async fn erasing_a_user_whose_name_is_a_common_word_takes_nothing_of_others() {
    for word in ["active", "default", "gateway", "month", "group", "administrator", "local:0"] {
        let desk = Desk::new("erase_word").await;
        let d = &desk.directory;
        let chief = as_user(&desk.user("chief", Some(Role::Administrator)).await);
        for n in 0..3 {
            d.create_user(&chief, new_user(&format!("victim{n}"))).await.unwrap();
        }
        d.remove_user(&chief, "victim0", None).await.unwrap();
        // A name that nobody may have is no danger.
        let Ok(made) = d.create_user(&chief, new_user(word)).await else { continue };
        let before = entries(&desk).await;
        d.erase_user(&chief, word, None).await.unwrap();
        let after = entries(&desk).await;
        let erased: Vec<&AuditEntry> =
            before.iter().zip(&after).filter(|(b, a)| b != a).map(|(b, _)| b).collect();
        assert_eq!(erased.len(), 1, "{word}: {erased:?}");
        assert_eq!(erased[0].object, made.id.to_string());
        assert!(d.verify_audit().await.unwrap().intact);
    }
}

#[tokio::test]
async fn who_has_a_name_after_somebody_else_does_not_erase_what_that_one_did() {
    let desk = Desk::new("erase_heir").await;
    let d = &desk.directory;
    let olga = as_user(&desk.user("olga", Some(Role::Operator)).await);
    d.create_group(&olga, NewGroup { name: "made-by-the-first".into(), ..NewGroup::default() })
        .await
        .unwrap();
    let name = Patch::Set("olga-of-old".to_owned());
    d.patch_user(&root(), "olga", None, UserPatch { name, ..UserPatch::default() }).await.unwrap();
    desk.user("olga", None).await;
    d.erase_user(&root(), "olga", None).await.unwrap();
    let kept = entries(&desk).await;
    let made = kept.iter().find(|entry| entry.action == "group.created").unwrap();
    assert_eq!((made.actor.as_str(), made.object.as_str()), ("user:olga", "made-by-the-first"));
}

#[tokio::test]
async fn no_event_of_any_kind_keeps_the_name_of_who_was_erased() {
    let desk = Desk::new("erase_events").await;
    desk.user("nina", None).await;
    let subjects = |kind: Kind| match kind.word().split_once('.') {
        Some(("session" | "access", _)) => "nina/phone",
        Some(("sign-in" | "quota", _)) => "nina",
        Some(_) | None => "user:nina",
    };
    for kind in Kind::ALL {
        desk.hub.publish(START, *kind, subjects(*kind), serde_json::json!({}));
    }
    desk.hub.publish(START, Kind::AccessGranted, "ninas/phone", serde_json::json!({}));
    let mut listener = desk.hub.listen_after(0);
    desk.directory.erase_user(&root(), "nina", None).await.unwrap();
    let (mut kept, end) = (Vec::new(), "the end");
    desk.hub.publish(START, Kind::Warning, end, serde_json::json!({}));
    while kept.last().is_none_or(|last| last != end) {
        if let Some(Heard::Event(event)) = listener.next().await {
            kept.push(event.subject.clone());
        }
    }
    let of_nina = |subject: &&String| subject.split(['/', ':']).any(|part| part == "nina");
    assert_eq!(kept.iter().filter(of_nina).count(), 0, "{kept:?}");
    assert!(kept.contains(&"ninas/phone".to_owned()), "{kept:?}");
}

#[tokio::test]
async fn an_erased_user_is_not_found_by_a_former_name_or_by_what_it_had() {
    let desk = Desk::new("erase_all").await;
    let d = &desk.directory;
    let nina = desk.user("nina", Some(Role::Operator)).await;
    let (me, id) = (as_user(&nina), nina.id);
    d.confirm_totp(&me, "nina", Zeroizing::new(vec![5; 20]), "123456").await.unwrap();
    let version = ConfigVersion {
        version: 1,
        at: START,
        actor: "user:nina".into(),
        text: "x".into(),
        hash: "y".into(),
    };
    d.store().write(move |db| db.append_config("gw", &version)).await.unwrap();
    d.create_group(&me, NewGroup { name: "staff".into(), ..NewGroup::default() }).await.unwrap();
    let phone = desk.device("nina", "ninas-phone").await.view.device;
    d.remove_device(&root(), "nina", "ninas-phone", None).await.unwrap();
    desk.hub.publish(START, Kind::SessionStarted, "nina/ninas-phone", serde_json::json!({}));
    let name = Patch::Set("eve".to_owned());
    d.patch_user(&root(), "nina", None, UserPatch { name, ..UserPatch::default() }).await.unwrap();
    desk.hub.publish(START, Kind::SignInAccepted, "eve", serde_json::json!({}));
    desk.hub.publish(START, Kind::GroupChanged, "eve", serde_json::json!({}));
    d.erase_user(&root(), "eve", None).await.unwrap();
    let kept = d.store().read(move |db| {
        Ok((db.config_version("gw", 1)?.actor, db.setting(&recovery_setting(id))?))
    });
    assert_eq!(kept.await.unwrap(), ("user:erased".to_owned(), None));
    let audit = serde_json::to_string(&entries(&desk).await).unwrap();
    let mut listener = desk.hub.listen_after(0);
    let mut events = Vec::new();
    while let Some(Heard::Event(event)) = listener.try_next() {
        events.push(serde_json::to_string(&*event).unwrap());
    }
    let group = events.iter().position(|event| event.contains("group.changed")).unwrap();
    assert!(events.remove(group).contains("\"eve\""), "a group of that name is no user");
    for text in [audit, events.concat()] {
        // No name is made of the letters of hashes and identifiers alone.
        for trace in ["nina", "eve", &id.to_string(), &phone.id.to_string()] {
            assert!(!text.contains(trace), "{trace} in {text}");
        }
    }
}

#[tokio::test]
async fn what_hangs_on_a_user_goes_with_it() {
    let desk = Desk::new("remove_all").await;
    let d = &desk.directory;
    let quota = Quota {
        bytes: 1 << 30,
        period: Period::Month,
        action: QuotaAction::Notify,
        throttle_bps: None,
    };
    let form = NewUser { quota: Some(quota), ..new_user("ada") };
    let id = d.create_user(&root(), form).await.unwrap().id;
    d.confirm_totp(&root(), "ada", Zeroizing::new(vec![5; 20]), "123456").await.unwrap();
    d.reset_quota(&root(), "ada").await.unwrap();
    let names = [recovery_setting(id), quota::key(id)];
    let settings = move |db: &mut crate::store::Db<'_>| {
        Ok(names.iter().filter(|name| db.setting(name).unwrap().is_some()).count())
    };
    assert_eq!(d.store().read(settings.clone()).await.unwrap(), 2);
    d.remove_user(&root(), "ada", None).await.unwrap();
    assert_eq!(d.store().read(settings).await.unwrap(), 0);
}
