//! What responders have said, until when it counts, and which of them are silent. Pure.
//!
//! Answers are bounded in number and age. What gives access now is asked about again when its
//! answer is over; who does not use an answer any more loses it. A responder that is silent is left
//! alone for a while, so that it does not cost every sign-in the time of a try, and then tried by
//! one at a time. Whoever was revoked stays so until a responder says otherwise: that it falls
//! silent makes nothing better. This module must not know how anybody is asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::answer::Status;
use super::judge::Verdict;
use super::question::Question;
use crate::auth::backend::CertificateId;
use crate::store::records::Timestamp;

/// Answers that are kept: so many certificates give access at a time, at 400 bytes each.
pub(super) const ANSWERS_MAX: usize = 16_384;
/// Responders that are known to be silent.
const SILENT_MAX: usize = 256;
/// How long a silent responder is left alone, and how long a certificate for which no answer was
/// worth anything. In milliseconds.
pub(super) const PAUSE_MS: i64 = 30_000;
/// How long an answer is kept after a sign-in that may not have given access yet.
const GRACE_MS: i64 = 60_000;

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// An answer that is believed.
    Said(Status),
    /// An answer that is worth nothing.
    Invalid,
    /// No answer.
    Silent,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Said(Status::Good),
        Self::Said(Status::Revoked),
        Self::Said(Status::Unknown),
        Self::Invalid,
        Self::Silent,
    ];

    /// The word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Said(Status::Good) => "good",
            Self::Said(Status::Revoked) => "revoked",
            Self::Said(Status::Unknown) => "unknown",
            Self::Invalid => "invalid",
            Self::Silent => "silent",
        }
    }
}

/// What has to be noted for the next process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This is asked about.
    Asked(Arc<Question>),
    /// It is not any more.
    Over(Arc<Question>),
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What happened since somebody took it; without anybody who does, the newest of it.
    notes: VecDeque<Note>,
    answers: BTreeMap<Arc<Question>, Entry>,
    /// When each silent responder is tried again.
    silent: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    outcome: Outcome,
    from: Timestamp,
    until: Timestamp,
    /// When it is looked at again, if it gives access.
    look: Timestamp,
    used: Timestamp,
}

impl Kept {
    /// What is known now of a certificate for which somebody signs in.
    pub(super) fn get(&mut self, question: &Question, now: Timestamp) -> Option<Outcome> {
        let entry = self.answers.get_mut(question)?;
        entry.used = now;
        // A clock that was set back does not make an answer last.
        (entry.from <= now && now < entry.until).then_some(entry.outcome)
    }

    /// Takes an answer. Returns what counts now.
    pub(super) fn put(
        &mut self,
        question: &Arc<Question>,
        told: Result<Verdict, Outcome>,
        now: Timestamp,
    ) -> Outcome {
        let before = self.answers.get(question).copied();
        let was_revoked =
            before.is_some_and(|entry| entry.outcome == Outcome::Said(Status::Revoked));
        let (outcome, until) = match told {
            Ok(verdict) => (Outcome::Said(verdict.status), verdict.until),
            Err(_) if was_revoked => (Outcome::Said(Status::Revoked), now.plus_ms(PAUSE_MS)),
            Err(outcome) => (outcome, now.plus_ms(PAUSE_MS)),
        };
        if before.is_none() && self.answers.len() >= ANSWERS_MAX {
            // What ends first is worth least.
            let first = self.answers.iter().min_by_key(|(_, entry)| entry.until);
            if let Some(first) = first.map(|(question, _)| Arc::clone(question)) {
                self.answers.remove(&first);
                self.note(Note::Over(first));
            }
        }
        if before.is_none() {
            self.note(Note::Asked(Arc::clone(question)));
        }
        let used = before.map_or(now, |entry| entry.used);
        let entry = Entry { outcome, from: now, until, look: until, used };
        self.answers.insert(Arc::clone(question), entry);
        outcome
    }

    /// What counts of a certificate that cannot be asked about now.
    pub(super) fn meanwhile(&self, question: &Question) -> Outcome {
        let revoked = Outcome::Said(Status::Revoked);
        let is_revoked = |entry: &&Entry| entry.outcome == revoked;
        self.answers.get(question).filter(is_revoked).map_or(Outcome::Silent, |_| revoked)
    }

    /// Which of these are revoked.
    pub(super) fn revoked(&self, live: &[CertificateId]) -> BTreeSet<CertificateId> {
        let revoked: BTreeSet<&CertificateId> = self
            .answers
            .iter()
            .filter(|(_, entry)| entry.outcome == Outcome::Said(Status::Revoked))
            .map(|(question, _)| &question.id)
            .collect();
        live.iter().filter(|id| revoked.contains(id)).cloned().collect()
    }

    /// Up to `most` answers that are over, those first that are over for longest. They are not
    /// named again for a while.
    pub(super) fn due(&mut self, now: Timestamp, most: usize) -> Vec<Arc<Question>> {
        let mut due: Vec<(Timestamp, Arc<Question>)> = self
            .answers
            .iter()
            .filter(|(_, entry)| entry.look <= now || entry.from > now.plus_ms(PAUSE_MS))
            .map(|(question, entry)| (entry.look, Arc::clone(question)))
            .collect();
        due.sort();
        due.truncate(most);
        for (_, question) in &due {
            if let Some(entry) = self.answers.get_mut(question) {
                entry.look = now.plus_ms(PAUSE_MS);
            }
        }
        due.into_iter().map(|(_, question)| question).collect()
    }

    /// Forgets what gives no access, unless somebody has just signed in by it.
    pub(super) fn forget(&mut self, question: &Arc<Question>, now: Timestamp) {
        let is_old = |entry: &Entry| now.since(entry.used) > GRACE_MS;
        if self.answers.get(question).is_some_and(is_old) {
            self.answers.remove(question);
            self.note(Note::Over(Arc::clone(question)));
        }
    }

    /// Another process has asked about this: it is due, and nothing is known.
    pub(super) fn restore(&mut self, question: Question) {
        if self.answers.len() >= ANSWERS_MAX {
            return;
        }
        let past = Timestamp(0);
        let outcome = Outcome::Silent;
        let entry = Entry { outcome, from: past, until: past, look: past, used: past };
        self.answers.entry(Arc::new(question)).or_insert(entry);
    }

    /// What has to be noted for the next process, in order.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        self.notes.drain(..).collect()
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() >= 2 * ANSWERS_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    /// Whether a responder may be asked now. One that was silent may be asked by one at a time.
    pub(super) fn may_ask(&mut self, responder: &str, now: Timestamp) -> bool {
        let Some(until) = self.silent.get_mut(responder) else { return true };
        let is_over = *until <= now || *until > now.plus_ms(PAUSE_MS);
        if is_over {
            *until = now.plus_ms(PAUSE_MS);
        }
        is_over
    }

    /// A responder was silent.
    pub(super) fn is_silent(&mut self, responder: &str, now: Timestamp) {
        if self.silent.len() >= SILENT_MAX && !self.silent.contains_key(responder) {
            self.silent.retain(|_, until| *until > now);
            if self.silent.len() >= SILENT_MAX {
                self.silent.pop_first();
            }
        }
        self.silent.insert(responder.to_owned(), now.plus_ms(PAUSE_MS));
    }

    /// A responder has answered, whatever it said.
    pub(super) fn has_answered(&mut self, responder: &str) {
        self.silent.remove(responder);
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    #[cfg(test)]
    pub(super) fn silent_len(&self) -> usize {
        self.silent.len()
    }
}
