//! The chain of the audit log: what is hashed, and how a break is found.
//!
//! Each entry has a *content* (who, to what, what changed) with a salt of its own, a digest of
//! both, and a *link*: a hash over the link before, the sequence, the moment, the action and the
//! digest. So the content of an entry can be erased, for the sake of a person it names, and the
//! chain still holds: the digest stays, and without the salt nobody can guess what it stood for.
//! Which entries were erased is an entry itself, so that an erasure on the quiet is found like any
//! other change.
//!
//! Bytes that are hashed, numbers big-endian, each text preceded by its length in 8 bytes: digest =
//! SHA-256("ringway audit content 1" | salt, 16 bytes | actor | object | detail as JSON), link =
//! SHA-256("ringway audit link 1" | link before, 32 bytes, zeros at first | sequence, 8 bytes |
//! milliseconds since the epoch, 8 bytes | action | digest). This module must not know SQL.

use std::ops::RangeInclusive;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::records::{AuditEntry, Timestamp};

/// What an erasure is called; such an entry is never erased.
pub(crate) const ERASED: &str = "audit.erased";

/// Where the log stood; kept elsewhere, it proves that nothing was cut off since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Sequence of the last entry; 0 if there is none.
    pub sequence: u64,
    /// Its hash, in hex; zeros if there is none.
    pub hash: String,
}

/// Where the log is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The audit log is broken at entry {sequence}: {why}")]
pub struct AuditBroken {
    /// The first entry that does not fit.
    pub sequence: u64,
    /// What does not fit.
    pub why: String,
}

/// What an entry says, apart from when and what kind.
pub(crate) struct Content {
    pub(crate) salt: [u8; 16],
    pub(crate) actor: String,
    pub(crate) object: String,
    /// JSON, as it was written.
    pub(crate) detail: String,
}

/// An entry as it is stored.
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) action: String,
    /// None if it was erased.
    pub(crate) content: Option<Content>,
    pub(crate) digest: [u8; 32],
    pub(crate) hash: [u8; 32],
}

impl Content {
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"ringway audit content 1");
        hash.update(self.salt);
        for text in [&self.actor, &self.object, &self.detail] {
            add_text(&mut hash, text);
        }
        hash.finalize().into()
    }
}

impl Stored {
    /// The entry that follows one with hash `before`.
    pub(crate) fn after(
        before: &[u8; 32],
        sequence: u64,
        at: Timestamp,
        action: &str,
        content: Content,
    ) -> Self {
        let digest = content.digest();
        let hash = link(before, sequence, at, action, &digest);
        let action = action.to_owned();
        Self { sequence, at, action, content: Some(content), digest, hash }
    }

    /// As everybody else sees it.
    pub(crate) fn entry(self) -> AuditEntry {
        let erased = || ("erased".to_owned(), "erased".to_owned(), json!({ "erased": true }));
        let (actor, object, detail) = self.content.map_or_else(erased, |content| {
            let unread = |_| json!({ "unreadable": content.detail });
            let detail = serde_json::from_str(&content.detail).unwrap_or_else(unread);
            (content.actor, content.object, detail)
        });
        let (sequence, at, action) = (self.sequence, self.at, self.action);
        AuditEntry { sequence, at, actor, action, object, detail, hash: hex(&self.hash) }
    }
}

/// Walks along the chain.
#[derive(Default)]
pub(crate) struct Walk {
    sequence: u64,
    hash: [u8; 32],
    /// Entries without content.
    empty: Vec<u64>,
    /// What entries say about erasures before them.
    erased: Vec<RangeInclusive<u64>>,
    /// What the head that was kept elsewhere says.
    head: Option<AuditHead>,
}

impl Walk {
    pub(crate) fn new(head: Option<&AuditHead>) -> Self {
        Self { head: head.cloned().filter(|head| head.sequence > 0), ..Self::default() }
    }

    /// Takes the next entry.
    pub(crate) fn step(&mut self, entry: &Stored) -> Result<(), AuditBroken> {
        let expected = self.sequence + 1;
        let broken = |why: String| Err(AuditBroken { sequence: expected, why });
        if entry.sequence != expected {
            return broken(format!("it is missing; entry {} follows", entry.sequence));
        }
        match &entry.content {
            Some(content) if content.digest() != entry.digest => {
                return broken("its actor, object or detail was changed".to_owned());
            }
            Some(content) if entry.action == ERASED => {
                let before = expected - 1;
                self.erased.extend(
                    ranges(&content.detail).into_iter().filter(|range| *range.end() <= before),
                );
            }
            Some(_) => {}
            None => self.empty.push(expected),
        }
        let hash = link(&self.hash, expected, entry.at, &entry.action, &entry.digest);
        if hash != entry.hash {
            return broken("its hash does not follow from what is before and in it".to_owned());
        }
        (self.sequence, self.hash) = (expected, hash);
        let other = self.head.take_if(|head| head.sequence == expected);
        if other.is_some_and(|head| head.hash != hex(&hash)) {
            return broken("its hash is not the one that was kept elsewhere".to_owned());
        }
        Ok(())
    }

    /// Says how many entries there were, `counted` of which were written.
    pub(crate) fn end(self, counted: u64) -> Result<u64, AuditBroken> {
        let next = self.sequence + 1;
        if let Some(head) = self.head {
            let why = format!("it was cut off: the log went up to entry {}", head.sequence);
            return Err(AuditBroken { sequence: next, why });
        }
        if counted != self.sequence {
            let why = format!("{counted} entries were written, {} are there", self.sequence);
            return Err(AuditBroken { sequence: next.min(counted + 1), why });
        }
        let explained = |sequence: &u64| self.erased.iter().any(|range| range.contains(sequence));
        match self.empty.iter().find(|sequence| !explained(sequence)) {
            Some(sequence) => {
                let why = "its content was removed, and no later entry says so".to_owned();
                Err(AuditBroken { sequence: *sequence, why })
            }
            None => Ok(self.sequence),
        }
    }
}

/// The detail of an erasure of `sequences`, which ascend.
pub(crate) fn erasure(sequences: &[u64]) -> serde_json::Value {
    let mut ranges: Vec<[u64; 2]> = Vec::new();
    for sequence in sequences {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == *sequence => *last = *sequence,
            Some(_) | None => ranges.push([*sequence, *sequence]),
        }
    }
    json!({ "entries": ranges })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ranges(detail: &str) -> Vec<RangeInclusive<u64>> {
    #[derive(serde::Deserialize)]
    struct Detail {
        entries: Vec<[u64; 2]>,
    }
    let detail: Result<Detail, _> = serde_json::from_str(detail);
    let entries = detail.map(|detail| detail.entries).unwrap_or_default();
    entries.into_iter().map(|[first, last]| first..=last).collect()
}

fn link(
    before: &[u8; 32],
    sequence: u64,
    at: Timestamp,
    action: &str,
    digest: &[u8; 32],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"ringway audit link 1");
    hash.update(before);
    hash.update(sequence.to_be_bytes());
    hash.update(at.0.to_be_bytes());
    add_text(&mut hash, action);
    hash.update(digest);
    hash.finalize().into()
}

fn add_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(actor: &str) -> Content {
        let (object, detail) = ("alice".to_owned(), "{\"a\":1}".to_owned());
        Content { salt: [7; 16], actor: actor.to_owned(), object, detail }
    }

    fn chain(length: u64) -> Vec<Stored> {
        let mut before = [0; 32];
        let entry = |sequence: u64| {
            let at = Timestamp(sequence.cast_signed() * 10);
            let entry = Stored::after(&before, sequence, at, "user.update", content("user:root"));
            before = entry.hash;
            entry
        };
        (1..=length).map(entry).collect()
    }

    fn walk(chain: &[Stored], head: Option<&AuditHead>) -> Result<u64, AuditBroken> {
        let mut walk = Walk::new(head);
        for entry in chain {
            walk.step(entry)?;
        }
        walk.end(chain.len() as u64)
    }

    #[test]
    fn a_chain_holds_and_a_head_kept_elsewhere_proves_its_length() {
        let mut entries = chain(5);
        let head = AuditHead { sequence: 5, hash: hex(&entries[4].hash) };
        assert_eq!(walk(&entries, None), Ok(5));
        assert_eq!(walk(&entries, Some(&head)), Ok(5));
        entries.pop();
        assert_eq!(walk(&entries, None), Ok(4));
        assert_eq!(walk(&entries, Some(&head)).unwrap_err().sequence, 5);
    }

    #[test]
    fn what_is_hashed_is_what_the_head_comment_says() {
        let content = content("user:root");
        let mut bytes = b"ringway audit content 1".to_vec();
        bytes.extend([7; 16]);
        for text in ["user:root", "alice", "{\"a\":1}"] {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(content.digest(), digest);
        let mut bytes = b"ringway audit link 1".to_vec();
        bytes.extend([0; 32]);
        bytes.extend(1_u64.to_be_bytes());
        bytes.extend(10_i64.to_be_bytes());
        bytes.extend(11_u64.to_be_bytes());
        bytes.extend(b"user.update");
        bytes.extend(digest);
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(chain(1)[0].hash, hash);
    }

    #[test]
    fn erased_content_needs_a_later_entry_that_says_so() {
        let mut entries = chain(4);
        entries[1].content = None;
        assert_eq!(walk(&entries, None).unwrap_err().sequence, 2);
        let mut note = content("user:root");
        note.detail = erasure(&[2]).to_string();
        let note = Stored::after(&entries[3].hash, 5, Timestamp(50), ERASED, note);
        entries.push(note);
        assert_eq!(walk(&entries, None), Ok(5));
    }

    #[test]
    fn an_erasure_is_noted_in_ranges() {
        assert_eq!(erasure(&[1, 2, 3, 7, 9, 10]), json!({ "entries": [[1, 3], [7, 7], [9, 10]] }));
        assert_eq!(ranges(&erasure(&[1, 2, 7]).to_string()), [1..=2, 7..=7]);
        assert!(ranges("nonsense").is_empty());
    }
}
