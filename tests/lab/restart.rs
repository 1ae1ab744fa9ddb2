//! Gateways that come back, peers that are removed and come back.
//!
//! ```text
//!   cli: client ── gw: gateway (killed, restarted) ── dst
//! ```

use ringway_perf::iperf::{Amount, Direction, Run};
use ringway_perf::ping;
use ringway_perf::topology::{Family, Place};
use ringway_perf::wait::wait_for;

use crate::setup::{LATER, SOON, iperf_server, settled, site};

#[test]
fn privileged_a_client_recovers_when_the_gateway_was_killed() {
    let mut site = site();
    site.gateway.tunnel.crash_and_restart().unwrap();
    site.gateway.tunnel.configure(&site.gateway.config()).unwrap();
    site.gateway.bring_up(&site.line.gw).unwrap();
    // The client notices after 15 s without an answer and shakes hands again.
    let to = Place::Destination.address(Family::V4);
    ping::until_answered(&site.line.cli, to, LATER).unwrap();
    site.await_traffic(Family::V6).unwrap();
}

#[test]
fn privileged_a_removed_peer_is_cut_off_and_comes_back_when_it_is_added_again() {
    let site = site();
    let server = iperf_server(&site, Family::V4);
    let amount = Amount::Seconds { omitted_s: 0, measured_s: 60 };
    let run = Run { streams: 1, direction: Direction::Down, amount, rate_limit: Some(5_000_000) };
    let stream = server.client(&site.line.cli, run, None).spawn().unwrap();
    let sent = || site.gateway.tunnel.peers().unwrap().first().map_or(0, |peer| peer.tx_bytes);
    wait_for("the stream to flow", SOON, || sent() > 1 << 20).unwrap();

    let key = &site.gateway.client_keys.public;
    site.gateway.tunnel.set(&format!("peer {key} remove")).unwrap();
    assert!(site.gateway.tunnel.peers().unwrap().is_empty());
    let to = Place::Destination.address(Family::V6);
    assert!(!ping::once(&site.line.cli, to, 56), "a removed peer still gets through");

    let back = format!("peer {key} allowed-ips 10.91.9.2/32,fd91:9::2/128");
    site.gateway.tunnel.set(&back).unwrap();
    ping::until_answered(&site.line.cli, to, LATER).unwrap();
    let resumed = sent();
    wait_for("the stream to go on", LATER, || sent() > resumed + (1 << 19)).unwrap();
    drop(stream);
}

#[test]
fn privileged_settings_can_be_applied_again_without_breaking_the_session() {
    let site = site();
    let handshake = settled(&site.gateway.tunnel);
    let key = &site.gateway.client_keys.public;
    for _ in 0..20 {
        let again = format!("peer {key} allowed-ips 10.91.9.2/32,fd91:9::2/128");
        site.gateway.tunnel.set(&again).unwrap();
        assert!(ping::once(&site.line.cli, Place::Destination.address(Family::V4), 56));
    }
    assert_eq!(site.gateway.tunnel.peers().unwrap()[0].handshake_s, handshake);
}
