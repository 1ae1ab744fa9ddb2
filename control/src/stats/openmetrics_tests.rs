#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::stats::snapshot::samples;
use std::collections::{HashMap, HashSet};

/// Checks the rules of the format that a reader depends on, line by line.
fn assert_valid(text: &str) {
    assert!(text.ends_with("# EOF\n"));
    let mut types: HashMap<String, String> = HashMap::new();
    let mut samples = HashSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if line == "# EOF" {
            continue;
        }
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, family, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match what {
                "TYPE" => {
                    assert!(types.insert(family.into(), rest.into()).is_none(), "{family} twice");
                    current = family.to_owned();
                }
                "UNIT" => assert!(family.ends_with(&format!("_{rest}")), "{line}"),
                "HELP" => assert!(!rest.is_empty()),
                other => panic!("{other}"),
            }
            assert_eq!(family, current, "families must not be interleaved");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        assert!(samples.insert(series.to_owned()), "{series} twice");
        let name = series.split('{').next().unwrap();
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        );
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{name} in {current}"));
        let allowed: &[&str] = match types[&current].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&suffix), "{name}");
    }
}

#[test]
fn the_text_follows_the_format() {
    assert_valid(&write(&samples::snapshot()));
}

#[test]
fn the_real_layout_follows_the_format() {
    let layout = ringway_dataplane::worker::page_layout();
    let words = layout.iter().map(|field| field.kind.words()).sum();
    let snapshot =
        Snapshot { layout, cores: vec![vec![0; words]], about: samples::snapshot().about };
    assert_valid(&write(&snapshot));
}

#[test]
fn every_kind_is_written_as_expected() {
    let text = write(&samples::snapshot());
    let expected = [
        "# TYPE ringway_to_exit_bytes counter\n# UNIT ringway_to_exit_bytes bytes\n\
         # HELP ringway_to_exit_bytes Inner bytes.\n\
         ringway_to_exit_bytes_total{core=\"0\"} 100\nringway_to_exit_bytes_total{core=\"1\"} 50\n",
        "# TYPE ringway_peers gauge\n# HELP ringway_peers Configured peers.\nringway_peers{core=\"0\"} 1\n",
        "# HELP ringway_ring_high_water Most entries \\\"at once\\\"\\nin the \\\\ ring.\n",
        "# TYPE ringway_turn_seconds histogram\n# UNIT ringway_turn_seconds seconds\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"0.0\"} 1\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"1.023e-6\"} 1\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"2.047e-6\"} 3\n",
        "ringway_turn_seconds_bucket{core=\"0\",le=\"+Inf\"} 3\nringway_turn_seconds_count{core=\"0\"} 3\n\
         ringway_turn_seconds_sum{core=\"0\"} 3e-6\n",
        "ringway_drops_total{core=\"1\",reason=\"mac1_wrong\"} 50\n",
        "ringway_drops_total{core=\"1\",reason=\"peer_gone\"} 0\n",
        "# TYPE ringway_build info\n# HELP ringway_build Version of the program.\n\
         ringway_build_info{version=\"0.1.0\"} 1\n",
        "ringway_uptime_seconds 61\n",
        "ringway_queries_unknown_total 0\n",
    ];
    for part in expected {
        assert!(text.contains(part), "missing:\n{part}\nin:\n{text}");
    }
}
