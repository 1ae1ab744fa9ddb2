//! A report for programs: one JSON object. Numbers are in base units; what is not known is `null`,
//! with the reason in `absent`.

use serde_json::{Map, Value, json};

use super::table::Table;
use super::{Cell, Report};

/// Writes it.
#[must_use]
pub fn write(report: &Report) -> String {
    let mut object = Map::new();
    let mut absent = Map::new();
    object.insert("report".to_owned(), json!(report.kind));
    object
        .insert("period".to_owned(), json!({ "from": report.period.from, "to": report.period.to }));
    object.insert("made_at".to_owned(), json!(report.made));
    for (name, _, cell) in &report.values {
        if let Cell::Absent(why) = cell {
            absent.insert((*name).to_owned(), json!(why));
        }
        object.insert((*name).to_owned(), value(cell));
    }
    for table in &report.tables {
        if let Some(why) = table.absent {
            absent.insert(table.name.to_owned(), json!(why));
        }
        object.insert(table.name.to_owned(), rows(table));
    }
    let issues =
        report.issues.iter().map(|issue| json!({ "code": issue.code, "text": issue.text }));
    object.insert("issues".to_owned(), issues.collect());
    object.insert("absent".to_owned(), Value::Object(absent));
    format!("{}\n", Value::Object(object))
}

fn rows(table: &Table) -> Value {
    if table.absent.is_some() {
        return Value::Null;
    }
    let row = |row: &Vec<Cell>| {
        let members = table.columns.iter().zip(row);
        let members = members.map(|((name, _), cell)| ((*name).to_owned(), value(cell)));
        Value::Object(members.collect())
    };
    table.rows.iter().map(row).collect()
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => json!(text),
        Cell::Count(number) | Cell::Bytes(number) => json!(number),
        // Not a number and infinity become null.
        Cell::BitsPerSecond(number) | Cell::Seconds(number) | Cell::Share(number) => json!(number),
        Cell::At(at) => json!(at),
        Cell::Absent(_) => Value::Null,
    }
}
