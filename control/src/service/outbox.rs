//! What the store should know and was not told yet: bounded, and kept while the store is away.
//!
//! Ends of access are told at once, for the next start must not forget them; the rest every few
//! seconds. What is too much is counted, not waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::{Service, store_failed};
use crate::logs::connections;
use crate::logs::privacy::Mode;
use crate::store::StoreError;
use crate::store::query::SessionNote;
use crate::store::records::{DeviceId, Timestamp};

/// How often what can wait is told.
const PERIOD: Duration = Duration::from_secs(5);

/// How long to wait after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections that are kept while the store is away: an hour of 25 a second.
pub(super) const CONNECTIONS_MAX: usize = 100_000;

/// Entries in one transaction.
pub(super) const TOGETHER_MAX: usize = 1_000;

const MINUTE_MS: i64 = 60_000;

/// The end of the access that a sign-in gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AccessEnd {
    pub(super) device: DeviceId,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    ends: VecDeque<AccessEnd>,
    pub(super) connections: VecDeque<SessionNote>,
    /// Sessions whose beginnings were not kept, because too many waited.
    untold: BTreeSet<u64>,
    pub(super) seen: BTreeMap<DeviceId, Timestamp>,
    /// Connections that were not kept, because too many waited.
    pub connections_lost: u64,
    /// Times that the store did not take something.
    pub store_failures: u64,
    /// Times that the cores refused what the records say.
    pub steps_refused: u64,
    purged_at: Option<Timestamp>,
}

impl Outbox {
    pub(super) fn end_access(&mut self, end: AccessEnd) {
        self.ends.push_back(end);
    }

    pub(super) fn connections(&mut self, note: Option<SessionNote>) {
        let Some(mut note) = note else { return };
        if self.connections.len() == CONNECTIONS_MAX {
            self.connections_lost += 1;
            if let Some(SessionNote::Begun { open, .. }) = self.connections.pop_front() {
                self.untold(open.session);
            }
        }
        if let SessionNote::Ended { session, is_alone, .. } = &mut note {
            *is_alone = self.untold.remove(session);
        }
        self.connections.push_back(note);
    }

    /// The beginning of a session is not kept: its end says all that counts.
    fn untold(&mut self, begun: u64) {
        let end = self.connections.iter_mut().find_map(|note| match note {
            SessionNote::Ended { session, is_alone, .. } if *session == begun => Some(is_alone),
            SessionNote::Ended { .. } | SessionNote::Begun { .. } => None,
        });
        match end {
            Some(is_alone) => *is_alone = true,
            None => drop(self.untold.insert(begun)),
        }
    }

    /// When something came from a device, to the minute: nobody needs to know it better.
    pub(super) fn seen(&mut self, device: DeviceId, at: Timestamp) {
        let minute = Timestamp(at.0 - at.0.rem_euclid(MINUTE_MS));
        let last = self.seen.entry(device).or_insert(minute);
        *last = minute.max(*last);
    }

    /// How many entries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() + self.connections.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Service {
    pub(super) async fn empty_outbox(self: Rc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = self.urgent.notified() => {}
            }
            if !self.flush_outbox().await {
                tokio::time::sleep(PAUSE).await;
                self.urgent.notify_one();
            }
        }
    }

    /// Tells the store what waits. Returns whether it took all of it.
    pub(crate) async fn flush_outbox(&self) -> bool {
        if !self.loaded.get() {
            // What was counted before is not known yet, and so not what is new.
            return true;
        }
        // Also during a hand-over: the next process must not let in whom this one has shut out, and
        // telling that twice changes nothing.
        let ends = self.flush_ends().await;
        let _telling = self.telling.lock().await;
        let all = ends && self.flush_told().await && self.purge().await;
        self.outbox.borrow_mut().store_failures += u64::from(!all);
        all
    }

    /// Tells what happened, then what was used: an end takes with it what is counted and not in
    /// the store yet, which the next process would count again otherwise.
    pub(super) async fn flush_told(&self) -> bool {
        self.flush_ends().await && self.flush_connections().await && self.flush_usage().await
    }

    pub(super) async fn flush_usage(&self) -> bool {
        let _flushing = self.flushing.lock().await;
        if !self.settle_unsure().await {
            return false;
        }
        let entered = self.measure.borrow_mut().take_entered();
        let now = self.now();
        let live = self.live_of(&entered.usage, now);
        if entered.is_empty() && live.is_none() {
            self.release(&entered.settled);
            return true;
        }
        let (usage, marks) = (entered.usage.clone(), self.marks(&entered.marks));
        let (name, is_noted) = (self.name.clone(), live.is_some());
        let written = self.store.write(move |db| {
            db.add_usage(&usage, &marks)?;
            live.as_ref().map_or(Ok(()), |live| db.note_sessions(&name, now.wall, live))
        });
        let Err(failure) = written.await else {
            if is_noted {
                self.measure.borrow_mut().noted = Some(now.steady);
            }
            self.release(&entered.settled);
            return true;
        };
        store_failed("What devices used was not kept", &failure);
        // Nobody knows whether a change was kept of which no answer came.
        let unsure = matches!(failure, StoreError::Timeout { .. } | StoreError::Unavailable { .. });
        let mut measure = self.measure.borrow_mut();
        if unsure {
            measure.unsure = Some(entered)
        } else {
            measure.keep_entered(entered)
        }
        false
    }

    /// Finds out whether the store kept what it did not answer about: the marks say it, for they
    /// are kept together with what they are about.
    pub(super) async fn settle_unsure(&self) -> bool {
        let Some(entered) = self.measure.borrow_mut().unsure.take() else { return true };
        let Some(mark) = self.marks(&entered.marks).into_iter().next() else {
            self.release(&entered.settled);
            return true;
        };
        let page = mark.page.clone();
        // Asked as a change, behind the one that may still be under way.
        match self.store.write(move |db| db.usage_marks(&page)).await {
            Ok(marks) => {
                if marks.contains(&mark) {
                    self.release(&entered.settled);
                } else {
                    self.measure.borrow_mut().keep_entered(entered);
                }
                true
            }
            Err(failure) => {
                store_failed("What devices used was not kept", &failure);
                self.measure.borrow_mut().unsure = Some(entered);
                false
            }
        }
    }

    async fn flush_ends(&self) -> bool {
        let _ending = self.ending.lock().await;
        loop {
            let ends: Vec<AccessEnd> =
                self.outbox.borrow().ends.iter().take(TOGETHER_MAX).copied().collect();
            if ends.is_empty() {
                return true;
            }
            let count = ends.len();
            let written = self.store.write(move |db| {
                for end in &ends {
                    // A device that was removed meanwhile has no access either, and one that
                    // signed in again has another one.
                    let Ok(device) = db.device(end.device) else { continue };
                    if device.access_from == Some(end.from) {
                        db.set_access(end.device, Some(end.from), Some(end.until))?;
                    }
                }
                Ok(())
            });
            if let Err(failure) = written.await {
                store_failed("Ends of access were not kept", &failure);
                return false;
            }
            self.outbox.borrow_mut().ends.drain(..count);
        }
    }

    async fn purge(&self) -> bool {
        let now = self.now().wall;
        let last = self.outbox.borrow().purged_at;
        let Some(before) = connections::purge_due(&self.desk.privacy(), last, now) else {
            return true;
        };
        let no_log = (self.desk.privacy().mode == Mode::NoLog).then(|| self.name.clone());
        let purged = self.store.write(move |db| {
            db.purge_enrolments(before)?;
            db.purge_bans(now)?;
            if let Some(gateway) = &no_log {
                db.forget_sessions(gateway)?;
            }
            db.purge_connections(before)
        });
        match purged.await {
            Ok(_) => {
                self.outbox.borrow_mut().purged_at = Some(now);
                true
            }
            Err(failure) => {
                store_failed("Old connections were not removed", &failure);
                false
            }
        }
    }
}
