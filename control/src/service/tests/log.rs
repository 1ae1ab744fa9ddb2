//! The connection log over processes that are stopped, killed, and taken over from.

use proptest::prelude::*;

use super::*;
use crate::api::doors::Board;
use crate::api::live::{Live as _, ReportFormat, ReportSpan};
use crate::events::Heard;
use crate::gateway::fake_cores::desk_over;
use crate::logs::privacy::{Mode, Privacy};
use crate::service::live::{About, LiveGateway};
use crate::store::Page;
use crate::store::query::{ConnectionFilter, OpenSessions, SessionNote};
use crate::store::records::{ConnectionEntry, OpenSession};

/// What of an end does not depend on the time: its reason, and bytes from and to the client.
type End = (Option<String>, u64, u64);

fn end(reason: &str, up: u64, down: u64) -> End {
    (Some(reason.to_owned()), up, down)
}

impl Bench {
    /// A power failure: the next process has other cores, the same counter pages and records.
    async fn killed(self) -> Self {
        let next = self.killed_before_it_was_loaded();
        until(|| next.service.is_loaded()).await;
        next
    }

    fn killed_before_it_was_loaded(self) -> Self {
        self.task.abort();
        // Of the cores of the one that was killed their pages are left.
        let pages = std::mem::take(&mut *self.told.usage.borrow_mut());
        let (desk, told) = desk_over(pages);
        Self::over(self.store.clone(), desk, told)
    }

    /// The next process takes over.
    async fn upgraded(self) -> Self {
        let held = self.service.hold().await;
        let next = self.again().await;
        until(|| next.service.is_loaded()).await;
        drop(held);
        next
    }

    /// A client comes.
    async fn comes(&self, device: &Device) {
        until(|| self.is_peer(device)).await;
        self.told.live.borrow_mut().insert(device.public_key);
        self.service.sweep().await;
        assert!(self.session(device).is_some());
    }

    /// A client falls silent.
    async fn goes(&self, device: &Device) {
        self.told.live.borrow_mut().remove(&device.public_key);
        self.service.sweep().await;
        assert!(self.session(device).is_none());
    }

    /// Number and beginning of the session of a device.
    fn session(&self, device: &Device) -> Option<(u64, Timestamp)> {
        self.service.with_projection(|known| {
            let session = known.sessions().of(&device.public_key)?;
            Some((session.id, session.since))
        })
    }

    async fn flushed(&self) {
        let now = self.service.now();
        self.service.count_everybody(now);
        self.service.take_notes(now);
        assert!(self.service.flush_outbox().await);
    }

    fn carries(&self, device: &Device, up: u64, down: u64) {
        self.moves(device, 0, up);
        let account = self.told.accounts.borrow()[&device.public_key];
        self.told.usage.borrow_mut()[1].count(account.0, 1, down);
    }

    /// The log of a device.
    async fn log(&self, device: &Device) -> Vec<ConnectionEntry> {
        let filter = ConnectionFilter { device: Some(device.id), ..ConnectionFilter::default() };
        let page = Page { after: None, limit: 1_000 };
        self.store.read(move |db| db.connections(&filter, &page)).await.unwrap().items
    }

    /// The ends of its sessions; each comes after its beginning, and says how long it lasted.
    async fn ends(&self, device: &Device) -> Vec<End> {
        let log = self.log(device).await;
        let mut ends = Vec::new();
        for pair in log.chunks(2) {
            assert_eq!(pair[0].event, "connected", "{log:?}");
            let Some(end) = pair.get(1) else { break };
            assert_eq!(end.event, "disconnected", "{log:?}");
            let lasted = end.at.since(pair[0].at);
            assert!(lasted >= 0, "{log:?}");
            assert_eq!(end.duration_s, Some(lasted as u64 / 1_000), "{log:?}");
            ends.push((end.reason.clone(), end.up_bytes, end.down_bytes));
        }
        ends
    }

    async fn left(&self) -> OpenSessions {
        self.store.read(|db| db.open_sessions("gateway")).await.unwrap()
    }

    /// The report of all time.
    async fn report(&self) -> serde_json::Value {
        let about = About { max_clients: 1, exit_addresses: Vec::new() };
        let live = LiveGateway::new(self.door.clone(), about, Board::default());
        let to = self.service.now().wall.plus_ms(60_000);
        let span = ReportSpan { from: to.plus_ms(-3 * 86_400_000), to };
        let report = live.usage_report(span, ReportFormat::Json).await.unwrap();
        serde_json::from_str(&report.body).unwrap()
    }
}

#[test]
fn a_stop_ends_every_session_with_its_bytes_and_no_other_begins_before_the_cores_end() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_stop");
        let bench = Bench::new(&folder).await;
        let (_, here) = bench.user(1, None).await;
        let (_, quiet) = bench.user(2, None).await;
        let (_, absent) = bench.user(3, None).await;
        bench.comes(&here).await;
        bench.comes(&quiet).await;
        bench.carries(&here, 1_000, 50);
        bench.flushed().await;
        let mut events = bench.service.hub.listen();
        // Counted by no tick, told to nobody.
        bench.carries(&here, 234, 5);
        bench.service.settle().await;
        assert_eq!(bench.ends(&here).await, [end("gateway_stopped", 1_234, 55)]);
        assert_eq!(bench.ends(&quiet).await, [end("gateway_stopped", 0, 0)]);
        assert!(bench.log(&absent).await.is_empty());
        let mut ended = 0;
        while let Some(Heard::Event(event)) = events.try_next() {
            // The third may only just have become a peer.
            if event.kind != Kind::AccessGranted {
                assert_eq!(event.kind, Kind::SessionEnded);
                assert_eq!(event.detail["reason"], "gateway_stopped");
                ended += 1;
            }
        }
        assert_eq!(ended, 2);
        assert_eq!(bench.service.tally().ended["gateway_stopped"], 2);
        // The cores carry on while the host is put back.
        bench.service.sweep().await;
        bench.flushed().await;
        assert_eq!(bench.log(&here).await.len(), 2);
        assert!(bench.left().await.sessions.is_empty());
        let bench = bench.killed().await;
        bench.flushed().await;
        assert_eq!(bench.log(&here).await.len(), 2, "nothing is told of it again");
    });
}

#[test]
fn what_ended_just_before_a_stop_or_a_hand_over_keeps_its_own_reason() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_just_before");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        for round in 0..2 {
            bench.comes(&device).await;
            bench.flushed().await;
            bench.told.live.borrow_mut().clear();
            // No tick has said so yet.
            let now = bench.service.now();
            bench.service.projection.borrow_mut().gone(&device.public_key, now);
            if round == 0 {
                drop(bench.service.hold().await);
            } else {
                bench.service.settle().await;
            }
            assert_eq!(bench.ends(&device).await, vec![(None, 0, 0); round + 1]);
        }
    });
}

#[test]
fn the_next_start_ends_what_a_killed_process_left_once_and_at_the_time_that_was_noted() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_kill");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        let (_, gone) = bench.user(2, None).await;
        let (_, silent) = bench.user(3, None).await;
        for device in [&device, &gone, &silent] {
            bench.comes(device).await;
        }
        bench.carries(&gone, 8, 9);
        bench.goes(&silent).await;
        bench.carries(&device, 1_000, 10);
        bench.flushed().await;
        let noted = bench.left().await.noted_at.unwrap();
        bench.carries(&device, 234, 1);
        let id = gone.id;
        bench.store.write(move |db| db.remove_device(id)).await.unwrap();
        let bench = bench.killed().await;
        bench.flushed().await;
        assert_eq!(bench.ends(&device).await, [end("gateway_lost", 1_234, 11)]);
        assert_eq!(bench.used(user.id).await, 1_245, "as much as was used");
        assert_eq!(bench.ends(&gone).await, [end("gateway_lost", 8, 9)]);
        assert_eq!(bench.ends(&silent).await, [(None, 0, 0)], "its end was known");
        let log = bench.log(&device).await;
        assert_eq!(log[1].at, noted.max(log[0].at), "no time was made up");
        assert_eq!(log[1].endpoint.as_deref(), Some("192.0.2.9"));
        // Neither this process again, nor ones that are killed at once, nor the next.
        bench.flushed().await;
        let bench = bench.killed().await.killed().await;
        bench.flushed().await;
        assert_eq!(bench.ends(&device).await.len(), 1);
        bench.comes(&device).await;
        bench.flushed().await;
        assert_eq!(bench.log(&device).await.len(), 3, "and the device has another session");
    });
}

#[test]
fn an_end_that_nobody_told_is_told_although_starts_are_killed_before_they_tell_it() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_kill_again");
        let mut bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        bench.comes(&device).await;
        bench.carries(&device, 70, 7);
        bench.flushed().await;
        let noted = bench.left().await.noted_at;
        bench.carries(&device, 30, 3);
        let mut held = Vec::new();
        for _ in 0..3 {
            bench = bench.killed_before_it_was_loaded();
            // What it finds it has no time to tell.
            held.push(Arc::clone(&bench.service.telling).lock_owned().await);
            until(|| bench.service.is_loaded()).await;
            assert_eq!(bench.session(&device), None);
            let report = tokio::time::timeout(Duration::from_millis(20), bench.report());
            assert!(report.await.is_err(), "a report waits for it");
        }
        assert_eq!(bench.left().await.noted_at, noted, "it is not noted to live any more");
        drop(held);
        bench.flushed().await;
        assert_eq!(bench.ends(&device).await, [end("gateway_lost", 100, 10)]);
        assert_eq!(bench.used(user.id).await, 110);
    });
}

#[test]
fn a_process_that_takes_over_goes_on_with_a_session_whose_end_counts_from_its_first_beginning() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_upgrade");
        let mut bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        let (_, leaves) = bench.user(2, None).await;
        bench.comes(&device).await;
        bench.comes(&leaves).await;
        bench.carries(&leaves, 3, 4);
        let before = bench.session(&device).unwrap();
        for round in 1..=3 {
            bench.carries(&device, 100, 1);
            let held = bench.service.hold().await;
            // Told by no process before the next one looks: it is in the pages.
            bench.carries(&device, 10, 0);
            bench = bench.again().await;
            drop(held);
            until(|| bench.service.is_loaded()).await;
            assert_eq!(bench.session(&device), Some(before), "round {round}");
            if round == 1 {
                // Gone while nobody looked.
                bench.told.live.borrow_mut().remove(&leaves.public_key);
            }
            bench.service.sweep().await;
            assert_eq!(bench.session(&device), Some(before), "round {round}");
            bench.flushed().await;
            assert_eq!(bench.log(&device).await.len(), 1, "no second beginning");
            assert_eq!(bench.report().await["total_sessions"], 2);
        }
        assert_eq!(bench.ends(&leaves).await, [(None, 3, 4)]);
        assert!(bench.service.end_access(device.id, Out::Killed));
        bench.flushed().await;
        assert_eq!(bench.ends(&device).await, [end("killed", 330, 3)]);
        assert_eq!(bench.log(&device).await[0].at, before.1);
        assert_eq!(bench.used(user.id).await, 333);
    });
}

#[test]
fn a_session_whose_access_ended_while_the_gateway_changed_hands_ends_for_that_reason() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_upgrade_out");
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        bench.comes(&device).await;
        bench.carries(&device, 5, 0);
        let held = bench.service.hold().await;
        bench.task.abort();
        let disabled = User { state: UserState::Disabled, ..user };
        bench.store.write(move |db| db.update_user(&disabled)).await.unwrap();
        let bench = bench.again().await;
        drop(held);
        until(|| bench.service.is_loaded()).await;
        bench.flushed().await;
        assert_eq!(bench.ends(&device).await, [end("user_disabled", 5, 0)]);
    });
}

#[test]
fn after_an_upgrade_that_failed_the_process_before_goes_on_with_its_sessions() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_stays");
        let bench = Bench::new(&folder).await;
        let (_, first) = bench.user(1, None).await;
        let (_, second) = bench.user(2, None).await;
        bench.comes(&first).await;
        let before = bench.session(&first);
        let held = bench.service.hold().await;
        assert_eq!(bench.log(&first).await.len(), 1, "what happened is told before");
        // While it is not clear who goes on nothing is told, and nothing is forgotten.
        bench.comes(&second).await;
        bench.carries(&second, 40, 4);
        let waiting = tokio::time::timeout(Duration::from_millis(20), bench.service.flush_outbox());
        assert!(waiting.await.is_err());
        assert!(bench.log(&second).await.is_empty());
        drop(held);
        bench.service.sweep().await;
        assert_eq!(bench.session(&first), before);
        bench.service.count_everybody(bench.service.now());
        bench.goes(&second).await;
        bench.flushed().await;
        assert_eq!(bench.log(&first).await.len(), 1);
        bench.service.settle().await;
        assert_eq!(bench.ends(&first).await, [end("gateway_stopped", 0, 0)]);
        assert_eq!(bench.ends(&second).await, [(None, 40, 4)]);
    });
}

#[test]
fn without_a_log_a_stop_a_kill_and_an_upgrade_write_nothing_and_what_was_kept_is_forgotten() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_none");
        let no_log = Privacy { mode: Mode::NoLog, ..Privacy::default() };
        let bench = Bench::new(&folder).await;
        let (user, device) = bench.user(1, None).await;
        bench.comes(&device).await;
        bench.carries(&device, 6, 0);
        bench.flushed().await;
        assert_eq!(bench.left().await.sessions.len(), 1);
        // The next process keeps none.
        bench.desk.keep_private(no_log);
        let bench = bench.upgraded().await;
        bench.comes(&device).await;
        bench.carries(&device, 7, 0);
        bench.flushed().await;
        assert!(bench.log(&device).await.is_empty());
        let left = bench.left().await;
        assert!(left.sessions.is_empty());
        let bench = bench.killed_before_it_was_loaded();
        bench.desk.keep_private(no_log);
        bench.comes(&device).await;
        bench.flushed().await;
        bench.service.settle().await;
        assert!(bench.log(&device).await.is_empty());
        assert_eq!(bench.left().await, left, "not even that it lives is noted");
        assert_eq!(bench.used(user.id).await, 13, "what was used is counted all the same");
    });
}

#[test]
fn an_end_from_before_the_retention_is_purged_with_what_is_as_old() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_old");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        let long_ago = bench.service.now().wall.plus_ms(-40 * 86_400_000);
        let (old, older) = (tell_begun(&bench, &device, long_ago), long_ago.plus_ms(-7));
        old.await;
        tell_begun(&bench, &device, older).await;
        let bench = bench.killed().await;
        bench.flushed().await;
        assert!(bench.log(&device).await.is_empty(), "thirty days are kept");
        assert!(bench.left().await.sessions.is_empty());
    });
}

/// Another process told that a session began, and noted then that it lives.
async fn tell_begun(bench: &Bench, device: &Device, at: Timestamp) {
    let (user, device) = (device.user, device.id);
    let open = OpenSession {
        session: u64::try_from(at.0).unwrap() << 10,
        user,
        device,
        since: at,
        endpoint: None,
        up_bytes: 1,
        down_bytes: 2,
    };
    let entry = ConnectionEntry {
        at,
        user,
        device,
        event: "connected".to_owned(),
        endpoint: None,
        reason: None,
        duration_s: None,
        up_bytes: 0,
        down_bytes: 0,
    };
    let note = SessionNote::Begun { open, entry };
    let told =
        bench.store.write(move |db| db.log_sessions("gateway", std::slice::from_ref(&note), at));
    told.await.unwrap();
}

#[test]
fn sessions_are_numbered_above_those_before_although_the_calendar_was_set_back() {
    on_control_thread(async {
        let folder = Scratch::new("service_log_clock");
        let bench = Bench::new(&folder).await;
        let (_, device) = bench.user(1, None).await;
        let tomorrow = bench.service.now().wall.plus_ms(86_400_000);
        tell_begun(&bench, &device, tomorrow).await;
        let bench = bench.killed().await;
        bench.comes(&device).await;
        assert!(bench.session(&device).unwrap().0 > u64::try_from(tomorrow.0).unwrap() << 10);
        bench.flushed().await;
        let events: Vec<String> =
            bench.log(&device).await.into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, ["connected", "disconnected", "connected"]);
    });
}

/// What may happen to a gateway and its clients.
#[derive(Clone, Copy, Debug)]
enum Act {
    Comes(usize),
    Goes(usize),
    Moves(usize, u64, u64),
    Flush,
    Kill,
    Upgrade,
    UpgradeFails,
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..2_usize).prop_map(Act::Comes),
        1 => (0..2_usize).prop_map(Act::Goes),
        3 => (0..2_usize, 1..1_000_u64, 0..9_u64).prop_map(|(who, up, down)| {
            Act::Moves(who, up, down)
        }),
        1 => Just(Act::Flush),
        1 => Just(Act::Kill),
        2 => Just(Act::Upgrade),
        1 => Just(Act::UpgradeFails),
        1 => Just(Act::Restart),
    ];
    prop::collection::vec(act, 4..16)
}

/// The ends of two devices' sessions as they should be in the log.
type Ends = [Vec<End>; 2];

/// Bytes of the sessions that two devices have.
type Live = [Option<(u64, u64)>; 2];

fn end_all(live: &mut Live, ends: &mut Ends, why: &str) {
    for (live, ends) in live.iter_mut().zip(ends) {
        ends.extend(live.take().map(|(up, down)| end(why, up, down)));
    }
}

async fn live_through(mut bench: Bench, devices: &[Device], acts: &[Act]) -> (Bench, Ends) {
    let (mut live, mut ends) = (Live::default(), Ends::default());
    for act in acts {
        match *act {
            Act::Comes(who) => {
                bench.comes(&devices[who]).await;
                live[who].get_or_insert((0, 0));
                // Of what was not told before a kill nobody knows.
                bench.flushed().await;
            }
            Act::Goes(who) => {
                // What it moved last is its own.
                bench.service.count_everybody(bench.service.now());
                bench.goes(&devices[who]).await;
                ends[who].extend(live[who].take().map(|(up, down)| (None, up, down)));
                bench.flushed().await;
            }
            Act::Moves(who, up, down) => {
                if let Some(moved) = &mut live[who] {
                    bench.carries(&devices[who], up, down);
                    *moved = (moved.0 + up, moved.1 + down);
                }
            }
            Act::Flush => bench.flushed().await,
            Act::Kill => {
                bench = bench.killed().await;
                end_all(&mut live, &mut ends, "gateway_lost");
            }
            Act::Upgrade => bench = bench.upgraded().await,
            Act::UpgradeFails => drop(bench.service.hold().await),
            Act::Restart => {
                bench.service.settle().await;
                bench = bench.killed().await;
                end_all(&mut live, &mut ends, "gateway_stopped");
            }
        }
    }
    let count = ends.iter().map(Vec::len).sum::<usize>() + live.iter().flatten().count();
    assert_eq!(bench.report().await["total_sessions"], count, "while some live");
    bench.service.settle().await;
    end_all(&mut live, &mut ends, "gateway_stopped");
    (bench, ends)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// However a gateway ends and goes on, each session is in the log once, with what it moved.
    #[test]
    fn every_session_is_counted_once_with_its_bytes_however_processes_end(acts in acts()) {
        on_control_thread(async {
            let folder = Scratch::new("service_log_any");
            let bench = Bench::new(&folder).await;
            let people = [bench.user(1, None).await, bench.user(2, None).await];
            let (users, devices): (Vec<User>, Vec<Device>) = people.into_iter().unzip();
            let (bench, expected) = live_through(bench, &devices, &acts).await;
            let sessions = expected.iter().map(Vec::len).sum::<usize>();
            let report = bench.report().await;
            assert_eq!(report["total_sessions"], sessions);
            for ((device, user), expected) in devices.iter().zip(users).zip(expected) {
                assert_eq!(bench.ends(device).await, expected);
                let bytes: u64 = expected.iter().map(|(_, up, down)| up + down).sum();
                assert_eq!(bench.used(user.id).await, bytes, "what was used is of sessions");
                let id = user.id;
                let shown = bench.store.read(move |db| db.export_user(id)).await.unwrap();
                let connections = shown["connections"].as_array().unwrap();
                assert_eq!(connections.len(), 2 * expected.len());
                assert_eq!(shown["open_sessions"], serde_json::json!([]));
            }
        });
    }
}
