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

    /// A problem at bytes `span` of `text`.
    #[must_use]
    pub fn at(text: &str, span: &Range<usize>, message: String) -> Self {
        let (line, column) = position(text, span.start);
        let quoted = text.lines().nth(line - 1).filter(|line| !may_hold_a_secret(line));
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

/// Line and column, both from 1, of the byte at `offset`.
#[must_use]
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
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
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab\nc", 3), (2, 1));
        assert_eq!(position("ä=1", 2), (1, 2));
        assert_eq!(position("ab", 99), (1, 3));
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_quoted() {
        let text = "preshared_key = \"hunter2\"\nmtu = 1\n";
        let secret = Problem::at(text, &(16..25), "is no key".to_owned());
        let plain = Problem::at(text, &(32..33), "too small".to_owned());
        assert_eq!(secret.show("f"), "f:1:17: is no key");
        assert_eq!(plain.show("f"), "f:2:7: too small\n    2 | mtu = 1");
    }
}
