//! What is wrong in a configuration file, where, and what to write instead.
//!
//! A problem names line and column and quotes the line, except where it could hold a secret.

use std::fmt;
use std::ops::Range;

use crate::failure::{Failure, Status};

/// One thing that is wrong, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 if it concerns no line (a flag, or the file as a whole).
    pub line: usize,
    /// Column in characters, from 1; 0 if it concerns no line.
    pub column: usize,
    /// What, why, and what to write instead.
    pub message: String,
    /// The line itself, if it may be shown.
    quoted: Option<String>,
}

/// Everything that is wrong in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file as the operator named it.
    pub file: String,
    /// At least one, in the order of the file.
    pub list: Vec<Problem>,
}

impl Problem {
    /// A problem of the file as a whole, or of a flag.
    #[must_use]
    pub fn general(message: String) -> Self {
        Self { line: 0, column: 0, message, quoted: None }
    }

    /// A problem at bytes `span` of the text behind `lines`.
    pub(super) fn at(lines: &Lines<'_>, span: &Range<usize>, message: String) -> Self {
        let (line, column) = lines.position(span.start);
        let quoted = Some(lines.line(line)).filter(|line| !may_hold_a_secret(line));
        Self { line, column, message, quoted: quoted.map(|line| line.trim_end().to_owned()) }
    }

    /// `FILE:LINE:COLUMN: message`, and the line below it.
    #[must_use]
    pub fn show(&self, file: &str) -> String {
        if self.line == 0 {
            return format!("{file}: {}", self.message);
        }
        let head = format!("{file}:{}:{}: {}", self.line, self.column, self.message);
        match &self.quoted {
            Some(quoted) => format!("{head}\n    {} | {quoted}", self.line),
            None => head,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.list.iter().map(|problem| problem.show(&self.file)).collect();
        f.write_str(&shown.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(Status::Config, problems.to_string())
    }
}

/// A text with the places of its lines, so that finding one does not mean reading all before it.
pub(super) struct Lines<'a> {
    pub(super) text: &'a str,
    /// Offset of the first byte of each line.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Line and column, both from 1, of the byte at `offset`.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// A line by its number from 1, without its end.
    fn line(&self, number: usize) -> &'a str {
        let start = self.starts.get(number - 1).copied().unwrap_or(self.text.len());
        self.text[start..].lines().next().unwrap_or_default()
    }
}

/// Lines of keys are never printed: a private key may have been pasted into the wrong place.
fn may_hold_a_secret(line: &str) -> bool {
    line.contains("key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        assert_eq!(Lines::new("").position(0), (1, 1));
        assert_eq!(Lines::new("ab\nc").position(3), (2, 1));
        assert_eq!(Lines::new("ab\nc").position(2), (1, 3));
        assert_eq!(Lines::new("ä=1").position(2), (1, 2));
        assert_eq!(Lines::new("ab").position(99), (1, 3));
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_quoted() {
        let text = "preshared_key = \"hunter2\"\nmtu = 1\n";
        let text = &Lines::new(text);
        let secret = Problem::at(text, &(16..25), "is no key".to_owned());
        let plain = Problem::at(text, &(32..33), "too small".to_owned());
        assert_eq!(secret.show("f"), "f:1:17: is no key");
        assert_eq!(plain.show("f"), "f:2:7: too small\n    2 | mtu = 1");
    }
}
