//! A list in a report: named columns, and rows of as many cells.

use super::Cell;

/// A list.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// For programs.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// For programs and for people.
    pub columns: Vec<(&'static str, &'static str)>,
    /// Rows; each has a cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// Why there are no rows, if they could not be counted at all.
    pub absent: Option<&'static str>,
}

impl Table {
    /// A list of what was counted.
    #[must_use]
    pub const fn new(
        name: &'static str,
        title: &'static str,
        columns: Vec<(&'static str, &'static str)>,
        rows: Vec<Vec<Cell>>,
    ) -> Self {
        Self { name, title, columns, rows, absent: None }
    }

    /// A list of what is not counted, and why.
    #[must_use]
    pub const fn absent(name: &'static str, title: &'static str, why: &'static str) -> Self {
        Self { name, title, columns: Vec::new(), rows: Vec::new(), absent: Some(why) }
    }
}
