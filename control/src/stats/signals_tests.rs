#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use ringway_dataplane::counters::{Field, HISTOGRAM_BUCKETS, Kind};

use super::*;
use crate::stats::recent::Recent;
use crate::stats::snapshot::About;

/// Counters of one core as the test says; the rest is zero.
#[derive(Clone, Copy, Default)]
struct Counted {
    to_exit: (u64, u64),
    to_client: (u64, u64),
    handshakes: u64,
    sessions: u64,
    session_bytes: u64,
    zero_copy: (u64, u64),
    refused: u64,
    lost: u64,
    turns: u64,
    turn_ns: u64,
}

fn snapshot(counted: Counted) -> Snapshot {
    let field = |name, kind| Field { name, kind, help: "x" };
    let layout = vec![
        field("to_exit_packets", Kind::Counter),
        field("to_exit_bytes", Kind::Counter),
        field("to_client_packets", Kind::Counter),
        field("to_client_bytes", Kind::Counter),
        field("handshakes_completed_responder", Kind::Counter),
        field("sessions", Kind::Gauge),
        field("session_bytes", Kind::Gauge),
        field("zero_copy_sent", Kind::Counter),
        field("zero_copy_copied", Kind::Counter),
        field("turn_ns", Kind::Histogram),
        field("drops", Kind::ByReason),
    ];
    let mut words = vec![
        counted.to_exit.0,
        counted.to_exit.1,
        counted.to_client.0,
        counted.to_client.1,
        counted.handshakes,
        counted.sessions,
        counted.session_bytes,
        counted.zero_copy.0,
        counted.zero_copy.1,
    ];
    let mut turns = [0; HISTOGRAM_BUCKETS];
    turns[11] = counted.turns;
    words.extend(turns);
    words.push(counted.turn_ns);
    words.extend(DropReason::ALL.iter().map(|reason| match reason.name() {
        "handshake_peer_unknown" => counted.refused,
        "peer_gone" => counted.lost,
        _ => 0,
    }));
    Snapshot { layout, cores: vec![words.clone(), words], about: About::default() }
}

#[test]
fn rates_and_shares_follow_from_two_readings() {
    let before = Counted { to_exit: (10, 1000), turns: 5, turn_ns: 5000, ..Counted::default() };
    let after = Counted {
        to_exit: (70, 61_000),
        to_client: (30, 30_000),
        handshakes: 15,
        sessions: 4,
        session_bytes: 8000,
        zero_copy: (10, 4),
        refused: 5,
        lost: 10,
        turns: 105,
        turn_ns: 3_000_005_000,
    };
    let mut recent = Recent::default();
    let s = Duration::from_secs;
    recent.take(s(100), s(10), Some(1), &snapshot(before));
    recent.take(s(160), s(40), Some(31), &snapshot(after));
    let window = recent.window(&snapshot(after));
    let now = signals(&snapshot(after), &ServiceStats { window, ..ServiceStats::default() });
    let near = |value: Option<f64>, expected: f64| {
        let value = value.unwrap();
        assert!((value - expected).abs() < 1e-9 * expected.abs().max(1.0), "{value} {expected}");
    };
    assert_eq!(now.active, 8);
    near(now.establishment_rate, 0.5);
    near(now.connection_rate, 0.5);
    // Both cores count the same.
    near(now.bits_per_second.map(|bits| bits.0), 16_000.0);
    near(now.bits_per_second.map(|bits| bits.1), 8_000.0);
    near(now.cpu_per_connection, 0.5 / 8.0);
    near(now.memory_per_connection, 2000.0);
    near(now.utilisation, 0.05);
    near(now.packet_loss_rate, 20.0 / 200.0);
    near(now.error_rate, 10.0 / 40.0);
    near(now.zero_copy_efficiency, 0.6);
    near(now.average_latency_s, 0.03);
    assert_eq!(now.latency_s, Some([2047e-9; 3]));
}

#[test]
fn what_cannot_be_said_is_absent() {
    let now = signals(&snapshot(Counted::default()), &ServiceStats::default());
    assert_eq!(now, Signals::default());
    let mut recent = Recent::default();
    let s = Duration::from_secs;
    recent.take(s(1), s(1), None, &snapshot(Counted::default()));
    recent.take(s(2), s(1), None, &snapshot(Counted::default()));
    let window = recent.window(&snapshot(Counted::default()));
    let service = ServiceStats { window, ..ServiceStats::default() };
    let now = signals(&snapshot(Counted::default()), &service);
    assert_eq!((now.packet_loss_rate, now.error_rate, now.latency_s), (None, None, None));
    assert_eq!(now.cpu_per_connection, None, "nobody is connected");
    assert_eq!(now.connection_rate, Some(0.0));
}
