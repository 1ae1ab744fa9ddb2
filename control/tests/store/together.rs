//! Transactions, and several gateways at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_control::store::query::UserFilter;
use ringway_control::store::records::*;
use ringway_control::store::{Page, Store, StoreError};

use crate::made;
use crate::world::World;

/// Gateways that run at once.
const GATEWAYS: usize = 4;

fn gateways(world: &World) -> Vec<Store> {
    let first = world.store().clone();
    (1..GATEWAYS).map(|_| world.open().unwrap()).chain([first]).collect()
}

pub(crate) fn all_or_nothing(world: &World) {
    let failed = world.try_write(|db| {
        made::with_device(db, "ada");
        Err::<(), _>(StoreError::Invalid { why: "changed my mind".to_owned() })
    });
    assert!(failed.is_err());
    // An error of the engine spoils the write, even if it is ignored.
    let ignored = world.try_write(|db| {
        db.insert_user(&made::user("bob"), &UserSecrets::default())?;
        let again = db.insert_user(&made::user("bob"), &UserSecrets::default());
        assert!(matches!(again, Err(StoreError::Conflict { .. })));
        Ok(())
    });
    assert!(matches!(ignored, Err(StoreError::Conflict { field: "name", .. })), "{ignored:?}");
    let (count, revision) = world.read(|db| Ok((db.count_users()?, db.revision()?)));
    assert_eq!(count, 0);
    world.write(|db| db.insert_user(&made::user("ada"), &UserSecrets::default()));
    let changes = world.read(move |db| db.changes_since(revision, 10));
    assert_eq!(changes.items.len(), 1, "what was undone is no change");
}

pub(crate) fn attempts(world: &World) {
    let names = world.write(|db| {
        let before = db.revision()?;
        db.insert_user(&made::user("ada"), &UserSecrets::default())?;
        let failed = db.attempt(|db| {
            db.insert_user(&made::user("bob"), &UserSecrets::default())?;
            db.revision()?;
            db.insert_user(&made::user("ada"), &UserSecrets::default())
        });
        assert!(matches!(failed, Err(StoreError::Conflict { .. })), "{failed:?}");
        let nested = db.attempt(|db| {
            db.insert_user(&made::user("cy"), &UserSecrets::default())?;
            let inner = db.attempt(|db| {
                // Swallowing the error does not help.
                let _ = db.insert_user(&made::user("cy"), &UserSecrets::default());
                Ok(())
            });
            assert!(matches!(inner, Err(StoreError::Conflict { .. })), "{inner:?}");
            db.insert_user(&made::user("dan"), &UserSecrets::default())
        });
        assert_eq!(nested, Ok(()));
        let changes = db.changes_since(before, 100)?.items;
        assert_eq!(changes.len(), 3, "{changes:?}");
        let users = db.users(&UserFilter::default(), &Page::default())?.items;
        Ok(users.into_iter().map(|user| user.name).collect::<Vec<_>>())
    });
    assert_eq!(names, ["ada", "cy", "dan"]);
}

pub(crate) fn readers(world: &World) {
    let written = world.wait(world.store().read(|db| db.put_setting("a", b"b"))).unwrap_err();
    assert!(matches!(written, StoreError::Invalid { .. }), "{written}");
    assert_eq!(world.read(|db| db.setting("a")), None);
    // A reader sees one state, whatever is kept meanwhile.
    let (store, other) = (world.store().clone(), world.store().clone());
    let counts = world.wait(async move {
        let (tell, told) = std::sync::mpsc::channel();
        let (done, is_done) = std::sync::mpsc::channel();
        let reading = tokio::spawn(async move {
            store
                .read(move |db| {
                    let before = db.count_users()?;
                    tell.send(()).unwrap();
                    is_done.recv().unwrap();
                    Ok((before, db.count_users()?))
                })
                .await
        });
        tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
        other.write(|db| Ok(made::with_device(db, "ada").0.id)).await.unwrap();
        done.send(()).unwrap();
        reading.await.unwrap().unwrap()
    });
    assert_eq!(counts, (0, 0));
    assert_eq!(world.read(|db| db.count_users()), 1);
}

pub(crate) fn one_wins(world: &World) {
    let gateways = gateways(world);
    for round in 0..5_u8 {
        let id = world.write(move |db| {
            let user = match db.user_by_name("ada")? {
                Some(user) => user.id,
                None => made::with_device(db, "ada").0.id,
            };
            let enrolment = made::enrolment(user);
            db.insert_enrolment(&enrolment, &[round; 32])?;
            Ok(enrolment.id)
        });
        let tries: Vec<_> = (0..16)
            .map(|index| {
                let store = gateways[index % GATEWAYS].clone();
                async move {
                    let device = DeviceId::fresh();
                    let used = store.write(move |db| db.use_enrolment(id, device, Timestamp(1)));
                    used.await.unwrap().then_some(device)
                }
            })
            .collect();
        let winners: Vec<DeviceId> = world.wait(async {
            let tasks: Vec<_> = tries.into_iter().map(tokio::spawn).collect();
            let mut winners = Vec::new();
            for task in tasks {
                winners.extend(task.await.unwrap());
            }
            winners
        });
        assert_eq!(winners.len(), 1);
        let used_by = world.read(move |db| db.enrolment(id)).used_by;
        assert_eq!(used_by, winners.first().copied());
    }
}

pub(crate) fn leasing(world: &World) {
    const DEVICES: usize = 40;
    let gateways = gateways(world);
    let (pool, devices) = world.write(|db| {
        let pool = made::pool("p");
        db.insert_pool(&pool)?;
        let user = made::with_device(db, "ada").0.id;
        let devices: Vec<Device> =
            (0..DEVICES).map(|index| made::device(user, &format!("d{index}"))).collect();
        for device in &devices {
            db.insert_device(device, &DeviceSecrets::default())?;
        }
        Ok((pool.id, devices))
    });
    world.wait(async {
        let tasks: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(index, device)| {
                let (store, device) = (gateways[index % GATEWAYS].clone(), device.id);
                // The lowest that is free: each gateway looks and takes in one write.
                tokio::spawn(async move {
                    let lease = store.write(move |db| {
                        let taken: BTreeSet<_> =
                            db.leased(pool)?.into_iter().filter_map(|(four, _)| four).collect();
                        let free = (1..).map(|number| made::lease(device, pool, number));
                        let mut free =
                            free.filter(|lease| !taken.contains(&lease.address4.unwrap()));
                        db.insert_lease(&free.next().unwrap())
                    });
                    lease.await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let mut leased: Vec<_> =
        world.read(move |db| db.leased(pool)).into_iter().map(|(four, _)| four.unwrap()).collect();
    leased.sort();
    leased.dedup();
    assert_eq!(leased.len(), DEVICES);
    let highest = made::lease(devices[0].id, pool, u32::try_from(DEVICES).unwrap()).address4;
    assert_eq!(leased.last().copied(), highest, "nobody passed over a free address");
}

pub(crate) fn following(world: &World) {
    const WRITES: usize = 60;
    let gateways = gateways(world);
    let start = world.read(|db| db.revision());
    let is_over = Arc::new(AtomicBool::new(false));
    let (store, over) = (gateways[0].clone(), Arc::clone(&is_over));
    let seen = world.wait(async {
        let follower = tokio::spawn(async move {
            let (mut revision, mut seen) = (start, Vec::new());
            loop {
                // What was written before this is seen in the last round.
                let last = over.load(Ordering::SeqCst);
                let changes = store.read(move |db| db.changes_since(revision, 3)).await.unwrap();
                assert!(!changes.lost);
                if let Some(change) = changes.items.last() {
                    revision = change.revision;
                } else if last {
                    return seen;
                }
                seen.extend(changes.items.into_iter().map(|change| change.id));
            }
        });
        let writers: Vec<_> = gateways
            .iter()
            .cloned()
            .enumerate()
            .map(|(gateway, store)| {
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for write in 0..WRITES / GATEWAYS {
                        let user = made::user(&format!("u{gateway}-{write}"));
                        ids.push(user.id.to_string());
                        let insert =
                            store.write(move |db| db.insert_user(&user, &UserSecrets::default()));
                        insert.await.unwrap();
                    }
                    ids
                })
            })
            .collect();
        let mut written = Vec::new();
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        is_over.store(true, Ordering::SeqCst);
        let mut seen = follower.await.unwrap();
        seen.sort();
        written.sort();
        assert_eq!(seen, written);
        seen
    });
    assert_eq!(seen.len(), WRITES);

    // A record that changes again moves to its latest revision, and what is forgotten is told.
    let id = seen[0].parse::<UserId>().unwrap();
    let before = world.read(|db| db.revision());
    world.write(move |db| db.remove_user(id));
    let changes = world.read(move |db| db.changes_since(0, 1000));
    assert_eq!(changes.items.iter().filter(|change| change.id == seen[0]).count(), 1);
    assert_eq!(changes.items.last().map(|change| change.id.clone()), Some(id.to_string()));
    assert!(!changes.lost);
    world.write(move |db| db.trim_changes(before));
    assert!(world.read(move |db| db.changes_since(before - 1, 10)).lost);
    let rest = world.read(move |db| db.changes_since(before, 10));
    assert_eq!((rest.items.len(), rest.lost), (1, false));
}

pub(crate) fn panics(world: &World) {
    world.store();
    for _ in 0..3 {
        let cut = world.try_write(|db| -> Result<(), StoreError> {
            made::with_device(db, "ada");
            panic!("a mistake in the work, on purpose")
        });
        assert!(matches!(cut, Err(StoreError::Unavailable { .. })), "{cut:?}");
    }
    assert_eq!(world.write(|db| db.count_users()), 0);
    world.write(|db| Ok(made::with_device(db, "ada").0.id));
    assert_eq!(world.read(|db| db.count_users()), 1);
}

pub(crate) fn going_away(world: &World) {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let mut begin = Some(begin);
    let store = world.store().clone();
    world.wait(async {
        let leaving = tokio::spawn(async move {
            let work = store.write(move |db| {
                made::with_device(db, "ada");
                begin.take().unwrap().send(()).unwrap();
                held.lock().unwrap().recv().unwrap();
                Ok(())
            });
            work.await
        });
        begun.await.unwrap();
        leaving.abort();
        assert!(leaving.await.is_err());
        hold.send(()).unwrap();
    });
    assert_eq!(world.write(|db| db.count_users()), 0);
    let health = world.store().health();
    assert_eq!(health.failures.iter().sum::<u64>(), 0, "{health:?}");
}
