//! Sessions beyond the process that saw them begin: an end for those that a gateway was stopped or
//! killed with, and one and the same session for those that the next process takes over.
//!
//! While a session lives the store has a note of it, at most a minute old. The first process after
//! reads these notes: where the cores still have the peer, the session goes on under its number;
//! where they do not, it ended with the process before.

use std::collections::BTreeMap;

use ringway_proto::crypto::PublicKey;
use tracing::info;

use super::Service;
use crate::access::sessions::{Counted, Session};
use crate::logs::connections::{self, LOST, STOPPED};
use crate::logs::privacy::Privacy;
use crate::store::StoreError;
use crate::store::records::{DeviceId, OpenSession, Timestamp, UserId};

/// Sessions of the process before, whose peers the cores still have.
pub(super) type Inherited = BTreeMap<DeviceId, OpenSession>;

impl Service {
    /// What the process before noted of its sessions. Read behind whatever that process is still
    /// telling the store.
    pub(super) async fn noted(&self) -> Result<Vec<OpenSession>, StoreError> {
        let name = self.name.clone();
        self.store.write(move |db| db.open_sessions(&name)).await
    }

    /// Takes over what the process before noted, before any session is seen here. `keys` are those
    /// of all devices; `moved` is what was counted since the last entry.
    pub(super) fn inherit(
        &self,
        noted: Vec<OpenSession>,
        keys: &BTreeMap<DeviceId, PublicKey>,
        moved: &BTreeMap<DeviceId, Counted>,
    ) {
        let privacy = self.desk.privacy();
        let mut lost = 0;
        for mut session in noted {
            let key = keys.get(&session.device);
            let lives = key.is_some_and(|key| {
                self.desk
                    .with_plane(|plane| plane.peer(key).is_some_and(|peer| peer.account.is_some()))
            });
            if lives {
                let more = moved.get(&session.device).copied().unwrap_or_default();
                session.up_bytes = session.up_bytes.saturating_add(more.up_bytes);
                session.down_bytes = session.down_bytes.saturating_add(more.down_bytes);
                self.inherited.borrow_mut().insert(session.device, session);
            } else {
                lost += 1;
                self.close(&session, Some(LOST), &privacy);
            }
        }
        if lost > 0 {
            info!("{lost} session(s) ended with the process before, which did not say so");
        }
    }

    /// Goes on with a session of the process before, if this is one.
    pub(super) fn resume(&self, session: &Session) -> bool {
        let Some((_, device)) = session.owner else { return false };
        let Some(noted) = self.inherited.borrow_mut().remove(&device) else { return false };
        let before = Counted {
            up_bytes: noted.up_bytes,
            down_bytes: noted.down_bytes,
            ..Counted::default()
        };
        self.projection.borrow_mut().resume(&session.public, noted.session, noted.since, before);
        true
    }

    /// All peers have been looked at: what is left of the process before fell silent meanwhile.
    pub(super) fn end_inherited(&self) {
        let left = std::mem::take(&mut *self.inherited.borrow_mut());
        let privacy = self.desk.privacy();
        left.values().for_each(|session| self.close(session, None, &privacy));
    }

    /// The gateway stops, and all sessions end with it.
    pub(super) fn end_sessions(&self, now: Timestamp) {
        let privacy = self.desk.privacy();
        let entries: Vec<_> = self.with_projection(|known| {
            let all = known.sessions().after(None);
            all.filter_map(|one| connections::disconnected(one, Some(STOPPED), now, &privacy))
                .collect()
        });
        let mut outbox = self.outbox.borrow_mut();
        entries.into_iter().for_each(|entry| outbox.connections(Some(entry), None));
        drop(outbox);
        self.end_inherited();
        self.outbox.borrow_mut().close();
    }

    /// Notes how far sessions got from which something has come since then.
    pub(super) fn note_open(&self, since: Timestamp) {
        let privacy = self.desk.privacy();
        let open: Vec<OpenSession> = self.with_projection(|known| {
            let lately = known.sessions().after(None).filter(|one| one.last_activity >= since);
            lately.filter_map(|session| connections::open(session, &privacy)).collect()
        });
        let mut outbox = self.outbox.borrow_mut();
        open.into_iter().for_each(|session| outbox.note_open(session));
    }

    /// Writes the end of a session of the process before, at the moment that is known best.
    fn close(&self, session: &OpenSession, why: Option<&'static str>, privacy: &Privacy) {
        let at = session.seen.max(session.since);
        let entry = connections::ended(session, why, at, privacy);
        self.outbox.borrow_mut().connections(entry, None);
    }
}

/// What each device moved, of what was found of users.
pub(super) fn by_device(found: &[(UserId, DeviceId, Counted)]) -> BTreeMap<DeviceId, Counted> {
    let mut moved: BTreeMap<DeviceId, Counted> = BTreeMap::new();
    for (_, device, new) in found {
        let sum = moved.entry(*device).or_default();
        *sum = sum.plus(*new);
    }
    moved
}
