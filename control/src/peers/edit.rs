//! Adds a peer to the text of a configuration, or takes one out, and leaves the rest as it is:
//! comments, order, blank lines.

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::failure::{Failure, Status};
use crate::keys;

/// What a new `[[peer]]` says.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What the operator calls it.
    pub name: String,
    /// Who it is.
    pub public: PublicKey,
    /// Second secret; not written if it is not set.
    pub preshared: PresharedKey,
    /// Its inner addresses.
    pub allowed_ips: Vec<IpNet>,
}

/// The text with one more peer at its end.
///
/// # Errors
/// A text that is not TOML, or that writes its peers as `peer = [...]`.
pub fn add(text: &str, entry: &Entry) -> Result<String, Failure> {
    let mut document = parse(text)?;
    let peers = document.entry("peer").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(peers) = peers.as_array_of_tables_mut() else { return Err(inline_peers()) };
    peers.push(table(entry));
    Ok(document.to_string())
}

/// The text without the peer of this key; `None` if it has none.
///
/// # Errors
/// As [`add`].
pub fn remove(text: &str, public: &PublicKey) -> Result<Option<String>, Failure> {
    let mut document = parse(text)?;
    let Some(peers) = document.get_mut("peer") else { return Ok(None) };
    let Some(peers) = peers.as_array_of_tables_mut() else { return Err(inline_peers()) };
    let is_it = |table: &Table| {
        let key = table.get("public_key").and_then(Item::as_str);
        key.and_then(|key| keys::parse_public(key).ok()).as_ref() == Some(public)
    };
    let Some(at) = peers.iter().position(is_it) else { return Ok(None) };
    peers.remove(at);
    Ok(Some(document.to_string()))
}

fn parse(text: &str) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        Failure::new(Status::Config, format!("The configuration is not valid TOML: {error}"))
    })
}

fn inline_peers() -> Failure {
    let message = "The configuration writes its peers as \"peer = [...]\", which cannot be edited: \
                   write each as its own [[peer]] section";
    Failure::new(Status::Config, message)
}

fn table(entry: &Entry) -> Table {
    let mut table = Table::new();
    table["name"] = value(entry.name.as_str());
    table["public_key"] = value(keys::show_public(&entry.public));
    if entry.preshared.is_set() {
        table["preshared_key"] = value(keys::encode(&entry.preshared.0).as_str());
    }
    let nets: Array = entry.allowed_ips.iter().map(|net| net.to_string()).collect();
    table["allowed_ips"] = value(nets);
    table.decor_mut().set_prefix("\n");
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# mine\n\n[interface] # here\nmtu = 1400   # small\n\n\
        # the phone\n[[peer]]\nname = \"phone\"\n\
        public_key = \"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"\n\n# last words\n";

    fn entry() -> Entry {
        Entry {
            name: "laptop".to_owned(),
            public: PublicKey([7; 32]),
            preshared: PresharedKey([9; 32]),
            allowed_ips: vec!["10.77.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()],
        }
    }

    #[test]
    fn a_peer_is_added_and_every_comment_stays() {
        let after = add(BEFORE, &entry()).unwrap();
        for line in BEFORE.lines() {
            assert!(after.contains(line), "lost: {line}\n{after}");
        }
        let added = "\n[[peer]]\nname = \"laptop\"\n\
            public_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n\
            preshared_key = \"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\"\n\
            allowed_ips = [\"10.77.0.2/32\", \"fd00::2/128\"]\n";
        assert!(after.contains(added), "{after}");
    }

    #[test]
    fn what_was_added_can_be_taken_out_again_without_a_trace() {
        let after = add(BEFORE, &entry()).unwrap();
        let back = remove(&after, &entry().public).unwrap().unwrap();
        assert_eq!(back, BEFORE);
        assert_eq!(remove(&back, &entry().public).unwrap(), None);
    }

    #[test]
    fn the_first_peer_of_an_empty_file_stands_alone() {
        let after = add("", &entry()).unwrap();
        assert!(after.trim_start().starts_with("[[peer]]\nname = \"laptop\"\n"), "{after}");
        assert_eq!(remove("", &entry().public).unwrap(), None);
    }

    #[test]
    fn peers_in_brackets_are_refused_with_what_to_write() {
        let failure = add("peer = [{name = \"a\"}]\n", &entry()).unwrap_err();
        assert!(failure.message.contains("[[peer]]"), "{failure}");
        assert_eq!(add("a = [", &entry()).unwrap_err().status, Status::Config);
    }
}
