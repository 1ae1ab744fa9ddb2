//! A run beside the one before: what changed by more than the repetitions differ among themselves.
//!
//! Figures are compared where their direction is known. A change counts when the two ranges have no
//! value in common; where a side has one repetition only, a range is nothing, and the medians must
//! differ by [`BLIND`] as well. Peers are compared too: what changed for them changed on the
//! machine, not in our code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::programs::Program;
use crate::report::{Results, Spread};

/// How the README of a smoke run says what it is: nothing is compared with one.
pub const SMOKE_RUN: &str = "**A smoke run:";

/// Share by which medians must differ where one side was measured once.
const BLIND: f64 = 0.15;

/// Scenario, program, figure.
type Key = (String, String, String);

/// What an earlier run measured.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Name of its folder.
    pub name: String,
    /// Where and how it was measured.
    pub circumstances: Circumstances,
    values: BTreeMap<Key, Vec<f64>>,
}

/// What makes two runs hard to compare where it differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The processor.
    pub processor: String,
    /// The program at the client.
    pub client: String,
}

#[derive(Clone, Debug)]
struct Change {
    key: Key,
    before: Spread,
    now: Spread,
    better: bool,
}

impl Earlier {
    /// Reads a result folder.
    ///
    /// # Errors
    /// When it has no samples of this kind of run.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("samples.jsonl");
        let text =
            fs::read_to_string(&path).with_context(|| format!("Reading {}", path.display()))?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let values = parse(&text).with_context(|| format!("{} has no samples", path.display()))?;
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        let circumstances = Circumstances::told_by(&readme);
        Ok(Self { name: name.unwrap_or_default(), circumstances, values })
    }

    /// The latest one under `parent` other than `own` that is no smoke run: of the same host if
    /// there is one.
    #[must_use]
    pub fn latest(parent: &Path, own: Option<&Path>, host: &str) -> Option<Self> {
        let entries = fs::read_dir(parent).ok()?.flatten().map(|entry| entry.path());
        let mut folders: Vec<PathBuf> =
            entries.filter(|path| Some(path.as_path()) != own && path.is_dir()).collect();
        folders.sort_by_key(|path| age(path, host));
        let told = |folder: &PathBuf| fs::read_to_string(folder.join("README.md"));
        folders.retain(|folder| !told(folder).is_ok_and(|text| text.contains(SMOKE_RUN)));
        folders.iter().rev().find_map(|folder| Self::read(folder).ok())
    }
}

/// Orders folders by whether they are of this host, then by date, then by number.
fn age(path: &Path, host: &str) -> (bool, String, u32) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (date, rest) = name.split_at_checked(10).unwrap_or((&name, ""));
    let rest = rest.trim_start_matches('-');
    let number = rest.strip_prefix(host).map(|tail| tail.trim_start_matches('-'));
    let number = number.map(|tail| if tail.is_empty() { Some(1) } else { tail.parse().ok() });
    (number.flatten().is_some(), date.to_owned(), number.flatten().unwrap_or(0))
}

impl Circumstances {
    /// Reads them from the README of a result.
    fn told_by(readme: &str) -> Self {
        let after = |head: &str| {
            let told = readme.lines().find_map(|line| line.strip_prefix(head)).unwrap_or("unknown");
            told.split(" (no ").next().unwrap_or(told).split(" (sends ").next().unwrap_or(told)
        };
        let client = "- client of the TCP and round-trip scenarios: ";
        Self { processor: after("- processor: ").to_owned(), client: after(client).to_owned() }
    }

    /// What differs, as sentences.
    fn differences(&self, now: &Self) -> String {
        let mut text = String::new();
        let mut differ = |what: &str, then: &str, now: &str, bears: &str| {
            if then != now {
                let _ = writeln!(text, "**Another {what}** ({then} then, {now} now): {bears}.\n");
            }
        };
        let all = "what follows says more about the machines than about the code";
        differ("processor", &self.processor, &now.processor, all);
        let some = "TCP and round trips cannot be compared";
        differ("client", &self.client, &now.client, some);
        text
    }
}

/// The values of all samples; `None` where a line is of another kind.
fn parse(text: &str) -> Option<BTreeMap<Key, Vec<f64>>> {
    let mut values: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let sample: Value = serde_json::from_str(line).ok()?;
        let scenario = sample["scenario"].as_str()?;
        let program = sample["program"].as_str()?;
        for (figure, value) in sample["figures"].as_object()? {
            let key = (scenario.to_owned(), program.to_owned(), figure.clone());
            values.entry(key).or_default().extend(value.as_f64());
        }
    }
    (!values.is_empty()).then_some(values)
}

/// The table of what changed between `earlier` and `results`, which were measured like `now`.
#[must_use]
pub fn table(results: &Results, earlier: &Earlier, now: &Circumstances) -> String {
    let (changes, compared) = changes(results, earlier);
    let mut text = format!(
        "## Compared with {}\n\n{compared} figures were measured in both; of {} the ranges do not \
         meet (where a side was measured once: the medians differ by more than {:.0} %).\n\n",
        earlier.name,
        changes.len(),
        BLIND * 100.0
    );
    text.push_str(&earlier.circumstances.differences(now));
    if changes.is_empty() {
        return text;
    }
    text.push_str("| scenario | program | figure | before | now | change | |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for Change { key: (scenario, program, figure), before, now, better } in &changes {
        let change = match before.median {
            0.0 => "from 0".to_owned(),
            median => format!("{:+.0} %", 100.0 * (now.median / median - 1.0)),
        };
        let verdict = if *better { "better" } else { "**worse**" };
        let _ = writeln!(
            text,
            "| {scenario} | {program} | {figure} | {before} | {now} | {change} | {verdict} |"
        );
    }
    text.push('\n');
    text
}

fn changes(results: &Results, earlier: &Earlier) -> (Vec<Change>, usize) {
    let (mut changes, mut compared) = (Vec::new(), 0);
    for scenario in results.scenarios() {
        for row in results.rows(&scenario) {
            for (figure, direction, now) in &row.cells {
                let key = (scenario.clone(), row.program.name().to_owned(), (*figure).to_owned());
                let values = earlier.values.get(&key);
                let Some(before) = values.and_then(|values| Spread::of(values)) else { continue };
                let Some(better) = direction.is_gain(before.median, now.median) else { continue };
                compared += 1;
                if differ(before, *now) {
                    changes.push(Change { key, before, now: *now, better });
                }
            }
        }
    }
    // Ours first; in each the order of measurement.
    changes.sort_by_key(|change| change.key.1 != Program::Ringway.name());
    (changes, compared)
}

#[expect(clippy::float_cmp, reason = "a range of one value has equal ends")]
fn differ(before: Spread, now: Spread) -> bool {
    let apart = before.max < now.min || now.max < before.min;
    let measured_once = before.min == before.max || now.min == now.max;
    let far = (now.median - before.median).abs() > BLIND * before.median.abs();
    apart && (far || !measured_once)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::report::{Figure, Sample};

    fn on(processor: &str) -> Circumstances {
        Circumstances { processor: processor.to_owned(), client: "unknown".to_owned() }
    }

    fn run(costs: &[f64]) -> Results {
        let mut results = Results::default();
        for (cost, repetition) in costs.iter().zip(1..) {
            let figures = vec![Figure::lower("CPU-s/GB", *cost), Figure::told("core", *cost)];
            let scenario = "tcp-4-up".to_owned();
            results.push(Sample { scenario, program: Program::Ringway, repetition, figures });
        }
        results
    }

    fn earlier(costs: &[f64]) -> Earlier {
        let run = run(costs);
        let text: String = run.samples().iter().map(|one| format!("{}\n", one.json())).collect();
        let circumstances = on("A, 2 CPUs");
        Earlier { name: "before".into(), circumstances, values: parse(&text).unwrap() }
    }

    #[test]
    fn ranges_that_meet_are_no_change() {
        let table = table(&run(&[1.1, 1.3, 1.2]), &earlier(&[1.0, 1.1, 0.9]), &on("A, 2 CPUs"));
        assert!(table.contains("1 figures were measured in both; of 0"), "{table}");
    }

    #[test]
    fn ranges_apart_are_a_change_with_its_direction() {
        let table = table(&run(&[0.80, 0.82]), &earlier(&[1.0, 1.1, 0.9]), &on("A, 2 CPUs"));
        let expected = "| tcp-4-up | ringway | CPU-s/GB | 1.00 (0.90–1.10) | 0.81 (0.80–0.82) | -19 % | better |";
        assert!(table.contains(expected), "{table}");
        let worse = super::table(&run(&[1.2, 1.3]), &earlier(&[1.0, 1.1, 0.9]), &on("A, 2 CPUs"));
        assert!(worse.contains("**worse**"), "{worse}");
    }

    #[test]
    fn a_result_of_another_processor_or_client_is_told_to_be_one() {
        let readme = "- processor: A, 2 CPUs\n\
                      - client of the TCP and round-trip scenarios: ringway (no neutral one)\n";
        let client = "ringway".to_owned();
        let told = Circumstances::told_by(readme);
        assert_eq!(told, Circumstances { client, ..on("A, 2 CPUs") });
        let with = |now| table(&run(&[1.0]), &earlier(&[1.0]), &now);
        assert!(with(on("B, 2 CPUs")).contains("(A, 2 CPUs then, B, 2 CPUs now)"));
        assert!(!with(on("A, 2 CPUs")).contains("Another"));
        assert!(with(told).contains("**Another client** (unknown then, ringway now)"));
    }

    #[test]
    fn single_repetitions_must_differ_by_more_than_noise() {
        assert!(changes(&run(&[1.1]), &earlier(&[1.0])).0.is_empty());
        assert_eq!(changes(&run(&[1.2]), &earlier(&[1.0])).0.len(), 1);
    }

    #[test]
    fn samples_of_another_kind_are_not_read() {
        assert!(parse("{\"scenario\":\"storm\",\"variant\":\"x\",\"figures\":{}}\n").is_none());
        assert!(parse("").is_none());
    }

    #[test]
    fn the_latest_folder_of_this_host_comes_last() {
        let age = |name: &str| age(Path::new(name), "vm");
        assert!(age("2026-11-20-vm") < age("2026-11-20-vm-2"));
        assert!(age("2026-11-20-vm-10") > age("2026-11-20-vm-9"));
        assert!(age("2026-11-21-other") < age("2026-11-20-vm"));
    }
}
