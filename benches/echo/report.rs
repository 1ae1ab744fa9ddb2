//! Tables for people and JSON for programs.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Contender, Sample, Workload};

/// All rounds of one contender on one workload.
pub struct Row {
    /// What was served.
    pub workload: Workload,
    /// By whom.
    pub contender: Contender,
    /// Its rounds, at least one.
    pub samples: Vec<Sample>,
}

impl Row {
    fn middle(&self, figure: fn(&Sample) -> f64) -> (f64, f64, f64) {
        let mut figures: Vec<_> = self.samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let median = figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN);
        let lowest = figures.first().copied().unwrap_or(f64::NAN);
        (median, lowest, figures.last().copied().unwrap_or(f64::NAN))
    }

    /// Rates in the unit of the workload: thousand datagrams per second, or Gbit/s.
    fn rate(&self) -> (f64, f64, f64) {
        let scale = match self.workload {
            Workload::UdpSingle | Workload::UdpMerged => 1e-3,
            Workload::Relay(_) => 1024.0 * 8.0 * 1e-9,
        };
        let (median, lowest, highest) = self.middle(Sample::rate);
        (median * scale, lowest * scale, highest * scale)
    }
}

/// A table with medians and ranges.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut workload = None;
    for row in rows {
        // Writing to a string cannot fail.
        if workload != Some(row.workload) {
            workload = Some(row.workload);
            let unit = units(row.workload);
            let _ = writeln!(text, "{:<28}{:>24}{:>26}", row.workload.name(), unit.0, unit.1);
        }
        let (rate, slowest, fastest) = row.rate();
        let (cpu, cheapest, dearest) = row.middle(Sample::cpu_ns_each);
        let rates = format!("{rate:.1} ({slowest:.1}-{fastest:.1})");
        let costs = format!("{cpu:.1} ({cheapest:.1}-{dearest:.1})");
        let _ = writeln!(text, "  {:<26}{rates:>24}{costs:>26}", row.contender.name());
    }
    text
}

/// Everything, with what is needed to compare it later.
#[must_use]
pub fn json(rows: &[Row], seconds_per_round: f64) -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (rate, cost) = (row.rate(), row.middle(Sample::cpu_ns_each));
            json!({
                "workload": row.workload.name(),
                "contender": row.contender.name(),
                "rate": { "unit": units(row.workload).0, "median": rate.0, "min": rate.1,
                          "max": rate.2 },
                "cpu": { "unit": units(row.workload).1, "median": cost.0, "min": cost.1,
                         "max": cost.2 },
                "rounds": row.samples.len(),
            })
        })
        .collect();
    json!({
        "made_unix_seconds": made,
        "machine": model.trim_start_matches([' ', '\t', ':']),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "seconds_per_round": seconds_per_round,
        "rows": rows,
    })
}

const fn units(workload: Workload) -> (&'static str, &'static str) {
    match workload {
        Workload::UdpSingle | Workload::UdpMerged => ("k datagrams/s", "CPU ns/datagram"),
        Workload::Relay(_) => ("Gbit/s", "CPU ns/KiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_median_and_the_range_of_its_rounds() {
        let sample = |operations| Sample { operations, seconds: 2.0, cpu_ns: 1_000_000 };
        let samples = vec![sample(8000), sample(2000), sample(4000)];
        let rows = [Row { workload: Workload::UdpSingle, contender: Contender::Ring, samples }];
        let table = table(&rows);
        assert!(table.contains("2.0 (1.0-4.0)"), "{table}");
        assert!(table.contains("250.0 (125.0-500.0)"), "{table}");
        let json = json(&rows, 2.0);
        assert_eq!(json["rows"][0]["rate"]["median"], 2.0);
        assert_eq!(json["rows"][0]["contender"], "ring");
    }
}
