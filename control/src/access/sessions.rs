//! Sessions that live: one for each key that is connected, from its first sign of life on.
//!
//! A session of WireGuard has no beginning that is announced; it is seen. What is kept here is what
//! the API shows of it: since when, from where, in which state for how long, and how much. Peers of
//! the configuration file have sessions too, and no user. This module must not know why a session
//! ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringway_proto::crypto::PublicKey;
use serde::Serialize;

use crate::store::records::{DeviceId, OpenSession, Timestamp, UserId};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is known of the device.
    #[default]
    Disconnected,
    /// A handshake is under way.
    Connecting,
    /// There are keys, and nothing has come under them yet.
    LinkUp,
    /// Data is exchanged.
    Online,
}

impl State {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Disconnected, Self::Connecting, Self::LinkUp, Self::Online];

    /// The word in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::LinkUp => "link_up",
            Self::Online => "online",
        }
    }

    /// Whether there is a session.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Online)
    }
}

/// What a core says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is in its life.
    pub state: State,
    /// Where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake finished, in milliseconds since the Unix epoch.
    pub last_handshake: Option<Timestamp>,
    /// When something authenticated came last.
    pub last_received: Option<Timestamp>,
    /// Largest inner packet its path carries, in bytes.
    pub path_mtu: u16,
    /// The core that owns it.
    pub core: u16,
    /// Bytes from and to it as `wg` counts them, since the peer was made.
    pub outer_bytes: (u64, u64),
}

/// Bytes and packets of a device, since its counters began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Inner bytes from the client.
    pub up_bytes: u64,
    /// Inner bytes to the client.
    pub down_bytes: u64,
    /// Packets from the client.
    pub up_packets: u64,
    /// Packets to the client.
    pub down_packets: u64,
}

impl Counted {
    /// What came since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            up_bytes: self.up_bytes.saturating_sub(earlier.up_bytes),
            down_bytes: self.down_bytes.saturating_sub(earlier.down_bytes),
            up_packets: self.up_packets.saturating_sub(earlier.up_packets),
            down_packets: self.down_packets.saturating_sub(earlier.down_packets),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            up_bytes: self.up_bytes.saturating_add(more.up_bytes),
            down_bytes: self.down_bytes.saturating_add(more.down_bytes),
            up_packets: self.up_packets.saturating_add(more.up_packets),
            down_packets: self.down_packets.saturating_add(more.down_packets),
        }
    }

    /// Bytes of both directions.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.up_bytes.saturating_add(self.down_bytes)
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number: of this session, not of the device. Never given twice, also by the next process.
    pub id: u64,
    /// The client's key.
    pub public: PublicKey,
    /// Whose it is and with which device; none for a peer of the configuration file.
    pub owner: Option<(UserId, DeviceId)>,
    /// Since when.
    pub since: Timestamp,
    /// When something came last.
    pub last_activity: Timestamp,
    /// Where it is in its life, since when.
    pub state: State,
    /// Since when it is there.
    pub state_since: Timestamp,
    /// What a core last said of it.
    pub seen: Seen,
    /// What it moved.
    pub moved: Counted,
    /// Bytes per second lately, from and to the client.
    pub speed: (u64, u64),
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Each in a block of its own, which can be wiped: a map keeps the bytes of what was removed.
    by_key: BTreeMap<PublicKey, Box<Session>>,
    by_id: BTreeMap<u64, PublicKey>,
    last_id: u64,
    /// What was moved under keys whose session has not been seen yet: it is seen up to a second
    /// after its first packet.
    early: BTreeMap<PublicKey, Counted>,
}

/// Numbers that a process may give in a millisecond before they could meet those of the next one,
/// which begins with the milliseconds of its start. Fits the integers of every JSON reader.
const IDS_PER_MS: u64 = 1 << 10;

impl Sessions {
    /// Begins the session of a key that has none.
    pub fn begin(
        &mut self,
        public: PublicKey,
        owner: Option<(UserId, DeviceId)>,
        seen: Seen,
        now: Timestamp,
    ) -> &Session {
        let by_clock = u64::try_from(now.0).unwrap_or(0).saturating_mul(IDS_PER_MS);
        let id = by_clock.max(self.last_id + 1);
        self.last_id = id;
        self.by_id.insert(id, public);
        let session = Session {
            id,
            public,
            owner,
            since: seen.last_handshake.unwrap_or(now).min(now),
            last_activity: seen.last_received.unwrap_or(now).min(now),
            state: seen.state,
            state_since: now,
            seen,
            moved: self.early.remove(&public).unwrap_or_default(),
            speed: (0, 0),
        };
        self.by_key.entry(public).or_insert_with(|| Box::new(session))
    }

    /// Goes on with a session that another process began. What cores say of it comes with
    /// [`Self::see`].
    pub fn resume(&mut self, begun: OpenSession, public: PublicKey, now: Timestamp) {
        let OpenSession { session: id, user, device, since, up_bytes, down_bytes, .. } = begun;
        self.begin_above(id);
        let seen = Seen {
            state: State::Online,
            endpoint: None,
            last_handshake: None,
            last_received: None,
            path_mtu: 0,
            core: 0,
            outer_bytes: (0, 0),
        };
        let session = Session {
            id,
            public,
            owner: Some((user, device)),
            since,
            last_activity: since,
            state: State::Online,
            state_since: now,
            seen,
            moved: Counted { up_bytes, down_bytes, ..Counted::default() },
            speed: (0, 0),
        };
        if let Some(other) = self.by_key.insert(public, Box::new(session)) {
            self.by_id.remove(&other.id);
        }
        self.by_id.insert(id, public);
    }

    /// Numbers from here on are higher than `id`.
    pub fn begin_above(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Takes in what a core says of a session.
    pub fn see(&mut self, public: &PublicKey, seen: Seen, now: Timestamp) {
        let Some(session) = self.by_key.get_mut(public) else { return };
        if let Some(at) = seen.last_received {
            session.last_activity = session.last_activity.max(at.min(now));
        }
        if session.state != seen.state {
            (session.state, session.state_since) = (seen.state, now);
        }
        if session.owner.is_none() {
            // Nobody counts inner bytes of peers that have no account.
            let more = |now: u64, before: u64| now.saturating_sub(before);
            let before = session.seen.outer_bytes;
            session.moved.up_bytes += more(seen.outer_bytes.0, before.0);
            session.moved.down_bytes += more(seen.outer_bytes.1, before.1);
        }
        session.seen = seen;
    }

    /// Takes in what was moved under a key in the last `period_ms`.
    pub fn count(&mut self, public: &PublicKey, more: Counted, period_ms: u64, now: Timestamp) {
        let Some(session) = self.by_key.get_mut(public) else {
            let early = self.early.entry(*public).or_default();
            *early = early.plus(more);
            return;
        };
        session.moved = session.moved.plus(more);
        if more.up_packets > 0 {
            session.last_activity = session.last_activity.max(now);
        }
        let speed = |bytes: u64| bytes.saturating_mul(1000) / period_ms.max(1);
        session.speed = (speed(more.up_bytes), speed(more.down_bytes));
    }

    /// Ends the session of a key, if it has one.
    pub fn end(&mut self, public: &PublicKey) -> Option<Box<Session>> {
        let session = self.by_key.remove(public)?;
        self.by_id.remove(&session.id);
        Some(session)
    }

    /// Ends all of them, the oldest first.
    pub fn end_all(&mut self) -> Vec<Box<Session>> {
        let keys: Vec<PublicKey> = std::mem::take(&mut self.by_id).into_values().collect();
        keys.iter().filter_map(|public| self.by_key.remove(public)).collect()
    }

    /// Says whose a session is that was seen before its owner was known.
    pub fn own(&mut self, public: &PublicKey, owner: (UserId, DeviceId)) {
        let Some(session) = self.by_key.get_mut(public) else { return };
        if session.owner.is_none() {
            session.owner = Some(owner);
            // What was taken from `wg` so far is of the wire, and counted from the pages again.
            session.moved = self.early.remove(public).unwrap_or_default();
        }
    }

    /// No session of this key is about to be seen: what came last belongs to the one that ended.
    pub fn forget(&mut self, public: &PublicKey) {
        self.early.remove(public);
    }

    /// The session of a key.
    #[must_use]
    pub fn of(&self, public: &PublicKey) -> Option<&Session> {
        self.by_key.get(public).map(AsRef::as_ref)
    }

    /// The session with this number.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Session> {
        self.of(self.by_id.get(&id)?)
    }

    /// All of them, oldest first, after this one.
    pub fn after(&self, id: Option<u64>) -> impl Iterator<Item = &Session> {
        use std::ops::Bound;
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.by_id.range((from, Bound::Unbounded));
        ids.filter_map(|(_, public)| self.of(public))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: State) -> Seen {
        Seen {
            state,
            endpoint: None,
            last_handshake: None,
            last_received: None,
            path_mtu: 1420,
            core: 0,
            outer_bytes: (100, 200),
        }
    }

    #[test]
    fn numbers_grow_and_the_next_process_goes_on_above() {
        let mut sessions = Sessions::default();
        let mut last = 0;
        for number in 0..100_u8 {
            let now = Timestamp(1_796_000_000_000 + i64::from(number / 50));
            let id = sessions.begin(PublicKey([number; 32]), None, seen(State::Online), now).id;
            assert!(id > last);
            last = id;
        }
        assert!(last < 1 << 53, "a JSON reader with doubles reads it exactly");
        let next = Sessions::default()
            .begin(PublicKey([1; 32]), None, seen(State::Online), Timestamp(1_796_000_000_002))
            .id;
        assert!(next > last);
        let all: Vec<u64> = sessions.after(None).map(|session| session.id).collect();
        assert!(all.is_sorted() && all.len() == 100);
        assert_eq!(sessions.after(Some(all[97])).count(), 2);
        let (key, now) = (PublicKey([200; 32]), Timestamp(0));
        let first = sessions.begin(key, None, seen(State::Online), now).id;
        sessions.end(&key);
        assert_ne!(sessions.begin(key, None, seen(State::Online), now).id, first);
    }

    #[test]
    fn what_was_moved_before_a_session_is_seen_is_its_own_and_what_came_after_its_end_is_not() {
        let (mut sessions, key) = (Sessions::default(), PublicKey([1; 32]));
        let more = Counted { up_bytes: 5, down_packets: 1, ..Counted::default() };
        sessions.count(&key, more, 100, Timestamp(900));
        sessions.count(&key, more, 100, Timestamp(950));
        sessions.begin(key, None, seen(State::Online), Timestamp(1000));
        sessions.count(&key, more, 100, Timestamp(1050));
        let ended = sessions.end(&key).unwrap();
        assert_eq!((ended.moved.up_bytes, ended.moved.down_packets), (15, 3));
        sessions.count(&key, more, 100, Timestamp(1100));
        sessions.forget(&key);
        let next = sessions.begin(key, None, seen(State::Online), Timestamp(2000));
        assert_eq!(next.moved, Counted::default());
    }

    #[test]
    fn a_state_has_a_beginning_and_bytes_of_peers_without_an_account_are_those_that_wg_shows() {
        let (mut sessions, key) = (Sessions::default(), PublicKey([1; 32]));
        sessions.begin(key, None, seen(State::LinkUp), Timestamp(1000));
        let later = Seen { outer_bytes: (150, 900), ..seen(State::Online) };
        sessions.see(&key, later, Timestamp(1500));
        sessions.see(&key, seen(State::LinkUp), Timestamp(4500));
        let session = sessions.of(&key).unwrap();
        assert_eq!((session.moved.up_bytes, session.moved.down_bytes), (50, 700));
        assert_eq!(session.state_since, Timestamp(4500));
    }
}
