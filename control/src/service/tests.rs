#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

mod log;

use ringway_dataplane::command::{Exhausted, VolumeChange};
use ringway_proto::crypto::PublicKey;
use tokio::task::{JoinHandle, spawn_local};

use super::door::{Door, door};
use super::*;
use crate::access::people::Out;
use crate::access::sessions::{Seen, State};
use crate::gateway::fake_cores::{Told, desk, on_control_thread};
use crate::scratch::Scratch;
use crate::store::records::{
    Device, DeviceId, DeviceSecrets, KeyOrigin, Lease, Period, Pool, PoolId, Quota, QuotaAction,
    User, UserId, UserSecrets, UserState,
};
use crate::store::{Store, StoreOptions, StoreUrl};

/// A gateway with fake cores and a real store.
struct Bench {
    store: Store,
    told: Rc<Told>,
    desk: Rc<Desk>,
    service: Rc<Service>,
    door: Door,
    task: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    async fn new(folder: &Scratch) -> Self {
        let url = StoreUrl::file(&folder.path().join("records.db")).unwrap();
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        let (desk, told) = desk(2);
        Self::over(store, desk, told)
    }

    /// Another process over the same store and the same cores.
    fn over(store: Store, desk: Rc<Desk>, told: Rc<Told>) -> Self {
        let service = Service::new(Parts {
            desk: Rc::clone(&desk),
            store: store.clone(),
            hub: Hub::default(),
            name: "gateway".to_owned(),
            settings: Settings { rate: Rate::default() },
        });
        let (door, calls) = door();
        let task = spawn_local(Rc::clone(&service).run(calls));
        Self { store, told, desk, service, door, task }
    }

    async fn again(self) -> Self {
        self.task.abort();
        Self::over(self.store.clone(), Rc::clone(&self.desk), Rc::clone(&self.told))
    }

    /// Writes a user with one device that has access.
    async fn user(&self, number: u8, quota: Option<Quota>) -> (User, Device) {
        let (user, device, pool) = (user(number, quota), device(number), PoolId::fresh());
        let device = Device { user: user.id, ..device };
        let (written, its) = (user.clone(), device.clone());
        self.store
            .write(move |db| {
                db.insert_user(&written, &UserSecrets::default())?;
                db.insert_device(&its, &DeviceSecrets::default())?;
                db.insert_pool(&Pool {
                    id: pool,
                    name: format!("pool{number}"),
                    net4: Some(format!("10.0.{number}.0/24")),
                    net6: None,
                    range4: None,
                    random: false,
                    created_at: Timestamp(1),
                    version: 1,
                })?;
                db.insert_lease(&Lease {
                    device: its.id,
                    pool,
                    address4: Some(Ipv4Addr::new(10, 0, number, 2)),
                    address6: None,
                    is_static: false,
                    created_at: Timestamp(1),
                })
            })
            .await
            .unwrap();
        self.service.bell().notify_one();
        (user, device)
    }

    fn is_peer(&self, device: &Device) -> bool {
        self.told.peers.borrow().keys().any(|(_, public)| *public == device.public_key)
    }

    /// What a device sends, on the core `core`.
    fn moves(&self, device: &Device, core: usize, bytes: u64) {
        let account = self.told.accounts.borrow()[&device.public_key];
        self.told.usage.borrow_mut()[core].count(account.0, 0, bytes);
    }

    async fn used(&self, user: UserId) -> u64 {
        self.store.read(move |db| db.usage_sum(user, 0)).await.unwrap()
    }
}

/// Waits until something is so; the test thread ends a wait that lasts too long.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn user(number: u8, quota: Option<Quota>) -> User {
    User {
        id: UserId::fresh(),
        name: format!("user{number}"),
        display_name: String::new(),
        group: None,
        policy: None,
        role: None,
        state: UserState::Active,
        expires_at: None,
        rate: Some(Rate { up_bps: Some(8_000_000), ..Rate::default() }),
        quota,
        has_password: false,
        has_totp: false,
        totp_kind: None,
        created_at: Timestamp(1),
        version: 1,
    }
}

fn device(number: u8) -> Device {
    Device {
        id: DeviceId::fresh(),
        user: UserId::fresh(),
        name: "laptop".to_owned(),
        public_key: PublicKey([number; 32]),
        key_origin: KeyOrigin::Device,
        enabled: true,
        access_from: Some(Timestamp(1)),
        access_until: None,
        last_seen: None,
        created_at: Timestamp(1),
        version: 1,
    }
}

fn quota(bytes: u64, action: QuotaAction) -> Option<Quota> {
    Some(Quota { bytes, period: Period::Total, action, throttle_bps: None })
}

#[test]
fn when_a_device_was_last_there_is_known_while_its_session_lasts() {
    on_control_thread(async {
        let folder = Scratch::new("service_seen");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let now = bench.service.now();
        let heard = now.wall.plus_ms(-30_000);
        let seen = Seen {
            state: State::Online,
            endpoint: None,
            last_handshake: Some(heard),
            last_received: Some(heard),
            path_mtu: 1420,
            core: 0,
            outer_bytes: (0, 0),
        };
        bench.service.projection.borrow_mut().see(&device.public_key, seen, now);
        let (id, minute) = (device.id, Timestamp(heard.0 - heard.0.rem_euclid(60_000)));
        // Not again what was noted before.
        bench.service.note_seen(now.wall);
        assert!(bench.service.flush_outbox().await);
        let stored = bench.store.read(move |db| db.device(id)).await.unwrap();
        assert_eq!(stored.last_seen, None);
        bench.service.note_seen(heard);
        assert!(bench.service.flush_outbox().await);
        let stored = bench.store.read(move |db| db.device(id)).await.unwrap();
        assert_eq!(stored.last_seen, Some(minute));
    });
}

#[test]
fn a_device_with_access_is_a_peer_with_its_limits_until_its_user_is_disabled() {
    on_control_thread(async {
        let folder = Scratch::new("service_access");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let account = bench.told.accounts.borrow()[&device.public_key];
        let limits = bench.told.limits.borrow().clone();
        let above = limits[&account].parent.unwrap();
        assert_eq!(limits[&above].rates[0].unwrap().bytes_per_second, 1_000_000);
        let (_, other) = bench.user(2, None).await;
        until(|| bench.is_peer(&other)).await;
        let disabled = User { state: UserState::Disabled, ..user.clone() };
        bench.store.write(move |db| db.update_user(&disabled)).await.unwrap();
        bench.service.bell().notify_one();
        let begun = Instant::now();
        until(|| !bench.is_peer(&device)).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(bench.is_peer(&other), "nobody else is touched");
        until(|| bench.told.limits.borrow().len() == 2).await;
    });
}

#[test]
fn without_a_bell_a_change_by_another_gateway_is_seen_all_the_same() {
    on_control_thread(async {
        let folder = Scratch::new("service_fleet");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let id = user.id;
        bench.store.write(move |db| db.remove_user(id)).await.unwrap();
        until(|| !bench.is_peer(&device)).await;
    });
}

#[test]
fn what_devices_use_is_entered_to_the_byte_across_a_process_that_is_gone() {
    on_control_thread(async {
        let folder = Scratch::new("service_usage");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        bench.moves(&device, 0, 1_000);
        bench.moves(&device, 1, 234);
        bench.service.settle().await;
        assert_eq!(bench.used(user.id).await, 1_234);
        // Counted, and the process ends before it is entered.
        bench.moves(&device, 0, 4_321);
        let bench = bench.again().await;
        until(|| bench.service.is_loaded()).await;
        bench.moves(&device, 1, 5);
        bench.service.settle().await;
        assert_eq!(bench.used(user.id).await, 1_234 + 4_321 + 5);
        bench.service.settle().await;
        assert_eq!(bench.used(user.id).await, 5_560, "nothing twice");
    });
}

#[test]
fn the_last_bytes_of_a_device_that_goes_are_entered_too() {
    on_control_thread(async {
        let folder = Scratch::new("service_last_bytes");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        bench.moves(&device, 0, 77);
        // The store is told nothing until this is dropped.
        let still = bench.service.still_log().await;
        assert!(bench.service.end_access(device.id, Out::Killed));
        until(|| !bench.is_peer(&device)).await;
        until(|| bench.told.limits.borrow().is_empty()).await;
        let waits = bench.service.with_projection(|known| known.retiring().count());
        assert_ne!(waits, 0, "its number is nobody else's before they are");
        drop(still);
        bench.service.settle().await;
        assert_eq!(bench.used(user.id).await, 77);
        assert_eq!(bench.service.with_projection(|known| known.retiring().count()), 0);
    });
}

#[test]
fn a_quota_that_is_used_up_ends_the_session_also_for_the_next_process_until_it_is_raised() {
    on_control_thread(async {
        let folder = Scratch::new("service_quota");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, quota(10_000, QuotaAction::Disconnect)).await;
        until(|| bench.is_peer(&device)).await;
        let account = bench.told.accounts.borrow()[&device.public_key];
        let above = bench.told.limits.borrow()[&account].parent.unwrap();
        let VolumeChange::Begin(volume) = bench.told.limits.borrow()[&above].volume else {
            panic!("no volume")
        };
        assert_eq!((volume.bytes, volume.then), (10_000, Exhausted::Drop));
        bench.moves(&device, 0, 10_000);
        until(|| !bench.is_peer(&device)).await;
        until(|| bench.told.limits.borrow().is_empty()).await;
        bench.service.settle().await;
        let bench = bench.again().await;
        until(|| bench.service.is_loaded()).await;
        assert_eq!(
            bench.service.stand(device.id),
            Some(crate::access::Stand::Out(Out::QuotaExceeded))
        );
        let raised = User { quota: quota(15_000, QuotaAction::Disconnect), ..user };
        bench.store.write(move |db| db.update_user(&raised)).await.unwrap();
        bench.service.bell().notify_one();
        until(|| bench.is_peer(&device)).await;
        let account = bench.told.accounts.borrow()[&device.public_key];
        let above = bench.told.limits.borrow()[&account].parent.unwrap();
        let volume = bench.told.limits.borrow()[&above].volume;
        assert!(
            matches!(volume, VolumeChange::Begin(volume) if volume.bytes == 5_000),
            "{volume:?}"
        );
    });
}

#[test]
fn a_quota_that_comes_while_bytes_move_leaves_out_what_no_tick_has_counted_yet() {
    on_control_thread(async {
        let folder = Scratch::new("service_quota_moving");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let account = bench.told.accounts.borrow()[&device.public_key];
        let above = bench.told.limits.borrow()[&account].parent.unwrap();
        let limited = User { quota: quota(10_000, QuotaAction::Disconnect), ..user };
        bench.store.write(move |db| db.update_user(&limited)).await.unwrap();
        // No tick comes between this and the news.
        bench.moves(&device, 0, 3_000);
        bench.service.bell().notify_one();
        let volume = || bench.told.limits.borrow()[&above].volume;
        until(|| matches!(volume(), VolumeChange::Begin(_))).await;
        let VolumeChange::Begin(volume) = volume() else { panic!("no volume") };
        assert_eq!(volume.bytes, 7_000);
    });
}

#[test]
fn a_killed_session_stays_ended_for_the_next_process_and_is_in_the_log() {
    on_control_thread(async {
        let folder = Scratch::new("service_kill");
        let bench = Bench::new(&folder).await;
        let mut events = bench.service.hub.listen();
        let (_, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        bench.told.live.borrow_mut().insert(device.public_key);
        until(|| bench.service.with_projection(|known| !known.sessions().is_empty())).await;
        assert!(bench.service.end_access(device.id, Out::Killed));
        bench.told.live.borrow_mut().clear();
        until(|| !bench.is_peer(&device)).await;
        bench.service.settle().await;
        let log = bench.store.read(|db| {
            db.connections(
                &crate::store::query::ConnectionFilter::default(),
                &crate::store::Page::default(),
            )
        });
        let log: Vec<(String, Option<String>)> =
            log.await.unwrap().items.into_iter().map(|entry| (entry.event, entry.reason)).collect();
        let expected = [("connected", None), ("disconnected", Some("killed"))];
        assert_eq!(log, expected.map(|(event, why)| (event.to_owned(), why.map(str::to_owned))));
        let mut kinds = Vec::new();
        while let Some(crate::events::Heard::Event(event)) = events.try_next() {
            kinds.push(event.kind);
        }
        let expected =
            [Kind::AccessGranted, Kind::SessionStarted, Kind::SessionEnded, Kind::AccessEnded];
        assert_eq!(kinds, expected);
        let bench = bench.again().await;
        until(|| bench.service.is_loaded()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!bench.is_peer(&device));
    });
}

#[test]
fn an_access_that_is_ended_during_a_hand_over_is_ended_for_the_next_process_too() {
    on_control_thread(async {
        let folder = Scratch::new("service_end_in_hold");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let held = bench.service.hold().await;
        assert!(bench.service.end_access(device.id, Out::Killed));
        let id = device.id;
        let is_ended = async || {
            let stored = bench.store.read(move |db| db.device(id)).await.unwrap();
            stored.access_until.is_some()
        };
        while !is_ended().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(held);
        let bench = bench.again().await;
        until(|| bench.service.is_loaded()).await;
        assert_ne!(bench.service.stand(device.id), Some(crate::access::Stand::In));
    });
}

#[test]
fn the_next_process_keeps_peers_and_numbers_and_removes_what_the_store_does_not_know() {
    on_control_thread(async {
        let folder = Scratch::new("service_adopt");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        let (gone, lost) = bench.user(2, None).await;
        until(|| bench.is_peer(&device) && bench.is_peer(&lost)).await;
        let before = bench.told.accounts.borrow()[&device.public_key];
        bench.task.abort();
        bench.store.write(move |db| db.remove_user(gone.id)).await.unwrap();
        let bench = bench.again().await;
        until(|| !bench.is_peer(&lost)).await;
        assert!(bench.is_peer(&device));
        assert_eq!(bench.told.accounts.borrow()[&device.public_key], before);
        until(|| bench.told.limits.borrow().len() == 2).await;
    });
}

#[test]
fn other_threads_call_through_the_door_and_are_told_when_nobody_is_there() {
    on_control_thread(async {
        let folder = Scratch::new("service_door");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        until(|| bench.is_peer(&device)).await;
        let caller = bench.door.clone();
        let id = device.id;
        let call =
            async move { caller.call(move |service| async move { service.stand(id) }).await };
        let stand = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap()
                .block_on(call)
        });
        until(|| stand.is_finished()).await;
        assert_eq!(stand.join().unwrap(), Ok(Some(crate::access::Stand::In)));
        let door = bench.door.clone();
        drop(bench);
        tokio::task::yield_now().await;
        assert_eq!(door.call(|_| async {}).await, Err(door::Closed::Gone));
    });
}
