//! Users, devices, leases, tokens and invitations.

use ringway_control::store::query::UserFilter;
use ringway_control::store::records::*;
use ringway_control::store::{Page, StoreError};

use crate::made;
use crate::world::World;

pub(crate) fn users_are_kept(world: &World) {
    let (group, policy) = (made::group("staff"), made::policy("strict"));
    let mut full = made::user("ada.l@example-1_x");
    full.group = Some(group.id);
    full.policy = Some(policy.id);
    full.role = Some(Role::Operator);
    full.state = UserState::Banned;
    full.expires_at = Some(Timestamp(-5));
    full.rate = Some(Rate { up_bps: Some(u64::MAX), down_bps: Some(0), burst_bytes: None });
    full.quota = Some(Quota {
        bytes: 1 << 60,
        period: Period::Total,
        action: QuotaAction::Notify,
        throttle_bps: None,
    });
    let secrets = UserSecrets {
        password_hash: Some("$argon2id$x".to_owned()),
        totp_secret: Some(vec![0, 255, 3]),
        totp_kind: OtpKind::Counter,
        totp_last_step: 7,
    };
    let plain = made::user("bob");
    let given = (full.clone(), plain.clone());
    let kept = secrets.clone();
    let read = world.write(move |db| {
        db.insert_policy(&policy)?;
        db.insert_group(&group)?;
        db.insert_user(&given.0, &kept)?;
        db.insert_user(&given.1, &UserSecrets::default())?;
        Ok((db.user(given.0.id)?, db.user_by_name("bob")?, db.user_secrets(given.0.id)?))
    });
    full.has_password = true;
    full.has_totp = true;
    full.totp_kind = Some(OtpKind::Counter);
    assert_eq!(read.0, full);
    assert_eq!(read.1, Some(plain.clone()));
    assert!(read.2 == secrets);
    let id = plain.id;
    let (count, none, gone) = world.read(move |db| {
        Ok((db.count_users()?, db.user_by_name("BOB")?, db.user(UserId::fresh()).unwrap_err()))
    });
    assert_eq!((count, none), (2, None));
    assert!(matches!(gone, StoreError::NotFound { kind: "user", .. }), "{gone}");

    world.write(move |db| {
        db.set_user_secrets(
            id,
            &UserSecrets { password_hash: Some("x".to_owned()), ..UserSecrets::default() },
        )
    });
    let bob = world.read(move |db| db.user(id));
    assert!(bob.has_password && !bob.has_totp);
    assert_eq!(bob.totp_kind, None);
    assert_eq!(bob.version, 1, "secrets are no part of the version");
}

pub(crate) fn names_are_unique(world: &World) {
    let first = made::user("ada");
    let id = first.id;
    world.write(move |db| db.insert_user(&first, &UserSecrets::default()));
    let again = world.try_write(|db| db.insert_user(&made::user("ada"), &UserSecrets::default()));
    let taken = |kind, field, value: &str| {
        Err(StoreError::Conflict { kind, field, value: value.to_owned() })
    };
    assert_eq!(again, taken("user", "name", "ada"));
    let mut same = made::user("bob");
    same.id = id;
    let same = world.try_write(move |db| db.insert_user(&same, &UserSecrets::default()));
    assert_eq!(same, taken("user", "id", &id.to_string()));
    let renamed = world.try_write(|db| {
        let eve = made::user("eve");
        db.insert_user(&eve, &UserSecrets::default())?;
        db.update_user(&User { name: "ada".to_owned(), ..eve })
    });
    assert_eq!(renamed.unwrap_err(), taken("user", "name", "ada").unwrap_err());
    assert_eq!(world.read(|db| db.user_by_name("eve")), None, "the write was undone");

    let nul = world.try_write(|db| db.insert_user(&made::user("a\0b"), &UserSecrets::default()));
    assert!(matches!(nul, Err(StoreError::Invalid { .. })), "{nul:?}");
    world.write(|db| {
        db.insert_group(&made::group("g"))?;
        db.insert_pool(&made::pool("p"))
    });
    let group = world.try_write(|db| db.insert_group(&made::group("g")));
    assert_eq!(group, taken("group", "name", "g"));
    let pool = world.try_write(|db| db.insert_pool(&made::pool("p")));
    assert_eq!(pool, taken("pool", "name", "p"));
    let policy = world.try_write(|db| db.insert_policy(&made::policy("default")));
    assert_eq!(policy, taken("policy", "name", "default"));
}

pub(crate) fn stale(world: &World) {
    let user = made::user("ada");
    let given = user.clone();
    world.write(move |db| db.insert_user(&given, &UserSecrets::default()));
    let (one, other) = (user.clone(), user.clone());
    let new = world
        .write(move |db| db.update_user(&User { display_name: "Ada".to_owned(), ..one.clone() }));
    assert_eq!((new.version, new.display_name.as_str()), (2, "Ada"));
    let late = world
        .try_write(move |db| db.update_user(&User { role: Some(Role::Viewer), ..other.clone() }));
    assert_eq!(late, Err(StoreError::Stale { kind: "user" }));
    assert_eq!(world.read(move |db| db.user(user.id)), new);
    let gone = world.try_write(|db| db.update_user(&made::user("nobody")));
    assert!(matches!(gone, Err(StoreError::NotFound { kind: "user", .. })), "{gone:?}");
}

pub(crate) fn removal(world: &World) {
    let (user, device) = world.write(|db| {
        let (user, device) = made::with_device(db, "ada");
        let pool = made::pool("p");
        db.insert_pool(&pool)?;
        db.insert_lease(&made::lease(device.id, pool.id, 1))?;
        db.insert_token(&made::token(user.id), &[1; 32])?;
        db.insert_enrolment(&made::enrolment(user.id), &[2; 32])?;
        db.add_usage(&[made::usage(user.id, device.id, 1, 10)], &[])?;
        Ok((user.id, device.id))
    });
    world.write(move |db| db.remove_user(user));
    let left = world.read(move |db| {
        Ok((
            db.devices_of(user)?.len(),
            db.lease_of(device)?,
            db.token_by_hash(&[1; 32])?,
            db.enrolment_by_hash(&[2; 32])?,
            db.usage_sum(user, 0)?,
        ))
    });
    assert_eq!(left, (0, None, None, None, 30), "only usage stays, for reports");
    let again = world.try_write(move |db| db.remove_user(user));
    assert_eq!(again, Err(StoreError::NotFound { kind: "user", id: user.to_string() }));
}

pub(crate) fn totp(world: &World) {
    let id = world.write(|db| Ok(made::with_device(db, "ada").0.id));
    let accepted = world.write(move |db| {
        let mut accepted = Vec::new();
        for step in [5, 5, 4, 6, 1 << 40, 7] {
            accepted.push(db.accept_totp_step(id, step)?);
        }
        accepted.push(db.accept_totp_step(UserId::fresh(), 1)?);
        Ok(accepted)
    });
    assert_eq!(accepted, [true, false, false, true, true, false, false]);
    assert_eq!(world.read(move |db| Ok(db.user_secrets(id)?.totp_last_step)), 1 << 40);
}

pub(crate) fn hotp(world: &World) {
    let id = world.write(|db| Ok(made::with_device(db, "ada").0.id));
    let set = move |kind| {
        world.write(move |db| {
            let secrets = UserSecrets {
                totp_secret: Some(vec![5; 20]),
                totp_kind: kind,
                ..UserSecrets::default()
            };
            db.set_user_secrets(id, &secrets)
        });
    };
    set(OtpKind::Counter);
    let accepted = world.write(move |db| {
        let mut accepted = Vec::new();
        for counter in [0, 0, 3, 2, 3, 4, 1 << 53, 5] {
            accepted.push(db.accept_hotp_counter(id, counter)?);
        }
        // A step of time says nothing of a counter, nor the other way round.
        accepted.push(db.accept_totp_step(id, 1 << 60)?);
        accepted.push(db.accept_hotp_counter(UserId::fresh(), 1)?);
        Ok(accepted)
    });
    let expected = [true, false, true, false, false, true, true, false, false, false];
    assert_eq!(accepted, expected);
    let kept = world.read(move |db| Ok((db.user_secrets(id)?, db.user(id)?)));
    assert_eq!((kept.0.totp_kind, kept.0.totp_last_step), (OtpKind::Counter, (1 << 53) + 1));
    assert_eq!(kept.1.totp_kind, Some(OtpKind::Counter));
    set(OtpKind::Time);
    assert!(!world.write(move |db| db.accept_hotp_counter(id, 1)));
}

pub(crate) fn devices(world: &World) {
    let (user, device) = world.write(|db| Ok(made::with_device(db, "ada")));
    let (id, key, owner) = (device.id, device.public_key, user.id);
    let read = world.write(move |db| {
        db.set_device_secrets(id, &made::secrets(9))?;
        db.set_access(id, Some(Timestamp(10)), Some(Timestamp(20)))?;
        db.touch_devices(&[
            (id, Timestamp(15)),
            (id, Timestamp(14)),
            (DeviceId::fresh(), Timestamp(15)),
        ])?;
        Ok((db.device_by_key(&key)?, db.device_secrets(id)?))
    });
    let found = read.0.unwrap();
    assert_eq!((found.access_from, found.access_until), (Some(Timestamp(10)), Some(Timestamp(20))));
    assert_eq!((found.last_seen, found.version), (Some(Timestamp(15)), 1));
    assert!(read.1 == made::secrets(9));

    let (edited, stale) = (device.clone(), device.clone());
    let changed = world.write(move |db| {
        db.update_device(&Device { enabled: false, name: "old".to_owned(), ..edited.clone() })
    });
    assert!(!changed.enabled && changed.version == 2 && changed.access_from == Some(Timestamp(10)));
    let late = world.try_write(move |db| db.update_device(&stale));
    assert_eq!(late, Err(StoreError::Stale { kind: "device" }));

    let same_key = world.try_write(move |db| {
        let other = Device { public_key: key, ..made::device(owner, "phone") };
        db.insert_device(&other, &DeviceSecrets::default())
    });
    let shown = ringway_control::keys::show_public(&key);
    let taken = |field, value| StoreError::Conflict { kind: "device", field, value };
    assert_eq!(same_key, Err(taken("public_key", shown)));
    let same_name = world.try_write(move |db| {
        db.insert_device(&made::device(owner, "old"), &DeviceSecrets::default())
    });
    assert_eq!(same_name, Err(taken("name", "old".to_owned())));
    world.write(move |db| db.remove_device(id));
    assert_eq!(world.read(move |db| db.device_by_key(&key)), None);
}

pub(crate) fn leases(world: &World) {
    let (one, other, pool) = world.write(|db| {
        let (_, one) = made::with_device(db, "ada");
        let (_, other) = made::with_device(db, "bob");
        let pool = made::pool("p");
        db.insert_pool(&pool)?;
        db.insert_lease(&made::lease(one.id, pool.id, 5))?;
        Ok((one.id, other.id, pool.id))
    });
    let refused = |lease: Lease| world.try_write(move |db| db.insert_lease(&lease)).unwrap_err();
    let taken =
        |field, value: &str| StoreError::Conflict { kind: "lease", field, value: value.to_owned() };
    let again = made::lease(other, pool, 5);
    let four = Lease { address6: None, ..again.clone() };
    assert_eq!(refused(four), taken("address4", "10.7.0.5"));
    let six = Lease { address4: None, ..again };
    assert_eq!(refused(six), taken("address6", "fd00:7::5"));
    assert_eq!(refused(made::lease(one, pool, 6)), taken("device", &one.to_string()));

    let (leased, lease, all) = world.write(move |db| {
        // Many without an address of a family do not stand in each other's way.
        db.insert_lease(&Lease { address4: None, ..made::lease(other, pool, 7) })?;
        Ok((db.leased(pool)?, db.lease_of(one)?, db.leases(pool, &Page::default())?.items.len()))
    });
    assert_eq!((leased.len(), all), (2, 2));
    assert_eq!(lease, Some(made::lease(one, pool, 5)));
    let (first, second) = world.write(move |db| Ok((db.remove_lease(one)?, db.remove_lease(one)?)));
    assert!(first && !second);
}

pub(crate) fn tokens(world: &World) {
    let user = world.write(|db| Ok(made::with_device(db, "ada").0.id));
    let token = made::token(user);
    let (given, id) = (token.clone(), token.id);
    let (found, none, listed) = world.write(move |db| {
        db.insert_token(&given, &[3; 32])?;
        db.touch_token(given.id, Timestamp(50))?;
        db.touch_token(given.id, Timestamp(40))?;
        let listed = db.tokens(Some(given.user), &Page::default())?.items;
        Ok((db.token_by_hash(&[3; 32])?, db.token_by_hash(&[4; 32])?, listed))
    });
    let used = Token { last_used_at: Some(Timestamp(50)), ..token };
    assert_eq!((found, none, listed), (Some(used.clone()), None, vec![used.clone()]));
    assert_eq!(world.read(move |db| db.token(id)), used);
    let same = world.try_write(move |db| db.insert_token(&made::token(user), &[3; 32]));
    assert!(matches!(same, Err(StoreError::Conflict { field: "secret", .. })), "{same:?}");
    world.write(move |db| db.remove_token(id));
    let gone = world.try_write(move |db| db.remove_token(id));
    assert!(matches!(gone, Err(StoreError::NotFound { kind: "token", .. })));
}

pub(crate) fn enrolments(world: &World) {
    let user = world.write(|db| Ok(made::with_device(db, "ada").0.id));
    let (first, second) = (made::enrolment(user), made::enrolment(user));
    let (one, two) = (first.id, second.id);
    let given = (first.clone(), second);
    let device = DeviceId::fresh();
    let used = world.write(move |db| {
        db.insert_enrolment(&given.0, &[5; 32])?;
        db.insert_enrolment(&given.1, &[6; 32])?;
        Ok([
            db.use_enrolment(one, device, Timestamp(999))?,
            db.use_enrolment(one, DeviceId::fresh(), Timestamp(999))?,
            db.use_enrolment(two, device, Timestamp(1000))?,
            db.use_enrolment(EnrolmentId::fresh(), device, Timestamp(1))?,
        ])
    });
    assert_eq!(used, [true, false, false, false]);
    let found = world.read(|db| db.enrolment_by_hash(&[5; 32]));
    assert_eq!(found, Some(Enrolment { used_by: Some(device), ..first }));
    let purged = world.write(|db| {
        let listed = db.enrolments(None, &Page::default())?.items.len();
        Ok((listed, db.purge_enrolments(Timestamp(1000))?, db.purge_enrolments(Timestamp(1001))?))
    });
    assert_eq!(purged, (2, 0, 2));
    let nobody = world.read(|db| db.users(&UserFilter::default(), &Page::first()));
    assert_eq!(nobody.items.len(), 1);
}

pub(crate) fn certificates(world: &World) {
    let chain = |byte: u8, len: u8| -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..len).map(|place| (vec![byte, place], vec![byte, place, 1])).collect()
    };
    let set = |device: DeviceId, chain: Vec<(Vec<u8>, Vec<u8>)>| {
        world.write(move |db| {
            let chain: Vec<(&[u8], &[u8])> = chain.iter().map(|(i, s)| (&**i, &**s)).collect();
            db.set_access(device, Some(Timestamp(5)), None)?;
            db.set_access_certificates(device, &chain)
        });
    };
    let devices: Vec<DeviceId> = (1..=5_u8)
        .map(|byte| {
            let (_, device) = world.write(move |db| Ok(made::with_device(db, &format!("u{byte}"))));
            set(device.id, chain(byte, byte));
            device.id
        })
        .collect();
    // By a shorter way, by none at all, and gone: nothing is left of what was before.
    set(devices[4], chain(9, 2));
    set(devices[1], Vec::new());
    let gone = devices[3];
    world.write(move |db| db.remove_device(gone));
    let mut expected: Vec<_> = [(0, chain(1, 1)), (2, chain(3, 3)), (4, chain(9, 2))]
        .map(|(at, chain)| (devices[at], chain))
        .to_vec();
    expected.sort_by_key(|(device, _)| device.to_string());
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let rows = world.read(move |db| db.access_certificates(after, Timestamp(9), 2));
        found.extend(rows.iter().map(|row| {
            let own = (row.issuer.clone(), row.serial.clone());
            (row.device, std::iter::once(own).chain(row.above.clone()).collect::<Vec<_>>())
        }));
        after = rows.last().map(|row| row.device);
        if rows.len() < 2 {
            break;
        }
    }
    assert_eq!(found, expected);
    let first = expected[0].0;
    world.write(move |db| db.set_access(first, Some(Timestamp(5)), Some(Timestamp(9))));
    let rows = world.read(|db| db.access_certificates(None, Timestamp(9), 9));
    assert_eq!(rows.len(), 2, "an access that is over is not looked at");
}
