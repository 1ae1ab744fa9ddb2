//! `tests/coverage.toml`: what the project claims to do, and the test that proves each claim.
//!
//! A claim names rows of `tests/rows.toml` (everything that was ever asked of the gateway). A test
//! is written as `cargo:PACKAGE::path::function` or `script:PATH`; a claim whose test is not in the
//! source is a finding, as is a claim of the full tier whose dated result is missing. `must` rows
//! without a claim are told, not failed.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Finding;
use crate::repo::{File, Repo};

const CLAIMS: &str = "tests/coverage.toml";
const ROWS: &str = "tests/rows.toml";

/// What came of reading both files.
pub(crate) struct Claims {
    pub(crate) findings: Vec<Finding>,
    /// Ids of `must` rows that no claim names.
    pub(crate) unclaimed: Vec<String>,
    /// Ids of source requirements that no claim names.
    pub(crate) untouched: Vec<String>,
    /// In the order of the file.
    pub(crate) claims: Vec<Claim>,
}

/// One claim.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claim {
    /// A row of `rows.toml`.
    pub(crate) id: String,
    /// Requirements of the source documents (`S1-01` …) that the claim meets, wholly or in part.
    #[serde(default)]
    pub(crate) sources: Vec<String>,
    /// What a user can do, in one sentence.
    pub(crate) sentence: String,
    /// The part of the row that is claimed.
    pub(crate) claims: String,
    /// Where the proof runs.
    pub(crate) tier: Tier,
    /// What proves it.
    pub(crate) tests: Vec<String>,
    /// The dated result of the full tier.
    #[serde(default)]
    pub(crate) result: Option<String>,
    /// What the row asks for and the claim leaves out; empty if nothing.
    pub(crate) remains: String,
}

/// Where a proof runs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// With every change.
    Ci,
    /// By hand or by night; its last result is committed.
    Full,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimFile {
    #[serde(default)]
    claim: Vec<Claim>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowFile {
    rows: BTreeMap<String, Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    priority: Priority,
    #[expect(dead_code, reason = "read by people; its presence is what is checked")]
    sentence: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Priority {
    Must,
    Should,
    Later,
    /// A requirement of a source document, which rows refer to.
    Source,
}

/// Reads and judges the claims.
pub(crate) fn read(repo: &Repo) -> Claims {
    let (rows, mut findings) = parse::<RowFile>(repo, ROWS);
    let (file, more) = parse::<ClaimFile>(repo, CLAIMS);
    findings.extend(more);
    let (Some(rows), Some(file)) = (rows, file) else {
        return Claims {
            findings,
            unclaimed: Vec::new(),
            untouched: Vec::new(),
            claims: Vec::new(),
        };
    };
    let text = repo.file(CLAIMS).map_or("", |file| &file.text);
    let tests = TestIndex::of(repo);
    for claim in &file.claim {
        let line = line_of_id(text, &claim.id);
        let wrong = judge(claim, &rows, repo, &tests);
        findings.extend(wrong.into_iter().map(|(what, fix)| Finding::new(CLAIMS, line, what, fix)));
    }
    let names = |claim: &Claim, id: &str| claim.id == id || claim.sources.iter().any(|s| s == id);
    let is_claimed = |id: &str| file.claim.iter().any(|claim| names(claim, id));
    let open = |priority: Priority| {
        let of_priority = rows.rows.iter().filter(|(_, row)| row.priority == priority);
        of_priority.map(|(id, _)| id.clone()).filter(|id| !is_claimed(id)).collect::<Vec<_>>()
    };
    let (unclaimed, untouched) = (open(Priority::Must), open(Priority::Source));
    Claims { findings, unclaimed, untouched, claims: file.claim }
}

fn parse<T: for<'de> Deserialize<'de>>(repo: &Repo, path: &str) -> (Option<T>, Vec<Finding>) {
    let Some(file) = repo.file(path) else {
        return (None, vec![Finding::new(path, 1, "is missing", "claims and rows are kept there")]);
    };
    match toml::from_str(&file.text) {
        Ok(parsed) => (Some(parsed), Vec::new()),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + file.text.get(..start).unwrap_or_default().matches('\n').count();
            (
                None,
                vec![Finding::new(
                    path,
                    line,
                    error.message(),
                    "see the head of the file for its form",
                )],
            )
        }
    }
}

/// What is wrong with one claim, as (what, fix).
fn judge(claim: &Claim, rows: &RowFile, repo: &Repo, tests: &TestIndex) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    let mut say = |what: String, fix: &str| wrong.push((what, fix.to_owned()));
    let id = &claim.id;
    for row in std::iter::once(id).chain(&claim.sources) {
        if !rows.rows.contains_key(row) {
            say(format!("{row} is no row"), "rows are listed in tests/rows.toml");
        }
    }
    if claim.sentence.is_empty() || claim.claims.is_empty() {
        say(format!("{id} does not say what it claims"), "fill `sentence` and `claims`");
    }
    if claim.tests.is_empty() {
        say(format!("{id} has no test"), "a claim without a proof is left out");
    }
    for test in &claim.tests {
        if !tests.has(repo, test) {
            let fix =
                "write `cargo:PACKAGE::path::function` or `script:PATH` of something that is there";
            say(format!("{id}: `{test}` does not exist"), fix);
        }
    }
    match (claim.tier, &claim.result) {
        (Tier::Full, None) => {
            say(format!("{id} has no result"), "the full tier names a dated result file")
        }
        (_, Some(path)) if !repo.paths.contains(path) => {
            say(format!("{id}: result `{path}` does not exist"), "commit the result");
        }
        (Tier::Ci, _) | (Tier::Full, Some(_)) => {}
    }
    wrong
}

fn line_of_id(text: &str, id: &str) -> usize {
    let wanted = format!("id = \"{id}\"");
    text.lines().position(|line| line.trim() == wanted).map_or(1, |index| index + 1)
}

/// Test functions by package: the words of each one's path.
struct TestIndex(BTreeMap<String, Vec<(String, Vec<String>)>>);

impl TestIndex {
    fn of(repo: &Repo) -> Self {
        let mut packages: BTreeMap<&str, &str> = BTreeMap::new();
        for manifest in &repo.files {
            let Some(folder) = manifest.path.strip_suffix("Cargo.toml") else { continue };
            let name = manifest.text.lines().find_map(|line| line.strip_prefix("name = \""));
            packages
                .extend(name.and_then(|name| name.strip_suffix('"')).map(|name| (folder, name)));
        }
        let mut index: BTreeMap<String, Vec<(String, Vec<String>)>> = BTreeMap::new();
        for file in &repo.files {
            // The longest folder wins: `dataplane/proto/` before `dataplane/`.
            let owner = packages.iter().filter(|(folder, _)| file.path.starts_with(**folder));
            let Some((_, package)) = owner.max_by_key(|(folder, _)| folder.len()) else { continue };
            index.entry((*package).to_owned()).or_default().extend(tests_in(file));
        }
        Self(index)
    }

    fn has(&self, repo: &Repo, test: &str) -> bool {
        if let Some(script) = test.strip_prefix("script:") {
            return script.split(' ').next().is_some_and(|path| repo.paths.contains(path));
        }
        let Some(path) = test.strip_prefix("cargo:") else { return false };
        let words: Vec<&str> = path.split("::").collect();
        let [package, within @ .., name] = words.as_slice() else { return false };
        let in_package = self.0.get(*package).into_iter().flatten();
        in_package
            .filter(|(function, _)| function == name)
            .any(|(_, place)| within.iter().all(|word| place.iter().any(|part| part == word)))
    }
}

/// The test functions of a file, each with the words of its place: folders, file and inline
/// modules.
fn tests_in(file: &File) -> Vec<(String, Vec<String>)> {
    let Some(source) = &file.rust else { return Vec::new() };
    let place: Vec<String> =
        file.path.trim_end_matches(".rs").split('/').map(ToOwned::to_owned).collect();
    let tests = source.functions().into_iter().filter(|function| function.is_test);
    let written = tests.map(|test| (test.name, [place.clone(), test.modules].concat()));
    let made = source.tests_made_by_macros().into_iter().map(|name| (name, place.clone()));
    written.chain(made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW_FILE: &str = "[rows]\nPT-1 = { priority = \"must\", sentence = \"WireGuard\" }\n\
                            DP-3 = { priority = \"must\", sentence = \"Batches\" }\n\
                            DP-5 = { priority = \"should\", sentence = \"Zero copy\" }\n\
                            S1-01 = { priority = \"source\", sentence = \"Manager\" }\n\
                            S1-02 = { priority = \"source\", sentence = \"Fields\" }\n";
    const TEST_FILE: &str =
        "mod tests {\n    #[test]\n    fn it_holds() {}\n    fn helper() {}\n}\n";

    fn judged(tier: &str, test: &str, extra: &str) -> Claims {
        let claim = format!(
            "[[claim]]\nid = \"PT-1\"\nsentence = \"s\"\nclaims = \"c\"\ntier = \"{tier}\"\n\
             tests = [\"{test}\"]\nremains = \"\"\n{extra}"
        );
        read(&Repo::of(&[
            (ROWS, ROW_FILE),
            (CLAIMS, &claim),
            ("dataplane/Cargo.toml", "[package]\nname = \"ringway-dataplane\"\n"),
            ("dataplane/proto/Cargo.toml", "[package]\nname = \"ringway-proto\"\n"),
            ("dataplane/proto/src/wireguard/noise.rs", TEST_FILE),
            ("tools/demo", "#!/bin/sh\n"),
            ("perf/results/one.md", ""),
        ]))
    }

    #[test]
    fn a_claim_with_an_existing_test_passes() {
        for test in ["cargo:ringway-proto::wireguard::noise::tests::it_holds", "script:tools/demo"]
        {
            assert_eq!(judged("ci", test, "").findings, [], "{test}");
        }
    }

    #[test]
    fn a_claim_whose_test_is_not_in_the_source_is_found_at_its_line() {
        for test in [
            "cargo:ringway-proto::wireguard::noise::tests::it_is_gone",
            "cargo:ringway-proto::wireguard::cookie::tests::it_holds",
            "cargo:ringway-dataplane::wireguard::noise::tests::it_holds",
            "cargo:ringway-proto::wireguard::noise::tests::helper",
            "script:tools/gone",
            "it_holds",
        ] {
            let claims = judged("ci", test, "");
            assert!(matches!(claims.findings.as_slice(), [one] if one.line == 2), "{test}");
        }
    }

    #[test]
    fn the_full_tier_needs_a_result_that_is_there() {
        let test = "script:tools/demo";
        assert_eq!(judged("full", test, "").findings.len(), 1);
        assert_eq!(judged("full", test, "result = \"perf/results/one.md\"\n").findings, []);
        assert_eq!(judged("full", test, "result = \"perf/results/two.md\"\n").findings.len(), 1);
    }

    #[test]
    fn must_rows_and_source_requirements_without_a_claim_are_told() {
        let claims = judged("ci", "script:tools/demo", "sources = [\"S1-02\"]\n");
        assert_eq!(
            (claims.unclaimed, claims.untouched),
            (vec!["DP-3".into()], vec!["S1-01".into()])
        );
    }

    #[test]
    fn an_unknown_row_or_field_is_found() {
        let more = "[[claim]]\nid = \"ZZ-1\"\nsentence = \"s\"\nclaims = \"c\"\ntier = \"ci\"\n\
                    tests = [\"script:tools/demo\"]\nremains = \"\"\n";
        assert_eq!(judged("ci", "script:tools/demo", more).findings.len(), 1);
        assert_eq!(judged("ci", "script:tools/demo", "colour = \"red\"\n").findings.len(), 1);
    }
}
