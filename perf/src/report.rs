//! What was measured, written down: JSON lines, a table of medians and ranges, ratios to the best
//! peer, a plot.
//!
//! A result folder is complete in itself: command line, date, kernel, processor and versions stand
//! beside the figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::plot;
use crate::process::Launch;
use crate::programs::Program;

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Told for understanding; not compared.
    Neither,
}

/// One number with its name; the name has the unit.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name with unit, for example `Gbit/s`.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// How to compare it.
    pub better: Better,
}

impl Figure {
    /// A figure of which more is better.
    #[must_use]
    pub const fn higher(name: &'static str, value: f64) -> Self {
        Self { name, value, better: Better::Higher }
    }

    /// A figure of which less is better.
    #[must_use]
    pub const fn lower(name: &'static str, value: f64) -> Self {
        Self { name, value, better: Better::Lower }
    }

    /// A figure that is told but not compared.
    #[must_use]
    pub const fn told(name: &'static str, value: f64) -> Self {
        Self { name, value, better: Better::Neither }
    }
}

/// The outcome of one repetition of a scenario with one program.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Scenario name.
    pub scenario: String,
    /// Which program.
    pub program: Program,
    /// Repetition, from 1.
    pub repetition: u32,
    /// What came out.
    pub figures: Vec<Figure>,
}

impl Sample {
    fn json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| (figure.name.to_owned(), json!(figure.value)))
            .collect();
        json!({
            "scenario": self.scenario,
            "program": self.program.name(),
            "repetition": self.repetition,
            "figures": figures,
        })
    }
}

/// Median and range of repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value (mean of the two middle ones for an even count).
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = match self.median.abs() {
            m if m >= 100.0 => 0,
            m if m >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{:.digits$}", self.median)?;
        if self.min < self.max {
            write!(f, " ({:.digits$}–{:.digits$})", self.min, self.max)?;
        }
        Ok(())
    }
}

/// One row of a table: a program and its figures in one scenario.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which program.
    pub program: Program,
    /// Name, direction and spread of each figure, in the scenario's order.
    pub cells: Vec<(&'static str, Better, Spread)>,
}

/// All samples of a run, grouped when read.
#[derive(Clone, Debug, Default)]
pub struct Results {
    samples: Vec<Sample>,
}

impl Results {
    /// Adds a sample.
    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Scenario names in the order they were first measured.
    #[must_use]
    pub fn scenarios(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for sample in &self.samples {
            if !names.contains(&sample.scenario) {
                names.push(sample.scenario.clone());
            }
        }
        names
    }

    /// The rows of one scenario's table.
    #[must_use]
    pub fn rows(&self, scenario: &str) -> Vec<Row> {
        let mut programs: BTreeMap<Program, Vec<&Sample>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.scenario == scenario) {
            programs.entry(sample.program).or_default().push(sample);
        }
        programs.into_iter().map(|(program, samples)| row(program, &samples)).collect()
    }

    /// The markdown of all tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for scenario in self.scenarios() {
            text.push_str(&table(&scenario, &self.rows(&scenario)));
        }
        text
    }
}

fn row(program: Program, samples: &[&Sample]) -> Row {
    let mut cells = Vec::new();
    for figure in samples.first().map(|sample| sample.figures.as_slice()).unwrap_or_default() {
        let values: Vec<f64> = samples
            .iter()
            .flat_map(|sample| &sample.figures)
            .filter(|other| other.name == figure.name)
            .map(|other| other.value)
            .collect();
        cells.extend(Spread::of(&values).map(|spread| (figure.name, figure.better, spread)));
    }
    Row { program, cells }
}

fn table(scenario: &str, rows: &[Row]) -> String {
    let mut text = format!("### {scenario}\n\n| program |");
    let Some(first) = rows.first() else { return String::new() };
    for (name, ..) in &first.cells {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(first.cells.len()));
    for row in rows {
        let _ = write!(text, "| {} |", row.program);
        for (.., spread) in &row.cells {
            let _ = write!(text, " {spread} |");
        }
        text.push('\n');
    }
    for line in verdicts(rows) {
        let _ = writeln!(text, "\n{line}");
    }
    text.push('\n');
    text
}

/// For each compared figure: ours beside the best peer's median.
#[must_use]
pub fn verdicts(rows: &[Row]) -> Vec<String> {
    let Some(ours) = rows.iter().find(|row| row.program == Program::Ringway) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (name, better, spread) in &ours.cells {
        let peers = rows.iter().filter(|row| row.program != Program::Ringway).filter_map(|row| {
            let cell = row.cells.iter().find(|(other, ..)| other == name)?;
            Some((row.program, cell.2.median))
        });
        let by_value = |a: &(Program, f64), b: &(Program, f64)| a.1.total_cmp(&b.1);
        let best = match better {
            Better::Higher => peers.max_by(by_value),
            Better::Lower => peers.min_by(by_value),
            Better::Neither => None,
        };
        if let Some((program, value)) = best {
            let ahead = match better {
                Better::Lower => spread.median < value,
                Better::Higher | Better::Neither => spread.median > value,
            };
            lines.push(format!(
                "{name}: ringway / {program} = {:.2} ({})",
                spread.median / value,
                if ahead { "better" } else { "not better" }
            ));
        }
    }
    lines
}

/// A result folder: `results/DATE-HOST`, or with a number appended when that exists.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a fresh folder under `parent`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(parent: &Path) -> Result<Self> {
        let date = first_line("date", &["+%Y-%m-%d"]);
        let host = first_line("uname", &["-n"]);
        let mut path = parent.join(format!("{date}-{host}"));
        let mut number = 2;
        while path.exists() {
            path = parent.join(format!("{date}-{host}-{number}"));
            number += 1;
        }
        fs::create_dir_all(&path).with_context(|| format!("Creating {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything; called after each sample, so that an interrupted run keeps what it has.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, results: &Results, programs: &[Program]) -> Result<()> {
        let lines: String =
            results.samples.iter().map(|sample| format!("{}\n", sample.json())).collect();
        fs::write(self.path.join("samples.jsonl"), lines)?;
        let text = format!("{}\n{}", conditions(programs), results.markdown());
        fs::write(self.path.join("README.md"), text)?;
        fs::write(self.path.join("plot.svg"), plot::svg(results))?;
        Ok(())
    }
}

/// The circumstances: command, date, machine, versions.
#[must_use]
pub fn conditions(programs: &[Program]) -> String {
    let mut text = machine("tools/perf");
    for program in programs {
        let _ = writeln!(text, "- {program}: {}", program.version());
    }
    text.push_str(
        "\nServer alone on CPU 1; client and both traffic ends on CPU 0; namespaces cli – gw – dst, \
         veth offloads at default, cubic. Programs interleaved, median (min–max) of the \
         repetitions. \"single\" datagrams are split before the wire by the generator's kernel (no \
         UDP segmentation on its link). CPU time is user plus system time of the server and its \
         children, soft interrupts in its context included.\n",
    );
    text
}

/// As [`conditions`], for scenarios with a fleet.
#[must_use]
pub fn conditions_of_shards() -> String {
    let mut text = machine("tools/perf shards");
    let _ = writeln!(text, "- ringway: {}", Program::Ringway.version());
    text.push_str(
        "\nNamespaces cli – gw – dst, veth offloads at default. Clients are a fleet of our own that \
         speaks the real protocol, each from its own source address. With one worker the gateway is \
         alone on CPU 1 and all else on CPU 0; with more, gateway and load share the machine, so \
         that processor time is the figure to read. \"single\" datagrams were never merged, \
         \"merged\" ones leave as GSO trains. Times of handshakes run from the first initiation \
         to the response, repetitions (every 5 s) included.\n",
    );
    text
}

fn machine(tool: &str) -> String {
    let command: Vec<String> = std::env::args().skip(2).collect(); // the program and its verb
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    format!(
        "# Measured {}\n\n- command: `{tool} {}`\n- kernel: {}\n- processor: {}, {} CPUs\n\
         - commit: {}\n- load average when written (1, 5, 15 minutes): {}\n",
        first_line("date", &["+%Y-%m-%d %H:%M %Z"]),
        command.join(" "),
        first_line("uname", &["-srm"]),
        model.trim_start_matches([' ', '\t', ':']),
        std::thread::available_parallelism().map_or(0, usize::from),
        first_line("git", &["rev-parse", "--short", "HEAD"]),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}

fn first_line(program: &str, args: &[&str]) -> String {
    let text = Launch::new(program).args(args.iter().copied()).run().unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn sample(program: Program, repetition: u32, cost: f64) -> Sample {
        let figures = vec![Figure::lower("CPU-s/GB", cost), Figure::told("core", 1.0)];
        Sample { scenario: "tcp".into(), program, repetition, figures }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ours_is_compared_with_the_best_peer_and_told_figures_are_not() {
        let mut results = Results::default();
        for repetition in 1..=3 {
            let noise = f64::from(repetition) / 10.0;
            results.push(sample(Program::Ringway, repetition, 1.0 + noise));
            results.push(sample(Program::Boringtun, repetition, 4.2 + noise));
            results.push(sample(Program::Gotatun, repetition, 2.2 + noise));
        }
        assert_eq!(verdicts(&results.rows("tcp")), ["CPU-s/GB: ringway / gotatun = 0.50 (better)"]);
        assert!(results.markdown().contains("| ringway | 1.20 (1.10–1.30) | 1.00 |"));
    }
}
