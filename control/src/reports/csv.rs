//! A report for spreadsheets: CSV as RFC 4180 has it, in parts with an empty line between them.
//!
//! A spreadsheet runs a cell that begins like a formula, whoever named the user. Such a text gets
//! an apostrophe in front, which spreadsheets show as nothing; numbers are numbers.

use super::{Cell, Report};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// Writes it.
#[must_use]
pub fn write(report: &Report) -> String {
    let mut out = String::new();
    row(&mut out, ["name", "value"].map(plain));
    row(&mut out, [plain("report"), plain(report.kind)]);
    row(&mut out, [plain("from"), plain(&report.period.from.to_string())]);
    row(&mut out, [plain("to"), plain(&report.period.to.to_string())]);
    row(&mut out, [plain("made_at"), plain(&report.made.to_string())]);
    for (name, _, cell) in &report.values {
        row(&mut out, [plain(name), field(cell)]);
    }
    for table in report.tables.iter().filter(|table| table.absent.is_none()) {
        out.push_str("\r\n");
        row(&mut out, [plain("table"), plain(table.name)]);
        row(&mut out, table.columns.iter().map(|(name, _)| plain(name)));
        for cells in &table.rows {
            row(&mut out, cells.iter().map(field));
        }
    }
    if !report.issues.is_empty() {
        out.push_str("\r\n");
        row(&mut out, [plain("table"), plain("issues")]);
        row(&mut out, ["code", "text"].map(plain));
        for issue in &report.issues {
            row(&mut out, [plain(issue.code), plain(&issue.text)]);
        }
    }
    out
}

fn row(out: &mut String, fields: impl IntoIterator<Item = String>) {
    let fields: Vec<String> = fields.into_iter().collect();
    out.push_str(&fields.join(","));
    out.push_str("\r\n");
}

fn field(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => plain(text),
        Cell::Count(number) | Cell::Bytes(number) => number.to_string(),
        Cell::BitsPerSecond(number) | Cell::Seconds(number) | Cell::Share(number) => {
            number.to_string()
        }
        Cell::At(at) => plain(&at.to_string()),
        Cell::Absent(_) => String::new(),
    }
}

/// A text, quoted where it must be, and never a formula. Spreadsheets look past white space.
fn plain(text: &str) -> String {
    let begins = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
    let formula = begins.starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠'])
        || text.starts_with(['\t', '\r', '\n']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    let safe: String = text.chars().map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect();
    if safe.contains([',', '"', '\r', '\n', ';', '\t']) || safe.trim() != safe {
        return format!("\"{}\"", safe.replace('"', "\"\""));
    }
    safe
}
