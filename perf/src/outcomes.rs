//! Outcomes of scenarios that promise something: figures to be read, invariants that must hold, and
//! how several runs of them are written down (JSON lines, a table per scenario, a plot).
//!
//! Scenarios have two sizes ([`Size`]): the small one takes seconds and may be called by tests, the
//! full one is measured. This module must not know what is measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::plot;
use crate::report::{Better, Figure, Spread};

/// How large a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A few seconds, for tests.
    Small,
    /// As measured.
    Full,
}

impl Size {
    pub(crate) const fn pick<T: Copy>(self, small: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }
}

/// What came out of one variant of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which variant: the row of the table.
    pub variant: String,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What had to hold.
    pub invariants: Vec<Invariant>,
}

/// Something that must hold.
#[derive(Clone, Debug)]
pub struct Invariant {
    /// In words, with the figure that was found.
    pub says: String,
    /// Whether it does.
    pub holds: bool,
}

impl Outcome {
    /// What should hold and does not.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.invariants
            .iter()
            .filter(|invariant| !invariant.holds)
            .map(|invariant| invariant.says.as_str())
    }
}

pub(crate) fn must(holds: bool, says: impl Into<String>) -> Invariant {
    Invariant { says: says.into(), holds }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds stay far below 2^52")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}

/// Everything a run measured.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    all: Vec<(&'static str, u32, Outcome)>,
}

impl Outcomes {
    /// Adds the rows of one repetition of a scenario, by its name.
    pub fn push(&mut self, scenario: &'static str, repetition: u32, outcomes: Vec<Outcome>) {
        self.all.extend(outcomes.into_iter().map(|outcome| (scenario, repetition, outcome)));
    }

    /// What should have held and did not, with its scenario.
    pub fn broken(&self) -> impl Iterator<Item = String> {
        self.all.iter().flat_map(|(scenario, _, outcome)| {
            outcome.broken().map(move |says| format!("{scenario}: {says}"))
        })
    }

    /// Writes samples, tables and plot into a result folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, conditions: &str) -> Result<()> {
        let lines: String = self.all.iter().map(line).collect();
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).with_context(|| format!("Writing {name}"))
        };
        write("samples.jsonl", &lines)?;
        write("README.md", &format!("{conditions}\n{}", self.markdown()))?;
        write("plot.svg", &plot::bars(&self.bars()))
    }

    /// The tables, and what did not hold.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for scenario in self.scenarios() {
            self.write_table(scenario, &mut text);
        }
        text.push_str("### Invariants\n\n");
        let count: usize = self.all.iter().map(|(_, _, outcome)| outcome.invariants.len()).sum();
        let broken: Vec<String> = self.broken().collect();
        let _ = writeln!(text, "{} of {count} hold.\n", count - broken.len());
        broken.iter().for_each(|says| {
            let _ = writeln!(text, "- does not hold: {says}");
        });
        text
    }

    /// In the order of their first run.
    fn scenarios(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (scenario, ..) in &self.all {
            if !names.contains(scenario) {
                names.push(*scenario);
            }
        }
        names
    }

    /// The variants of a scenario, in the order of their first run, each with all its samples.
    fn variants(&self, scenario: &str) -> Vec<(&str, Vec<&Outcome>)> {
        let mut variants: Vec<(&str, Vec<&Outcome>)> = Vec::new();
        for (_, _, outcome) in self.all.iter().filter(|(other, ..)| *other == scenario) {
            match variants.iter_mut().find(|(name, _)| *name == outcome.variant) {
                Some((_, samples)) => samples.push(outcome),
                None => variants.push((&outcome.variant, vec![outcome])),
            }
        }
        variants
    }

    fn write_table(&self, scenario: &str, text: &mut String) {
        let variants = self.variants(scenario);
        let mut names: Vec<&str> = Vec::new();
        for figure in variants.iter().flat_map(|(_, samples)| &samples[0].figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let _ = writeln!(text, "### {}\n\n| |{}|", scenario, names.join("|"));
        let _ = writeln!(text, "|---|{}", "---|".repeat(names.len()));
        for (variant, samples) in &variants {
            let _ = write!(text, "| {variant} |");
            for name in &names {
                let _ = match spread(samples, name) {
                    Some(spread) => write!(text, " {spread} |"),
                    None => write!(text, " |"),
                };
            }
            text.push('\n');
        }
        text.push('\n');
    }

    /// One figure per scenario, the first one of which less is better.
    fn bars(&self) -> Vec<plot::Group> {
        let group = |scenario: &'static str| {
            let variants = self.variants(scenario);
            let costs = |figure: &&Figure| figure.better == Better::Lower && figure.value > 0.0;
            let name = variants
                .iter()
                .flat_map(|(_, samples)| &samples[0].figures)
                .find(costs)
                .map(|figure| figure.name)?;
            let bars = variants.iter().filter_map(|(variant, samples)| {
                Some(((*variant).to_owned(), spread(samples, name)?))
            });
            Some(plot::Group { title: format!("{scenario}: {name}"), bars: bars.collect() })
        };
        self.scenarios().into_iter().filter_map(group).collect()
    }
}

fn spread(samples: &[&Outcome], name: &str) -> Option<Spread> {
    let figures = samples.iter().flat_map(|outcome| &outcome.figures);
    let values: Vec<f64> = figures
        .filter(|figure| figure.name == name && figure.value.is_finite())
        .map(|figure| figure.value)
        .collect();
    Spread::of(&values)
}

fn line((scenario, repetition, outcome): &(&'static str, u32, Outcome)) -> String {
    let figures: Map<String, Value> = outcome
        .figures
        .iter()
        .map(|figure| (figure.name.to_owned(), json!(figure.value)))
        .collect();
    let sample = json!({
        "scenario": scenario,
        "variant": outcome.variant,
        "repetition": repetition,
        "figures": figures,
        "broken": outcome.broken().collect::<Vec<_>>(),
    });
    format!("{sample}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_invariant_is_told() {
        let invariants = vec![must(true, "one holds"), must(false, "two does not")];
        let outcome = Outcome { variant: "v".into(), figures: Vec::new(), invariants };
        assert_eq!(outcome.broken().collect::<Vec<_>>(), ["two does not"]);
    }

    #[test]
    fn variants_become_rows_and_broken_invariants_are_listed() {
        let outcome = |variant: &str, value, holds| Outcome {
            variant: variant.to_owned(),
            figures: vec![Figure::lower("ms", value)],
            invariants: vec![must(holds, "order is kept")],
        };
        let mut outcomes = Outcomes::default();
        let first = vec![outcome("up", 1.0, true), outcome("down", 5.0, false)];
        outcomes.push("scaling", 1, first);
        outcomes.push("scaling", 2, vec![outcome("up", 3.0, true)]);
        let text = outcomes.markdown();
        assert!(text.contains("| up | 2.00 (1.00–3.00) |"), "{text}");
        assert!(text.contains("2 of 3 hold."), "{text}");
        assert_eq!(outcomes.broken().collect::<Vec<_>>(), ["scaling: order is kept"]);
    }
}
