#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::logs::writer::Counts;
use crate::stats::families::Family as Told;
use crate::stats::latency::Latency;
use crate::stats::recent::Recent;
use crate::stats::service::{Access, Api, Live, LiveSession, Node, SignIn, Store};
use crate::stats::snapshot::samples;
use crate::stats::strict::{Families, read};
use crate::store::ids::Timestamp;

/// A gateway of the real layout in which every counter counts.
fn real_snapshot(factor: u64) -> Snapshot {
    let layout = ringway_dataplane::worker::page_layout();
    let words: usize = layout.iter().map(|field| field.kind.words()).sum();
    let core = |seed: u64| (0..words as u64).map(|word| factor * (seed + word % 7)).collect();
    Snapshot { layout, cores: vec![core(1), core(2)], about: samples::snapshot().about }
}

/// Every part runs and has counted.
fn full_service(live: Live) -> ServiceStats {
    let mut latency = Latency::default();
    [1, 20, 300_000].into_iter().for_each(|ms| latency.record(Duration::from_millis(ms)));
    let mut recent = Recent::default();
    recent.take(Duration::from_secs(1), Duration::from_secs(1), Some(3), &real_snapshot(1));
    recent.take(Duration::from_secs(61), Duration::from_secs(7), Some(9), &real_snapshot(5));
    ServiceStats {
        at: Some(Timestamp(1_796_000_000_123)),
        window: recent.window(&real_snapshot(5)),
        access: Some(Access {
            by_state: [1, 2, 3, 4],
            users: 5,
            started: 6,
            ended: vec![("killed", 1), ("idle_timeout", 2)],
            kept_out: vec![("quota_exceeded", 3)],
        }),
        sign_in: Some(SignIn {
            accepted: vec![("password", 1)],
            refused: vec![("wrong_password", 2)],
            latency: latency.clone(),
            waiting: 1,
            certificate_ends_s: vec![("authority", 86_400)],
            certificate_answers: vec![("good", 3), ("silent", 1)],
            certificates_unanswered: Some(1),
        }),
        api: Some(Api {
            answers: vec![(200, 7), (404, 1)],
            refused: vec![("not-found", 1)],
            latency: latency.clone(),
        }),
        doors: vec![("unix", "open", 1), ("https", "address_missing", 2)],
        store: Some(Store {
            engine: "sqlite",
            healthy: true,
            waiting: 0,
            done: 9,
            failed: vec![("busy", 1)],
            latency,
        }),
        logs: Counts { written: 3, lost: 2, left_out: 1 },
        nodes: vec![
            Node { name: "local".into(), load: None },
            Node { name: "a \"far\" one\n".into(), load: Some(0.5) },
        ],
        live,
    }
}

fn sessions(count: usize) -> Vec<LiveSession> {
    let session = |number: usize| LiveSession {
        id: format!("0193a0b2-{number:08x}"),
        user: format!("user-{}@example.org", number / 3),
        device: format!("device-{}", number % 3),
        received: (number * 7919 % 10_007) as u64,
        sent: (number * 104_729 % 1_000_003) as u64,
    };
    (0..count).map(session).collect()
}

fn valid(text: &str) -> Families {
    read(text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

#[test]
fn the_text_follows_the_format() {
    valid(&write(&samples::snapshot(), &ServiceStats::default()));
}

#[test]
fn the_real_layout_follows_the_format() {
    let live = Live { sessions_max: 5, sessions: sessions(20) };
    let families = valid(&write(&real_snapshot(5), &full_service(live)));
    for family in Told::ALL {
        let read = families.get(family.name()).unwrap_or_else(|| panic!("{family:?} is missing"));
        assert_eq!(read.kind, family.kind().word());
        assert!(!read.samples.is_empty(), "{family:?}");
    }
    for field in real_snapshot(1).layout {
        assert!(families.contains_key(&Family::new(field.name).name), "{}", field.name);
    }
}

#[test]
fn what_does_not_run_has_no_family() {
    let families = valid(&write(&real_snapshot(0), &ServiceStats::default()));
    for family in [Told::StoreHealthy, Told::ApiAnswers, Told::Authentications, Told::Latency] {
        assert!(!families.contains_key(family.name()), "{family:?}");
    }
    assert!(!families.contains_key(Told::SessionReceived.name()), "off unless asked for");
    assert!(families.contains_key(Told::ActiveConnections.name()));
}

#[test]
fn values_come_from_the_counters() {
    let live = Live { sessions_max: 3, sessions: sessions(9) };
    let families = valid(&write(&real_snapshot(5), &full_service(live)));
    let value = |family: Told, at: usize| families[family.name()].samples[at].value;
    assert!((value(Told::SnapshotTimestamp, 0) - 1_796_000_000.123).abs() < 1e-3);
    assert!((value(Told::EstablishmentRate, 0) - 0.1).abs() < 1e-9);
    assert!((value(Told::UsersConnected, 0) - 5.0).abs() < 1e-9);
    assert_eq!(families[Told::SessionReceived.name()].samples.len(), 4);
    assert!((value(Told::SessionsUnlisted, 0) - 6.0).abs() < 1e-9);
    let far = &families[Told::NodeUtilisation.name()].samples[1];
    assert_eq!(far.label("node"), Some("a \"far\" one\u{fffd}"));
    let all: u64 = sessions(9).iter().map(|session| session.sent).sum();
    let told: f64 = families[Told::SessionSent.name()].samples.iter().map(|s| s.value).sum();
    assert!((told - all as f64).abs() < 0.5);
}

#[test]
fn every_kind_is_written_as_expected() {
    let text = write(&samples::snapshot(), &ServiceStats::default());
    let expected = [
        "# TYPE ringway_to_exit_bytes counter\n# UNIT ringway_to_exit_bytes bytes\n\
         # HELP ringway_to_exit_bytes Inner bytes.\n\
         ringway_to_exit_bytes_total{core=\"0\"} 100\nringway_to_exit_bytes_total{core=\"1\"} 50\n",
        "# TYPE ringway_peers gauge\n# HELP ringway_peers Configured peers.\nringway_peers{core=\"0\"} 1\n",
        "# HELP ringway_ring_high_water Most entries \\\"at once\\\"\\nin the \\\\ ring.\n",
        "# TYPE ringway_turn_seconds histogram\n# UNIT ringway_turn_seconds seconds\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"0.0\"} 1\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"1.023e-6\"} 1\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"2.047e-6\"} 3\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"+Inf\"} 3\nringway_turn_seconds_count{core=\"0\"} 3\n\
         ringway_turn_seconds_sum{core=\"0\"} 3e-6\n",
        "ringway_drops_total{core=\"1\",reason=\"mac1_wrong\"} 50\n",
        "ringway_drops_total{core=\"1\",reason=\"peer_gone\"} 0\n",
        "# TYPE ringway_build info\n# HELP ringway_build Version of the program.\n\
         ringway_build_info{version=\"0.1.0\"} 1\n",
        "ringway_uptime_seconds 61\n",
        "ringway_queries_unknown_total 0\n",
    ];
    for part in expected {
        assert!(text.contains(part), "missing:\n{part}\nin:\n{text}");
    }
}

#[test]
fn ten_thousand_sessions_are_written_and_no_more() {
    let live = Live { sessions_max: usize::MAX, sessions: sessions(10_500) };
    let families = valid(&write(&real_snapshot(5), &full_service(live)));
    assert_eq!(families[Told::SessionSent.name()].samples.len(), 10_001);
    assert_eq!(families[Told::UserSent.name()].samples.len(), 3_500);
}

/// What a reader may cost: at one scrape a second, less than 1 % of a CPU is less than 10 ms each.
/// That holds without series per session at any number of them; with those the text itself is
/// large. The build decides the limits; an optimised one prints what is in the manual.
#[test]
fn a_scrape_costs_far_less_than_a_percent_of_a_cpu_unless_every_session_is_asked_for() {
    let slow = if cfg!(debug_assertions) { 20 } else { 1 };
    for (count, sessions_max, ms_max) in
        [(0, 0, 10), (10_000, 0, 10), (1_000, 1_000, 10), (10_000, 100, 20), (10_000, 10_000, 100)]
    {
        let service = full_service(Live { sessions_max, sessions: sessions(count) });
        let snapshot = real_snapshot(5);
        let took = (0..5).map(|_| {
            let begun = Instant::now();
            std::hint::black_box(write(&snapshot, &service));
            begun.elapsed()
        });
        // The fastest: what another process takes from us is not the cost.
        let took = took.min().unwrap();
        let bytes = write(&snapshot, &service).len();
        let said = format!("{count} sessions, {sessions_max} apart: {took:?}, {bytes} bytes");
        eprintln!("{said}");
        assert!(took < Duration::from_millis(ms_max * slow), "{said}");
    }
}

proptest! {
    #[test]
    fn names_of_people_never_become_a_family_or_a_series_of_somebody_else(
        names in proptest::collection::vec((any::<String>(), any::<String>()), 1..20),
        hostile in "[\"\\\\\n\r{},= #A-Z\u{85}\u{2028}]{0,80}",
    ) {
        let plain = valid(&write(&real_snapshot(5), &full_service(Live::default())));
        let all = names.into_iter().chain([(hostile.clone(), hostile.clone())]);
        let sessions: Vec<_> = all.enumerate().map(|(number, (user, device))| LiveSession {
            id: number.to_string(), user, device, received: 1, sent: 2,
        }).collect();
        let count = sessions.len();
        let live = Live { sessions_max: 100, sessions };
        let mut service = full_service(live);
        service.nodes[1].name = hostile;
        let families = valid(&write(&real_snapshot(5), &service));
        let told = |name: &String| Told::ALL.iter().any(|family| family.name() == name);
        for name in families.keys() {
            prop_assert!(plain.contains_key(name) || told(name), "{}", name);
        }
        let own = &families[Told::SessionSent.name()].samples;
        prop_assert_eq!(own.len(), count);
        prop_assert!(own.iter().all(|sample| (sample.value - 2.0).abs() < 1e-9));
    }
}
