//! The gateway without its fast paths, one by one and all at once: what is left out is not used,
//! which its counters show, and everything else is.
//!
//! ```text
//!   cli: stock client ── gw: ringway run --without … ── dst
//! ```

use ringway_perf::iperf::Direction;
use ringway_perf::topology::{Family, Line};
use serde_json::Value;

use crate::product::{Product, transfer};
use crate::setup::stock_client;

const BYTES: u64 = 8 << 20;

/// Longest packet that the TUN hands over whole, virtio header included.
const WHOLE: f64 = 1_420.0 + 10.0;

/// What the counters say was used.
struct Used {
    total: Value,
    state: String,
    why: String,
}

impl Used {
    /// By a TCP transfer each way in each family.
    fn with(flags: &[&str]) -> Self {
        let product = Product::start_with(Line::new(1500).unwrap(), Family::V4, flags);
        let _client = product.client(stock_client(), "alice");
        for inside in Family::BOTH {
            for direction in [Direction::Up, Direction::Down] {
                transfer(&product, inside, direction, BYTES).unwrap();
            }
        }
        let stats: Value = serde_json::from_str(&product.ask(&["stats", "--json"])).unwrap();
        let part = &stats["about"]["parts"]["fast_paths"];
        let text = |name: &str| part[name].as_str().unwrap().to_owned();
        Self { total: stats["total"].clone(), state: text("state"), why: text("why") }
    }

    fn count(&self, name: &str) -> u64 {
        self.total[name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// Batches of a histogram that had more than one of what it counts.
    fn several(&self, name: &str) -> u64 {
        let buckets = self.total[name]["buckets"].as_array().unwrap();
        let larger = buckets.iter().filter(|bucket| bucket[0].as_u64() > Some(1));
        larger.map(|bucket| bucket[1].as_u64().unwrap()).sum()
    }

    /// Holds `without` against what was used.
    fn check(&self, without: &str) {
        let left_out = |name| without == "all" || without.split(',').any(|word| word == name);
        for name in without.split(',').filter(|name| !matches!(*name, "all" | "none")) {
            assert!(self.why.contains(name), "{}", self.why);
        }
        let state = match without {
            "all" => "none",
            "none" => "all",
            _ => "some",
        };
        assert_eq!(self.state, state, "{}", self.why);
        assert!(self.several("train_packets") > 0, "{without}: nothing went together");
        let cut = if left_out("gso") { self.several("train_packets") } else { 0 };
        assert_eq!(self.count("trains_unsegmented"), cut, "{without}");
        assert_eq!(self.several("receive_packets") == 0, left_out("gro"), "{without}");
        let mean = self.count("inside_received_bytes") as f64
            / self.count("inside_received_packets") as f64;
        let offload = left_out("tun-offload");
        assert_eq!(mean <= WHOLE, offload, "{without}: {mean} bytes per packet");
        let merges = !offload && !left_out("coalescing");
        assert_eq!(self.several("tun_packets") > 0, merges, "{without}");
        assert_eq!(self.count("tun_coalesced_packets") > 0, merges, "{without}");
        for refused in ["send_refused_invalid", "tun_refused_invalid", "inside_malformed"] {
            assert_eq!(self.count(refused), 0, "{without}: {refused}");
        }
    }
}

#[test]
fn privileged_fast_paths_that_are_left_out_are_not_used_and_the_others_are() {
    // A flag may be given once: where the lab says what is left out, that is what is looked at.
    if let Ok(without) = std::env::var("RINGWAY_LAB_WITHOUT") {
        Used::with(&[]).check(&without);
        return;
    }
    for without in ["none", "gso", "gro", "tun-offload", "coalescing", "all"] {
        Used::with(&["--without", without]).check(without);
    }
}
