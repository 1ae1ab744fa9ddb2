//! One line of the log, as people or programs read it.
//!
//! Whatever a line is made of, it stays one line: control characters are escaped, as are the marks
//! that turn the direction of text around. Lengths are bounded, so that nobody outside decides how
//! much is written. Pure: the time is part of the line. This module must not know where lines go.

use std::fmt::Write as _;

use tracing::Level;

use crate::store::ids::Timestamp;

/// Bytes of a message that are kept. A sentence has a few hundred; the rest is somebody's input.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Bytes of the value of a field that are kept.
pub const VALUE_BYTES_MAX: usize = 1024;

/// Fields of a line that are kept; lines of this program have fewer than ten.
pub const FIELDS_MAX: usize = 32;

/// What stands for the rest of a text that was cut.
const CUT: &str = "…";

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, message and fields.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl Format {
    /// All of them, in the order of the manual.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i128),
    /// Another number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

/// What is said, before it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// How urgent.
    pub level: Level,
    /// Where in the program.
    pub target: String,
    /// The sentence.
    pub message: String,
    /// The code of a refusal, from one of the closed lists.
    pub reason: Option<String>,
    /// What else is said, in the order it was said.
    pub fields: Vec<(&'static str, Value)>,
}

/// How a line is dressed for where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dress {
    /// Text or JSON.
    pub format: Format,
    /// Colours, for a terminal.
    pub colours: bool,
    /// For the journal: it keeps the time itself and reads the urgency from a prefix.
    pub journal: bool,
}

impl Line {
    /// Adds a field if there is room. A field called `reason` is the reason of the line.
    pub fn add(&mut self, name: &'static str, value: Value) {
        let value = match (name, value) {
            ("message", Value::Text(text)) => {
                self.message = cut(&text, MESSAGE_BYTES_MAX);
                return;
            }
            ("reason", Value::Text(code)) => {
                self.reason = Some(cut(&code, VALUE_BYTES_MAX));
                return;
            }
            (_, Value::Text(text)) => Value::Text(cut(&text, VALUE_BYTES_MAX)),
            (_, value) => value,
        };
        if self.fields.len() < FIELDS_MAX {
            self.fields.push((name, value));
        }
    }

    /// The line with its end.
    #[must_use]
    pub fn render(&self, dress: Dress) -> String {
        let mut out = String::with_capacity(128 + self.message.len());
        if dress.journal {
            let _ = write!(out, "<{}>", priority(self.level));
        }
        match dress.format {
            Format::Text => self.text(&mut out, dress),
            Format::Json => self.json(&mut out),
        }
        out.push('\n');
        out
    }

    fn text(&self, out: &mut String, dress: Dress) {
        if !dress.journal {
            let _ = write!(out, "{} ", self.at);
        }
        let (on, off) = if dress.colours { (colour(self.level), "\x1b[0m") } else { ("", "") };
        let _ = write!(out, "{on}{:>5}{off} ", self.level.as_str());
        escape(out, &self.target, false);
        out.push_str(": ");
        escape(out, &self.message, false);
        if let Some(reason) = &self.reason {
            out.push_str(" reason=");
            quote_if_needed(out, reason);
        }
        for (name, value) in &self.fields {
            let _ = write!(out, " {name}=");
            match value {
                Value::Text(text) => quote_if_needed(out, text),
                Value::Number(number) => push(out, number),
                Value::Float(number) => push(out, number),
                Value::Bool(truth) => push(out, truth),
            }
        }
    }

    fn json(&self, out: &mut String) {
        let _ = write!(out, "{{\"time\":\"{}\",\"level\":", self.at);
        json_text(out, &self.level.as_str().to_ascii_lowercase());
        out.push_str(",\"target\":");
        json_text(out, &self.target);
        out.push_str(",\"message\":");
        json_text(out, &self.message);
        if let Some(reason) = &self.reason {
            out.push_str(",\"reason\":");
            json_text(out, reason);
        }
        if !self.fields.is_empty() {
            out.push_str(",\"fields\":{");
            for (at, (name, value)) in self.fields.iter().enumerate() {
                // A name that comes twice would be an object that readers take differently.
                if self.fields[..at].iter().any(|(earlier, _)| earlier == name) {
                    continue;
                }
                out.push_str(if at == 0 { "" } else { "," });
                json_text(out, name);
                out.push(':');
                json_value(out, value);
            }
            out.push('}');
        }
        out.push('}');
    }
}

/// At most `bytes_max` bytes of `text`, with a mark if there were more.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max - CUT.len());
    format!("{}{CUT}", &text[..end])
}

/// Whether a character would end the line, move the cursor or turn text around.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Appends `text` without anything dangerous; within quotes, also without quotes.
fn escape(out: &mut String, text: &str, quoted: bool) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' if quoted => out.extend(['\\', character]),
            dangerous if is_dangerous(dangerous) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(dangerous));
            }
            plain => out.push(plain),
        }
    }
}

/// A value that could be taken for the next field stands in quotes.
fn quote_if_needed(out: &mut String, text: &str) {
    let plain = |c: char| c.is_alphanumeric() || "_-.:/@[]+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    escape(out, text, true);
    out.push('"');
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of these are below U+10000: one escape each.
            dangerous if is_dangerous(dangerous) => {
                let _ = write!(out, "\\u{:04x}", u32::from(dangerous));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

fn json_value(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) => json_text(out, text),
        Value::Number(number) => push(out, number),
        Value::Float(number) if number.is_finite() => push(out, number),
        // JSON has no word for these.
        Value::Float(number) => json_text(out, &number.to_string()),
        Value::Bool(truth) => push(out, truth),
    }
}

fn push(out: &mut String, value: &dyn std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The urgency in the numbers of syslog (sd-daemon(3)).
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
