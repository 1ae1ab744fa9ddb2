//! What was measured: samples, medians and ranges, tables, ratios to the best peer. How it becomes
//! a folder is in [`crate::folder`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

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

impl Better {
    /// Whether going from one value to another is a gain; `None` where that is not known.
    #[must_use]
    pub fn is_gain(self, before: f64, now: f64) -> Option<bool> {
        match self {
            Self::Higher => Some(now > before),
            Self::Lower => Some(now < before),
            Self::Neither => None,
        }
    }
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
    /// As a line of `samples.jsonl`.
    #[must_use]
    pub fn json(&self) -> Value {
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
    failures: Vec<String>,
}

impl Results {
    /// Adds a sample.
    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Notes that something could not be measured.
    pub fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// What could not be measured.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// All samples, in the order of their measurement.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The programs that were measured.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        let all: std::collections::BTreeSet<Program> =
            self.samples.iter().map(|sample| sample.program).collect();
        all.into_iter().collect()
    }

    /// One figure of one program.
    #[must_use]
    pub fn spread(&self, scenario: &str, program: Program, figure: &str) -> Option<Spread> {
        let samples = self.samples.iter();
        let values: Vec<f64> = samples
            .filter(|sample| sample.scenario == scenario && sample.program == program)
            .flat_map(|sample| &sample.figures)
            .filter(|other| other.name == figure)
            .map(|other| other.value)
            .collect();
        Spread::of(&values)
    }

    /// The rival with the best median of a figure.
    #[must_use]
    pub fn best_peer(
        &self,
        scenario: &str,
        figure: &str,
        better: Better,
    ) -> Option<(Program, Spread)> {
        let peers = self.programs().into_iter().filter(|program| is_rival(*program));
        let all = peers.filter_map(|peer| Some((peer, self.spread(scenario, peer, figure)?)));
        let by_median =
            |a: &(Program, Spread), b: &(Program, Spread)| a.1.median.total_cmp(&b.1.median);
        match better {
            Better::Higher => all.max_by(by_median),
            Better::Lower => all.min_by(by_median),
            Better::Neither => None,
        }
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

/// Whether ours is compared with this program: the others have clients of their own, whose part in
/// what bytes cost and how long they take is not ours.
#[must_use]
pub const fn is_rival(program: Program) -> bool {
    !program.is_ours() && program.is_wireguard()
}

/// For each compared figure: ours beside the best rival's median.
#[must_use]
pub fn verdicts(rows: &[Row]) -> Vec<String> {
    let Some(ours) = rows.iter().find(|row| row.program == Program::Ringway) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (name, better, spread) in &ours.cells {
        let rivals = rows.iter().filter(|row| is_rival(row.program));
        let peers = rivals.filter_map(|row| {
            let cell = row.cells.iter().find(|(other, ..)| other == name)?;
            Some((row.program, cell.2.median))
        });
        let by_value = |a: &(Program, f64), b: &(Program, f64)| a.1.total_cmp(&b.1);
        let best = match better {
            Better::Higher => peers.max_by(by_value),
            Better::Lower => peers.min_by(by_value),
            Better::Neither => None,
        };
        // Of nothing there is no ratio.
        if let Some((program, value)) = best.filter(|(_, value)| *value > 0.0) {
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
        results.push(sample(Program::Ocserv, 1, 1.9));
        assert_eq!(verdicts(&results.rows("tcp")), ["CPU-s/GB: ringway / gotatun = 0.50 (better)"]);
        assert!(results.markdown().contains("| ringway | 1.20 (1.10–1.30) | 1.00 |"));
    }
}
