//! What larger machines would carry, computed from the costs of a run. `perf/README.md` says what
//! is assumed and how to refute it.

use std::fmt::Write as _;

use crate::programs::Program;
use crate::report::Results;

/// Cores, and the share of the sum of their single rates that remains: an assumption.
const MACHINES: [(u32, f64); 3] = [(8, 0.95), (32, 0.85), (128, 0.70)];

/// The network card, bits per second each way.
const LINE_BPS: f64 = 100e9;

/// What a driver and its interrupts cost per packet of the wire, in microseconds: an assumption,
/// since a veth pair has no descriptors. Hardware that merges and splits (GRO, USO) pays it per
/// train.
const DRIVER_US: f64 = 0.10;

/// Packets in a train of merged traffic.
const TRAIN: f64 = 40.0;

/// Preamble, Ethernet header, check sequence, gap.
const ETHERNET_BYTES: f64 = 38.0;

/// What stands around an inner packet on the wire: IPv4, UDP, WireGuard's header and tag.
const TUNNEL_BYTES: f64 = 60.0;

/// Where a cost comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// CPU seconds per gigabyte of TCP goodput, in segments of this many bytes.
    Goodput(&'static str, f64),
    /// Microseconds per packet of this mean size, packets per train.
    Packets(&'static str, f64, f64),
}

const ROWS: [(&str, Source); 7] = [
    ("TCP up, merged", Source::Goodput("tcp-4-up", 1_368.0)),
    ("TCP down, merged", Source::Goodput("tcp-4-down", 1_368.0)),
    ("UDP 1360 B, merged", Source::Packets("flood-1360-merged", 1_360.0, TRAIN)),
    ("UDP 1360 B, single", Source::Packets("flood-1360-single", 1_360.0, 1.0)),
    ("IMIX, single", Source::Packets("imix-single", 342.7, 1.0)),
    ("UDP 64 B, single", Source::Packets("flood-64-single", 64.0, 1.0)),
    ("UDP 64 B, encrypted singly", Source::Packets("encrypt-64-single", 64.0, 1.0)),
];

/// Payload of a unit in bytes, what it costs in microseconds, what it occupies on the line.
struct Unit {
    bytes: f64,
    us: f64,
    wire_bytes: f64,
}

/// The table, from the costs of this run.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut text = format!(
        "## What larger machines would carry\n\nComputed, not measured: the median costs above, plus \
         {DRIVER_US} µs per packet or train for a network driver, times cores, times an efficiency \
         that is assumed. At most what 100 GbE carries in one direction (\"line\"). Gbit/s of inner \
         payload; the assumptions are in `perf/README.md`.\n\n| traffic | µs per packet | one core \
         | cores for 100 GbE |"
    );
    for (cores, efficiency) in MACHINES {
        let _ = write!(text, " {cores} cores × {efficiency} |");
    }
    text.push_str("\n|---|---|---|---|---|---|---|\n");
    for (what, source) in ROWS {
        let Some(unit) = source.unit(results) else {
            let _ = writeln!(text, "| {what} | not measured | | | | | |");
            continue;
        };
        let _ = write!(text, "| {what} | {:.2} | {:.2} |", unit.us, unit.core_bps() / 1e9);
        let _ = write!(text, " {:.1} |", unit.line_bps() / unit.core_bps());
        for (cores, efficiency) in MACHINES {
            let (bps, line) = unit.carried(cores, efficiency);
            let note = if line { " (line)" } else { "" };
            let _ = write!(text, " {:.1}{note} |", bps / 1e9);
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

impl Source {
    fn unit(self, results: &Results) -> Option<Unit> {
        let median = |scenario, figure| {
            results.spread(scenario, Program::Ringway, figure).map(|spread| spread.median)
        };
        let (bytes, inner_bytes, us, train) = match self {
            Self::Goodput(scenario, bytes) => {
                let s_per_gb = median(scenario, "CPU-s/GB")?;
                (bytes, bytes + 52.0, s_per_gb * bytes / 1e3, TRAIN)
            }
            Self::Packets(scenario, bytes, train) => {
                (bytes, bytes, median(scenario, "µs/packet")?, train)
            }
        };
        // WireGuard pads to 16 bytes.
        let padded = (inner_bytes / 16.0).ceil() * 16.0;
        let wire_bytes = padded + TUNNEL_BYTES + ETHERNET_BYTES;
        Some(Unit { bytes, us: us + DRIVER_US / train, wire_bytes })
    }
}

impl Unit {
    fn core_bps(&self) -> f64 {
        self.bytes * 8.0 / self.us * 1e6
    }

    fn line_bps(&self) -> f64 {
        LINE_BPS * self.bytes / self.wire_bytes
    }

    /// Payload per second of so many cores, and whether the line is the limit.
    fn carried(&self, cores: u32, efficiency: f64) -> (f64, bool) {
        let bps = self.core_bps() * f64::from(cores) * efficiency;
        if bps >= self.line_bps() { (self.line_bps(), true) } else { (bps, false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Figure, Sample};

    #[test]
    fn the_line_bounds_what_many_cores_carry() {
        let unit = Unit { bytes: 1_000.0, us: 1.0, wire_bytes: 1_100.0 };
        assert!((unit.core_bps() - 8e9).abs() < 1.0);
        let (few, line) = unit.carried(8, 0.95);
        assert!((few - 60.8e9).abs() < 1.0 && !line);
        let (many, line) = unit.carried(32, 0.85);
        assert!((many - 100e9 / 1.1).abs() < 1.0 && line);
    }

    #[test]
    fn rows_come_from_the_run_and_missing_ones_are_told() {
        let mut results = Results::default();
        let figures = vec![Figure::lower("µs/packet", 1.9)];
        let scenario = "flood-1360-single".to_owned();
        results.push(Sample { scenario, program: Program::Ringway, repetition: 1, figures });
        let table = table(&results);
        assert!(table.contains("| UDP 1360 B, single | 2.00 | 5.44 |"), "{table}");
        assert!(table.contains("| TCP up, merged | not measured |"));
    }
}
