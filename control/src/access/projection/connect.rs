//! Sessions begin, go on and end; and how many a user may have.

use ringway_proto::crypto::PublicKey;

use super::{Note, Projection, Stand};
use crate::access::chain::{Number, Subject};
use crate::access::clock::Moment;
use crate::access::people::Out;
use crate::access::sessions::{Counted, Seen};
use crate::store::records::{DeviceId, Excess, UserId};

impl Projection {
    /// Takes in what a core says of a peer.
    pub fn see(&mut self, public: &PublicKey, seen: Seen, now: Moment) {
        let Some(device) = self.keys.get(public).copied() else { return };
        let Some(user) = self.owners.get(&device).copied() else { return };
        if self.stand(device) != Some(Stand::In) {
            return;
        }
        match (self.sessions.of(device).is_some(), seen.state.is_session()) {
            (true, true) => self.sessions.see(device, seen, now.wall),
            (true, false) => {
                if let Some(session) = self.sessions.end(device) {
                    self.notes.push(Note::Disconnected(Box::new(session), None));
                }
                self.release_held(user, now);
            }
            (false, true) => {
                let session = self.sessions.begin(user, device, seen, now.wall).clone();
                self.notes.push(Note::Connected(Box::new(session)));
                self.keep_to_sessions_max(user, device, now);
            }
            (false, false) => {}
        }
    }

    /// Takes in what was charged to an account in the last `period_ms`. Only devices count: what
    /// they moved is part of everything above them.
    pub fn count(&mut self, number: Number, more: Counted, period_ms: u64, now: Moment) {
        let Some(Subject::Device(device)) = self.numbers.subject(number) else { return };
        let Some(user) = self.owners.get(&device).copied() else { return };
        self.sessions.count(device, more, period_ms, now.wall);
        let Some(entry) = self.users.get_mut(&user) else { return };
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
        let mut live: Vec<_> =
            entry.places.keys().filter_map(|device| self.sessions.of(*device)).collect();
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
                live.sort_by_key(|session| (session.device == newest, session.since, session.id));
                let many = live.len() - most;
                let oldest: Vec<DeviceId> =
                    live.iter().take(many).map(|session| session.device).collect();
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
        let live =
            entry.places.keys().filter(|device| self.sessions.of(**device).is_some()).count();
        if live >= entry.person.rules.sessions_max as usize {
            return;
        }
        entry.places.values_mut().for_each(|place| place.held = false);
        self.refresh(user, now);
    }
}
