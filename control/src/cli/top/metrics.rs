//! What `top` needs of the gateway's metrics: counters of each core and drops by reason.
//!
//! Reads OpenMetrics as `stats/openmetrics.rs` writes it; what it does not know it passes over, so
//! that an older or newer gateway can be watched. Pure.

use std::collections::BTreeMap;

/// Counters of one core since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Core {
    /// Seconds of work.
    pub(super) busy_s: f64,
    /// Inner packets from clients.
    pub(super) up_packets: u64,
    /// Inner packets to clients.
    pub(super) down_packets: u64,
    /// Inner bytes from clients.
    pub(super) up_bytes: u64,
    /// Inner bytes to clients.
    pub(super) down_bytes: u64,
    /// Packets that ended there.
    pub(super) drops: u64,
}

/// Counters of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Metrics {
    /// By number of the core.
    pub(super) cores: BTreeMap<u16, Core>,
    /// By reason, of all cores together.
    pub(super) drops: BTreeMap<String, u64>,
}

/// Reads metrics.
pub(super) fn read(text: &str) -> Metrics {
    let mut metrics = Metrics::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let Some(core) = label(labels, "core").and_then(|core| core.parse().ok()) else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let core: &mut Core = metrics.cores.entry(core).or_default();
        // Counters are whole numbers far below 2^53 in what is shown of them.
        let whole = value.max(0.0) as u64;
        match name {
            "ringway_turn_seconds_sum" => core.busy_s = value,
            "ringway_to_exit_packets_total" => core.up_packets = whole,
            "ringway_to_client_packets_total" => core.down_packets = whole,
            "ringway_to_exit_bytes_total" => core.up_bytes = whole,
            "ringway_to_client_bytes_total" => core.down_bytes = whole,
            "ringway_drops_total" => {
                core.drops += whole;
                if let Some(reason) = label(labels, "reason") {
                    *metrics.drops.entry(reason.to_owned()).or_default() += whole;
                }
            }
            _ => (),
        }
    }
    metrics
}

/// The value of a label. Those that are read here have no escapes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let labels = labels.strip_suffix('}')?;
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once("=\""));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::openmetrics;
    use crate::stats::service::ServiceStats;
    use crate::stats::snapshot::samples;
    use proptest::prelude::*;

    #[test]
    fn what_the_gateway_writes_is_read() {
        let metrics = read(&openmetrics::write(&samples::snapshot(), &ServiceStats::default()));
        assert_eq!(metrics.cores.len(), 2);
        let bytes: u64 = metrics.cores.values().map(|core| core.up_bytes).sum();
        assert_eq!(bytes, 150);
        assert_eq!(metrics.drops["mac1_wrong"], 150);
        assert_eq!(metrics.cores.values().map(|core| core.drops).sum::<u64>(), 150);
        assert!(metrics.cores[&1].busy_s > 0.0);
    }

    #[test]
    fn the_real_layout_has_every_name_that_is_read() {
        let names: Vec<&str> =
            ringway_dataplane::worker::page_layout().iter().map(|field| field.name).collect();
        for name in ["turn_ns", "to_exit_packets", "to_client_bytes", "to_exit_bytes", "drops"] {
            assert!(names.contains(&name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,300}") {
            read(&text);
            read(&format!("ringway_drops_total{{core=\"1\",{text}}} {text}"));
        }
    }
}
