//! A configuration without its preshared keys, and with them again.
//!
//! A redacted value that comes back means "as it is": it is looked up by the public key of its
//! peer. A text that is no TOML is shown too (somebody has to mend it), with everything masked that
//! could be a key. Pure.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Item, TableLike, Value};
use zeroize::Zeroizing;

/// What stands in the place of a preshared key.
pub const REDACTED: &str = "(redacted)";

/// The key that holds a secret.
const SECRET: &str = "preshared_key";

/// The text without preshared keys.
#[must_use]
pub fn redact(text: &str) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else { return mask(text) };
    let mut touched = false;
    each_peer(&mut document, |peer| {
        if let Some(value) = peer.get_mut(SECRET).and_then(Item::as_value_mut) {
            put(value, REDACTED);
            touched = true;
        }
    });
    // Untouched, the text stays as it is to the byte.
    if touched { document.to_string() } else { text.to_owned() }
}

/// `text` with the keys of `before` where it says [`REDACTED`].
///
/// # Errors
/// Public keys (or names) of peers whose preshared key is not in `before`. A text that is no TOML
/// comes back as it is: whoever parses it says what is wrong.
pub fn restore(text: &str, before: &str) -> Result<Zeroizing<String>, Vec<String>> {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(Zeroizing::new(text.to_owned()));
    };
    let mut known: BTreeMap<String, Zeroizing<String>> = BTreeMap::new();
    if let Ok(mut before) = before.parse::<DocumentMut>() {
        each_peer(&mut before, |peer| {
            let secret = peer.get(SECRET).and_then(Item::as_str).map(str::to_owned);
            if let (Some(public), Some(secret)) = (word(peer, "public_key"), secret) {
                known.insert(public, Zeroizing::new(secret));
            }
        });
    }
    let mut missing = Vec::new();
    let mut touched = false;
    each_peer(&mut document, |peer| {
        let public = word(peer, "public_key").unwrap_or_default();
        let name = word(peer, "name");
        let value = peer.get_mut(SECRET).and_then(Item::as_value_mut);
        let Some(value) = value.filter(|value| value.as_str() == Some(REDACTED)) else { return };
        match known.get(&public) {
            Some(secret) => {
                put(value, secret);
                touched = true;
            }
            None => missing.push(name.unwrap_or(public)),
        }
    });
    if !missing.is_empty() {
        return Err(missing);
    }
    // Untouched, the text stays as it is to the byte.
    Ok(Zeroizing::new(if touched { document.to_string() } else { text.to_owned() }))
}

fn word(peer: &dyn TableLike, key: &str) -> Option<String> {
    peer.get(key).and_then(Item::as_str).map(|word| word.trim().to_owned())
}

/// Replaces a value and keeps what stands around it.
fn put(value: &mut Value, text: &str) {
    let decor = value.decor().clone();
    *value = Value::from(text);
    *value.decor_mut() = decor;
}

/// Peers as sections (`[[peer]]`) and in brackets (`peer = [{…}]`).
fn each_peer(document: &mut DocumentMut, mut visit: impl FnMut(&mut dyn TableLike)) {
    match document.get_mut("peer") {
        Some(Item::ArrayOfTables(tables)) => tables.iter_mut().for_each(|table| visit(table)),
        Some(Item::Value(Value::Array(list))) => {
            let tables = list.iter_mut().filter_map(Value::as_inline_table_mut);
            tables.for_each(|table| visit(table));
        }
        // Not what the format says, but it may hold a key all the same.
        Some(Item::Table(table)) => visit(table),
        Some(Item::Value(Value::InlineTable(table))) => visit(table),
        Some(Item::None | Item::Value(_)) | None => (),
    }
}

/// Masks whatever could be a secret in a text that cannot be understood.
fn mask(text: &str) -> String {
    let line = |line: &str| {
        if line.contains("preshared") {
            return format!("# {REDACTED}");
        }
        let is_public = line.contains("public_key") && line.matches('=').count() <= 2;
        if is_public { line.to_owned() } else { mask_keys(line) }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

/// Runs of 40 and more of the letters of base64 could be keys.
fn mask_keys(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut run = String::new();
    for letter in line.chars().chain(['\0']) {
        if letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/' | '=') {
            run.push(letter);
            continue;
        }
        out.push_str(if run.len() >= 40 { REDACTED } else { &run });
        run.clear();
        if letter != '\0' {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    const OTHER: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    const SHARED: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

    fn section(public: &str, secret: &str) -> String {
        format!(
            "# mine\n[[peer]] # p\nname = \"a\"\npublic_key = \"{public}\"\n\
             preshared_key   = \"{secret}\" # two\nallowed_ips = [ \"10.0.0.2/32\" ]\n"
        )
    }

    #[test]
    fn a_key_goes_out_masked_and_comes_back_whole() {
        let text = section(PUBLIC, SHARED);
        let shown = redact(&text);
        assert_eq!(shown, section(PUBLIC, REDACTED), "comments and spaces stay");
        assert_eq!(*restore(&shown, &text).unwrap(), text);
        assert_eq!(*restore(&text, "").unwrap(), text, "a given key counts");
    }

    #[test]
    fn a_masked_key_of_an_unknown_peer_is_refused_by_name() {
        let shown = section(OTHER, REDACTED);
        assert_eq!(restore(&shown, &section(PUBLIC, SHARED)).unwrap_err(), ["a"]);
    }

    #[test]
    fn no_way_to_write_a_peer_lets_its_key_out() {
        for text in [
            format!("peer = [{{ public_key = \"{PUBLIC}\", preshared_key = \"{SHARED}\" }}]\n"),
            format!("peer = {{ preshared_key = \"{SHARED}\" }}\n"),
            format!("[peer]\npreshared_key = \"{SHARED}\"\n"),
            format!("[[peer]]\n\"preshared_key\" = '''{SHARED}'''\n"),
            format!("[[peer]]\npreshared_key = \"{SHARED}\"\nbroken = \n"),
            format!("broken = \n[[peer]]\npreshared_key = '''\n{SHARED}'''\n"),
            format!("broken =\npeer=[{{public_key=\"{PUBLIC}\",psk=\"{SHARED}\"}}]\n"),
            format!("[[peer]]\nbroken =\npublic_key=\"{PUBLIC}\"; other = \"{SHARED}\"\n"),
        ] {
            let shown = redact(&text);
            assert!(!shown.contains(SHARED), "{text}\n{shown}");
        }
    }

    proptest! {
        #[test]
        fn what_has_no_keys_is_shown_and_restored_as_it_is(text in "[a-z =\"\n#\\[\\]0-9]{0,80}") {
            if text.parse::<DocumentMut>().is_ok() {
                prop_assert_eq!(redact(&text), text.clone());
            }
            prop_assert_eq!(&*restore(&text, &text).unwrap(), &text);
        }
    }
}
