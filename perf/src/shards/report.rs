//! Outcomes of several runs, written down: JSON lines, a table per scenario, the invariants, and a
//! plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{Outcome, Scenario};
use crate::plot;
use crate::report::{Better, Figure, Spread};

/// Everything a run measured.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    all: Vec<(Scenario, u32, Outcome)>,
}

impl Outcomes {
    /// Adds the rows of one repetition of a scenario.
    pub fn push(&mut self, scenario: Scenario, repetition: u32, outcomes: Vec<Outcome>) {
        self.all.extend(outcomes.into_iter().map(|outcome| (scenario, repetition, outcome)));
    }

    /// What should have held and did not, with its scenario.
    pub fn broken(&self) -> impl Iterator<Item = String> {
        self.all.iter().flat_map(|(scenario, _, outcome)| {
            outcome.broken().map(move |says| format!("{}: {says}", scenario.name()))
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

    fn scenarios(&self) -> Vec<Scenario> {
        let ran = |scenario: &Scenario| self.all.iter().any(|(other, ..)| other == scenario);
        Scenario::ALL.into_iter().filter(ran).collect()
    }

    /// The variants of a scenario, in the order of their first run, each with all its samples.
    fn variants(&self, scenario: Scenario) -> Vec<(&str, Vec<&Outcome>)> {
        let mut variants: Vec<(&str, Vec<&Outcome>)> = Vec::new();
        for (_, _, outcome) in self.all.iter().filter(|(other, ..)| *other == scenario) {
            match variants.iter_mut().find(|(name, _)| *name == outcome.variant) {
                Some((_, samples)) => samples.push(outcome),
                None => variants.push((&outcome.variant, vec![outcome])),
            }
        }
        variants
    }

    fn write_table(&self, scenario: Scenario, text: &mut String) {
        let variants = self.variants(scenario);
        let mut names: Vec<&str> = Vec::new();
        for figure in variants.iter().flat_map(|(_, samples)| &samples[0].figures) {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        let _ = writeln!(text, "### {}\n\n| |{}|", scenario.name(), names.join("|"));
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
        let group = |scenario: Scenario| {
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
            Some(plot::Group {
                title: format!("{}: {name}", scenario.name()),
                bars: bars.collect(),
            })
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

fn line((scenario, repetition, outcome): &(Scenario, u32, Outcome)) -> String {
    let figures: Map<String, Value> = outcome
        .figures
        .iter()
        .map(|figure| (figure.name.to_owned(), json!(figure.value)))
        .collect();
    let sample = json!({
        "scenario": scenario.name(),
        "variant": outcome.variant,
        "repetition": repetition,
        "figures": figures,
        "broken": outcome.broken().collect::<Vec<_>>(),
    });
    format!("{sample}\n")
}

#[cfg(test)]
mod tests {
    use super::super::must;
    use super::*;

    #[test]
    fn variants_become_rows_and_broken_invariants_are_listed() {
        let outcome = |variant: &str, value, holds| Outcome {
            variant: variant.to_owned(),
            figures: vec![Figure::lower("ms", value)],
            invariants: vec![must(holds, "order is kept")],
        };
        let mut outcomes = Outcomes::default();
        let first = vec![outcome("up", 1.0, true), outcome("down", 5.0, false)];
        outcomes.push(Scenario::Scaling, 1, first);
        outcomes.push(Scenario::Scaling, 2, vec![outcome("up", 3.0, true)]);
        let text = outcomes.markdown();
        assert!(text.contains("| up | 2.00 (1.00–3.00) |"), "{text}");
        assert!(text.contains("2 of 3 hold."), "{text}");
        assert_eq!(outcomes.broken().collect::<Vec<_>>(), ["scaling: order is kept"]);
    }
}
