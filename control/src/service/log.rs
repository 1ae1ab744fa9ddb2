//! The connection log beside the store: what is told of sessions, what is noted while they live,
//! and what becomes of those that a process before this one left.
//!
//! A process that takes the cores over goes on with their sessions. One that begins anew finds no
//! core that knows them: their ends are told with what was noted last, once, whatever happens
//! meanwhile. This module must not know how entries are written.

use std::collections::BTreeMap;

use ringway_proto::crypto::PublicKey;
use tokio::sync::MutexGuard;
use tracing::{info, warn};

use super::outbox::TOGETHER_MAX;
use super::{Service, store_failed};
use crate::access::Moment;
use crate::access::sessions::Counted;
use crate::logs::connections::{self, Ending};
use crate::logs::privacy::Mode;
use crate::store::query::{AccessRow, OpenSessions, SessionNote};
use crate::store::records::{ConnectionEntry, DeviceId, OpenSession, Timestamp, Usage};

/// How often it is noted that sessions live of which nothing moves, in milliseconds: by so much the
/// end of a lost one may be told too early.
const NOTED_EVERY_MS: i64 = 60_000;

impl Service {
    pub(super) async fn flush_connections(&self) -> bool {
        loop {
            let now = self.now().wall;
            let (notes, seen, lost) = {
                let outbox = self.outbox.borrow();
                let notes = outbox.connections.iter().take(TOGETHER_MAX).cloned();
                let seen = outbox.seen.iter().take(TOGETHER_MAX);
                let seen: Vec<(DeviceId, Timestamp)> = seen.map(|(id, at)| (*id, *at)).collect();
                (notes.collect::<Vec<SessionNote>>(), seen, outbox.connections_lost)
            };
            if notes.is_empty() && seen.is_empty() {
                return true;
            }
            let (count, touched) = (notes.len(), seen.clone());
            // Of those that are not told yet nobody knows here who has ended.
            let noted_at = match notes.last() {
                Some(SessionNote::Begun { entry, .. } | SessionNote::Ended { entry, .. })
                    if count == TOGETHER_MAX =>
                {
                    entry.at
                }
                Some(_) | None => now,
            };
            let name = self.name.clone();
            let written = self.store.write(move |db| {
                db.log_sessions(&name, &notes, noted_at)?;
                db.touch_devices(&seen)
            });
            if let Err(failure) = written.await {
                store_failed("Connections were not kept", &failure);
                return false;
            }
            let mut outbox = self.outbox.borrow_mut();
            // Some of them may have been given up meanwhile.
            let given_up = usize::try_from(outbox.connections_lost - lost).unwrap_or(usize::MAX);
            outbox.connections.drain(..count.saturating_sub(given_up));
            for (device, at) in touched {
                if outbox.seen.get(&device) == Some(&at) {
                    outbox.seen.remove(&device);
                }
            }
        }
    }

    /// What is to be noted of sessions that live, together with this usage: those that moved it.
    /// None if nothing has to be.
    pub(super) fn live_of(&self, usage: &[Usage], now: Moment) -> Option<Vec<OpenSession>> {
        let privacy = self.desk.privacy();
        if privacy.mode == Mode::NoLog {
            return None;
        }
        let noted = self.measure.borrow().noted;
        self.with_projection(|known| {
            let of = |usage: &Usage| {
                let clients = &known.person(usage.user)?.clients;
                let client = clients.iter().find(|client| client.id == usage.device)?;
                connections::open(known.sessions().of(&client.public)?, &privacy)
            };
            let live: Vec<OpenSession> = usage.iter().filter_map(of).collect();
            let is_due = noted.is_none_or(|at| now.steady.since(at) >= NOTED_EVERY_MS);
            let is_due = is_due && known.sessions().after(None).any(|one| one.owner.is_some());
            (is_due || !live.is_empty()).then_some(live)
        })
    }

    /// Goes on with the sessions of the process before this one that the cores still have, and
    /// tells the ends of the others. `moved` is what devices moved that is in no record yet.
    pub(super) fn recover_sessions(
        &self,
        left: OpenSessions,
        mut moved: BTreeMap<DeviceId, Counted>,
        rows: &[AccessRow],
        now: Moment,
    ) {
        let mut projection = self.projection.borrow_mut();
        // Also after the calendar was set back.
        projection.begin_above(left.last_session);
        if self.desk.privacy().mode == Mode::NoLog {
            // What is left is forgotten with the first purge.
            return;
        }
        let mut live: BTreeMap<DeviceId, PublicKey> = self.desk.with_plane(|plane| {
            let keys = rows.iter().map(|row| (row.device.id, row.device.public_key));
            let has = |key: &PublicKey| plane.peer(key).is_some_and(|peer| peer.account.is_some());
            keys.filter(|(_, key)| has(key)).collect()
        });
        let (mut resumed, mut ends) = (0_u64, Vec::new());
        // A device has one at a time: what it moved last belongs to its newest.
        for mut open in left.sessions.into_iter().rev() {
            let more = moved.remove(&open.device).unwrap_or_default();
            open.up_bytes = open.up_bytes.saturating_add(more.up_bytes);
            open.down_bytes = open.down_bytes.saturating_add(more.down_bytes);
            if let Some(public) = live.remove(&open.device) {
                projection.resume(open, public, now);
                resumed += 1;
            } else {
                ends.push(connections::lost(open, left.noted_at.unwrap_or(Timestamp(0))));
            }
        }
        if resumed > 0 {
            info!("{resumed} session(s) of the process before go on");
        }
        if !ends.is_empty() {
            let count = ends.len();
            warn!("The process before did not tell the ends of {count} session(s): told now");
        }
        let mut outbox = self.outbox.borrow_mut();
        ends.into_iter().rev().for_each(|end| outbox.connections(Some(end)));
        self.urgent.notify_one();
    }

    /// While this is held no end of a session goes from here to the store.
    pub(super) async fn still_log(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().await
    }

    /// Ends of sessions that the store was not told yet.
    pub(super) fn untold_ends(&self) -> Vec<ConnectionEntry> {
        let outbox = self.outbox.borrow();
        let ends = outbox.connections.iter().filter_map(|note| match note {
            SessionNote::Ended { entry, .. } => Some(entry.clone()),
            SessionNote::Begun { .. } => None,
        });
        ends.collect()
    }

    /// Ends all sessions with the gateway; no other begins here.
    pub(super) fn end_sessions(&self, now: Moment) {
        self.stopped.set(true);
        let sessions = self.projection.borrow_mut().end_all();
        for session in &sessions {
            self.tell_disconnected(session, Ending::Stopped, now);
        }
    }
}
