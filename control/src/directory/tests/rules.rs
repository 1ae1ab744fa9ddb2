//! Who may do what beyond the API's table of needs.

use super::*;
use crate::directory::input::{NewPolicy, NewToken, Patch, PolicyPatch, UserPatch};
use crate::store::records::{Factor, UserState};

fn role(patch: Patch<Role>) -> UserPatch {
    UserPatch { role: patch, ..UserPatch::default() }
}

#[tokio::test]
async fn only_an_administrator_gives_roles() {
    let desk = Desk::new("rules_roles").await;
    let operator = as_user(&desk.user("op", Some(Role::Operator)).await);
    let directory = &desk.directory;
    desk.user("ada", None).await;
    let give = role(Patch::Set(Role::Viewer));
    let refused = directory.patch_user(&operator, "ada", None, give.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), "forbidden");
    let form = NewUser { role: Some(Role::Viewer), ..new_user("bob") };
    assert_eq!(directory.create_user(&operator, form).await.unwrap_err().reason(), "forbidden");
    let own = role(Patch::Set(Role::Administrator));
    assert_eq!(
        directory.patch_user(&operator, "op", None, own).await.unwrap_err().reason(),
        "forbidden"
    );
    directory.create_user(&operator, new_user("bob")).await.unwrap();
    directory.patch_user(&root(), "ada", None, give).await.unwrap();
}

#[tokio::test]
async fn nobody_changes_a_user_above_himself_in_any_way() {
    let desk = Desk::new("rules_above").await;
    let directory = &desk.directory;
    desk.user("chief", Some(Role::Administrator)).await;
    desk.user("deputy", Some(Role::Administrator)).await;
    desk.device("chief", "laptop").await;
    let operator = as_user(&desk.user("op", Some(Role::Operator)).await);
    let viewer = as_user(&desk.user("viewer", Some(Role::Viewer)).await);
    let password = || Secret::new("a new password");
    let token =
        || NewToken { name: "t".to_owned(), scopes: vec!["*".to_owned()], expires_at: None };
    let invite = || input::NewEnrolment { device_name: "x".to_owned(), valid_s: None };
    for actor in [&operator, &viewer] {
        let attempts = [
            directory.patch_user(actor, "chief", None, role(Patch::Clear)).await.err(),
            directory.set_user_state(actor, "chief", None, UserState::Banned).await.err(),
            directory.set_password(actor, "chief", None, password()).await.err(),
            directory.remove_totp(actor, "chief").await.err(),
            directory.offer_totp(actor, "chief").await.err(),
            directory.remove_user(actor, "chief", None).await.err(),
            directory.erase_user(actor, "chief", None).await.err(),
            directory.export_user(actor, "chief").await.err(),
            directory.reset_quota(actor, "chief").await.err(),
            directory.add_device(actor, "chief", new_device("x")).await.err(),
            directory.patch_device(actor, "chief", "laptop", None, Default::default()).await.err(),
            directory.rotate_key(actor, "chief", "laptop", None, Default::default()).await.err(),
            directory.remove_device(actor, "chief", "laptop", None).await.err(),
            directory.invite(actor, "chief", invite()).await.err(),
            directory.create_token(actor, "chief", token()).await.err(),
            directory.grant_access(actor, "chief", None).await.err(),
            directory.end_access(actor, "chief", None).await.err(),
        ];
        for (index, refusal) in attempts.into_iter().enumerate() {
            let refusal = refusal.unwrap_or_else(|| panic!("attempt {index} of {}", actor.name));
            assert_eq!(refusal.reason(), "forbidden", "attempt {index}: {refusal}");
        }
    }
}

#[tokio::test]
async fn the_last_administrator_who_can_sign_in_stays() {
    let desk = Desk::new("rules_last").await;
    let directory = &desk.directory;
    let chief = desk.user("chief", Some(Role::Administrator)).await;
    // Neither one whose time ends nor one who is disabled could take over.
    let form = NewUser {
        role: Some(Role::Administrator),
        expires_at: Some(START.plus_ms(1000)),
        ..new_user("temporary")
    };
    directory.create_user(&root(), form).await.unwrap();
    desk.user("disabled", Some(Role::Administrator)).await;
    directory.set_user_state(&root(), "disabled", None, UserState::Disabled).await.unwrap();
    for actor in [&root(), &as_user(&chief)] {
        let ends = UserPatch { expires_at: Patch::Set(START.plus_ms(5)), ..UserPatch::default() };
        let attempts = [
            directory
                .patch_user(actor, "chief", None, role(Patch::Set(Role::Operator)))
                .await
                .err(),
            directory.patch_user(actor, "chief", None, role(Patch::Clear)).await.err(),
            directory.patch_user(actor, "chief", None, ends).await.err(),
            directory.set_user_state(actor, "chief", None, UserState::Disabled).await.err(),
            directory.remove_user(actor, "chief", None).await.err(),
            directory.erase_user(actor, "chief", None).await.err(),
        ];
        for (index, refusal) in attempts.into_iter().enumerate() {
            let refusal = refusal.unwrap_or_else(|| panic!("attempt {index}"));
            assert_eq!(refusal.reason(), "last_administrator", "attempt {index}: {refusal}");
        }
    }
    desk.user("second", Some(Role::Administrator)).await;
    directory.remove_user(&root(), "chief", None).await.unwrap();
    let last = directory.remove_user(&root(), "second", None).await.unwrap_err();
    assert_eq!(last.reason(), "last_administrator");
}

#[tokio::test]
async fn what_sign_in_asks_for_is_weakened_by_administrators_only() {
    let desk = Desk::new("rules_factors").await;
    let operator = as_user(&desk.user("op", Some(Role::Operator)).await);
    let directory = &desk.directory;
    let open = |name: &str| NewPolicy {
        name: name.to_owned(),
        factors: Some(vec![Factor::Anonymous]),
        ..NewPolicy::default()
    };
    let refused = directory.create_policy(&operator, open("open")).await.unwrap_err();
    assert_eq!(refused.reason(), "forbidden");
    let patch = |factors| PolicyPatch { factors: Patch::Set(factors), ..PolicyPatch::default() };
    let anonymous = patch(vec![Factor::Anonymous]);
    let refused = directory.patch_policy(&operator, "default", None, anonymous.clone()).await;
    assert_eq!(refused.unwrap_err().reason(), "forbidden");
    let other = PolicyPatch { devices_max: Patch::Set(9), ..PolicyPatch::default() };
    directory.patch_policy(&operator, "default", None, other).await.unwrap();
    directory.patch_policy(&root(), "default", None, anonymous).await.unwrap();
}

#[tokio::test]
async fn a_token_never_allows_more_than_its_user_may_and_is_shown_once() {
    let desk = Desk::new("rules_tokens").await;
    let directory = &desk.directory;
    let ada = as_user(&desk.user("ada", None).await);
    let viewer = as_user(&desk.user("viewer", Some(Role::Viewer)).await);
    let form = |scopes: &[&str]| NewToken {
        name: "monitoring".to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_at: Some(START.plus_ms(1000)),
    };
    let wrong = ["users:read", "users:write", "pools:write", "x", "users:", "users:read"];
    let refusal = directory.create_token(&ada, "ada", form(&wrong)).await.unwrap_err();
    let all: Vec<String> = (0..5).map(|index| format!("/scopes/{index}")).collect();
    let (found, mut expected) =
        (places(&refusal), all.iter().map(String::as_str).collect::<Vec<_>>());
    expected.extend(["/scopes/5", "/scopes/5"]);
    assert_eq!(found, expected);
    let refusal = directory.create_token(&viewer, "viewer", form(&["users:write"])).await;
    assert_eq!(places(&refusal.unwrap_err()), ["/scopes/0"]);
    let none = directory.create_token(&ada, "ada", form(&[])).await.unwrap_err();
    assert_eq!(places(&none), ["/scopes"]);
    let made = directory.create_token(&viewer, "viewer", form(&["users:read"])).await.unwrap();
    let (token, user) = directory.token_user(&made.secret.0).await.unwrap().unwrap();
    assert_eq!((token.id, user.name.as_str()), (made.token.id, "viewer"));
    let used = directory.tokens(None, crate::store::Page::first()).await.unwrap().items;
    assert_eq!(used[0].last_used_at, Some(START));
    assert!(!format!("{used:?}").contains(made.secret.0.as_str()));
    // Another secret of the right form, the end of its time, and its user's end: nothing.
    let other = secret::make(secret::Purpose::Token, &mut crate::keys::SystemRandom);
    assert!(directory.token_user(&other).await.unwrap().is_none());
    directory.set_user_state(&root(), "viewer", None, UserState::Disabled).await.unwrap();
    assert!(directory.token_user(&made.secret.0).await.unwrap().is_none());
    directory.set_user_state(&root(), "viewer", None, UserState::Active).await.unwrap();
    assert!(directory.token_user(&made.secret.0).await.unwrap().is_some());
    desk.pass_ms(1000);
    assert!(directory.token_user(&made.secret.0).await.unwrap().is_none());
    let foreign = directory.remove_token(&ada, made.token.id).await.unwrap_err();
    assert_eq!(foreign.reason(), "forbidden");
    directory.remove_token(&viewer, made.token.id).await.unwrap();
}
