//! The committed counts, and what counts as a change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;

/// A case may take this much more than its baseline, in per cent. Counts repeat to less than one;
/// a compiler of another version may move them by more, and then the baseline is blessed anew.
pub const TOLERANCE_PERCENT: f64 = 5.0;

/// Instructions per operation, by case.
pub type Counts = BTreeMap<String, f64>;

/// How a count stands to its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Within the tolerance; change in per cent.
    Same(f64),
    /// Fewer; change in per cent. Worth blessing, so that it is not lost again.
    Better(f64),
    /// More; change in per cent. Fails.
    Worse(f64),
    /// The baseline does not know the case. Fails.
    New,
}

impl Verdict {
    /// Whether the gate stays open.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Same(_) | Self::Better(_) => true,
            Self::Worse(_) | Self::New => false,
        }
    }
}

/// Compares a count with the baseline.
#[must_use]
pub fn judge(baseline: &Counts, name: &str, count: f64) -> Verdict {
    let Some(before) = baseline.get(name) else { return Verdict::New };
    let change = (count / before - 1.0) * 100.0;
    if change > TOLERANCE_PERCENT {
        Verdict::Worse(change)
    } else if change < -TOLERANCE_PERCENT {
        Verdict::Better(change)
    } else {
        Verdict::Same(change)
    }
}

/// Reads `baseline.toml`.
///
/// # Errors
/// If it is not a table of numbers.
pub fn parse(text: &str) -> anyhow::Result<Counts> {
    let mut file: BTreeMap<String, Counts> =
        toml::from_str(text).context("baseline.toml is no table of numbers")?;
    file.remove("instructions").context("baseline.toml has no table [instructions]")
}

/// Writes `baseline.toml`; `made_with` says by which compiler and profile.
#[must_use]
pub fn format(counts: &Counts, made_with: &str) -> String {
    let mut text = format!(
        "# Instructions per operation, counted by callgrind. Do not edit: bless.\n\
         # Made with: {made_with}\n\n[instructions]\n"
    );
    for (name, count) in counts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\"{name}\" = {count:.2}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn counts() -> Counts {
        Counts::from([("a/b".to_owned(), 100.0), ("c".to_owned(), 0.25)])
    }

    #[test]
    fn what_is_blessed_is_read_back() {
        assert_eq!(parse(&format(&counts(), "rustc")).unwrap(), counts());
    }

    #[test]
    fn a_file_that_is_no_baseline_is_an_error() {
        for text in ["", "x", "[instructions]\na = \"b\"", "[other]\na = 1.0"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn more_than_the_tolerance_closes_the_gate() {
        let judged = |count| judge(&counts(), "a/b", count);
        assert!(judged(104.9).passes());
        assert!(!judged(105.1).passes());
        assert!(matches!(judged(105.1), Verdict::Worse(_)));
        assert!(matches!(judged(90.0), Verdict::Better(change) if (change + 10.0).abs() < 1e-9));
        assert!(judged(90.0).passes());
        assert!(!judge(&counts(), "unknown", 1.0).passes());
    }
}
