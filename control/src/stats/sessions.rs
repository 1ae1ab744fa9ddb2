//! Peers as a table for people and as JSON for programs, one at a time.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ringway_dataplane::command::PeerStatus;
use ringway_proto::crypto::PublicKey;
use serde_json::json;

use crate::plane::Peer;
use crate::uapi::write::canonical;

/// Prefixes shown in a row; the rest is a number.
const PREFIXES_SHOWN_MAX: usize = 4;

/// A public key as WireGuard writes it.
#[must_use]
pub fn base64(public: &PublicKey) -> String {
    BASE64_STANDARD.encode(public.0)
}

/// The head of the table.
pub fn head(out: &mut String) {
    row(
        out,
        ["peer", "state", "endpoint", "handshake", "received", "sent", "mtu", "core"],
        "allowed ips",
    );
}

/// One row. `wall` is the time since the Unix epoch, for the age of the handshake.
pub fn table_row(out: &mut String, status: &PeerStatus, peer: &Peer, wall: Duration) {
    let endpoint = status.endpoint.map_or_else(|| "-".to_owned(), |at| canonical(at).to_string());
    let handshake =
        status.last_handshake.map_or_else(|| "never".to_owned(), |at| age(wall.saturating_sub(at)));
    let mut nets: Vec<_> =
        peer.allowed_ips.iter().take(PREFIXES_SHOWN_MAX).map(ToString::to_string).collect();
    if peer.allowed_ips.len() > PREFIXES_SHOWN_MAX {
        nets.push(format!("and {} more", peer.allowed_ips.len() - PREFIXES_SHOWN_MAX));
    }
    let state = if status.live { "live" } else { "idle" };
    let (key, mtu, core) =
        (base64(&status.public), status.path_mtu.to_string(), peer.owner.0.to_string());
    let (rx, tx) = (bytes(status.rx_bytes), bytes(status.tx_bytes));
    row(out, [&key, state, &endpoint, &handshake, &rx, &tx, &mtu, &core], &nets.join(","));
}

/// One JSON object, without what is secret.
#[must_use]
pub fn json_object(status: &PeerStatus, peer: &Peer) -> String {
    let nets: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    let seconds = |at: Option<Duration>| at.map(|at| at.as_secs());
    json!({
        "public_key": base64(&status.public),
        "live": status.live,
        "state": status.state.name(),
        "state_since_unix_s": seconds(status.since),
        "last_received_unix_s": seconds(status.last_received),
        "last_sent_unix_s": seconds(status.last_sent),
        "endpoint": status.endpoint.map(|at| canonical(at).to_string()),
        "last_handshake_unix_s": seconds(status.last_handshake),
        "rx_bytes": status.rx_bytes,
        "tx_bytes": status.tx_bytes,
        "path_mtu_bytes": status.path_mtu,
        "heap_bytes": status.heap_bytes,
        "keepalive_s": peer.keepalive_s,
        "preshared_key": peer.preshared.is_set(),
        "allowed_ips": nets,
        "account": peer.account.map(|account| account.0),
        "core": peer.owner.0,
    })
    .to_string()
}

fn row(out: &mut String, cells: [&str; 8], last: &str) {
    for (cell, width) in cells.iter().zip([44, 5, 47, 10, 10, 10, 5, 4]) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{cell:<width$} ");
    }
    out.push_str(last);
    out.push('\n');
}

fn age(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use ringway_dataplane::SessionState;

    use super::*;
    use crate::plane::{Operation, Plane};

    #[test]
    fn a_row_and_an_object_show_the_peer_and_no_secret() {
        let public = PublicKey([1; 32]);
        let mut plane = Plane::new(1);
        let nets = (0..6).map(|n| Operation::AllowedIp(format!("10.{n}.0.0/16").parse().unwrap()));
        let key = Operation::Preshared(ringway_proto::crypto::PresharedKey([9; 32]));
        plane.apply([Operation::Peer(public), key].into_iter().chain(nets));
        let status = PeerStatus {
            endpoint: Some("[::ffff:192.0.2.1]:7".parse().unwrap()),
            last_handshake: Some(Duration::from_secs(1000)),
            rx_bytes: 10,
            tx_bytes: 5 << 20,
            state: SessionState::Online,
            since: Some(Duration::from_secs(900)),
            live: true,
            path_mtu: 1420,
            heap_bytes: 3,
            ..PeerStatus::unknown(public)
        };
        let mut table = String::new();
        table_row(&mut table, &status, plane.peer(&public).unwrap(), Duration::from_secs(1075));
        let words: Vec<_> = table.split_whitespace().collect();
        let expected =
            [&base64(&public), "live", "192.0.2.1:7", "1m15s", "10B", "5.0MiB", "1420", "0"];
        assert_eq!(words[..8], expected);
        assert!(table.contains("10.3.0.0/16,and 2 more"));
        let object: serde_json::Value =
            serde_json::from_str(&json_object(&status, plane.peer(&public).unwrap())).unwrap();
        assert_eq!(object["preshared_key"], true);
        assert_eq!(object["state"], "online");
        assert_eq!(object["state_since_unix_s"], 900);
        assert!(object["last_sent_unix_s"].is_null());
        assert_eq!(object["allowed_ips"].as_array().unwrap().len(), 6);
    }
}
