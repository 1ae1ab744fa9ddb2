//! Random work against a model in memory: the store must answer as the model does, on both engines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway_control::store::query::UserFilter;
use ringway_control::store::records::*;
use ringway_control::store::{Db, Page, StoreError};

use crate::made;
use crate::world::World;

/// A piece of work, on things that are numbered so that they meet.
#[derive(Clone, Debug)]
enum Work {
    InsertUser(u8),
    RenameUser(u8, u8, bool),
    RemoveUser(u8),
    InsertDevice(u8, u8),
    RemoveDevice(u8),
    Lease(u8, u8),
    Unlease(u8),
    Usage(u8, i8, u32),
    Totp(u8, u8),
}

fn work() -> impl Strategy<Value = Work> {
    let few = 0..4_u8;
    prop_oneof![
        few.clone().prop_map(Work::InsertUser),
        (few.clone(), few.clone(), any::<bool>()).prop_map(|(a, b, c)| Work::RenameUser(a, b, c)),
        few.clone().prop_map(Work::RemoveUser),
        (few.clone(), few.clone()).prop_map(|(a, b)| Work::InsertDevice(a, b)),
        few.clone().prop_map(Work::RemoveDevice),
        (few.clone(), few.clone()).prop_map(|(a, b)| Work::Lease(a, b)),
        few.clone().prop_map(Work::Unlease),
        (few.clone(), any::<i8>(), any::<u32>()).prop_map(|(a, b, c)| Work::Usage(a, b, c)),
        (few, any::<u8>()).prop_map(|(a, b)| Work::Totp(a, b)),
    ]
}

/// What the store should hold. Things are called by the number that the work used for them.
#[derive(Default)]
struct Model {
    /// By number: identifier, name, version, last step.
    users: BTreeMap<u8, (UserId, String, u64, u64)>,
    /// By number: identifier, and the number of the user.
    devices: BTreeMap<u8, (DeviceId, u8)>,
    /// By number of the device.
    leases: BTreeMap<u8, u8>,
    usage: BTreeMap<UserId, u64>,
    pool: Option<PoolId>,
    is_stale: bool,
}

impl Model {
    /// Does the work in the store and in the model, and compares the answers.
    fn step(&mut self, db: &mut Db<'_>, work: &Work) -> Result<(), StoreError> {
        match *work {
            Work::InsertUser(user) => {
                let record = made::user(&format!("u{user}"));
                let taken = self.users.values().any(|(_, name, _, _)| *name == record.name)
                    || self.users.contains_key(&user);
                if self.users.contains_key(&user) {
                    return Ok(());
                }
                let done = db.attempt(|db| db.insert_user(&record, &UserSecrets::default()));
                assert_eq!(done.is_err(), taken, "{done:?}");
                if !taken {
                    self.users.insert(user, (record.id, record.name, 1, 0));
                }
            }
            Work::RenameUser(user, name, is_stale) => self.rename(db, user, name, is_stale)?,
            Work::RemoveUser(user) => {
                let Some((id, ..)) = self.users.remove(&user) else { return Ok(()) };
                db.remove_user(id)?;
                let (gone, left) = std::mem::take(&mut self.devices)
                    .into_iter()
                    .partition(|(_, (_, owner))| *owner == user);
                self.devices = left;
                let gone: BTreeMap<u8, (DeviceId, u8)> = gone;
                self.leases.retain(|device, _| !gone.contains_key(device));
            }
            Work::InsertDevice(device, user) => {
                let Some((owner, ..)) = self.users.get(&user) else { return Ok(()) };
                if self.devices.contains_key(&device) {
                    return Ok(());
                }
                let record = made::device(*owner, &format!("d{device}"));
                db.insert_device(&record, &DeviceSecrets::default())?;
                self.devices.insert(device, (record.id, user));
            }
            Work::RemoveDevice(device) => {
                let Some((id, _)) = self.devices.remove(&device) else { return Ok(()) };
                db.remove_device(id)?;
                self.leases.remove(&device);
            }
            Work::Lease(device, address) => self.lease(db, device, address),
            Work::Unlease(device) => {
                let id = self.devices.get(&device).map_or_else(DeviceId::fresh, |(id, _)| *id);
                let had = db.remove_lease(id)?;
                assert_eq!(had, self.leases.remove(&device).is_some());
            }
            Work::Usage(device, day, bytes) => {
                let Some((id, user)) = self.devices.get(&device) else { return Ok(()) };
                let owner = self.users[user].0;
                db.add_usage(&[made::usage(owner, *id, day.into(), bytes.into())], &[])?;
                *self.usage.entry(owner).or_default() += 3 * u64::from(bytes);
            }
            Work::Totp(user, step) => {
                let Some((id, _, _, last)) = self.users.get_mut(&user) else { return Ok(()) };
                let is_later = u64::from(step) > *last;
                assert_eq!(db.accept_totp_step(*id, step.into())?, is_later);
                *last = (*last).max(step.into());
            }
        }
        Ok(())
    }

    fn rename(
        &mut self,
        db: &mut Db<'_>,
        user: u8,
        name: u8,
        is_stale: bool,
    ) -> Result<(), StoreError> {
        let name = format!("u{name}");
        let is_taken =
            self.users.iter().any(|(other, (_, taken, _, _))| *other != user && *taken == name);
        let Some((id, own, version, _)) = self.users.get_mut(&user) else { return Ok(()) };
        let mut record = db.user(*id)?;
        assert_eq!((&record.name, record.version), (&*own, *version));
        record.name.clone_from(&name);
        record.version -= u64::from(is_stale);
        let done = db.attempt(|db| db.update_user(&record));
        match done {
            Ok(new) => {
                assert!(!is_stale && !is_taken);
                (*own, *version) = (name, new.version);
            }
            Err(StoreError::Stale { .. }) => assert!(is_stale),
            Err(StoreError::Conflict { field: "name", .. }) => assert!(is_taken && !is_stale),
            Err(other) => return Err(other),
        }
        self.is_stale |= is_stale;
        Ok(())
    }

    fn lease(&mut self, db: &mut Db<'_>, device: u8, address: u8) {
        let pool = self.pool.unwrap();
        let known = self.devices.get(&device).map(|(id, _)| *id);
        let lease = made::lease(known.unwrap_or_else(DeviceId::fresh), pool, address.into());
        let done = db.attempt(|db| db.insert_lease(&lease));
        let is_taken = self.leases.values().any(|taken| *taken == address);
        let expected = match known {
            None => "missing",
            Some(_) if self.leases.contains_key(&device) || is_taken => "conflict",
            Some(_) => {
                self.leases.insert(device, address);
                "none"
            }
        };
        assert_eq!(done.err().map_or("none", |error| error.reason()), expected);
    }

    /// Compares everything.
    fn compare(&self, db: &mut Db<'_>) -> Result<(), StoreError> {
        let users = db.users(&UserFilter::default(), &Page::first())?.items;
        let mut names: Vec<(String, u64)> =
            self.users.values().map(|(_, name, version, _)| (name.clone(), *version)).collect();
        names.sort();
        let kept: Vec<(String, u64)> =
            users.into_iter().map(|user| (user.name, user.version)).collect();
        assert_eq!(kept, names);
        let rows = db.load_access(None, 1000)?;
        let mut devices: Vec<(DeviceId, UserId, Option<u8>)> = self
            .devices
            .iter()
            .map(|(device, (id, user))| (*id, self.users[user].0, self.leases.get(device).copied()))
            .collect();
        devices.sort();
        let kept: Vec<(DeviceId, UserId, Option<u8>)> = rows
            .into_iter()
            .map(|row| {
                let four = row.lease.and_then(|lease| lease.address4);
                (row.device.id, row.user.id, four.map(|four| four.octets()[3]))
            })
            .collect();
        assert_eq!(kept, devices);
        let sums: BTreeMap<UserId, u64> = db.usage_sums(i32::MIN)?.into_iter().collect();
        assert_eq!(sums, self.usage);
        Ok(())
    }
}

pub(crate) fn random_work(world: &World) {
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(24) });
    let stop = StoreError::Invalid { why: "undone".to_owned() };
    let plan = prop::collection::vec(work(), 1..60);
    let run = runner.run(&plan, |plan| {
        // All cases share a store, and each is undone.
        let stop = stop.clone();
        let done = world.try_write(move |db| -> Result<(), StoreError> {
            let pool = made::pool("p");
            db.insert_pool(&pool)?;
            let mut model = Model { pool: Some(pool.id), ..Model::default() };
            for work in &plan {
                model.step(db, work)?;
            }
            model.compare(db)?;
            Err(stop.clone())
        });
        prop_assert_eq!(done, Err(StoreError::Invalid { why: "undone".to_owned() }));
        Ok(())
    });
    run.unwrap();
}
