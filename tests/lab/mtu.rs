//! Sizes: tunnels of several MTUs, and paths that swallow large packets without a word.

use ringway_perf::iperf::Direction;
use ringway_perf::ping;
use ringway_perf::topology::{Family, Line, Place, Plan};

use crate::setup::{gateway, iperf_server, stock_client, transfer, transfer_all};

/// ```text
///   cli ── wire of outer_mtu ── gw ── wire ── dst      tunnel of tunnel_mtu
/// ```
fn carries_full_packets(outer_mtu: u16, tunnel_mtu: u16, outside: Family) {
    let plan = Plan { outside, tunnel_mtu, ..Plan::new(gateway(), stock_client()) };
    let site = Line::new(outer_mtu).unwrap().connect(plan).unwrap();
    for inside in Family::BOTH {
        site.await_traffic(inside).unwrap();
        let headers = if inside == Family::V4 { 28 } else { 48 };
        let to = Place::Destination.address(inside);
        for payload in [tunnel_mtu - headers, tunnel_mtu - headers - 1, 0] {
            assert!(ping::once(&site.line.cli, to, payload), "{inside:?} {payload} bytes");
        }
    }
    transfer_all(&site, 8);
}

#[test]
fn privileged_a_tunnel_of_1280_carries_full_packets() {
    carries_full_packets(1500, 1280, Family::V6);
}

#[test]
fn privileged_a_tunnel_of_1420_carries_full_packets() {
    carries_full_packets(1500, 1420, Family::V4);
}

#[test]
fn privileged_a_tunnel_of_1420_carries_full_packets_over_ipv6() {
    carries_full_packets(1500, 1420, Family::V6);
}

#[test]
fn privileged_a_tunnel_of_9000_carries_full_packets() {
    carries_full_packets(9100, 9000, Family::V4);
}

/// A download: repeated segments tell the gateway that the path swallows them. What a client sends
/// in vain never reaches the gateway, so an upload depends on the client's own MTU and is not
/// tested. Over IPv6, where nobody fragments, the gateway has to ask the client, for which it needs
/// to know its own inner address: see `product`.
///
/// ```text
///   cli ── 1500 ── rtr (routes of path_mtu, ICMP errors dropped) ── 1500 ── gw ── dst
/// ```
fn a_mebibyte_gets_through(path_mtu: u16, outside: Family) {
    let (line, _router) = Line::with_black_hole(path_mtu).unwrap();
    let plan = Plan { outside, ..Plan::new(gateway(), stock_client()) };
    let site = line.connect(plan).unwrap();
    site.await_traffic(Family::V4).unwrap();
    let server = iperf_server(&site, Family::V4);
    transfer(&site, &server, Direction::Down, 1)
        .unwrap_or_else(|e| panic!("path of {path_mtu} bytes: {e:#}"));
}

#[test]
fn privileged_a_mebibyte_crosses_a_path_of_1500() {
    a_mebibyte_gets_through(1500, Family::V4);
    a_mebibyte_gets_through(1500, Family::V6);
}

#[test]
fn privileged_a_mebibyte_crosses_a_black_hole_of_1420() {
    a_mebibyte_gets_through(1420, Family::V4);
}

#[test]
fn privileged_a_mebibyte_crosses_a_black_hole_of_1280() {
    a_mebibyte_gets_through(1280, Family::V4);
}

#[test]
fn privileged_a_mebibyte_crosses_a_black_hole_of_1124() {
    a_mebibyte_gets_through(1124, Family::V4);
}
