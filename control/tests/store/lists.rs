//! Pages, filters and the projection's view.

use ringway_control::store::query::{DeviceFilter, UserFilter};
use ringway_control::store::records::*;
use ringway_control::store::{Page, StoreError};

use crate::made;
use crate::world::World;

pub(crate) fn pages(world: &World) {
    // Orders in which languages sort differ from the order of bytes in these.
    let names = ["-", "_", ".a", "0", "a", "a-b", "a.b", "a_b", "ab", "b", "ba@x", "z"];
    world.write(move |db| {
        for name in names {
            db.insert_user(&made::user(name), &UserSecrets::default())?;
        }
        Ok(())
    });
    let mut sorted: Vec<String> = names.map(str::to_owned).to_vec();
    sorted.sort();
    for limit in [1, 2, 5, 11, 12, 13, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = Page { after, limit };
            let rows = world.read(move |db| db.users(&UserFilter::default(), &page));
            assert!(rows.items.len() <= limit as usize);
            seen.extend(rows.items.into_iter().map(|user| user.name));
            after = rows.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, sorted, "{limit}");
    }
    for limit in [0, 1001, u32::MAX] {
        let page = Page { after: None, limit };
        let refused = world.try_write(move |db| db.users(&UserFilter::default(), &page));
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{limit}");
    }
    let page = Page { after: Some("x".to_owned()), limit: 1 };
    let refused = world.try_write(move |db| db.config_versions("one", &page));
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
}

pub(crate) fn filters(world: &World) {
    let group = made::group("staff");
    let id = group.id;
    let phone = world.write(move |db| {
        db.insert_group(&group)?;
        for name in ["ada", "ada_b", "adab", "bob%c"] {
            let mut user = made::user(name);
            user.group = name.starts_with("ada").then_some(id);
            user.role = (name == "ada").then_some(Role::Administrator);
            user.expires_at = (name == "adab").then_some(Timestamp(100));
            user.state = if name == "bob%c" { UserState::Disabled } else { UserState::Active };
            db.insert_user(&user, &UserSecrets::default())?;
            let device = Device { enabled: name == "ada", ..made::device(user.id, "phone") };
            db.insert_device(&device, &DeviceSecrets::default())?;
        }
        db.user_by_name("ada").map(|user| user.unwrap().id)
    });
    let users = |filter: UserFilter| {
        let rows = world.read(move |db| db.users(&filter, &Page::default()));
        rows.items.into_iter().map(|user| user.name).collect::<Vec<_>>()
    };
    let all = UserFilter::default();
    let contains = |text: &str| UserFilter { name_contains: Some(text.to_owned()), ..all.clone() };
    assert_eq!(users(UserFilter { group: Some(id), ..all.clone() }), ["ada", "ada_b", "adab"]);
    let state = UserFilter { state: Some(UserState::Disabled), ..all.clone() };
    assert_eq!(users(state), ["bob%c"]);
    assert_eq!(users(UserFilter { role: Some(Role::Administrator), ..all.clone() }), ["ada"]);
    assert_eq!(users(contains("a_b")), ["ada_b"]);
    assert_eq!(users(contains("%")), ["bob%c"]);
    assert_eq!(users(contains("!")), [""; 0]);
    let expiring = UserFilter { expires_before: Some(Timestamp(101)), ..all.clone() };
    assert_eq!(users(expiring.clone()), ["adab"]);
    assert_eq!(users(UserFilter { expires_before: Some(Timestamp(100)), ..expiring }), [""; 0]);
    let both = UserFilter { group: Some(id), ..contains("b") };
    assert_eq!(users(both), ["ada_b", "adab"]);

    let devices = |filter: DeviceFilter| {
        world.read(move |db| db.devices(&filter, &Page::default())).items.len()
    };
    let all = DeviceFilter::default();
    assert_eq!(devices(all.clone()), 4);
    assert_eq!(devices(DeviceFilter { enabled: Some(true), ..all.clone() }), 1);
    assert_eq!(devices(DeviceFilter { user: Some(phone), ..all.clone() }), 1);
    let named = |text: &str| DeviceFilter { name_contains: Some(text.to_owned()), ..all.clone() };
    assert_eq!((devices(named("hon")), devices(named("x"))), (4, 0));
}

pub(crate) fn access(world: &World) {
    let (users, devices, pool, policy) = world.write(|db| {
        let (pool, policy, mut group) =
            (made::pool("lab"), made::policy("strict"), made::group("staff"));
        group.policy = Some(policy.id);
        db.insert_pool(&pool)?;
        db.insert_policy(&policy)?;
        db.insert_group(&group)?;
        let (one, first) = made::with_device(db, "ada");
        let two = User { group: Some(group.id), ..made::user("bob") };
        db.insert_user(&two, &UserSecrets::default())?;
        let second = made::device(two.id, "a");
        db.insert_device(&second, &made::secrets(4))?;
        let third = made::device(two.id, "b");
        db.insert_device(&third, &made::secrets(0))?;
        db.insert_lease(&made::lease(second.id, pool.id, 2))?;
        Ok(([one.id, two.id], [first, second, third], pool.id, policy.id))
    });
    let all = world.read(|db| db.load_access(None, 100));
    assert_eq!(all.iter().map(|row| row.device.clone()).collect::<Vec<_>>(), devices);
    assert_eq!(
        all.iter().map(|row| row.user.id).collect::<Vec<_>>(),
        [users[0], users[1], users[1]]
    );
    assert_eq!(all[1].lease, Some(made::lease(devices[1].id, pool, 2)));
    assert_eq!((&all[0].lease, &all[2].lease), (&None, &None));
    assert!(all[1].secrets == made::secrets(4) && all[2].secrets == DeviceSecrets::default());
    assert_eq!((all[0].policy(), all[1].policy()), (None, Some(policy)));

    let (bob, first, third) = (users[1], devices[0].id, devices[2].id);
    let parts = world.read(move |db| {
        Ok((
            db.load_access(Some(first), 1)?,
            db.access_of_user(bob)?,
            db.access_of_device(third)?,
            db.access_of_user(UserId::fresh())?.len(),
            db.access_of_device(DeviceId::fresh())?.is_none(),
        ))
    });
    assert!(parts.0 == all[1..2] && parts.1 == all[1..] && parts.2.as_ref() == all.last());
    assert_eq!((parts.3, parts.4), (0, true));
}
