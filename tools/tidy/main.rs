//! `ringway-tidy`: the house style, checked.
//!
//! Reads the files of the repository (what git tracks, or would) and says for each finding where it
//! is, what is wrong and what to do. Exit code 1 if there is any. With `--write` it first flows
//! comments that are too long (see [`wrap`]) and brings generated text up to date. Each group of
//! rules is a file: [`shape`] sizes, [`words`] words and marks, [`rooms`] what may stand in which
//! folder, [`arrows`] who may depend on whom, [`manual`] what the operator reads, [`claims`] what
//! is proven by which test, [`readme`] the table made from the claims.
//!
//! It must not know the product: everything it checks is text.

mod arrows;
mod claims;
mod manual;
mod readme;
mod repo;
mod rooms;
mod shape;
mod source;
mod words;
mod wrap;

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
    fix: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), fix: fix.into() }
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (write, paths) = match arguments.split_first() {
        None => (false, Vec::new()),
        Some((flag, paths)) if flag == "--write" => (true, paths.to_vec()),
        Some(_) => anyhow::bail!("usage: ringway-tidy [--write [PATH...]]"),
    };
    let root = repo::root().context("ringway-tidy runs inside the repository")?;
    if write {
        write_generated(&root, &paths)?;
    }
    let repo = repo::Repo::read(&root)?;

    let mut findings = Vec::new();
    for file in &repo.files {
        findings.extend(shape::check(file));
        findings.extend(words::check(file));
        findings.extend(rooms::check(file));
    }
    findings.extend(rooms::check_top_level(&repo));
    findings.extend(arrows::check(&root, &repo)?);
    findings.extend(manual::check(&repo));
    let claims = claims::read(&repo);
    findings.extend(claims.findings.iter().cloned());
    findings.extend(readme::check(&repo));
    findings.sort();
    findings.dedup();

    report(&root, &findings, &claims)?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Flows the comments of the files under `paths` (all, if there are none) and makes the table of
/// README.md anew.
fn write_generated(root: &Path, paths: &[String]) -> Result<()> {
    let is_chosen = |path: &str| {
        paths.is_empty() || paths.iter().any(|chosen| path.starts_with(chosen.as_str()))
    };
    for file in repo::Repo::read(root)?.files {
        if file.rust.is_some() && is_chosen(&file.path) {
            let flowed = wrap::comments(&file.text, shape::LINE_COLUMNS_MAX);
            if flowed != file.text {
                std::fs::write(root.join(&file.path), flowed)?;
            }
        }
    }
    readme::write(root)
}

fn report(root: &Path, findings: &[Finding], claims: &claims::Claims) -> Result<()> {
    let mut out = stdout().lock();
    for Finding { path, line, what, fix } in findings {
        writeln!(out, "{path}:{line}: {what}\n    {fix}")?;
    }
    for (kind, ids) in
        [("must rows", &claims.unclaimed), ("source requirements", &claims.untouched)]
    {
        if !ids.is_empty() {
            writeln!(out, "{} {kind} that nothing claims yet: {}", ids.len(), ids.join(" "))?;
        }
    }
    writeln!(out, "ringway-tidy: {} findings in {}", findings.len(), root.display())?;
    Ok(())
}
