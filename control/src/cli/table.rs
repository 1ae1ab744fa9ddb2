//! Tables and lists of facts for a terminal: aligned, and cut to its width unless all is asked for.
//!
//! Widths are those of a terminal (a CJK character takes two columns). Where the lines do not fit,
//! the widest columns give way first, and what is cut ends with `…`. Pure: the width is an
//! argument.

use ratatui::text::Span;

/// Columns between two columns.
const GAP: usize = 2;
/// No column is cut below this.
const WIDTH_MIN: usize = 6;

/// Rows under their headings.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    /// Whether the column stands to the right, as numbers do.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; one that begins with `>` has its column stand to the right.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.iter().map(|head| head.trim_start_matches('>')).collect(),
            right: heads.iter().map(|head| head.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The table as lines, in at most `width` columns.
    pub(crate) fn lines(&self, width: Option<usize>) -> String {
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let widths = self.widths(width);
        let mut out = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let cell = cut(cell, widths[at]);
                let space = " ".repeat(widths[at].saturating_sub(columns(&cell)));
                let (before, after) =
                    if self.right[at] { (space.as_str(), "") } else { ("", space.as_str()) };
                line.push_str(&format!("{before}{cell}{after}{}", " ".repeat(GAP)));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn widths(&self, most: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(|head| columns(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(columns(cell));
            }
        }
        let Some(most) = most else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > most {
            match widths.iter_mut().max() {
                Some(widest) if *widest > WIDTH_MIN => *widest -= 1,
                // It does not fit, whatever is done.
                _ => break,
            }
        }
        widths
    }
}

/// Names and values, one on a line.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let longest = facts.iter().map(|(name, _)| columns(name)).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        format!("{name}:{}{value}\n", " ".repeat(longest - columns(name) + 1))
    };
    facts.iter().map(line).collect()
}

/// Columns that a text takes in a terminal.
pub(crate) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let next = format!("{out}{c}");
        if columns(&next) >= width {
            break;
        }
        out = next;
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(cells: &[[&str; 3]]) -> Table {
        let mut table = Table::new(&["NAME", ">BYTES", "WHY"]);
        for row in cells {
            table.push(row.iter().map(|cell| (*cell).to_owned()).collect());
        }
        table
    }

    #[test]
    fn words_stand_left_and_numbers_right() {
        let table = table(&[["ada", "1 KiB", "-"], ["grace-hopper", "1023 MiB", "asked"]]);
        assert_eq!(
            table.lines(None),
            "NAME             BYTES  WHY\n\
             ada              1 KiB  -\n\
             grace-hopper  1023 MiB  asked\n"
        );
    }

    #[test]
    fn the_widest_column_gives_way_first() {
        let table = table(&[["ada", "1 KiB", "a very long reason indeed"]]);
        assert_eq!(table.lines(Some(24)), "NAME  BYTES  WHY\nada   1 KiB  a very lon…\n");
    }

    #[test]
    fn wide_letters_take_two_columns() {
        let table = table(&[["漢字", "1", "x"], ["ab", "2", "y"]]);
        let lines = table.lines(None);
        let rows: Vec<&str> = lines.lines().skip(1).collect();
        assert_eq!(columns(rows[0]), columns(rows[1]));
        assert_eq!(cut("漢字漢字", 5), "漢字…");
    }

    #[test]
    fn facts_stand_under_each_other() {
        let shown = facts(&[("Name", "ada".to_owned()), ("Devices", "2".to_owned())]);
        assert_eq!(shown, "Name:    ada\nDevices: 2\n");
    }

    proptest! {
        #[test]
        fn lines_fit_the_terminal(
            cells in proptest::collection::vec("[a-z漢é]{0,60}", 3..30), width in 30_usize..200
        ) {
            let mut table = Table::new(&["ONE", ">TWO", "THREE"]);
            for row in cells.chunks_exact(3) {
                table.push(row.to_vec());
            }
            for line in table.lines(Some(width)).lines() {
                prop_assert!(columns(line) <= width, "{line}");
            }
        }
    }
}
