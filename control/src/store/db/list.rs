//! Lists by key: conditions, order, and one row more than was asked for, which says whether there
//! is a next page. This module must not know a record.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{PAGE_ROWS_MAX, Page, Rows};
use super::{Columns, Db};

/// Conditions with their parameters.
#[derive(Default)]
pub(super) struct Where {
    text: String,
    values: Vec<Value>,
}

impl Where {
    /// Adds `condition`, which ends where its parameter comes, if there is a value.
    pub(super) fn and(&mut self, condition: &str, value: Option<impl Into<Value>>) -> &mut Self {
        let Some(value) = value else { return self };
        self.values.push(value.into());
        let word = if self.text.is_empty() { "WHERE" } else { " AND" };
        self.text.push_str(&format!("{word} {condition} ${}", self.values.len()));
        self
    }

    /// Adds that `column` contains `part`, letter by letter.
    pub(super) fn and_contains(&mut self, column: &str, part: Option<&String>) -> &mut Self {
        let Some(part) = part else { return self };
        let mut pattern = String::from("%");
        for letter in part.chars() {
            if matches!(letter, '%' | '_' | '!') {
                pattern.push('!');
            }
            pattern.push(letter);
        }
        pattern.push('%');
        self.and(&format!("{column} LIKE"), Some(pattern));
        self.text.push_str(" ESCAPE '!'");
        self
    }
}

/// What makes up a list.
pub(super) struct List {
    /// For errors.
    pub(super) table: &'static str,
    /// `SELECT … FROM …`.
    pub(super) select: String,
    /// Which rows.
    pub(super) filter: Where,
    /// The column that orders rows, and is different in each.
    pub(super) key: &'static str,
    /// Whether keys are numbers rather than text.
    pub(super) is_numeric: bool,
    /// From the last on.
    pub(super) is_reversed: bool,
}

impl List {
    /// A list in the order of a text.
    pub(super) fn by_text(table: &'static str, select: String, key: &'static str) -> Self {
        let filter = Where::default();
        Self { table, select, filter, key, is_numeric: false, is_reversed: false }
    }

    /// A list in the order of a number.
    pub(super) fn by_number(table: &'static str, select: String, key: &'static str) -> Self {
        Self { is_numeric: true, ..Self::by_text(table, select, key) }
    }
}

impl Db<'_> {
    /// A page of `list`.
    pub(super) fn page<T>(
        &mut self,
        mut list: List,
        page: &Page,
        read: impl Fn(&mut Columns) -> Result<T, StoreError>,
        key: impl Fn(&T) -> String,
    ) -> Result<Rows<T>, StoreError> {
        if page.limit == 0 || page.limit > PAGE_ROWS_MAX {
            let why = format!("a page has 1 to {PAGE_ROWS_MAX} rows, not {}", page.limit);
            return Err(StoreError::Invalid { why });
        }
        let after = page.after.as_ref().map(|after| cursor(after, list.is_numeric)).transpose()?;
        let (comparison, order) = if list.is_reversed { ("<", "DESC") } else { (">", "ASC") };
        list.filter.and(&format!("{} {comparison}", list.key), after);
        let Where { text, mut values } = list.filter;
        values.push(Value::from(page.limit + 1));
        let sql =
            format!("{} {text} ORDER BY {} {order} LIMIT ${}", list.select, list.key, values.len());
        let rows = self.query(list.table, &sql, &values)?;
        let items: Result<Vec<T>, StoreError> =
            rows.into_iter().map(|mut row| read(&mut row)).collect();
        let mut items = items?;
        let wanted = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let is_more = items.len() > wanted;
        items.truncate(wanted);
        let next = items.last().filter(|_| is_more).map(key);
        Ok(Rows { items, next })
    }
}

fn cursor(after: &str, is_numeric: bool) -> Result<Value, StoreError> {
    if !is_numeric {
        return Ok(Value::from(after));
    }
    let number = after.parse::<i64>().map(Value::Int);
    number.map_err(|_| StoreError::Invalid {
        why: format!("\"{after}\" is no place in this list; pass on \"next\" of the page before"),
    })
}
