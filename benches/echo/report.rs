//! Tables for people and JSON for programs, on the screen and in a result folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
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
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        let median = f64::midpoint(at(figures.len() / 2), at(figures.len().saturating_sub(1) / 2));
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

/// Writes a dated folder under `parent` with `README.md` and `echo.json`; returns where it is.
///
/// # Errors
/// If it cannot be written.
pub fn write(parent: &Path, rows: &[Row], seconds_per_round: f64) -> anyhow::Result<PathBuf> {
    let base = format!("{}-{}-echo", said("date", &["+%F"]), said("uname", &["-n"]));
    let mut folder = parent.join(&base);
    let mut number = 2;
    while folder.exists() {
        folder = parent.join(format!("{base}-{number}"));
        number += 1;
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let json = json(rows, seconds_per_round);
    let text = |name: &str| json[name].as_str().unwrap_or("unknown").to_owned();
    let readme = format!(
        "# Cost per operation: the ring beside the runtimes\n\n- made: {}\n- command: `tools/perf echo`, \
         {} rounds of {seconds_per_round} s each, interleaved; median (range)\n- kernel: {}\n\
         - processor: {}\n- commit: {}\n\nServer on one CPU, load on another, loopback. CPU time of all \
         threads of the server's process. Compare the contenders with each other and with nothing \
         else.\n\n{}",
        said("date", &["-u", "+%F %H:%M UTC"]),
        rows.iter().map(|row| row.samples.len()).max().unwrap_or(0),
        text("kernel"),
        text("machine"),
        said("git", &["rev-parse", "--short", "HEAD"]),
        markdown(rows)
    );
    std::fs::write(folder.join("README.md"), readme)?;
    std::fs::write(folder.join("echo.json"), serde_json::to_string_pretty(&json)? + "\n")?;
    Ok(folder)
}

/// One table, a row for each contender on each workload; who cannot serve a workload is named.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from("| workload | contender | rate | cost | beside the ring |\n");
    text.push_str("|---|---|---|---|---|\n");
    for row in rows {
        let (rate, slowest, fastest) = row.rate();
        let (cpu, cheapest, dearest) = row.middle(Sample::cpu_ns_each);
        let ring = rows
            .iter()
            .find(|other| other.workload == row.workload && other.contender == Contender::Ring);
        let ratio = ring.map_or_else(
            || "the ring has no streams".to_owned(),
            |ring| format!("{:.2}", cpu / ring.middle(Sample::cpu_ns_each).0),
        );
        let (rate_unit, cpu_unit) = units(row.workload);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {rate:.1} ({slowest:.1}–{fastest:.1}) {rate_unit} | {cpu:.0} \
             ({cheapest:.0}–{dearest:.0}) {cpu_unit} | {ratio} |",
            row.workload.name(),
            row.contender.name(),
        );
    }
    text
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
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
        let expected =
            "| udp echo 64 B, single | ring | 2.0 (1.0–4.0) k datagrams/s | 250 (125–500)";
        assert!(markdown(&rows).contains(expected), "{}", markdown(&rows));
    }
}
