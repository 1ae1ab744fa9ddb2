//! A report for people, to be printed: one page of HTML that needs nothing from anywhere.
//!
//! No script, no picture, no font, no address: the page may be opened years later without a
//! network, and nobody hears of it. Everything that is not fixed text is escaped.

use std::fmt::Write as _;

use super::table::Table;
use super::{Cell, Report};

/// Media type of the text.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// What a server should send with the page: it may load nothing and run nothing.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const STYLE: &str = "body{font:14px/1.5 sans-serif;margin:2em auto;max-width:60em;color:#222}\
    h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}\
    table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid #ddd}\
    td.n{text-align:right;font-variant-numeric:tabular-nums}.a{color:#777}\
    .issue{border-left:4px solid #c60;padding-left:.8em}\
    @media print{body{margin:0;max-width:none}h2{break-after:avoid}tr{break-inside:avoid}}";

/// Writes it.
#[must_use]
pub fn write(report: &Report) -> String {
    let mut out = String::with_capacity(16 << 10);
    let title = escape(report.title);
    let policy = escape(CONTENT_SECURITY_POLICY.split("; frame-").next().unwrap_or_default());
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p>From {} to {} (UTC). Made {}.</p>\n",
        report.period.from, report.period.to, report.made
    );
    for issue in &report.issues {
        let _ = writeln!(out, "<p class=\"issue\">{}</p>", escape(&issue.text));
    }
    out.push_str("<table>\n");
    for (_, name, cell) in &report.values {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        data(&mut out, cell);
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
    report.tables.iter().for_each(|list| table(&mut out, list));
    out.push_str("</body>\n</html>\n");
    out
}

fn table(out: &mut String, table: &Table) {
    let _ = writeln!(out, "<h2>{}</h2>", escape(table.title));
    if let Some(why) = table.absent {
        let _ = writeln!(out, "<p class=\"a\">Not known: {}.</p>", escape(why));
        return;
    }
    if table.rows.is_empty() {
        out.push_str("<p class=\"a\">None.</p>\n");
        return;
    }
    out.push_str("<table>\n<thead><tr>");
    for (_, name) in &table.columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        row.iter().for_each(|cell| data(out, cell));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n");
}

fn data(out: &mut String, cell: &Cell) {
    let class = match cell {
        Cell::Text(_) | Cell::At(_) => "",
        Cell::Absent(_) => " class=\"a\"",
        Cell::Count(_)
        | Cell::Bytes(_)
        | Cell::BitsPerSecond(_)
        | Cell::Seconds(_)
        | Cell::Share(_) => " class=\"n\"",
    };
    let _ = write!(out, "<td{class}>{}</td>", escape(&cell.to_string()));
}

/// Text as text: nothing in it is markup, and nothing turns the direction of the page around.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            plain => out.push(plain),
        }
    }
    out
}
