//! Words and marks that do not belong into a finished tree, wherever they stand.
//!
//! The words are written in two halves here, so that this file passes its own rules.

use crate::Finding;
use crate::repo::File;

/// Macros that mean "not done", searched in code only.
const CODE_MARKS: &[(&str, &str)] = &[
    ("todo!", "write it, or leave it out"),
    ("unimplemented!", "write it, or leave it out"),
    ("dbg!", "take it out"),
];

/// Marks and attributes, searched in all text of source files and scripts.
const MARKS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it, or say in prose what is missing and why"),
    (concat!("XX", "X"), "mend it, or say in prose what is missing and why"),
    (concat!("TO", "DO"), "do it, or say in prose what is missing and why"),
    (concat!("#[ign", "ore"), "a test runs or does not exist; long ones go to the full tier"),
];

/// Texts that no file may hold, whatever its kind: (text, what to do).
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("crates", ".io"), "name no registry host"),
    (concat!("deb.debian", ".org"), "name no registry host"),
    (concat!("pypi", ".org"), "name no registry host"),
    (concat!("registry.npm", "js"), "name no registry host"),
    (concat!("proxy.go", "lang"), "name no registry host"),
    (concat!("issue", " #"), "say what it is about: the reader has no tracker"),
    (concat!("session", " limit"), "this is about work, not about the product"),
    (concat!("/work", "/"), "no path of one machine"),
    (concat!("/root", "/"), "no path of one machine"),
    (concat!("GOALS", ".md"), "that page is not in the repository"),
    (concat!("STYLE", ".md"), "that page is not in the repository"),
    (concat!("ARCHITECTURE", ".md"), "that page is not in the repository"),
    (concat!("BEGIN PRIV", "ATE KEY"), "no private key in the repository"),
];

/// Words of one file.
pub(crate) fn check(file: &File) -> Vec<Finding> {
    if file.path == "Cargo.lock" || file.is_corpus() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut find = |line: usize, word: &str, fix: &str| {
        findings.push(Finding::new(&file.path, line, format!("`{word}`"), fix));
    };
    for (line, text) in file.lines() {
        for (word, fix) in FORBIDDEN.iter().filter(|(word, _)| text.contains(word)) {
            find(line, word, fix);
        }
        let is_program = file.rust.is_some() || file.is_script();
        for (word, fix) in MARKS.iter().filter(|(word, _)| is_program && has_mark(text, word)) {
            find(line, word, fix);
        }
    }
    let Some(source) = &file.rust else { return findings };
    for (line, text) in source.code.lines().enumerate() {
        for (word, fix) in CODE_MARKS.iter().filter(|(word, _)| text.contains(word)) {
            find(line + 1, word, fix);
        }
    }
    for line in bare_allows(&source.code) {
        find(line, "allow(", "add `reason = \"…\"`: a silenced lint says why");
    }
    findings
}

/// A mark is a word of its own: inside a longer word (a template for mktemp, say) it is none.
fn has_mark(text: &str, mark: &str) -> bool {
    let starts = text.match_indices(mark);
    starts.into_iter().any(|(at, _)| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        let after = text.get(at + mark.len()..).and_then(|tail| tail.chars().next());
        let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !in_word(before) && (mark.starts_with('#') || !in_word(after))
    })
}

/// Lines of attributes that silence a lint and give no reason.
fn bare_allows(code: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for opening in ["[allow(", "[expect("] {
        for (at, _) in code.match_indices(opening) {
            let rest = code.get(at..).unwrap_or_default();
            let attribute = rest.split(']').next().unwrap_or_default();
            if !attribute.contains("reason") {
                lines.push(1 + code.get(..at).unwrap_or_default().matches('\n').count());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&File::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn unfinished_marks_are_found_in_code_and_comments() {
        let text =
            format!("fn a() {{\n    {}(x);\n}}\n// {}: later\n", "dbg!", concat!("FIX", "ME"));
        let mut found = lines("a.rs", &text);
        found.sort_unstable();
        assert_eq!(found, [2, 4]);
    }

    #[test]
    fn a_mark_inside_a_string_or_a_longer_word_is_none() {
        assert!(lines("a.rs", "const A: &str = \"dbg!\"; // mktemp ringway.XXXXXX").is_empty());
    }

    #[test]
    fn a_silenced_lint_needs_a_reason() {
        let text = "#[allow(dead_code)]\n#[allow(\n    dead_code,\n    reason = \"x\"\n)]\n#![expect(dead_code)]";
        let mut found = lines("a.rs", text);
        found.sort_unstable();
        assert_eq!(found, [1, 6]);
    }

    #[test]
    fn forbidden_texts_are_found_in_every_kind_of_file_but_the_lock_file() {
        let text = format!("see {}\n", concat!("GOALS", ".md"));
        assert_eq!(lines("README.md", &text), [1]);
        assert!(lines("Cargo.lock", &text).is_empty());
    }
}
