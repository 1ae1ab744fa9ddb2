//! Several workers behind one port and one interface, as clients from the distribution see them.
//!
//! ```text
//!   cli: many stock clients ── gw: ringway run, the workers of the matrix ── dst
//! ```

use std::collections::BTreeSet;

use ringway_perf::ping;
use ringway_perf::programs::Tunnel;
use ringway_perf::topology::{Family, Line, Place};
use ringway_perf::wait::wait_for;
use serde_json::Value;

use crate::product::Product;
use crate::setup::{SOON, gateway, stock_client};

/// Clients that come whatever their keys are.
const CLIENTS: usize = 8;

/// Clients after which every worker has one, unless something is wrong: with four workers the
/// chance that one of them has none is below one in 200.
const CLIENTS_MAX: usize = 24;

/// Pings of each client.
const PINGS: u32 = 50;

fn workers() -> usize {
    std::env::var("RINGWAY_LAB_WORKERS").map_or(2, |count| count.parse().unwrap())
}

fn is_steered(product: &Product) -> bool {
    let about = &stats(product)["about"];
    about["datagrams_steered"] == 1 && about["packets_steered"] == 1
}

fn stats(product: &Product) -> Value {
    serde_json::from_str(&product.ask(&["stats", "--json"])).unwrap()
}

fn total(product: &Product, name: &str) -> u64 {
    stats(product)["total"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// Workers that have a live session.
fn workers_with_sessions(product: &Product) -> BTreeSet<usize> {
    let cores = stats(product)["cores"].as_array().unwrap().clone();
    let live = |core: &Value| core["sessions"].as_u64().unwrap() > 0;
    (0..cores.len()).filter(|core| live(&cores[*core])).collect()
}

/// Adds clients until there are enough and every worker has one.
fn clients(product: &Product) -> Vec<Tunnel> {
    let mut clients = Vec::new();
    while clients.len() < CLIENTS || workers_with_sessions(product).len() < workers() {
        assert!(clients.len() < CLIENTS_MAX, "{:?} have sessions", workers_with_sessions(product));
        let number = clients.len();
        let client = product.client(stock_client(), &format!("client{number}"));
        // The plain routes are those of the client that came last; each has its own beside them.
        let by = format!("dev {} metric {}", client.interface(), 2_000 + number);
        product.line.cli.ip(&format!("route add 10.91.2.0/24 {by}")).unwrap();
        product.line.cli.ip(&format!("-6 route add fd91:2::/64 {by}")).unwrap();
        clients.push(client);
        // The cores publish their counters every 100 ms.
        let live = clients.len() as u64;
        wait_for("the session to be counted", SOON, || total(product, "sessions") == live).unwrap();
    }
    clients
}

#[test]
fn privileged_eight_stock_clients_are_served_by_all_workers_and_cross_as_little_as_they_must() {
    if gateway() != ringway_perf::programs::Program::Ringway {
        return; // others have no workers
    }
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let clients = clients(&product);
    let crossed = || {
        let of = |what: &str| total(&product, &format!("crossed_in_{what}"));
        of("datagrams") + of("packets")
    };
    let (before, carried) = (crossed(), total(&product, "to_exit_packets"));
    for client in &clients {
        for inside in Family::BOTH {
            let to = Place::Destination.address(inside);
            let answered = ping::count_by(&product.line.cli, Some(client.interface()), to, PINGS);
            assert_eq!(answered.unwrap(), PINGS, "{} {inside:?}", client.interface());
        }
    }
    let sent = u64::from(PINGS) * 2 * clients.len() as u64;
    wait_for("the pings to be counted", SOON, || {
        total(&product, "to_exit_packets") >= carried + sent
    })
    .unwrap();
    let crossings = crossed() - before;
    if workers() == 1 || is_steered(&product) {
        assert_eq!(crossings, 0, "the kernel brings everything to its owner");
    } else {
        assert!(crossings <= 2 * (total(&product, "to_exit_packets") - carried), "{crossings}");
    }
    assert_eq!(stats(&product)["total"]["drops"]["crossed_twice"], 0);
}
