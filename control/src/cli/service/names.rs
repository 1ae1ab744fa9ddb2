//! Names for identifiers, so that tables can be read: records refer to each other by identifier.
//!
//! Few are asked for one by one, many at once. Whoever may not see them, or finds them gone, reads
//! the identifier.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Desk;
use crate::cli::client::path;
use crate::cli::show;

/// More than so many are asked for with all others.
const ONE_BY_ONE_MAX: usize = 8;

/// Names of records of one kind.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Learns the names of those of `kind` (`users`) that stand at `pointer` of some rows.
    pub(crate) fn of<'a>(
        desk: &Desk,
        kind: &str,
        rows: impl IntoIterator<Item = &'a Value>,
        pointer: &str,
    ) -> Self {
        let ids = rows.into_iter().filter_map(|row| row.pointer(pointer)?.as_str());
        let ids: BTreeSet<&str> = ids.collect();
        let mut names = Self::default();
        if ids.len() > ONE_BY_ONE_MAX {
            let Ok(all) = desk.client.pages(&path(&[kind]), &[]) else { return names };
            for record in all["items"].as_array().into_iter().flatten() {
                names.learn(record);
            }
            return names;
        }
        for id in ids {
            let Ok(found) = desk.client.get_json(&path(&[kind, id])) else { continue };
            // Some are shown with more around them.
            let inner = found.get(kind.trim_end_matches('s')).filter(|inner| inner.is_object());
            names.learn(inner.unwrap_or(&found));
        }
        names
    }

    fn learn(&mut self, record: &Value) {
        if let (Some(id), Some(_)) = (record["id"].as_str(), record["name"].as_str()) {
            self.0.insert(id.to_owned(), show::word(record, "/name"));
        }
    }

    /// What stands at `pointer` of `row`, by name if it is known.
    pub(crate) fn at(&self, row: &Value, pointer: &str) -> String {
        let id = show::word(row, pointer);
        self.0.get(&id).cloned().unwrap_or(id)
    }
}
