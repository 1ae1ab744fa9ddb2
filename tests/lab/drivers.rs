//! What the gateway does where the kernel, or the path, is not what it would like.
//!
//! ```text
//!   cli: stock client ── gw: ringway run ── dst
//! ```

use std::collections::BTreeMap;

use ringway_perf::programs::Program;
use ringway_perf::topology::{Family, Line};
use ringway_perf::wait::wait_for;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;

use crate::product::{Product, download};
use crate::setup::{LATER, gateway, stock_client};

/// io_uring_setup has the same number on every architecture, having come late.
const IO_URING_SETUP: i64 = 425;

const EPERM: u32 = 1;

fn stats(product: &Product) -> Value {
    serde_json::from_str(&product.ask(&["stats", "--json"])).unwrap()
}

fn total(product: &Product, name: &str) -> u64 {
    stats(product)["total"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

/// As containers do: the calling thread, and what it starts from now on, make no ring.
fn forbid_rings() {
    let filter = SeccompFilter::new(
        BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn privileged_where_io_uring_is_forbidden_the_gateway_runs_on_epoll_and_says_why() {
    let wanted = std::env::var("RINGWAY_LAB_DRIVER").unwrap_or_default();
    if gateway() != Program::Ringway || wanted == "uring" {
        return; // others have no driver to choose, and what is asked for is not chosen
    }
    // A filter stays with its thread, and this one ends.
    let filtered = std::thread::spawn(move || {
        forbid_rings();
        let product = Product::start(Line::new(1500).unwrap(), Family::V4);
        let driver = &stats(&product)["about"]["parts"]["driver"];
        assert_eq!(driver["state"], "epoll");
        let why = driver["why"].as_str().unwrap();
        assert!(why.contains("seccomp") || wanted == "epoll", "{why}");
        let _client = product.client(stock_client(), "alice");
        for inside in Family::BOTH {
            download(&product, inside, 8 << 20).unwrap();
        }
        assert_eq!(total(&product, "send_refused_invalid"), 0);
    });
    if let Err(panic) = filtered.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn privileged_a_download_gets_through_where_trains_are_lost_without_a_word() {
    if gateway() != Program::Ringway || std::env::var_os("RINGWAY_LAB_WITHOUT").is_some() {
        return; // others do not look, and there may be no trains to lose
    }
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let _client = product.client(stock_client(), "alice");
    assert_eq!(total(&product, "paths_demoted"), 0);
    // On the client's side of the wire trains are still whole: the kernel cuts them where it must.
    let rules = "table inet lossy { chain in { type filter hook prerouting priority -300; \
                 udp length > 1500 counter drop; }; }";
    product.line.cli.nft(rules).unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| download(&product, Family::V4, 8 << 20));
        wait_for("lost trains to be noticed", LATER, || total(&product, "paths_demoted") == 1)
            .unwrap();
        slow.join().unwrap().unwrap();
    });
    assert!(total(&product, "trains_unsegmented") > 0);
    assert_eq!(total(&product, "send_refused_invalid"), 0);
}
