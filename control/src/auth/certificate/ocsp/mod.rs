//! Asking authorities about single certificates (OCSP, RFC 6960) while somebody signs in by one,
//! and again while it gives access.
//!
//! Begin with [`Responders::outcomes`]. Each question is asked once at a time, whoever waits for
//! it; answers are kept ([`kept`]) for as long as they say; a silent responder is left alone. What
//! is asked is in [`question`], how it travels in [`fetch`], what is read in [`answer`] and whether
//! it is believed in [`judge`]. Only chains that have been validated are asked about. This module
//! must not know users, or what follows from an answer.

pub mod answer;
mod fetch;
pub mod judge;
mod kept;
pub mod question;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use super::trust::Trust;
use crate::auth::backend::CertificateId;
use crate::store::records::Timestamp;
use answer::{ReadError, Status};
use fetch::FETCH_MAX;
use judge::{Verdict, Worthless};
use kept::Kept;

pub use kept::{Note, Outcome};
pub use question::{Issuer, Question};

/// Questions that are on their way at a time, in all, and to one responder: the others wait for a
/// part of the time that one may take.
const ASKED_MAX: usize = 64;
const ASKED_AT_ONE_MAX: usize = 8;
/// Certificates that give access and are asked about again at a time.
const AGAIN_MAX: usize = 64;

/// What to do when a responder does not say that a certificate is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspPolicy {
    /// Nobody is asked.
    #[default]
    Off,
    /// Warn, and believe the certificate unless it is revoked.
    Warn,
    /// Refuse.
    Strict,
}

/// Who is asked, and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OcspSettings {
    /// What follows.
    pub policy: OcspPolicy,
    /// Whom to ask in the place of those whom certificates name.
    pub responder: Option<String>,
}

/// Who asks and keeps the answers.
#[derive(Debug)]
pub(super) struct Responders {
    client: reqwest::Client,
    kept: Mutex<Kept>,
    flights: Mutex<Flights>,
    /// Set when somebody turns out to be revoked.
    news: AtomicBool,
    counts: [AtomicU64; Outcome::ALL.len()],
}

/// What is on its way.
#[derive(Debug, Default)]
struct Flights {
    questions: BTreeMap<Arc<Question>, watch::Receiver<Option<Outcome>>>,
    /// Places at each responder that is being asked.
    places: BTreeMap<String, Arc<Semaphore>>,
}

impl Responders {
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            client: fetch::client()?,
            kept: Mutex::default(),
            flights: Mutex::default(),
            news: AtomicBool::new(false),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// What is known of each without asking; none if one has to be asked for.
    pub(super) fn known(
        &self,
        questions: &[Arc<Question>],
        now: Timestamp,
    ) -> Option<Vec<Outcome>> {
        let mut kept = self.kept();
        questions.iter().map(|question| kept.get(question, now)).collect()
    }

    /// What the responders say of each, in the order of the questions. Waits for a few seconds at
    /// most. Must be called in a runtime.
    pub(super) fn outcomes(
        self: &Arc<Self>,
        questions: &[Arc<Question>],
        trust: &Arc<Trust>,
        now: Timestamp,
    ) -> impl Future<Output = Vec<Outcome>> + Send + use<> {
        let begun: Vec<_> = questions.iter().map(|one| self.begin(one, trust, now)).collect();
        async move {
            let mut outcomes = Vec::with_capacity(begun.len());
            for asked in begun {
                outcomes.push(match asked {
                    Asked::Known(outcome) => outcome,
                    Asked::Waiting(mut told) => {
                        let told = told.wait_for(Option::is_some).await;
                        told.ok().and_then(|told| *told).unwrap_or(Outcome::Silent)
                    }
                });
            }
            outcomes
        }
    }

    /// Answers that are over, to be asked for again if they give access still.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Arc<Question>> {
        self.kept().due(now, AGAIN_MAX)
    }

    /// Another process has asked about this.
    pub(super) fn restore(&self, question: Question) {
        self.kept().restore(question);
    }

    /// What has to be noted for the next process, in order.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        self.kept().take_notes()
    }

    /// This gives no access any more.
    pub(super) fn forget(&self, question: &Arc<Question>, now: Timestamp) {
        self.kept().forget(question, now);
    }

    /// Asks again, in the background.
    pub(super) fn ask_again(
        self: &Arc<Self>,
        questions: &[Arc<Question>],
        trust: &Arc<Trust>,
        now: Timestamp,
    ) {
        for question in questions {
            let _told = self.fly(question, trust, now);
        }
    }

    /// Which of these are revoked.
    pub(super) fn revoked(&self, live: &[CertificateId]) -> Vec<CertificateId> {
        self.kept().revoked(live).into_iter().collect()
    }

    /// Whether somebody has turned out to be revoked since this was asked last.
    pub(super) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// How often each outcome came of asking.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Outcome::ALL.iter().map(|one| one.word()).zip(self.counts.iter().map(count)).collect()
    }

    /// Answers that are kept.
    pub(super) fn len(&self) -> usize {
        self.kept().len()
    }

    fn begin(
        self: &Arc<Self>,
        question: &Arc<Question>,
        trust: &Arc<Trust>,
        now: Timestamp,
    ) -> Asked {
        let known = self.kept().get(question, now);
        known.map_or_else(|| self.fly(question, trust, now), Asked::Known)
    }

    /// Asks, unless that is being done: then waits for the same answer.
    fn fly(
        self: &Arc<Self>,
        question: &Arc<Question>,
        trust: &Arc<Trust>,
        now: Timestamp,
    ) -> Asked {
        let mut flights = self.flights();
        let flying = flights.questions.get(question);
        // One whose asker is gone does not count.
        if let Some(told) = flying.filter(|told| told.has_changed().is_ok()) {
            return Asked::Waiting(told.clone());
        }
        if flights.questions.len() >= ASKED_MAX || !self.kept().may_ask(&question.responder, now) {
            return Asked::Known(self.kept().meanwhile(question));
        }
        let places = flights.places.entry(question.responder.clone());
        let places = places.or_insert_with(|| Arc::new(Semaphore::new(ASKED_AT_ONE_MAX)));
        let places = Arc::clone(places);
        let (tell, told) = watch::channel(None);
        flights.questions.insert(Arc::clone(question), told.clone());
        drop(flights);
        let (this, question, trust) = (Arc::clone(self), Arc::clone(question), Arc::clone(trust));
        // A task of its own: whoever asked first may go away, and others wait for it.
        tokio::spawn(async move {
            let landing = Landing { responders: &this, question: &question };
            let outcome = this.ask(&question, &trust, &places, now).await;
            drop(landing);
            let _ = tell.send(Some(outcome));
        });
        Asked::Waiting(told)
    }

    async fn ask(
        &self,
        question: &Arc<Question>,
        trust: &Arc<Trust>,
        places: &Semaphore,
        now: Timestamp,
    ) -> Outcome {
        let fetching = async {
            let _place = places.acquire().await.map_err(|error| error.to_string())?;
            fetch::fetch(&self.client, question).await
        };
        let told = match tokio::time::timeout(FETCH_MAX, fetching).await {
            Ok(Ok(bytes)) => {
                self.kept().has_answered(&question.responder);
                judged(question, trust, bytes, now).await
            }
            Ok(Err(why)) => Err(self.silent(question, &why, now)),
            Err(_) => Err(self.silent(question, "no answer in time", now)),
        };
        let came = told.map_or_else(|outcome| outcome, |verdict| Outcome::Said(verdict.status));
        if let Some(place) = Outcome::ALL.iter().position(|one| *one == came) {
            self.counts[place].fetch_add(1, Ordering::Relaxed);
        }
        let counts = self.kept().put(question, told, now);
        if came == Outcome::Said(Status::Revoked) {
            self.news.store(true, Ordering::Release);
        }
        counts
    }

    fn silent(&self, question: &Question, why: &str, now: Timestamp) -> Outcome {
        self.kept().is_silent(&question.responder, now);
        let responder = &question.responder;
        tracing::warn!(responder, why, "the responder (OCSP) does not say who is revoked");
        Outcome::Silent
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asking has come to.
enum Asked {
    Known(Outcome),
    Waiting(watch::Receiver<Option<Outcome>>),
}

/// Takes a question off the list of those on their way, whatever came of it.
struct Landing<'a> {
    responders: &'a Responders,
    question: &'a Question,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.responders.flights();
        let Flights { questions, places } = &mut *flights;
        questions.remove(self.question);
        places.retain(|responder, _| questions.keys().any(|other| other.responder == *responder));
    }
}

/// Judges on a thread: signatures take the processor for a while.
async fn judged(
    question: &Arc<Question>,
    trust: &Arc<Trust>,
    bytes: Vec<u8>,
    now: Timestamp,
) -> Result<Verdict, Outcome> {
    let (asked, trust) = (Arc::clone(question), Arc::clone(trust));
    let judging = move || judge::judge(&bytes, &asked, &trust.lists, now);
    let judged = tokio::task::spawn_blocking(judging).await;
    let why = match judged {
        Ok(Ok(verdict)) => return Ok(verdict),
        Ok(Err(why)) => why,
        Err(_) => return Err(Outcome::Invalid),
    };
    tracing::warn!(responder = question.responder, %why, "an answer about a certificate is worth nothing");
    Err(match why {
        Worthless::Unread(ReadError::Refusal(_)) => Outcome::Silent,
        Worthless::Unread(ReadError::Malformed(_))
        | Worthless::Other
        | Worthless::Signature
        | Worthless::Time => Outcome::Invalid,
    })
}

#[cfg(test)]
mod tests;
