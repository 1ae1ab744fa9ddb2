//! Which entries of the audit log are about a user, so that nothing else is shown or erased.
//!
//! Identifiers and keys are unique, so they count wherever they stand. A name is not: somebody else
//! may have had it before or have it later, and it may be a common word that stands in entries
//! about something else. So a name counts only where an entry says that a user is meant
//! (`user:NAME` as a whole text, `NAME/DEVICE` of a session), and only in entries from the time in
//! which this user had it; the log itself says when that was. Devices, tokens and links that are
//! gone are found by the entries about their making. This module must not know SQL.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::super::audit::{ERASED, Stored};
use super::super::ids::DeviceId;
use super::super::records::{Timestamp, User};

/// What stands for a user, and when.
pub(super) struct Traces {
    id: String,
    created_at: Timestamp,
    /// Identifiers and keys of the user and of what is or was theirs.
    ids: BTreeSet<String>,
    names: BTreeSet<Held>,
    /// The last name that the log told of, and since when.
    last: Option<String>,
    since: Option<Moment>,
}

/// An entry: its sequence and its moment.
type Moment = (u64, Timestamp);

/// A name in the time in which the user had it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) from: Moment,
    pub(super) until: Moment,
}

impl Traces {
    /// Of a user, with identifiers of what it has now. Then [`Self::learn`] takes all entries in
    /// their order, and [`Self::learned`] ends that.
    pub(super) fn new(user: &User, ids: impl IntoIterator<Item = String>) -> Self {
        let id = user.id.to_string();
        let ids = ids.into_iter().chain([id.clone()]).collect();
        let (names, created_at) = (BTreeSet::new(), user.created_at);
        Self { id, created_at, ids, names, last: None, since: None }
    }

    /// Learns former names and devices, tokens and links that are gone.
    pub(super) fn learn(&mut self, entry: &Stored) {
        let Some(content) = &entry.content else { return };
        let moment = (entry.sequence, entry.at);
        if self.since.is_none() && entry.at >= self.created_at {
            self.since = Some(moment);
        }
        let detail: Json = serde_json::from_str(&content.detail).unwrap_or_default();
        if content.object == self.id {
            let name = &detail["name"];
            if entry.action == "user.created" {
                self.since = Some(moment);
                self.last = name.as_str().map(str::to_owned);
            } else if let (Some(before), Some(after)) = (name[0].as_str(), name[1].as_str()) {
                self.held(Some(before), moment);
                self.since = Some(moment);
                self.last = Some(after.to_owned());
            }
        } else if detail["user"] == self.id.as_str() && content.object.parse::<DeviceId>().is_ok() {
            self.ids.insert(content.object.clone());
            self.ids.extend(detail["public_key"].as_str().map(str::to_owned));
        }
    }

    /// All entries were seen; `name` is the user's now.
    pub(super) fn learned(&mut self, name: &str) {
        self.held(Some(name), (u64::MAX, Timestamp(i64::MAX)));
    }

    /// The user had `name`, and what the log told last, until this moment.
    fn held(&mut self, name: Option<&str>, until: Moment) {
        let Some(from) = self.since else { return };
        let last = self.last.clone();
        for name in name.map(str::to_owned).into_iter().chain(last) {
            self.names.insert(Held { name, from, until });
        }
    }

    /// The names that the user had, and when.
    pub(super) const fn names(&self) -> &BTreeSet<Held> {
        &self.names
    }

    /// Identifiers of the user and of what is or was theirs.
    pub(super) const fn ids(&self) -> &BTreeSet<String> {
        &self.ids
    }

    /// Whether the user, or a token of theirs, was `actor` lately.
    pub(super) fn is_now(&self, actor: &str) -> bool {
        self.means(actor, u64::MAX)
    }

    /// Whether an entry is about the user.
    pub(super) fn is_about(&self, entry: &Stored) -> bool {
        let Some(content) = &entry.content else { return false };
        if entry.action == ERASED {
            return false;
        }
        let sequence = entry.sequence;
        let detail = serde_json::from_str(&content.detail).unwrap_or(Json::Null);
        self.means(&content.actor, sequence)
            || self.means(&content.object, sequence)
            || entry.action.starts_with("session.") && self.is_session(&content.object, sequence)
            || self.mentions(&detail, sequence)
    }

    /// Whether a whole text stands for the user in an entry with this sequence.
    fn means(&self, text: &str, sequence: u64) -> bool {
        if let Some(name) = text.strip_prefix("user:") {
            return self.ids.contains(name) || self.had(name, sequence);
        }
        self.ids.contains(text.strip_prefix("token:").unwrap_or(text))
    }

    /// Whether `NAME` or `NAME/DEVICE` is the user.
    fn is_session(&self, subject: &str, sequence: u64) -> bool {
        let name = subject.split_once('/').map_or(subject, |(name, _)| name);
        self.had(name, sequence)
    }

    fn had(&self, name: &str, sequence: u64) -> bool {
        let covers = |held: &Held| -> bool {
            let sequences: RangeInclusive<u64> = held.from.0..=held.until.0;
            held.name == name && sequences.contains(&sequence)
        };
        self.names.iter().any(covers)
    }

    fn mentions(&self, detail: &Json, sequence: u64) -> bool {
        match detail {
            Json::String(text) => self.means(text, sequence),
            Json::Array(items) => items.iter().any(|item| self.mentions(item, sequence)),
            Json::Object(fields) => fields
                .iter()
                .any(|(name, value)| self.means(name, sequence) || self.mentions(value, sequence)),
            Json::Null | Json::Bool(_) | Json::Number(_) => false,
        }
    }
}
