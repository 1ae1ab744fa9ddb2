//! Sessions begin, go on and end; and how many a user may have.

use ringway_proto::crypto::PublicKey;

use super::{Note, Projection, Stand};
use crate::access::chain::{Number, Subject};
use crate::access::clock::Moment;
use crate::access::people::Out;
use crate::access::sessions::{Counted, Seen, Session};
use crate::store::records::{DeviceId, Excess, OpenSession, UserId};

impl Projection {
    /// Takes in what a core says of a peer, also of one that only the configuration file knows.
    pub fn see(&mut self, public: &PublicKey, seen: Seen, now: Moment) {
        let owner = self.keys.get(public).and_then(|device| {
            let user = self.owners.get(device)?;
            Some((*user, *device))
        });
        if owner.is_some_and(|(_, device)| self.stand(device) != Some(Stand::In)) {
            return;
        }
        match (self.sessions.of(public).is_some(), seen.state.is_session()) {
            (true, true) => {
                if let Some(owner) = owner {
                    self.sessions.own(public, owner);
                }
                let before = self.sessions.of(public).and_then(|session| session.seen.endpoint);
                self.sessions.see(public, seen, now.wall);
                let is_elsewhere =
                    before.is_some() && seen.endpoint.is_some_and(|at| Some(at) != before);
                if is_elsewhere && let Some(session) = self.sessions.of(public) {
                    self.notes.push(Note::Moved(Box::new(session.clone())));
                }
            }
            (true, false) => self.gone(public, now),
            (false, true) => {
                let session = self.sessions.begin(*public, owner, seen, now.wall).clone();
                self.notes.push(Note::Connected(Box::new(session)));
                if let Some((user, device)) = owner {
                    self.keep_to_sessions_max(user, device, now);
                }
            }
            (false, false) => {}
        }
    }

    /// A peer is not connected any more, or not there at all.
    pub fn gone(&mut self, public: &PublicKey, now: Moment) {
        let Some(session) = self.sessions.end(public) else { return };
        let owner = session.owner;
        self.notes.push(Note::Disconnected(session, None));
        if let Some((user, _)) = owner {
            self.release_held(user, now);
        }
    }

    /// Goes on with a session of the process before this one, whose peers the cores still have.
    pub fn resume(&mut self, begun: OpenSession, public: PublicKey, now: Moment) {
        self.sessions.resume(begun, public, now.wall);
    }

    /// Sessions from here on have higher numbers than `id`.
    pub fn begin_above(&mut self, id: u64) {
        self.sessions.begin_above(id);
    }

    /// Ends all sessions with the gateway. What is charged afterwards is nobody's session's.
    pub fn end_all(&mut self) -> Vec<Box<Session>> {
        self.sessions.end_all()
    }

    /// Takes in what was charged to an account in the last `period_ms`. Only devices count: what
    /// they moved is part of everything above them.
    pub fn count(&mut self, number: Number, more: Counted, period_ms: u64, now: Moment) {
        let Some(Subject::Device(device)) = self.numbers.subject(number) else { return };
        let Some(user) = self.owners.get(&device).copied() else { return };
        let Some(entry) = self.users.get_mut(&user) else { return };
        if let Some(client) = entry.client(device) {
            self.sessions.count(&client.public, more, period_ms, now.wall);
        }
        if more.up_packets > 0
            && let Some(place) = entry.places.get_mut(&device)
        {
            place.active = now.steady;
        }
        entry.used = entry.used.saturating_add(more.bytes());
        if entry.person.rules.quota.is_some() {
            self.quota_may_be_reached(user, false, now);
        }
    }

    /// A device has begun a session: if that is one too many, it or the oldest goes.
    fn keep_to_sessions_max(&mut self, user: UserId, newest: DeviceId, now: Moment) {
        let Some(entry) = self.users.get(&user) else { return };
        let (most, excess) = (entry.person.rules.sessions_max as usize, entry.person.rules.excess);
        let keys = entry.person.clients.iter().map(|client| (client.id, client.public));
        let mut live: Vec<_> =
            keys.filter_map(|(id, key)| Some((id, self.sessions.of(&key)?))).collect();
        if live.len() <= most {
            return;
        }
        match excess {
            Excess::Refuse => {
                if let Some(entry) = self.users.get_mut(&user)
                    && let Some(place) = entry.places.get_mut(&newest)
                {
                    place.held = true;
                }
                self.refresh(user, now);
            }
            Excess::KickOldest => {
                live.sort_by_key(|(id, session)| (*id == newest, session.since, session.id));
                let many = live.len() - most;
                let oldest: Vec<DeviceId> = live.iter().take(many).map(|(id, _)| *id).collect();
                for device in oldest {
                    self.end_access(device, Out::Displaced, now);
                }
            }
        }
    }

    /// Lets devices try again that waited for a session of their user to end.
    pub(super) fn release_held(&mut self, user: UserId, now: Moment) {
        let Some(entry) = self.users.get_mut(&user) else { return };
        if !entry.places.values().any(|place| place.held) {
            return;
        }
        let keys = entry.person.clients.iter().map(|client| client.public);
        let live = keys.filter(|key| self.sessions.of(key).is_some()).count();
        if live >= entry.person.rules.sessions_max as usize {
            return;
        }
        entry.places.values_mut().for_each(|place| place.held = false);
        self.refresh(user, now);
    }
}
