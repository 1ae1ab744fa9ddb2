//! Nobody makes somebody of his own rank or above weaker, by whatever way.

use super::*;
use crate::directory::input::{GroupPatch, NewGroup, NewPolicy, Patch, PolicyPatch, UserPatch};
use crate::store::records::Factor;

/// An administrator and an operator of whom two factors are asked: by their group, and by their own
/// policy.
async fn office(name: &str) -> Desk {
    let desk = Desk::new(name).await;
    let d = &desk.directory;
    let factors = Some(vec![Factor::Password, Factor::Totp]);
    let strong = NewPolicy { name: "strong".into(), factors, ..NewPolicy::default() };
    d.create_policy(&root(), strong).await.unwrap();
    let policy = Some("strong".to_owned());
    let group = NewGroup { name: "staff".into(), policy: policy.clone(), ..NewGroup::default() };
    d.create_group(&root(), group).await.unwrap();
    for (name, role) in [
        ("chief", Some(Role::Administrator)),
        ("olga", Some(Role::Operator)),
        ("vera", Some(Role::Viewer)),
        ("nora", None),
    ] {
        let form = NewUser { group: Some("staff".into()), role, ..new_user(name) };
        d.create_user(&root(), form).await.unwrap();
    }
    let own = NewUser { policy, role: Some(Role::Operator), ..new_user("otto") };
    d.create_user(&root(), own).await.unwrap();
    desk
}

async fn actor(desk: &Desk, name: &str) -> Actor {
    as_user(&desk.directory.user(name).await.unwrap())
}

async fn factors(desk: &Desk, name: &str) -> usize {
    desk.directory.user_view(name).await.unwrap().effective.factors.len()
}

#[tokio::test]
async fn an_operator_weakens_nobody_of_its_rank_or_above() {
    let desk = office("ranks_factors").await;
    let (d, olga) = (&desk.directory, actor(&desk, "olga").await);
    let clear = || GroupPatch { policy: Patch::Clear, ..GroupPatch::default() };
    let refused = [
        d.patch_group(&olga, "staff", None, clear()).await.err(),
        d.patch_user(
            &olga,
            "otto",
            None,
            UserPatch { policy: Patch::Clear, ..UserPatch::default() },
        )
        .await
        .err(),
        d.patch_user(
            &olga,
            "olga",
            None,
            UserPatch { group: Patch::Clear, ..UserPatch::default() },
        )
        .await
        .err(),
        d.patch_user(
            &olga,
            "olga",
            None,
            UserPatch { policy: Patch::Set("default".into()), ..UserPatch::default() },
        )
        .await
        .err(),
    ];
    for refusal in refused {
        assert!(matches!(&refusal, Some(Refusal::Forbidden(_))), "{refusal:?}");
    }
    for name in ["chief", "olga", "otto"] {
        assert_eq!(factors(&desk, name).await, 2, "{name}");
    }
    // Below it does what it likes, and an administrator does all of it.
    let weaker = UserPatch { policy: Patch::Set("default".into()), ..UserPatch::default() };
    d.patch_user(&olga, "nora", None, weaker).await.unwrap();
    assert_eq!(factors(&desk, "nora").await, 1);
    let chief = actor(&desk, "chief").await;
    d.patch_group(&chief, "staff", None, clear()).await.unwrap();
    assert_eq!(factors(&desk, "olga").await, 1);
}

#[tokio::test]
async fn a_token_for_some_things_weakens_nobody_whoever_it_stands_for() {
    let desk = office("ranks_narrow").await;
    let d = &desk.directory;
    let chief = actor(&desk, "chief").await;
    let program = Actor { is_narrow: true, ..chief.clone() };
    let group = |policy| GroupPatch { policy, ..GroupPatch::default() };
    let user = |policy, group| UserPatch { policy, group, ..UserPatch::default() };
    let asks = |factors: &[Factor]| PolicyPatch {
        factors: Patch::Set(factors.to_vec()),
        ..PolicyPatch::default()
    };
    let weak = NewPolicy { name: "weak".into(), ..NewPolicy::default() };
    d.create_policy(&program, weak).await.unwrap();
    let weak = || Patch::Set("weak".to_owned());
    let none = NewPolicy {
        name: "unasked".into(),
        factors: Some(vec![Factor::Certificate]),
        ..NewPolicy::default()
    };
    let refused = [
        ("less", d.patch_policy(&program, "strong", None, asks(&[Factor::Password])).await.err()),
        (
            // Not even for more: that could keep everybody out.
            "other",
            d.patch_policy(&program, "default", None, asks(&[Factor::Password, Factor::Totp]))
                .await
                .err(),
        ),
        ("made", d.create_policy(&program, none).await.err()),
        ("group", d.patch_group(&program, "staff", None, group(weak())).await.err()),
        ("no group's", d.patch_group(&program, "staff", None, group(Patch::Clear)).await.err()),
        ("user", d.patch_user(&program, "nora", None, user(weak(), Patch::Keep)).await.err()),
        (
            "moved",
            d.patch_user(&program, "nora", None, user(Patch::Keep, Patch::Clear)).await.err(),
        ),
        ("role", d.patch_user(&program, "olga", None, user(weak(), Patch::Keep)).await.err()),
    ];
    for (what, refusal) in refused {
        let Some(Refusal::Forbidden(why)) = &refusal else { panic!("{what}: {refusal:?}") };
        assert!(why.contains("made for some things only"), "{what}: {why}");
    }
    for name in ["chief", "olga", "otto", "nora"] {
        assert_eq!(factors(&desk, name).await, 2, "{name}");
    }
    // What weakens nobody is what such tokens are for.
    let devices = PolicyPatch { devices_max: Patch::Set(9), ..PolicyPatch::default() };
    d.patch_policy(&program, "strong", None, devices).await.unwrap();
    let renamed = GroupPatch { name: Patch::Set("crew".into()), ..GroupPatch::default() };
    d.patch_group(&program, "staff", None, renamed).await.unwrap();
    let strong = Patch::Set("strong".to_owned());
    d.patch_user(&program, "nora", None, user(strong, Patch::Clear)).await.unwrap();
    assert_eq!(factors(&desk, "nora").await, 2);
    d.patch_group(&chief, "crew", None, group(weak())).await.unwrap();
    assert_eq!(factors(&desk, "olga").await, 1, "a token for everything, or a login, may");
}

#[tokio::test]
async fn an_operator_does_not_say_where_the_traffic_of_an_administrator_goes() {
    let desk = office("ranks_routes").await;
    let (d, olga) = (&desk.directory, actor(&desk, "olga").await);
    let dns = || PolicyPatch {
        dns: Patch::Set(vec!["192.0.2.53".parse().unwrap()]),
        ..PolicyPatch::default()
    };
    let routes = || PolicyPatch {
        routes: Patch::Set(vec!["192.0.2.0/24".to_owned()]),
        ..PolicyPatch::default()
    };
    for patch in [dns(), routes()] {
        let refusal = d.patch_policy(&olga, "strong", None, patch).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Forbidden(_)), "{refusal:?}");
    }
    let devices = PolicyPatch { devices_max: Patch::Set(9), ..PolicyPatch::default() };
    d.patch_policy(&olga, "strong", None, devices).await.unwrap();
    // No administrator falls under this one.
    d.patch_policy(&olga, "default", None, dns()).await.unwrap();
    d.patch_policy(&actor(&desk, "chief").await, "strong", None, routes()).await.unwrap();
}

#[tokio::test]
async fn nobody_takes_the_own_second_factor_away() {
    let desk = office("ranks_totp").await;
    let d = &desk.directory;
    for name in ["olga", "chief"] {
        let me = actor(&desk, name).await;
        d.confirm_totp(&me, name, Zeroizing::new(vec![5; 20]), "123456").await.unwrap();
        let refusal = d.remove_totp(&me, name).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Forbidden(_)), "{refusal:?}");
        assert!(d.user(name).await.unwrap().has_totp);
    }
    d.remove_totp(&actor(&desk, "otto").await, "olga").await.unwrap();
    d.remove_totp(&root(), "chief").await.unwrap();
}
