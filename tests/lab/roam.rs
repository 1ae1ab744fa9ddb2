//! Clients that move.
//!
//! ```text
//!   cli 10.91.1.2 → 10.91.1.3, another port ── gw ── dst: iperf3
//!   cli ── relay that rebinds, as a NAT does ── gw ── dst
//! ```

use std::net::SocketAddr;

use ringway_perf::emulator::LinkConfig;
use ringway_perf::impair::{Setting, with_relay};
use ringway_perf::iperf::{self, Amount, Direction, Run};
use ringway_perf::ping;
use ringway_perf::topology::{Family, GATEWAY_PORT, Place, Plan, Site};
use ringway_perf::wait::wait_for;

use crate::setup::{
    LATER, SOON, client_at, connected, destination_at, gateway, iperf_server, numbered_while,
    settled, site, stock_client,
};

const NEW_PORT: u16 = 41_414;

fn endpoint_at_gateway(site: &Site) -> Option<SocketAddr> {
    site.gateway.tunnel.peers().unwrap()[0].endpoint
}

fn bytes_at_gateway(site: &Site) -> u64 {
    let peers = site.gateway.tunnel.peers().unwrap();
    peers[0].rx_bytes + peers[0].tx_bytes
}

/// Another address and another port while a rate-limited TCP stream runs; the stream must not end.
fn client_moves_mid_stream(outside: Family, direction: Direction) {
    let site = connected(Plan { outside, ..Plan::new(gateway(), stock_client()) });
    let server = iperf_server(&site, Family::V4);
    let rate = 40_000_000;
    let amount = Amount::Seconds { omitted_s: 0, measured_s: 8 };
    let run = Run { streams: 1, direction, amount, rate_limit: Some(rate) };
    let mut stream = server.client(&site.line.cli, run, None).spawn().unwrap();
    let before = bytes_at_gateway(&site);
    wait_for("the stream to flow", SOON, || bytes_at_gateway(&site) > before + (5 << 20)).unwrap();

    let (old, new) = match outside {
        Family::V4 => ("10.91.1.2/24", "10.91.1.3/24"),
        Family::V6 => ("fd91:1::2/64", "fd91:1::3/64"),
    };
    site.line.cli.ip(&format!("address del {old} dev out")).unwrap();
    site.line.cli.address("out", &[new]).unwrap();
    site.client.set(&format!("listen-port {NEW_PORT}")).unwrap();
    // A client that only downloads says nothing until it hears something: any packet of its own
    // will do.
    let _ = ping::once(&site.line.cli, Place::Destination.address(Family::V6), 56);
    let address = new.split('/').next().unwrap().parse().unwrap();
    let expected = Some(SocketAddr::new(address, NEW_PORT));
    wait_for("the gateway to follow", SOON, || endpoint_at_gateway(&site) == expected)
        .unwrap_or_else(|e| panic!("{e}: {:?}", site.gateway.tunnel.peers()));

    let moved = bytes_at_gateway(&site);
    assert!(stream.wait(LATER).unwrap().success(), "{}{}", stream.errors(), stream.output());
    let carried = iperf::read(&stream.output()).unwrap();
    assert!(carried.bits_per_second > 0.3 * 40e6, "{carried:?}");
    assert!(bytes_at_gateway(&site) > moved + (1 << 20), "traffic went on after the move");
}

#[test]
fn privileged_a_client_keeps_its_upload_when_it_moves_over_ipv4() {
    client_moves_mid_stream(Family::V4, Direction::Up);
}

#[test]
fn privileged_a_client_keeps_its_download_when_it_moves_over_ipv4() {
    client_moves_mid_stream(Family::V4, Direction::Down);
}

#[test]
fn privileged_a_client_keeps_its_upload_when_it_moves_over_ipv6() {
    client_moves_mid_stream(Family::V6, Direction::Up);
}

/// A NAT between the two forgets its table: the gateway answers to the new port from the next
/// datagram on.
#[test]
fn privileged_a_rebinding_nat_costs_no_handshake() {
    let site = site();
    let outside = Place::GatewayOutside.address(Family::V4);
    let entrance = SocketAddr::new(outside, GATEWAY_PORT + 1);
    let server = SocketAddr::new(outside, GATEWAY_PORT);
    let setting = Setting { listen: entrance, server, config: LinkConfig::default(), seed: 1 };
    with_relay(&site.line.gw, setting, |relay| {
        let gateway_key = &site.gateway.keys.public;
        site.client.set(&format!("peer {gateway_key} endpoint {entrance}"))?;
        site.await_traffic(Family::V4)?;
        let before = endpoint_at_gateway(&site);
        let handshake = settled(&site.gateway.tunnel);

        let from = (&site.line.cli, client_at(Family::V4, 7001));
        let to = (&site.line.dst, destination_at(Family::V4, 7001));
        let ((), report, _) = numbered_while(from, to, 500, || {
            relay.rebind();
            let moved = || endpoint_at_gateway(&site) != before;
            wait_for("the gateway to see the new port", SOON, moved).unwrap();
        });
        assert_eq!((report.duplicates, report.late), (0, 0), "{report}");
        assert!(report.missing <= 5, "{report}");
        assert_eq!(site.gateway.tunnel.peers()?[0].handshake_s, handshake);
        Ok(())
    })
    .unwrap();
}

/// A gateway with two addresses answers from the one that was asked.
#[test]
fn privileged_answers_come_from_the_address_that_was_asked() {
    for (outside, second) in [(Family::V4, "10.91.1.7"), (Family::V6, "fd91:1::7")] {
        let site = connected(Plan { outside, ..Plan::new(gateway(), stock_client()) });
        let prefix = if outside == Family::V4 { 24 } else { 64 };
        site.line.gw.address("out", &[&format!("{second}/{prefix}")]).unwrap();
        let endpoint = SocketAddr::new(second.parse().unwrap(), GATEWAY_PORT);
        let key = &site.gateway.keys.public;
        site.client.set(&format!("peer {key} endpoint {endpoint}")).unwrap();
        site.await_traffic(Family::V4).unwrap();
        // A client follows the source of what it gets: it would have moved to the first address.
        let seen = site.client.peers().unwrap()[0].endpoint;
        assert_eq!(seen, Some(endpoint));
    }
}
