//! Stores that hang, are locked, die and come back.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringway_control::store::records::*;
use ringway_control::store::{Store, StoreError, StoreOptions};

use crate::made;
use crate::server::Server;
use crate::world::World;

/// What a request may take in these tests, and what an answer may be late on a busy machine.
const DEADLINE: Duration = Duration::from_millis(1200);
const GRACE: Duration = Duration::from_millis(600);
/// Longest wait for a store to be well again.
const RECOVERY: Duration = Duration::from_secs(20);

fn impatient() -> StoreOptions {
    StoreOptions { deadline: DEADLINE, durable: false, queue: 4, ..StoreOptions::default() }
}

fn open(world: &World) -> Store {
    world.wait(Store::open(&world.url, &impatient())).unwrap()
}

/// Writes a user, and says how that went and that it did not take too long.
fn write(world: &World, store: &Store, name: &str) -> Result<(), StoreError> {
    let (user, asked) = (made::user(name), Instant::now());
    let done = world.wait(store.write(move |db| db.insert_user(&user, &UserSecrets::default())));
    let took = asked.elapsed();
    assert!(took < DEADLINE + GRACE, "{took:?}: {done:?}");
    done
}

fn count(world: &World, store: &Store) -> Result<u64, StoreError> {
    let asked = Instant::now();
    let done = world.wait(store.read(|db| db.count_users()));
    let took = asked.elapsed();
    assert!(took < DEADLINE + GRACE, "{took:?}: {done:?}");
    done
}

/// Tries until it works.
fn recovers<T>(mut work: impl FnMut() -> Result<T, StoreError>) -> T {
    let started = Instant::now();
    loop {
        match work() {
            Ok(done) => return done,
            Err(error) => assert!(started.elapsed() < RECOVERY, "no recovery: {error}"),
        }
    }
}

pub(crate) fn queue(world: &World) {
    let store = open(world);
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let mut begin = Some(begin);
    world.wait(async {
        let slow = {
            let store = store.clone();
            tokio::spawn(async move {
                let work = store.write(move |db| {
                    made::with_device(db, "slow");
                    begin.take().unwrap().send(()).unwrap();
                    let _ = held.lock().unwrap().recv();
                    Ok(())
                });
                work.await
            })
        };
        begun.await.unwrap();
        let waiting: Vec<_> = (0..6)
            .map(|index| {
                let (store, user) = (store.clone(), made::user(&format!("w{index}")));
                tokio::spawn(async move {
                    let asked = Instant::now();
                    let done =
                        store.write(move |db| db.insert_user(&user, &UserSecrets::default()));
                    (done.await, asked.elapsed())
                })
            })
            .collect();
        let mut codes = Vec::new();
        for task in waiting {
            let (done, took) = task.await.unwrap();
            assert!(took < DEADLINE + GRACE, "{took:?}");
            codes.push(done.unwrap_err().reason());
        }
        codes.sort_unstable();
        let [busy, late] = ["store_busy", "store_timeout"];
        assert_eq!(codes, [busy, busy, late, late, late, late]);
        let slow = slow.await.unwrap().unwrap_err();
        assert!(
            matches!(&slow, StoreError::Timeout { why } if why.contains("nothing was changed"))
        );
    });
    let health = store.health();
    assert!(!health.is_up && health.last_error.is_some(), "{health:?}");
    hold.send(()).unwrap();
    let left = recovers(|| {
        write(world, &store, &format!("later{}", made::number()))?;
        count(world, &store)
    });
    assert_eq!(left, 1, "nothing was kept that was answered with an error");
    assert!(store.health().is_up);
}

#[test]
fn a_file_that_another_process_has_locked_is_busy_in_time_and_works_afterwards() {
    let world = World::sqlite();
    let store = open(&world);
    write(&world, &store, "before").unwrap();
    let other = rusqlite::Connection::open(world.file().unwrap()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let locked = write(&world, &store, "during").unwrap_err();
    assert!(matches!(&locked, StoreError::Busy { why } if why.contains("fuser")), "{locked}");
    assert_eq!(count(&world, &store), Ok(1), "readers go on meanwhile");
    other.execute_batch("ROLLBACK").unwrap();
    write(&world, &store, "after").unwrap();
    assert_eq!(count(&world, &store), Ok(2));
}

#[test]
fn a_server_that_stands_still_times_out_and_goes_on_afterwards() {
    let server = Server::start();
    let world = World::at(&server.database());
    let store = open(&world);
    write(&world, &store, "before").unwrap();
    server.signal(Signal::SIGSTOP);
    for number in 0..3 {
        let late = write(&world, &store, &format!("during{number}")).unwrap_err();
        assert!(matches!(late, StoreError::Timeout { .. }), "{late}");
    }
    let late = count(&world, &store).unwrap_err();
    assert!(matches!(late, StoreError::Timeout { .. }), "{late}");
    assert!(!store.health().is_up);
    server.signal(Signal::SIGCONT);
    recovers(|| write(&world, &store, &format!("after{}", made::number())));
    let left = recovers(|| count(&world, &store));
    assert_eq!(left, 2, "what had been given up was not carried out");
}

#[test]
fn a_server_that_died_is_unavailable_at_once_and_found_again_when_it_is_back() {
    let server = Server::start();
    let world = World::at(&server.database());
    let store = open(&world);
    write(&world, &store, "before").unwrap();
    assert_eq!(count(&world, &store), Ok(1));
    server.kill();
    for _ in 0..20 {
        let asked = Instant::now();
        let gone = write(&world, &store, "during").unwrap_err();
        assert!(matches!(gone, StoreError::Unavailable { .. }), "{gone}");
        assert!(asked.elapsed() < DEADLINE, "an answer that is known needs no waiting");
    }
    let gone = count(&world, &store).unwrap_err();
    assert!(matches!(gone, StoreError::Unavailable { .. }), "{gone}");
    assert!(!store.health().is_up);
    let opened = world.wait(Store::open(&world.url, &impatient())).err().unwrap();
    assert!(matches!(opened, StoreError::Unavailable { .. }), "{opened}");
    server.run();
    recovers(|| write(&world, &store, "after"));
    assert_eq!(recovers(|| count(&world, &store)), 2);
    assert!(store.health().is_up);
}

#[test]
fn a_server_that_ended_idle_connections_is_reached_anew_without_an_error() {
    let server = Server::start();
    let world = World::at(&server.database());
    let store = open(&world);
    write(&world, &store, "before").unwrap();
    count(&world, &store).unwrap();
    let admin = World::at(&server.url("postgres"));
    admin.raw(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ringway'",
    );
    write(&world, &store, "after").unwrap();
    assert_eq!(count(&world, &store), Ok(2));
}

#[test]
fn a_lock_that_a_session_of_the_server_holds_is_busy_in_time() {
    let world = World::postgres();
    let store = open(&world);
    let url = world.text().to_owned();
    let mut holder = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    // The advisory lock of writers, as a hung gateway would hold it.
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(32204070248210809)").unwrap();
    let busy = write(&world, &store, "during").unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    assert_eq!(count(&world, &store), Ok(0), "readers go on meanwhile");
    holder.batch_execute("ROLLBACK").unwrap();
    write(&world, &store, "after").unwrap();
}

#[test]
fn a_gateway_that_stands_still_in_a_write_does_not_hold_up_the_others() {
    let world = World::postgres();
    let (stuck, other) = (open(&world), world.store());
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let mut begin = Some(begin);
    world.wait(async {
        let waiting = tokio::spawn(async move {
            let work = stuck.write(move |db| {
                made::with_device(db, "stuck");
                begin.take().unwrap().send(()).unwrap();
                let _ = held.lock().unwrap().recv();
                db.count_users()
            });
            work.await
        });
        begun.await.unwrap();
        let user = made::user("other");
        other.write(move |db| db.insert_user(&user, &UserSecrets::default())).await.unwrap();
        drop(hold);
        assert!(waiting.await.unwrap().is_err());
    });
    assert_eq!(world.read(|db| db.count_users()), 1);
}

#[test]
fn a_database_that_does_not_exist_and_a_server_that_is_not_there_are_told_apart() {
    let world = World::at(&Server::shared().url("nowhere"));
    let none = world.wait(Store::open(&world.url, &impatient())).err().unwrap();
    assert!(matches!(&none, StoreError::Unavailable { why } if why.contains("createdb")), "{none}");
    let world = World::at("postgresql://ringway:s3cret@127.0.0.1:1/ringway");
    let none = world.wait(Store::open(&world.url, &impatient())).err().unwrap();
    let text = none.to_string();
    assert!(matches!(none, StoreError::Unavailable { .. }), "{none}");
    assert!(text.contains("127.0.0.1:1") && !text.contains("s3cret"), "{text}");
}

#[test]
fn postgresql_is_not_backed_up_from_here() {
    let world = World::postgres();
    let path = crate::server::scratch().join("never");
    let refused = world.wait(world.store().backup(&path, false)).unwrap_err();
    assert!(refused.to_string().contains("pg_dump"), "{refused}");
    assert!(!path.exists());
}
