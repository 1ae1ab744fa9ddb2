//! What a change changed: the fields of a record before and after.
//!
//! Pure, but for the printing at its end.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Desk;
use crate::cli::client::Answer;
use crate::cli::show;
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// Shows a change: the record's JSON, its name, or the fields that changed.
pub(crate) fn shown(
    desk: &Desk,
    before: &Value,
    answer: &Answer,
    what: &str,
) -> Result<Status, Failure> {
    if desk.show.json || desk.show.quiet {
        return desk.done(answer, "/name", "");
    }
    let fields = fields(before, &answer.json()?);
    if fields.is_empty() {
        super::say(&format!("{what} was so already"));
        return Ok(Status::Done);
    }
    let mut table = Table::new(&["FIELD", "BEFORE", "NOW"]);
    for (field, old, new) in fields {
        table.push(vec![field, old, new]);
    }
    super::say(&format!("Changed {what}"));
    desk.table(&table)
}

/// The fields that differ, each with its values.
fn fields(before: &Value, after: &Value) -> Vec<(String, String, String)> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    leaves(before, String::new(), &mut old);
    leaves(after, String::new(), &mut new);
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let nothing = || show::NOTHING.to_owned();
    let value = |of: &BTreeMap<String, String>, name: &String| {
        of.get(name).cloned().unwrap_or_else(nothing)
    };
    let rows = names.into_iter().map(|name| (name.clone(), value(&old, name), value(&new, name)));
    // That it has another version now goes without saying.
    rows.filter(|(name, old, new)| old != new && name != "version").collect()
}

fn leaves(value: &Value, name: String, out: &mut BTreeMap<String, String>) {
    if let Value::Object(map) = value {
        for (key, inner) in map {
            let dot = if name.is_empty() { "" } else { "." };
            leaves(inner, format!("{name}{dot}{key}"), out);
        }
        return;
    }
    let shown = match value.as_u64() {
        Some(bits) if name.ends_with("_bps") => show::bps(bits),
        Some(bytes) if name.ends_with("bytes") => show::bytes(bytes),
        _ if name.ends_with("_at") => show::moment(value, ""),
        _ => show::word(value, ""),
    };
    out.insert(name, shown);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_shown_and_in_units() {
        let before = json!({"name": "ada", "rate": null, "version": 1,
            "quota": {"bytes": 1_073_741_824_u64}, "expires_at": null});
        let after = json!({"name": "ada", "rate": {"down_bps": 20_000_000, "up_bps": null},
            "version": 2, "quota": null, "expires_at": "2027-01-31T00:00:00.000Z"});
        let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            fields(&before, &after),
            [
                row("expires_at", "-", "2027-01-31 00:00Z"),
                row("quota.bytes", "1 GiB", "-"),
                row("rate.down_bps", "-", "20 Mbit/s"),
            ]
        );
        assert!(fields(&after, &after).is_empty());
    }
}
