//! Clients behind a masquerading router with a short memory.
//!
//! ```text
//!   cli ── rtr (masquerade, forgets after 2 s) ── gw ── dst
//! ```

use ringway_perf::ping;
use ringway_perf::topology::{Family, Line, Place, Plan};
use ringway_perf::wait::wait_for;

use crate::setup::{LATER, SOON, gateway, stock_client};

/// Bytes of a keepalive.
const KEEPALIVE_BYTES: u64 = 32;

#[test]
fn privileged_keepalives_hold_a_nat_open_and_without_them_it_closes() {
    let (line, router) = Line::with_router(1500).unwrap();
    router
        .nft(
            "table ip nat {
                chain out {
                    type nat hook postrouting priority 100;
                    oifname gw masquerade
                }
            }",
        )
        .unwrap();
    router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "2").unwrap();
    router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "2").unwrap();
    let site = line.connect(Plan::new(gateway(), stock_client())).unwrap();
    site.await_traffic(Family::V4).unwrap();
    let key = &site.gateway.keys.public;
    site.client.set(&format!("peer {key} persistent-keepalive 1")).unwrap();

    let seen = || site.gateway.tunnel.peers().unwrap()[0].clone();
    let endpoint = seen().endpoint.unwrap();
    assert_eq!(endpoint.ip().to_string(), "10.91.5.254", "the gateway sees the router");

    // Five keepalives take longer than the router remembers.
    let before = seen().rx_bytes;
    wait_for("five keepalives", SOON, || seen().rx_bytes >= before + 5 * KEEPALIVE_BYTES).unwrap();
    let client = Place::ClientInside.address(Family::V4);
    assert!(ping::once(&site.line.gw, client, 56), "the way to the client is open");

    site.client.set(&format!("peer {key} persistent-keepalive 0")).unwrap();
    // Each attempt of the gateway itself keeps nothing open: the router's entry is for the other
    // direction.
    let closed = || {
        let blocked = !ping::once(&site.line.gw, client, 56);
        if !blocked {
            std::thread::sleep(std::time::Duration::from_secs(3)); // silence is the point
        }
        blocked
    };
    wait_for("the router to forget", LATER, closed).unwrap();
    assert!(ping::once(&site.line.cli, Place::Destination.address(Family::V4), 56));
}
