//! The TOML of a proxy server as a flat list of settings.

use toml_edit::{Document, Item, Value};

use super::{DEPTH_MAX, SETTINGS_MAX, Setting};

/// Reads all of it.
pub(super) fn read(text: &str) -> Result<Vec<Setting>, String> {
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("line {line}: is no TOML: {}", error.message().lines().next().unwrap_or_default())
    })?;
    let mut reader = Reader { text, settings: Vec::new(), path: Vec::new() };
    reader.item(document.as_item())?;
    Ok(reader.settings)
}

/// Goes down by recursion, which the parser has bounded already and [`DEPTH_MAX`] bounds again.
struct Reader<'a> {
    text: &'a str,
    settings: Vec<Setting>,
    path: Vec<String>,
}

impl Reader<'_> {
    fn item(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::None => Ok(()),
            Item::Value(value) => self.value(value),
            Item::Table(table) => table
                .iter()
                .try_for_each(|(key, item)| self.within(key, |reader| reader.item(item))),
            Item::ArrayOfTables(tables) => {
                for (at, table) in tables.iter().enumerate() {
                    self.within(&at.to_string(), |reader| {
                        table.iter().try_for_each(|(key, item)| {
                            reader.within(key, |reader| reader.item(item))
                        })
                    })?;
                }
                Ok(())
            }
        }
    }

    fn value(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::InlineTable(table) => table
                .iter()
                .try_for_each(|(key, value)| self.within(key, |reader| reader.value(value))),
            Value::Array(array) if array.iter().any(|element| plain(element).is_none()) => {
                for (at, element) in array.iter().enumerate() {
                    self.within(&at.to_string(), |reader| reader.value(element))?;
                }
                Ok(())
            }
            Value::Array(array) => self.push(value, array.iter().filter_map(plain).collect()),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => self.push(value, plain(value).into_iter().collect()),
        }
    }

    fn push(&mut self, value: &Value, values: Vec<String>) -> Result<(), String> {
        if self.settings.len() >= SETTINGS_MAX {
            return Err(format!("there are more than {SETTINGS_MAX} settings"));
        }
        let line = value.span().map_or(1, |span| line_of(self.text, span.start));
        self.settings.push(Setting { path: self.path.clone(), line, values });
        Ok(())
    }

    fn within(
        &mut self,
        key: &str,
        look: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.path.len() >= DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        self.path.push(key.to_owned());
        let outcome = look(self);
        self.path.pop();
        outcome
    }
}

/// The text of a value that is neither list nor table.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(truth) => Some(truth.value().to_string()),
        Value::Datetime(time) => Some(time.value().to_string()),
        Value::Array(_) | Value::InlineTable(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}
