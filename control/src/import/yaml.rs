//! The YAML of a gateway as a flat list of settings.
//!
//! Read event by event without recursion, so that a file nested a million deep costs no stack.
//! Anchors, aliases and tags are refused: a configuration needs none, and a few lines of them can
//! stand for gigabytes. A key that comes twice is refused too, as readers differ on what it means.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, Span, Tag};

use super::{DEPTH_MAX, SETTINGS_MAX, Setting};

/// Reads the first document; a second one is refused.
pub(super) fn read(text: &str) -> Result<Vec<Setting>, String> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = error.marker();
            format!("line {}: is no YAML: {}", place.line(), error.info())
        })?;
        let line = span.start.line();
        reader.take(event, span).map_err(|why| format!("line {line}: {why}"))?;
    }
    Ok(reader.settings)
}

/// A mapping or a list that has begun.
enum Open {
    /// Keys so far, and the key that waits for its value.
    Mapping { keys: BTreeSet<String>, key: Option<String> },
    /// Plain values so far, its line, and how many elements it has.
    List { values: Vec<String>, line: usize, count: usize },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    settings: Vec<Setting>,
    documents: usize,
    /// Keys, values and elements seen.
    seen: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    Err("a second document is not read".into())
                } else {
                    Ok(())
                }
            }
            Event::Alias(_) => Err("an alias (*name) is not taken: write the value out".to_owned()),
            Event::Scalar(text, _, anchor, tag) => {
                plain(anchor, tag.as_deref())?;
                self.scalar(&text, line)
            }
            Event::SequenceStart(anchor, tag) => {
                plain(anchor, tag.as_deref())?;
                self.begin(Open::List { values: Vec::new(), line, count: 0 })
            }
            Event::MappingStart(anchor, tag) => {
                plain(anchor, tag.as_deref())?;
                self.begin(Open::Mapping { keys: BTreeSet::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
        }
    }

    fn count(&mut self) -> Result<(), String> {
        self.seen += 1;
        if self.seen > SETTINGS_MAX {
            return Err(format!("there are more than {SETTINGS_MAX} settings"));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, line: usize) -> Result<(), String> {
        self.count()?;
        match self.open.last_mut() {
            Some(Open::Mapping { keys, key: key @ None }) => {
                if !keys.insert(text.to_owned()) {
                    return Err(format!("the key {text:?} comes twice"));
                }
                *key = Some(text.to_owned());
                Ok(())
            }
            Some(Open::Mapping { .. }) => {
                let path = self.path();
                self.settings.push(Setting { path, line, values: vec![text.to_owned()] });
                self.value_done();
                Ok(())
            }
            Some(Open::List { values, count, .. }) => {
                values.push(text.to_owned());
                *count += 1;
                Ok(())
            }
            // An empty document is an empty value.
            None if text.is_empty() => Ok(()),
            None => Err("settings are expected, as \"key: value\"".to_owned()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        self.count()?;
        if let Some(Open::Mapping { key: None, .. }) = self.open.last() {
            return Err("a key must be a word".to_owned());
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let path = self.path_of(self.open.len().saturating_sub(1));
        if let Some(Open::List { values, line, count }) = self.open.pop()
            && (count == 0 || !values.is_empty())
        {
            self.settings.push(Setting { path, line, values });
        }
        self.value_done();
        Ok(())
    }

    /// The value of the key, or the element of the list, that was open is complete.
    fn value_done(&mut self) {
        match self.open.last_mut() {
            Some(Open::Mapping { key, .. }) => *key = None,
            Some(Open::List { count, .. }) => *count += 1,
            None => {}
        }
    }

    fn path(&self) -> Vec<String> {
        self.path_of(self.open.len())
    }

    /// Keys of the outermost `depth` that are open; elements of lists by their number.
    fn path_of(&self, depth: usize) -> Vec<String> {
        let keys = self.open.iter().take(depth).filter_map(|open| match open {
            Open::Mapping { key, .. } => key.clone(),
            Open::List { count, .. } => Some(count.to_string()),
        });
        keys.collect()
    }
}

fn plain(anchor: usize, tag: Option<&Tag>) -> Result<(), String> {
    if anchor != 0 {
        return Err("an anchor (&name) is not taken: write the value out".to_owned());
    }
    match tag {
        Some(tag) => Err(format!("the tag {}{} is not taken", tag.handle, tag.suffix)),
        None => Ok(()),
    }
}
