//! The flags of a dispatching proxy, as they stand in a script, as a flat list of settings.
//!
//! Words are split like a shell does without looking anything up: quotes, backslashes, comments.
//! Whether a flag has a value is known for the flags that are known; others take none.

use super::{SETTINGS_MAX, Setting};

/// Flags without a value.
const SWITCHES: &[&str] =
    &["gateway", "auto-config", "debug", "tunnel", "list", "quiet", "version", "help", "h"];

/// Flags with one.
const VALUED: &[&str] = &[
    "gateway-ip",
    "subnet",
    "transparent-port",
    "dns-port",
    "nat-interface",
    "web",
    "lhost",
    "lport",
];

/// Reads all of it.
pub(super) fn read(text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let mut words = words(text)?.into_iter().peekable();
    // The program itself.
    if words.peek().is_some_and(|(word, _)| !word.starts_with('-') && !word.contains('@')) {
        words.next();
    }
    while let Some((word, line)) = words.next() {
        if settings.len() >= SETTINGS_MAX {
            return Err(format!("there are more than {SETTINGS_MAX} flags"));
        }
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            settings.push(Setting { path: vec!["balancer".to_owned()], line, values: vec![word] });
            continue;
        };
        let (name, mut value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if value.is_none() && VALUED.contains(&name) {
            let next = words.next_if(|(next, _)| !next.starts_with('-'));
            let missing = || format!("line {line}: -{name} has no value");
            value = Some(next.ok_or_else(missing)?.0);
        }
        let known = SWITCHES.contains(&name);
        let values = value.or_else(|| known.then(|| "true".to_owned())).into_iter().collect();
        settings.push(Setting { path: vec![name.to_owned()], line, values });
    }
    Ok(settings)
}

/// Words with their lines.
fn words(text: &str) -> Result<Vec<(String, usize)>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut line = 1;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let here = line;
        line += usize::from(character == '\n');
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('"') | None, '\\') => match characters.next() {
                // A line that goes on.
                Some('\n') => line += 1,
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => {}
            },
            (Some(_), inner) => word.get_or_insert_default().push(inner),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => {
                while characters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, space) if space.is_whitespace() => {
                words.extend(word.take().map(|word| (word, here)));
            }
            (None, plain) => word.get_or_insert_default().push(plain),
        }
    }
    if quote.is_some() {
        return Err(format!("line {line}: a quote does not end"));
    }
    words.extend(word.map(|word| (word, line)));
    Ok(words)
}
