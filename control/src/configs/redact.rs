//! A configuration without its secrets, and with them again: preshared keys, and what stands as a
//! password inside an address.
//!
//! A redacted value that comes back means "as it is": a key is looked up by the public key of its
//! peer, an address by all that is shown of it, so that a password never goes to another host. A
//! text that is no TOML is shown too (somebody has to mend it), with everything masked that could
//! be a secret. Pure.

use std::collections::BTreeMap;

use toml_edit::visit_mut::VisitMut;
use toml_edit::{DocumentMut, Formatted, Item, TableLike, Value};
use zeroize::Zeroizing;

use crate::config::credentials::mask_address;

pub use crate::config::credentials::REDACTED;

/// The key that holds a secret.
const SECRET: &str = "preshared_key";

/// The text without its secrets.
#[must_use]
pub fn redact(text: &str) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        let masked = mask(text);
        // Without the lines that were masked it may be TOML, with a key in it that is written in
        // another way.
        return if masked.parse::<DocumentMut>().is_ok() { redact(&masked) } else { masked };
    };
    let mut touched = false;
    each_peer(&mut document, |peer| {
        if let Some(value) = peer.get_mut(SECRET).and_then(Item::as_value_mut) {
            put(value, REDACTED);
            touched = true;
        }
    });
    each_text(&mut document, |text| {
        let masked = mask_address(text).filter(|masked| masked != text);
        touched |= masked.is_some();
        masked.map(Zeroizing::new)
    });
    // Untouched, the text stays as it is to the byte.
    if touched { document.to_string() } else { text.to_owned() }
}

/// `text` with the secrets of `before` where it says [`REDACTED`].
///
/// # Errors
/// What has no secret in `before`: peers, and addresses as they are shown. A text that is no TOML
/// comes back as it is: whoever parses it says what is wrong.
pub fn restore(text: &str, before: &str) -> Result<Zeroizing<String>, Vec<String>> {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(Zeroizing::new(text.to_owned()));
    };
    let known = Known::of(before);
    let mut missing = Vec::new();
    let mut touched = false;
    each_peer(&mut document, |peer| {
        let public = word(peer, "public_key").unwrap_or_default();
        let name = word(peer, "name");
        let value = peer.get_mut(SECRET).and_then(Item::as_value_mut);
        let Some(value) = value.filter(|value| value.as_str() == Some(REDACTED)) else { return };
        match known.keys.get(&public) {
            // What says so itself stays as it is written.
            Some(secret) if **secret == REDACTED => {}
            Some(secret) => {
                put(value, secret);
                touched = true;
            }
            None => missing.push(format!("the preshared key of peer {}", name.unwrap_or(public))),
        }
    });
    each_text(&mut document, |text| {
        if text == REDACTED || !text.contains(REDACTED) {
            return None;
        }
        match known.addresses.get(text) {
            Some(Some(address)) if **address == text => None,
            Some(Some(address)) => {
                touched = true;
                Some(address.clone())
            }
            Some(None) | None => {
                missing.push(format!("the secret in \"{text}\""));
                None
            }
        }
    });
    if !missing.is_empty() {
        return Err(missing);
    }
    // Untouched, the text stays as it is to the byte.
    Ok(Zeroizing::new(if touched { document.to_string() } else { text.to_owned() }))
}

/// The secrets of a configuration.
#[derive(Default)]
struct Known {
    /// Preshared keys by public key.
    keys: BTreeMap<String, Zeroizing<String>>,
    /// Addresses by how they are shown; none if two that differ are shown alike.
    addresses: BTreeMap<String, Option<Zeroizing<String>>>,
}

impl Known {
    fn of(text: &str) -> Self {
        let mut known = Self::default();
        let Ok(mut document) = text.parse::<DocumentMut>() else { return known };
        each_peer(&mut document, |peer| {
            let secret = peer.get(SECRET).and_then(Item::as_str).map(str::to_owned);
            if let (Some(public), Some(secret)) = (word(peer, "public_key"), secret) {
                known.keys.insert(public, Zeroizing::new(secret));
            }
        });
        each_text(&mut document, |text| {
            if let Some(shown) = mask_address(text) {
                let address = Some(Zeroizing::new(text.to_owned()));
                let same = known.addresses.get(&shown).is_none_or(|other| *other == address);
                known.addresses.insert(shown, address.filter(|_| same));
            }
            None
        });
        known
    }
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

/// Visits every text that stands as a value, wherever; what `change` gives takes its place.
fn each_text(document: &mut DocumentMut, change: impl FnMut(&str) -> Option<Zeroizing<String>>) {
    struct Texts<F>(F);
    impl<F: FnMut(&str) -> Option<Zeroizing<String>>> VisitMut for Texts<F> {
        fn visit_string_mut(&mut self, node: &mut Formatted<String>) {
            let Some(text) = (self.0)(node.value()) else { return };
            let decor = node.decor().clone();
            *node = Formatted::new(text.to_string());
            *node.decor_mut() = decor;
        }
    }
    Texts(change).visit_document_mut(document);
}

/// Sections whose lines are not told apart in a text that cannot be understood.
const SECRET_SECTIONS: [&str; 2] = ["store", "issuer"];

/// Masks whatever could be a secret in a text that cannot be understood.
fn mask(text: &str) -> String {
    let mut in_secret_section = false;
    let mut line = |line: &str| {
        let lower = line.to_ascii_lowercase();
        if lower.trim_start().starts_with('[') {
            in_secret_section = SECRET_SECTIONS.iter().any(|section| lower.contains(section));
        } else if in_secret_section && !lower.trim().is_empty() {
            return format!("# {REDACTED}");
        }
        let is_address = lower.contains("://") && lower.contains(['@', '?']);
        if lower.contains("preshared") || lower.contains("passw") || is_address {
            // If it begins a section, nobody can see any more which one.
            in_secret_section |= lower.trim_start().starts_with('[');
            return format!("# {REDACTED}");
        }
        let is_public = line.contains("public_key") && line.matches('=').count() <= 2;
        if is_public { line.to_owned() } else { mask_keys(line) }
    };
    text.lines().map(|text| line(text.trim_end_matches('\r')) + "\n").collect()
}

/// Runs of 40 and more of the letters of base64 could be keys.
fn mask_keys(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut run = String::new();
    for letter in line.chars().map(Some).chain([None]) {
        match letter {
            Some(letter) if letter.is_ascii_alphanumeric() || "+/=".contains(letter) => {
                run.push(letter);
            }
            Some(_) | None => {
                out.push_str(if run.len() >= 40 { REDACTED } else { &run });
                run.clear();
                out.extend(letter);
            }
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
        assert_eq!(
            restore(&shown, &section(PUBLIC, SHARED)).unwrap_err(),
            ["the preshared key of peer a"]
        );
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

    #[test]
    fn what_says_redacted_itself_is_left_as_it_is_written() {
        let text = "[[peer]]\npublic_key = \"a\"\npreshared_key = '(redacted)'\n\
                    x = \"a:(redacted)\\u0040h\"\n";
        let shown = redact(text);
        let restored = restore(&shown, text).unwrap();
        assert_eq!(redact(&restored), shown);
        assert!(restored.contains("\\u0040"), "{}", *restored);
    }

    const STORE: &str = "postgresql://ringway:hunter2@db/ringway";

    #[test]
    fn the_secrets_of_addresses_go_out_masked_and_come_back_whole() {
        let text = format!(
            "[store] # mine\nurl  = \"{STORE}\" # the password\n\n[[issuer]]\nkeys = \
             \"https://robot:hunter2@id.example/keys\"\n{}",
            section(PUBLIC, SHARED)
        );
        let shown = redact(&text);
        assert_eq!(shown, text.replace("hunter2", REDACTED).replace(SHARED, REDACTED));
        assert_eq!(*restore(&shown, &text).unwrap(), text);
        assert_eq!(*restore(&text, "").unwrap(), text, "a given password counts");
        let other = text.replace("hunter2", "hunter3");
        assert_eq!(redact(&other), shown, "nothing tells which password it is");
    }

    #[test]
    fn a_masked_password_is_not_given_to_another_host() {
        let before = format!("[store]\nurl = \"{STORE}\"\n");
        let moved = redact(&before).replace("@db", "@elsewhere");
        let missing = restore(&moved, &before).unwrap_err();
        assert!(missing.len() == 1 && missing[0].contains("@elsewhere"), "{missing:?}");
        let twice = format!("a = \"{STORE}\"\nb = \"{}\"\n", STORE.replace("hunter2", "other"));
        assert_eq!(restore(&redact(&twice), &twice).unwrap_err().len(), 2, "which is which?");
    }

    #[test]
    fn no_way_to_write_an_address_lets_its_password_out() {
        for text in [
            format!("store.url = \"{STORE}\"\n"),
            format!("store = {{ url = '{STORE}' }}\n"),
            format!("[stroe]\nurl = '''\n{STORE}'''\n"),
            format!("issuer = [{{ keys = \"{STORE}\" }}]\n"),
            format!("broken =\nstore.url = \"{STORE}\"\n"),
            format!("broken =\n[ store ]\nurl = \"{STORE}\"\n"),
            "[store]\nurl = \"\"\"postgresql://ringway:\\\nhunter2@db\"\"\"\nbroken =\n".to_owned(),
            "[store]\nurl = 'postgresql://db/x?password=hunter2\n".to_owned(),
            "broken =\nurl = 'host=db password=hunter2'\n".to_owned(),
        ] {
            let shown = redact(&text);
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
        }
    }

    #[test]
    fn a_text_that_is_no_toml_is_shown_the_same_when_it_is_masked_again() {
        for text in [
            "p\0reshared_key = \"short\"\nbroken =\n",
            "a = 1\r\r\nbroken =\n",
            "[store]\n[password]\nurl = \"(\n",
            "[[peer]]\n\"\\u0070reshared_key\" = \"short\"\npassword\n",
        ] {
            let shown = redact(text);
            assert_eq!(redact(&shown), shown);
            assert!(!text.contains("u0070") || !shown.contains("short"), "{shown}");
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
