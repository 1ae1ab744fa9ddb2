//! Groups, policies, pools, and small things.

use ringway_control::store::records::*;
use ringway_control::store::{Page, StoreError};

use crate::made;
use crate::world::World;

pub(crate) fn kept(world: &World) {
    let (pool, mut policy, mut group) =
        (made::pool("lab"), made::policy("strict"), made::group("staff"));
    policy.pool = Some(pool.id);
    group.policy = Some(policy.id);
    let given = (pool.clone(), policy.clone(), group.clone());
    let read = world.write(move |db| {
        db.insert_pool(&given.0)?;
        db.insert_policy(&given.1)?;
        db.insert_group(&given.2)?;
        Ok((db.pool(given.0.id)?, db.policy(given.1.id)?, db.group(given.2.id)?))
    });
    assert_eq!(read, (pool.clone(), policy.clone(), group.clone()));

    let changed = world.write(move |db| {
        let pool = Pool { net6: None, range4: None, random: false, ..read.0.clone() };
        let policy = Policy { quota: None, dns: Vec::new(), pool: None, ..read.1.clone() };
        let group = Group { rate: Rate::default(), policy: None, ..read.2.clone() };
        Ok((db.update_pool(&pool)?, db.update_policy(&policy)?, db.update_group(&group)?))
    });
    assert_eq!(changed.0, Pool { net6: None, range4: None, random: false, version: 2, ..pool });
    let expected =
        Policy { quota: None, dns: Vec::new(), pool: None, version: 2, ..policy.clone() };
    assert_eq!(changed.1, expected);
    assert_eq!(
        changed.2,
        Group { rate: Rate::default(), policy: None, version: 2, ..group.clone() }
    );
    let by_name = world.read(|db| {
        Ok((db.pool_by_name("lab")?, db.policy_by_name("strict")?, db.group_by_name("staff")?))
    });
    assert_eq!(by_name, (Some(changed.0), Some(changed.1), Some(changed.2)));
    let late = world.try_write(move |db| db.update_group(&group));
    assert_eq!(late, Err(StoreError::Stale { kind: "group" }));
    let late = world.try_write(move |db| db.update_policy(&policy));
    assert_eq!(late, Err(StoreError::Stale { kind: "policy" }));
}

pub(crate) fn in_use(world: &World) {
    let (pool, policy, group) = world.write(|db| {
        let (pool, mut policy, mut group) =
            (made::pool("lab"), made::policy("strict"), made::group("staff"));
        policy.pool = Some(pool.id);
        group.policy = Some(policy.id);
        db.insert_pool(&pool)?;
        db.insert_policy(&policy)?;
        db.insert_group(&group)?;
        for name in ["eve", "ada", "dan", "bob"] {
            let user = User { group: Some(group.id), ..made::user(name) };
            db.insert_user(&user, &UserSecrets::default())?;
        }
        let (_, device) = made::with_device(db, "zoe");
        db.insert_lease(&made::lease(device.id, pool.id, 1))?;
        Ok((pool.id, policy.id, group.id))
    });
    let by = |done: Result<(), StoreError>| match done {
        Err(StoreError::InUse { by, .. }) => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        by(world.try_write(move |db| db.remove_group(group))),
        "user ada, bob, dan and more"
    );
    assert_eq!(by(world.try_write(move |db| db.remove_policy(policy))), "group staff");
    let used = by(world.try_write(move |db| db.remove_pool(pool)));
    assert_eq!(used, "policy strict; device laptop");
    world.write(move |db| {
        for name in ["eve", "ada", "dan", "bob", "zoe"] {
            let user = db.user_by_name(name)?.unwrap();
            db.remove_user(user.id)?;
        }
        db.remove_group(group)?;
        db.remove_policy(policy)?;
        db.remove_pool(pool)
    });
    let gone = world.try_write(move |db| db.remove_pool(pool));
    assert!(matches!(gone, Err(StoreError::NotFound { kind: "pool", .. })));
}

pub(crate) fn missing(world: &World) {
    let refused = |done: Result<(), StoreError>| match done {
        Err(StoreError::Missing { kind, target }) => (kind, target),
        other => panic!("{other:?}"),
    };
    let none = UserSecrets::default();
    let done = world.try_write(move |db| {
        db.insert_user(&User { group: Some(GroupId::fresh()), ..made::user("a") }, &none)
    });
    assert_eq!(refused(done), ("user", "group"));
    let done = world.try_write(|db| {
        db.insert_group(&Group { policy: Some(PolicyId::fresh()), ..made::group("a") })
    });
    assert_eq!(refused(done), ("group", "policy"));
    let done = world.try_write(|db| {
        db.insert_policy(&Policy { pool: Some(PoolId::fresh()), ..made::policy("a") })
    });
    assert_eq!(refused(done), ("policy", "pool"));
    let device = || made::device(UserId::fresh(), "a");
    let done = world.try_write(move |db| db.insert_device(&device(), &DeviceSecrets::default()));
    assert_eq!(refused(done), ("device", "user"));
    let done = world.try_write(|db| db.insert_token(&made::token(UserId::fresh()), &[0; 32]));
    assert_eq!(refused(done), ("token", "user"));
    let lease = || made::lease(DeviceId::fresh(), PoolId::fresh(), 1);
    assert_eq!(refused(world.try_write(move |db| db.insert_lease(&lease()))), ("lease", "device"));
}

pub(crate) fn default_policy(world: &World) {
    let policy = world.read(|db| db.policy_by_name("default")).unwrap();
    assert_eq!(
        (policy.factors.as_slice(), policy.excess),
        (&[Factor::Password][..], Excess::Refuse)
    );
    assert_eq!((policy.session_timeout_s, policy.devices_max, policy.sessions_max), (86_400, 5, 5));
    let id = policy.id;
    let removed = world.try_write(move |db| db.remove_policy(id));
    assert!(matches!(removed, Err(StoreError::Invalid { .. })), "{removed:?}");
    let other = policy.clone();
    let renamed = world.try_write(move |db| {
        db.update_policy(&Policy { name: "other".to_owned(), ..other.clone() })
    });
    assert!(matches!(renamed, Err(StoreError::Invalid { .. })), "{renamed:?}");
    let changed =
        world.write(move |db| db.update_policy(&Policy { devices_max: 9, ..policy.clone() }));
    assert_eq!((changed.devices_max, changed.version), (9, 2));
    drop(world.open().unwrap());
    assert_eq!(world.read(|db| db.policy_by_name("default")), Some(changed));
}

pub(crate) fn small_things(world: &World) {
    let config = |version| ConfigVersion {
        version,
        at: Timestamp(3),
        actor: "local:0".to_owned(),
        text: "[interface]\n".repeat(1000),
        hash: "ab".to_owned(),
    };
    let versions = world.write(move |db| {
        db.append_config("one", &config(1))?;
        db.append_config("one", &config(2))?;
        db.append_config("two", &config(2))?;
        let newest = Page { after: None, limit: 1 };
        Ok((db.config_version("one", 2)?, db.config_versions("one", &newest)?))
    });
    assert_eq!(versions.0, config(2));
    assert_eq!((versions.1.items, versions.1.next), (vec![config(2)], Some("2".to_owned())));
    let again = world.try_write(move |db| db.append_config("two", &config(2)));
    let (kind, field) = ("configuration", "version");
    assert_eq!(again, Err(StoreError::Conflict { kind, field, value: "2".to_owned() }));

    let missing = world.try_write(|db| db.config_version("two", 1));
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");

    let ban = |subject: &str, until| Ban {
        subject: subject.to_owned(),
        until: Timestamp(until),
        score: 5,
        reason: "bad_password".to_owned(),
    };
    let bans = world.write(move |db| {
        db.put_ban(&ban("user:eve", 10))?;
        db.put_ban(&ban("user:eve", 20))?;
        db.put_ban(&ban("192.0.2.0/24", 15))?;
        let now = (db.bans(Timestamp(14))?, db.bans(Timestamp(15))?);
        Ok((
            now,
            db.remove_ban("user:eve")?,
            db.remove_ban("user:eve")?,
            db.purge_bans(Timestamp(15))?,
        ))
    });
    assert_eq!(bans.0.0, [ban("192.0.2.0/24", 15), ban("user:eve", 20)]);
    assert_eq!(bans.0.1, [ban("user:eve", 20)]);
    assert_eq!((bans.1, bans.2, bans.3), (true, false, 1));

    let settings = world.write(|db| {
        let before = db.setting("secret")?;
        db.put_setting("secret", &[0, 1, 255])?;
        db.put_setting("secret", &[])?;
        db.put_setting("other", b"x")?;
        Ok((before, db.setting("secret")?, db.setting("other")?))
    });
    assert_eq!(settings, (None, Some(Vec::new()), Some(b"x".to_vec())));
    let noted = world.write(|db| {
        for number in [3_u8, 1, 2] {
            db.put_setting(&format!("note:{number}"), &[number])?;
        }
        Ok((db.settings_after("note:", "", 2)?, db.settings_after("note:", "note:2", 2)?))
    });
    let note = |number: u8| (format!("note:{number}"), vec![number]);
    assert_eq!(noted, (vec![note(1), note(2)], vec![note(3)]));
}
