//! Counts instructions and compares them with `baseline.toml`.
//!
//! ```text
//! cargo bench --profile ci --package ringway-benches --bench instructions            # the gate
//! cargo bench --profile ci --package ringway-benches --bench instructions -- --bless # accept
//! ... -- --only checksum        # cases whose name contains this; changes no baseline
//! ```
//!
//! Exit code 1: a case takes more than its baseline, or is not in it. 2: it could not be counted.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use ringway_benches::baseline::{self, Counts, TOLERANCE_PERCENT, Verdict};
use ringway_benches::{callgrind, cases};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("{error:#}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Options {
    bless: bool,
    only: Option<String>,
    case: Option<String>,
}

fn run() -> anyhow::Result<bool> {
    let options = options()?;
    if let Some(name) = &options.case {
        let all = cases::all();
        let case = all.iter().find(|case| case.name == name).context("no such case")?;
        callgrind::run_counted(case);
        return Ok(true);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.toml");
    let known = match std::fs::read_to_string(&path) {
        Ok(text) => baseline::parse(&text)?,
        Err(_) if options.bless => Counts::new(),
        Err(error) => bail!("{}: {error}; make it with --bless", path.display()),
    };
    let (counts, passed) = count_all(&known, options.only.as_deref())?;
    if options.bless {
        std::fs::write(&path, baseline::format(&counts, &made_with()))?;
        println!("written: {}", path.display());
        return Ok(true);
    }
    let stale: Vec<_> = known.keys().filter(|name| !counts.contains_key(*name)).collect();
    if options.only.is_none() && !stale.is_empty() {
        println!("in baseline.toml but nowhere else: {stale:?}; bless to forget them");
        return Ok(false);
    }
    if !passed {
        println!(
            "The gate is +{TOLERANCE_PERCENT} %. If the change is worth it, say why in the commit \
             and run again with --bless. This is {}.",
            made_with()
        );
    }
    Ok(passed)
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // what cargo adds
            "--bless" => options.bless = true,
            "--only" => options.only = Some(words.next().context("--only needs a word")?),
            "--case" => options.case = Some(words.next().context("--case needs a name")?),
            _ => bail!("Unknown option {word}: --bless, --only WORD"),
        }
    }
    if options.bless && options.only.is_some() {
        bail!("--bless writes all cases: leave --only out");
    }
    Ok(options)
}

/// Counts, prints a line per case, and says whether all pass.
fn count_all(known: &Counts, only: Option<&str>) -> anyhow::Result<(Counts, bool)> {
    let program = std::env::current_exe()?;
    let mut counts = Counts::new();
    let mut passed = true;
    println!("{:<32}{:>12}{:>12}{:>9}", "instructions per operation", "now", "baseline", "change");
    for case in cases::all() {
        if only.is_some_and(|word| !case.name.contains(word)) {
            continue;
        }
        let count = callgrind::count(&program, &case)?;
        let verdict = baseline::judge(known, case.name, count);
        let before = known.get(case.name).map_or_else(String::new, |it| format!("{it:.2}"));
        let remark = match verdict {
            Verdict::Same(change) => format!("{change:>+8.1}%"),
            Verdict::Better(change) => format!("{change:>+8.1}%  better: worth blessing"),
            Verdict::Worse(change) => format!("{change:>+8.1}%  WORSE"),
            Verdict::New => "          NEW".to_owned(),
        };
        println!("{:<32}{count:>12.2}{before:>12}{remark}", case.name);
        passed &= verdict.passes();
        counts.insert(case.name.to_owned(), count);
    }
    Ok((counts, passed))
}

/// Compiler and target: counts of another one differ.
fn made_with() -> String {
    let version = Command::new("rustc").arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let rustc = version.unwrap_or_else(|_| "an unknown rustc".to_owned());
    format!("{rustc}, {}, cargo profile ci", std::env::consts::ARCH)
}
