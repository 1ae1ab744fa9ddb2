//! Reports of a time: who used how much, and how well it went.
//!
//! [`usage`] and [`performance`] add up plain rows that whoever has records and counters brings;
//! [`json`], [`csv`] and [`html`] write the result. Names of people come from outside, so each
//! writer escapes what its readers could take for something else. Pure: the time of making is an
//! argument. This module must not know where rows come from.

pub mod csv;
pub mod html;
pub mod json;
pub mod performance;
pub mod table;
#[cfg(test)]
mod tests;
pub mod usage;

use std::fmt;

use crate::store::ids::Timestamp;

/// Users and devices that a report names: a page of a person's attention.
pub const TOP: usize = 20;

/// The time that a report is about: from `from`, before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// First moment.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
}

/// Why a period cannot be reported on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// It ends before it begins.
    #[error("The period ends before it begins: give a later end")]
    Empty,
    /// Longer than ten years.
    #[error("The period is longer than ten years: give a shorter one")]
    TooLong,
}

/// Milliseconds of ten years.
const LONGEST_MS: i64 = 3653 * 86_400_000;

impl Period {
    /// Checks a period that somebody asked for.
    ///
    /// # Errors
    /// [`PeriodError`].
    pub const fn new(from: Timestamp, to: Timestamp) -> Result<Self, PeriodError> {
        match to.since(from) {
            ..=0 => Err(PeriodError::Empty),
            1..=LONGEST_MS => Ok(Self { from, to }),
            _ => Err(PeriodError::TooLong),
        }
    }

    /// How long it is, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to.since(self.from) as f64 / 1e3
    }
}

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What, in a word: from a closed list, for programs.
    pub code: &'static str,
    /// What, and what to do.
    pub text: String,
}

/// A value in a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A count.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    /// Bits per second.
    BitsPerSecond(f64),
    /// Seconds.
    Seconds(f64),
    /// A share, 0 to 1.
    Share(f64),
    /// A moment.
    At(Timestamp),
    /// Not known, and why.
    Absent(&'static str),
}

impl Cell {
    /// A value, or why there is none.
    pub(crate) fn or<T>(value: Option<T>, make: impl FnOnce(T) -> Self, why: &'static str) -> Self {
        value.map_or(Self::Absent(why), make)
    }
}

impl fmt::Display for Cell {
    /// For people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Count(count) => write!(f, "{count}"),
            Self::Bytes(bytes) => {
                scaled(f, *bytes as f64, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
            }
            Self::BitsPerSecond(bits) => {
                scaled(f, *bits, 1000.0, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
            }
            Self::Seconds(seconds) if *seconds >= 1.0 => write!(f, "{seconds:.1} s"),
            Self::Seconds(seconds) if *seconds >= 1e-3 => write!(f, "{:.1} ms", seconds * 1e3),
            Self::Seconds(seconds) => write!(f, "{:.1} us", seconds * 1e6),
            Self::Share(share) => write!(f, "{:.2} %", share * 100.0),
            Self::At(at) => write!(f, "{at}"),
            Self::Absent(why) => write!(f, "- ({why})"),
        }
    }
}

fn scaled(f: &mut fmt::Formatter<'_>, value: f64, step: f64, units: [&str; 5]) -> fmt::Result {
    let mut value = value;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 {
        write!(f, "{value:.0} {}", units[0])
    } else {
        write!(f, "{value:.1} {}", units[unit])
    }
}

/// A report, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `usage` or `performance`.
    pub kind: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it is about.
    pub period: Period,
    /// When it was made.
    pub made: Timestamp,
    /// Single values: name for programs, name for people, value.
    pub values: Vec<(&'static str, &'static str, Cell)>,
    /// Lists.
    pub tables: Vec<table::Table>,
    /// What an operator should look at.
    pub issues: Vec<Issue>,
}
