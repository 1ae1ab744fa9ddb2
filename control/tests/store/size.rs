//! Many records, and how fast they move: run by hand with `--ignored --nocapture`, on a release
//! build for figures.

use std::time::Instant;

use ringway_control::store::records::*;
use ringway_control::store::{Store, StoreOptions};

use crate::made;
use crate::world::World;

const BATCH: u32 = 2_000;

fn devices() -> u32 {
    let asked = std::env::var("RINGWAY_STORE_TEST_DEVICES").ok();
    asked.map_or(BATCH, |number| number.parse().unwrap())
}

fn worlds() -> [(&'static str, World); 2] {
    [("sqlite", World::sqlite()), ("postgresql", World::postgres())]
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_devices_are_loaded_in_pages() {
    for (engine, world) in worlds() {
        let started = Instant::now();
        let pool = made::pool("p");
        let id = pool.id;
        world.write(move |db| db.insert_pool(&pool));
        for batch in 0..devices() / BATCH {
            world.write(move |db| {
                for number in batch * BATCH..(batch + 1) * BATCH {
                    let (_, device) = made::with_device(db, &format!("u{number}"));
                    db.insert_lease(&made::lease(device.id, id, number + 1))?;
                }
                Ok(())
            });
        }
        let filled = started.elapsed();
        let (before, started) = (resident_kib(), Instant::now());
        let page = (devices() / 3).min(5_000);
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let rows = world.read(move |db| db.load_access(after, page));
            let Some(last) = rows.last() else { break };
            after = Some(last.device.id);
            all.extend(rows);
        }
        let took = started.elapsed();
        assert_eq!(all.len(), devices() as usize);
        assert!(all.iter().all(|row| row.lease.is_some()));
        let memory = resident_kib().saturating_sub(before);
        eprintln!(
            "{engine}: filled in {filled:.1?}, loaded in {took:.2?}, {memory} KiB for all rows"
        );
    }
}

#[test]
fn how_fast_records_are_written_and_read() {
    let count = devices() / 10;
    for (engine, world) in worlds() {
        let options = StoreOptions::default();
        let store = world.wait(Store::open(&world.url, &options)).unwrap();
        let user = made::user("ada");
        let id = user.id;
        world.wait(store.write(move |db| db.insert_user(&user, &UserSecrets::default()))).unwrap();
        let rate = |started: Instant| f64::from(count) / started.elapsed().as_secs_f64();

        let started = Instant::now();
        for number in 0..count {
            let device = made::device(id, &format!("d{number}"));
            let insert = store.write(move |db| db.insert_device(&device, &made::secrets(1)));
            world.wait(insert).unwrap();
        }
        let single = rate(started);
        let started = Instant::now();
        let insert = store.write(move |db| {
            for number in 0..count {
                let device = made::device(id, &format!("e{number}"));
                db.insert_device(&device, &made::secrets(1))?;
            }
            Ok(())
        });
        world.wait(insert).unwrap();
        let together = rate(started);
        let started = Instant::now();
        for _ in 0..count {
            world.wait(store.read(move |db| db.user(id))).unwrap();
        }
        let reads = rate(started);
        let batch: Vec<Usage> =
            (0..count).map(|_| made::usage(id, DeviceId::fresh(), 1, 10)).collect();
        let started = Instant::now();
        world.wait(store.write(move |db| db.add_usage(&batch, &[]))).unwrap();
        let usage = rate(started);
        assert_eq!(world.read(move |db| Ok(db.devices_of(id)?.len())), 2 * count as usize);
        eprintln!(
            "{engine}: {single:.0} devices/s each on its own, {together:.0} in one write, \
             {reads:.0} reads/s one after the other, {usage:.0} usage rows/s"
        );
    }
}
