//! The grammar of OpenMetrics text, so that whoever writes a family cannot break it.
//!
//! A family is begun once, with its type, unit and help; its samples follow. Label values may be
//! anybody's text: they are bounded and escaped here and nowhere else. This module must not know
//! what is measured.

use std::fmt::{Display, Write};

/// Characters of a label value that are kept. Names of users and devices have at most 64.
pub const LABEL_CHARS_MAX: usize = 64;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Quantiles.
    Summary,
    /// Text in labels.
    Info,
}

impl Type {
    /// The word in the format and in the manual.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Info => "info",
        }
    }
}

/// Begins a family: its head.
pub fn head(out: &mut String, name: &str, kind: Type, help: &str) {
    line(out, format_args!("# TYPE {name} {}", kind.word()));
    if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| ends_with_unit(name, unit)) {
        line(out, format_args!("# UNIT {name} {unit}"));
    }
    out.push_str("# HELP ");
    out.push_str(name);
    out.push(' ');
    escape(out, help);
    out.push('\n');
}

/// One sample of the family `name`.
pub fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    value: impl Display,
) {
    out.push_str(name);
    out.push_str(suffix);
    for (at, (label, text)) in labels.iter().enumerate() {
        out.push_str(if at == 0 { "{" } else { "," });
        out.push_str(label);
        out.push_str("=\"");
        escape(out, text);
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    line(out, format_args!(" {value}"));
}

/// A number that is not whole.
#[must_use]
pub fn real(value: f64) -> String {
    format!("{value:?}")
}

/// Text of somebody outside as a label value: bounded, and without what would not be seen.
#[must_use]
pub fn bounded(text: &str) -> String {
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(LABEL_CHARS_MAX).map(visible).collect()
}

/// Escapes what the format wants escaped.
pub fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Appends a line.
pub fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn ends_with_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'))
}
