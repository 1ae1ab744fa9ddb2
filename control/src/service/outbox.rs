//! What the store should know and was not told yet: bounded, and kept while the store is away.
//!
//! Ends of access are told at once, for the next start must not forget them; the rest every few
//! seconds. What is too much is counted, not waited for.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::{Service, store_failed};
use crate::logs::connections;
use crate::logs::privacy::Mode;
use crate::store::records::{ConnectionEntry, DeviceId, OpenSession, Timestamp};
use crate::store::{Db, StoreError};

/// How often what can wait is told.
const PERIOD: Duration = Duration::from_secs(5);

/// How long to wait after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections that are kept while the store is away: an hour of 25 a second.
const CONNECTIONS_MAX: usize = 100_000;

/// Entries in one transaction.
const TOGETHER_MAX: usize = 1_000;

const MINUTE_MS: i64 = 60_000;

/// The end of the access that a sign-in gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AccessEnd {
    pub(super) device: DeviceId,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// An entry of the log, and the session that lives from then on, if one does.
#[derive(Clone, Debug)]
struct Line {
    entry: ConnectionEntry,
    open: Option<OpenSession>,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    ends: VecDeque<AccessEnd>,
    connections: VecDeque<Line>,
    /// Sessions that live, as they are now, for a process that comes after one that was killed.
    open: BTreeMap<DeviceId, OpenSession>,
    seen: BTreeMap<DeviceId, Timestamp>,
    /// Connections that were not kept, because too many waited.
    pub connections_lost: u64,
    /// Times that the store did not take something.
    pub store_failures: u64,
    /// Times that the cores refused what the records say.
    pub steps_refused: u64,
    purged_at: Option<Timestamp>,
    /// Whether the log has all its ends.
    is_closed: bool,
}

impl Outbox {
    pub(super) fn end_access(&mut self, end: AccessEnd) {
        self.ends.push_back(end);
    }

    /// A session began or ended. `open` is the one that lives from then on.
    pub(super) fn connections(
        &mut self,
        entry: Option<ConnectionEntry>,
        open: Option<OpenSession>,
    ) {
        let Some(entry) = entry.filter(|_| !self.is_closed) else { return };
        // The line says it; what was noted before would come after it.
        self.open.remove(&entry.device);
        if self.connections.len() == CONNECTIONS_MAX {
            self.connections.pop_front();
            self.connections_lost += 1;
        }
        self.connections.push_back(Line { entry, open });
    }

    /// A session lives, and this is how far it got.
    pub(super) fn note_open(&mut self, session: OpenSession) {
        if !self.is_closed {
            self.open.insert(session.device, session);
        }
    }

    /// No session begins or ends after this: the gateway has stopped.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
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
    pub(super) async fn flush_outbox(&self) -> bool {
        if !self.loaded.get() {
            // What was counted before is not known yet, and so not what is new.
            return true;
        }
        let usage = self.flush_usage().await;
        let _telling = self.telling.lock().await;
        let all = usage
            && self.flush_ends().await
            && self.flush_connections().await
            && self.purge().await;
        self.outbox.borrow_mut().store_failures += u64::from(!all);
        all
    }

    pub(super) async fn flush_usage(&self) -> bool {
        let _flushing = self.flushing.lock().await;
        if !self.settle_unsure().await {
            return false;
        }
        let entered = self.measure.borrow_mut().take_entered();
        if entered.is_empty() {
            self.release(&entered.settled);
            return true;
        }
        let (usage, marks) = (entered.usage.clone(), self.marks(&entered.marks));
        let Err(failure) = self.store.write(move |db| db.add_usage(&usage, &marks)).await else {
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

    async fn flush_connections(&self) -> bool {
        loop {
            let (lines, open, seen) = {
                let outbox = self.outbox.borrow();
                let lines: Vec<Line> =
                    outbox.connections.iter().take(TOGETHER_MAX).cloned().collect();
                let open: Vec<OpenSession> =
                    outbox.open.values().take(TOGETHER_MAX).cloned().collect();
                let seen = outbox.seen.iter().take(TOGETHER_MAX);
                let seen: Vec<(DeviceId, Timestamp)> = seen.map(|(id, at)| (*id, *at)).collect();
                (lines, open, seen)
            };
            if lines.is_empty() && open.is_empty() && seen.is_empty() {
                return true;
            }
            let (count, noted, touched) = (lines.len(), open.clone(), seen.clone());
            let name = self.name.clone();
            let written = self.store.write(move |db| {
                // What was noted is of before: a session that began or ended since is in a line.
                db.put_open_sessions(&name, &open)?;
                append(db, &name, &lines)?;
                db.touch_devices(&seen)
            });
            if let Err(failure) = written.await {
                store_failed("Connections were not kept", &failure);
                return false;
            }
            let mut outbox = self.outbox.borrow_mut();
            // Some may have been given up meanwhile.
            let count = count.min(outbox.connections.len());
            outbox.connections.drain(..count);
            for session in noted {
                if outbox.open.get(&session.device) == Some(&session) {
                    outbox.open.remove(&session.device);
                }
            }
            for (device, at) in touched {
                if outbox.seen.get(&device) == Some(&at) {
                    outbox.seen.remove(&device);
                }
            }
        }
    }

    async fn purge(&self) -> bool {
        let now = self.now().wall;
        let last = self.outbox.borrow().purged_at;
        let Some(before) = connections::purge_due(&self.desk.privacy(), last, now) else {
            return true;
        };
        // Where nothing may be kept, nothing of before may be either.
        let keeps_none = self.desk.privacy().mode == Mode::NoLog;
        let name = self.name.clone();
        let purged = self.store.write(move |db| {
            db.purge_enrolments(before)?;
            if keeps_none {
                db.forget_open_sessions(&name)?;
            }
            db.purge_bans(now)?;
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

/// Adds lines to the log, and keeps which sessions live after the last of them.
fn append(db: &mut Db<'_>, gateway: &str, lines: &[Line]) -> Result<(), StoreError> {
    let entries: Vec<ConnectionEntry> = lines.iter().map(|line| line.entry.clone()).collect();
    db.append_connections(&entries)?;
    let last: BTreeMap<DeviceId, Option<&OpenSession>> =
        lines.iter().map(|line| (line.entry.device, line.open.as_ref())).collect();
    let open: Vec<OpenSession> = last.values().filter_map(|open| open.cloned()).collect();
    let closed = last.into_iter().filter(|(_, open)| open.is_none());
    let closed: Vec<DeviceId> = closed.map(|(device, _)| device).collect();
    db.put_open_sessions(gateway, &open)?;
    db.close_open_sessions(gateway, &closed)
}
