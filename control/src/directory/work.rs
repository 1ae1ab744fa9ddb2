//! One change: a transaction, its audit entries, its events and its notes, all or nothing.
//!
//! Events and notes are sent when the store has kept the change, and not before. This module must
//! not know what is changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::actor::Actor;
use super::book::{Book, Pair};
use super::refusal::Refusal;
use super::surroundings::Surroundings;
use super::{Action, Change, Directory};
use crate::store::records::{PoolId, Timestamp};
use crate::store::{Db, StoreError};

/// What a change has at hand.
pub(super) struct Work<'a, 'b> {
    /// The transaction.
    pub(super) db: &'a mut Db<'b>,
    /// Who does it.
    pub(super) actor: &'a Actor,
    /// When.
    pub(super) now: Timestamp,
    /// What the configuration says.
    pub(super) here: &'a Surroundings,
    /// Which addresses are probably free.
    pub(super) book: &'a Mutex<Book>,
    /// Addresses that the book says are taken by this change.
    pub(super) taken: Vec<(PoolId, Pair)>,
    news: Vec<News>,
    notes: Vec<Change>,
}

/// An event to be told.
struct News {
    action: Action,
    subject: String,
    detail: Value,
}

impl Work<'_, '_> {
    /// Enters what was done into the audit log, and tells it when the change is kept. `detail` has
    /// no secrets.
    pub(super) fn did(
        &mut self,
        action: Action,
        object: impl ToString,
        detail: Value,
    ) -> Result<(), Refusal> {
        let subject = object.to_string();
        self.db.append_audit(self.now, &self.actor.name, action.word(), &subject, &detail)?;
        self.told(action, subject, detail);
        Ok(())
    }

    /// As [`Self::did`], for what the store enters into the audit log itself.
    pub(super) fn told(&mut self, action: Action, object: impl ToString, detail: Value) {
        self.news.push(News { action, subject: object.to_string(), detail });
    }

    /// Notes for the live projection that this changed.
    pub(super) fn note(&mut self, change: Change) {
        if !self.notes.contains(&change) {
            self.notes.push(change);
        }
    }
}

impl Directory {
    /// Runs `work` as one change. It may run more than once, if the store has to try again.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        actor: &Actor,
        work: impl FnMut(&mut Work<'_, '_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.change_within(self.0.store.deadline(), actor, work).await
    }

    /// As [`Self::change`], for what may take as long as `deadline`.
    pub(super) async fn change_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        actor: &Actor,
        mut work: impl FnMut(&mut Work<'_, '_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (actor, now, here) = (actor.clone(), self.now(), self.surroundings());
        let book = Arc::clone(&self.0.book);
        let refused = Arc::new(Mutex::new(None));
        let refusal = Arc::clone(&refused);
        let kept = self.0.store.write_within(deadline, move |db| {
            let (taken, news, notes) = (Vec::new(), Vec::new(), Vec::new());
            let (actor, here, book) = (&actor, &*here, &*book);
            let mut one = Work { db, actor, now, here, book, taken, news, notes };
            match work(&mut one) {
                Ok(value) => Ok((value, one.news, one.notes)),
                Err(why) => {
                    one.untake();
                    Err(roll_back(why, &refusal))
                }
            }
        });
        let (value, news, notes) = match kept.await {
            Ok(kept) => kept,
            Err(error) => {
                // It may have been kept after all, if nobody waited for the answer any more.
                if matches!(error, StoreError::Timeout { .. } | StoreError::Unavailable { .. }) {
                    let _ = self.0.notes.send(Change::All);
                }
                return Err(answer(error, &refused));
            }
        };
        for one in news {
            self.0.hub.publish(now, one.action.kind(), one.subject, one.detail);
        }
        for note in notes {
            // Nobody follows yet, or any more: there is nothing to bring anywhere.
            let _ = self.0.notes.send(note);
        }
        Ok(value)
    }

    /// Runs `work` on one state of the store.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.look_within(self.0.store.deadline(), work).await
    }

    /// As [`Self::look`], for what may take as long as `deadline`.
    pub(super) async fn look_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        mut work: impl FnMut(&mut Db<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let refused = Arc::new(Mutex::new(None));
        let refusal = Arc::clone(&refused);
        let read = move |db: &mut Db<'_>| work(db).map_err(|why| roll_back(why, &refusal));
        let read = self.0.store.read_within(deadline, read);
        read.await.map_err(|error| answer(error, &refused))
    }
}

/// A place for the refusal while the store only knows errors of its own.
type Slot = Mutex<Option<Refusal>>;

/// The error that undoes the transaction. The store's own go through it, as it may try again.
fn roll_back(why: Refusal, slot: &Slot) -> StoreError {
    if let Refusal::Store(error) = why {
        return error;
    }
    let error = StoreError::Invalid { why: why.to_string() };
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    error
}

fn answer(error: StoreError, slot: &Slot) -> Refusal {
    // Only the error that stands for a refusal may be replaced by it: after a refusal of a first
    // try the store itself may have failed in a second one.
    let refusal = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (error, refusal) {
        (StoreError::Invalid { .. }, Some(refusal)) => refusal,
        (error, _) => error.into(),
    }
}
