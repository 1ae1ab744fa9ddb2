//! Bad links, made from a seed; and the order of packets on good ones.
//!
//! ```text
//!   cli ── relay with the link emulator (in gw, port 51821) ── gw: gateway (port 51820) ── dst
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use ringway_perf::emulator::LinkConfig;
use ringway_perf::impair::{Setting, Steering, with_relay};
use ringway_perf::iperf::Direction;
use ringway_perf::topology::{Family, GATEWAY_PORT, Place, Plan, Site};
use ringway_perf::wait::wait_for;

use crate::setup::{
    LATER, client_at, connected, destination_at, gateway, iperf_server, numbered_while, site,
    stock_client, transfer,
};

const MS: Duration = Duration::from_millis(1);

/// A connected site whose client reaches the gateway through a relay.
fn through_relay(outside: Family, seed: u64, work: impl FnOnce(&Site, &Steering)) {
    let site = connected(Plan { outside, ..Plan::new(gateway(), stock_client()) });
    let address = Place::GatewayOutside.address(outside);
    let listen = SocketAddr::new(address, GATEWAY_PORT + 1);
    let server = SocketAddr::new(address, GATEWAY_PORT);
    let setting = Setting { listen, server, config: LinkConfig::default(), seed };
    with_relay(&site.line.gw, setting, |relay| {
        site.client.set(&format!("peer {} endpoint {listen}", site.gateway.keys.public))?;
        site.await_traffic(Family::V4)?;
        work(&site, relay);
        Ok(())
    })
    .unwrap();
}

#[test]
fn privileged_tcp_completes_over_a_link_that_loses_delays_reorders_and_repeats() {
    for (outside, seed) in [(Family::V4, 11), (Family::V6, 12)] {
        through_relay(outside, seed, |site, relay| {
            relay.set_config(LinkConfig {
                loss: 10_000,
                duplicate: 20_000,
                reorder: 20_000,
                reorder_by: 2 * MS,
                corrupt: 2_000,
                delay: 3 * MS,
                jitter: MS,
                ..LinkConfig::default()
            });
            let server = iperf_server(site, Family::V4);
            for direction in [Direction::Up, Direction::Down] {
                transfer(site, &server, direction, 4)
                    .unwrap_or_else(|e| panic!("seed {seed}, {direction:?}: {e:#}"));
            }
        });
    }
}

/// What the link repeats, at once or late, and what it damages, never gets inside.
#[test]
fn privileged_replayed_and_damaged_datagrams_never_get_inside() {
    let seed = 21;
    through_relay(Family::V4, seed, |site, relay| {
        relay.set_config(LinkConfig {
            duplicate: 300_000,
            duplicate_after: 40 * MS,
            corrupt: 50_000,
            ..LinkConfig::default()
        });
        let up = (client_at(Family::V4, 7003), destination_at(Family::V4, 7003));
        let down = (destination_at(Family::V4, 7004), client_at(Family::V4, 7004));
        let (cli, dst) = (&site.line.cli, &site.line.dst);
        let enough = || relay.counts().unwrap().0.duplicated > 500;
        let ((_, to_client, sent_down), to_exit, sent_up) =
            numbered_while((cli, up.0), (dst, up.1), 1_000, || {
                numbered_while((dst, down.0), (cli, down.1), 1_000, || {
                    wait_for("500 repeated datagrams", LATER, enough).unwrap();
                })
            });
        for (report, sent) in [(to_exit, sent_up), (to_client, sent_down)] {
            assert_eq!((report.duplicates, report.late), (0, 0), "seed {seed}: {report}");
            assert!(report.arrived > sent * 8 / 10, "seed {seed}: {report} of {sent}");
            assert!(report.missing > 0, "damaged datagrams are missing: {report}");
        }
    });
}

/// Nothing is repeated or overtaken on a good wire, in sizes that cannot all be merged; and nothing
/// is lost, but for what queues of the client drop while a busy machine lets it wait.
#[test]
fn privileged_packets_keep_their_order_in_both_directions() {
    let site = site();
    for inside in Family::BOTH {
        let up = (client_at(inside, 7005), destination_at(inside, 7005));
        let down = (destination_at(inside, 7006), client_at(inside, 7006));
        let (cli, dst) = (&site.line.cli, &site.line.dst);
        let carried = || {
            let peer = &site.gateway.tunnel.peers().unwrap()[0];
            peer.rx_bytes.min(peer.tx_bytes)
        };
        let start = carried();
        let ((_, to_client, _), to_exit, _) =
            numbered_while((cli, up.0), (dst, up.1), 2_000, || {
                numbered_while((dst, down.0), (cli, down.1), 2_000, || {
                    wait_for("5 MB each way", LATER, || carried() > start + 5_000_000).unwrap();
                })
            });
        for report in [to_exit, to_client] {
            assert_eq!((report.duplicates, report.late), (0, 0), "{report}");
            assert!(report.missing <= report.arrived / 100, "{report}");
        }
    }
}
