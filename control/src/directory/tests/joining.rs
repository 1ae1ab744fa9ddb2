//! Groups that credentials name.

use serde_json::json;

use super::*;
use crate::directory::Proved;
use crate::directory::input::{NewGroup, NewPolicy};
use crate::store::Page;
use crate::store::records::{Factor, GroupId};

fn naming(groups: &[&str]) -> Proved {
    let groups = groups.iter().map(|name| (*name).to_owned()).collect();
    Proved { groups, ..Proved::of(vec![Factor::Password]) }
}

async fn group(desk: &Desk, name: &str, policy: Option<&str>) -> GroupId {
    let form = json!({ "name": name, "policy": policy });
    let form: NewGroup = serde_json::from_value(form).unwrap();
    desk.directory.create_group(&root(), form).await.unwrap().id
}

/// Signs a user in with a credential that names groups; says in which it is then, and whether its
/// device was let in.
async fn sign_in(desk: &Desk, user: &User, groups: &[&str]) -> (Option<GroupId>, bool) {
    let (directory, me) = (&desk.directory, Actor::oneself(&user.name, user.id));
    let proved = naming(groups);
    directory.join(user.id, &proved).await.unwrap();
    let granted = directory.grant_signed_in(&me, &user.name, None, proved).await;
    (directory.user(&user.name).await.unwrap().group, granted.is_ok())
}

#[tokio::test]
async fn the_first_group_that_exists_is_joined_and_one_that_fits_is_kept() {
    let here = Surroundings { groups_from_credentials: true, ..surroundings() };
    let desk = Desk::at("joining", here).await;
    let ann = desk.user("ann", None).await;
    desk.device("ann", "laptop").await;
    let (crew, staff) = (group(&desk, "crew", None).await, group(&desk, "staff", None).await);
    for (named, then) in [
        (&[][..], None),
        (&["nowhere", "no group at all \u{1b}[2J"], None),
        (&["nowhere", "Staff"], Some(staff)),
        (&["crew", "staff"], Some(staff)),
        (&["nowhere"], Some(staff)),
        (&[], Some(staff)),
        (&["crew", "nowhere"], Some(crew)),
        // Names, not identifiers.
        (&[staff.to_string().as_str()], Some(crew)),
    ] {
        assert_eq!(sign_in(&desk, &ann, named).await, (then, true), "{named:?}");
    }
    let audit = desk.directory.store().read(|db| db.audit(&Default::default(), &Page::first()));
    let entries = audit.await.unwrap().items;
    let moved = entries.iter().filter(|entry| entry.action == "user.changed");
    assert!(moved.clone().all(|entry| entry.actor == "gateway"));
    assert_eq!(moved.count(), 2);
}

#[tokio::test]
async fn a_credential_moves_nobody_where_that_was_not_asked_for_and_nobody_with_a_role() {
    let desk = Desk::new("joining_off").await;
    let ann = desk.user("ann", None).await;
    let chief = desk.user("chief", Some(Role::Administrator)).await;
    for name in ["ann", "chief"] {
        desk.device(name, "laptop").await;
    }
    let crew = group(&desk, "crew", None).await;
    assert_eq!(sign_in(&desk, &ann, &["crew"]).await, (None, true));
    let here = Surroundings { groups_from_credentials: true, ..surroundings() };
    desk.directory.set_surroundings(here);
    assert_eq!(sign_in(&desk, &chief, &["crew"]).await, (None, true));
    assert_eq!(sign_in(&desk, &ann, &["crew"]).await, (Some(crew), true));
}

#[tokio::test]
async fn a_group_that_asks_for_more_is_joined_and_lets_nobody_in_before_it_is_proved() {
    let here = Surroundings { groups_from_credentials: true, ..surroundings() };
    let desk = Desk::at("joining_more", here).await;
    let ann = desk.user("ann", None).await;
    desk.device("ann", "laptop").await;
    let form = json!({ "name": "careful", "factors": ["password", "totp"] });
    let form: NewPolicy = serde_json::from_value(form).unwrap();
    desk.directory.create_policy(&root(), form).await.unwrap();
    let careful = group(&desk, "careful", Some("careful")).await;
    // It is in the group all the same, so that the next sign-in asks for both.
    assert_eq!(sign_in(&desk, &ann, &["careful"]).await, (Some(careful), false));
}

#[tokio::test]
async fn a_login_that_lasts_moves_nobody_again_whom_an_operator_moved() {
    use crate::api::joining::Joining;
    use crate::api::sign_in::{SignIn, SignInAttempt, SignInOutcome};

    struct Named(SignInOutcome);
    impl SignIn for Named {
        fn sign_in(&self, _: SignInAttempt) -> crate::api::sign_in::Later<SignInOutcome> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }
    let here = Surroundings { groups_from_credentials: true, ..surroundings() };
    let desk = Desk::at("joining_login", here).await;
    let (directory, ann) = (&desk.directory, desk.user("ann", None).await);
    desk.device("ann", "laptop").await;
    let crew = group(&desk, "crew", None).await;
    let accepted =
        SignInOutcome::Accepted { user: ann.id, name: ann.name.clone(), proved: naming(&["Crew"]) };
    let inner = Arc::new(Named(accepted));
    let joining = Joining { inner, directory: directory.clone() };
    let attempt = SignInAttempt {
        name: None,
        password: None,
        totp: None,
        token: None,
        certificates: Vec::new(),
        continuation: None,
        source: crate::api::Source::Unix { uid: 0 },
    };
    let SignInOutcome::Accepted { proved, .. } = joining.sign_in(attempt).await else {
        panic!("not accepted");
    };
    assert_eq!(directory.user("ann").await.unwrap().group, Some(crew));
    let out = serde_json::from_value(json!({ "group": null })).unwrap();
    directory.patch_user(&root(), "ann", None, out).await.unwrap();
    // As every renewal by the login does.
    let me = Actor::oneself("ann", ann.id);
    directory.grant_signed_in(&me, "ann", None, proved).await.unwrap();
    assert_eq!(directory.user("ann").await.unwrap().group, None);
}

#[tokio::test]
async fn what_gives_no_access_moves_nobody_and_of_many_names_a_hundred_count() {
    let here = Surroundings { groups_from_credentials: true, ..surroundings() };
    let desk = Desk::at("joining_checks", here).await;
    let (directory, ann) = (&desk.directory, desk.user("ann", None).await);
    let crew = group(&desk, "crew", None).await;
    let ended = Proved { until: Some(directory.now()), ..naming(&["crew"]) };
    let nothing = Proved { factors: Vec::new(), ..naming(&["crew"]) };
    let mut many = naming(&["none"; 100]);
    many.groups.push("crew".to_owned());
    for proved in [ended, nothing, many.clone()] {
        directory.join(ann.id, &proved).await.unwrap();
        assert_eq!(directory.user("ann").await.unwrap().group, None, "{proved:?}");
    }
    many.groups.remove(0);
    directory.join(ann.id, &many).await.unwrap();
    assert_eq!(directory.user("ann").await.unwrap().group, Some(crew));
}
