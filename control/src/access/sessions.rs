//! Sessions that live: one for each device that is connected, from its first sign of life on.
//!
//! A session of WireGuard has no beginning that is announced; it is seen. What is kept here is what
//! the API shows of it: since when, from where, in which state for how long, and how much. This
//! module must not know why a session ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use uuid::Uuid;

use crate::store::records::{DeviceId, Timestamp, UserId};

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
        matches!(self, Self::LinkUp | Self::Online)
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
    /// Its identifier: of this session, not of the device.
    pub id: Uuid,
    /// Whose it is.
    pub user: UserId,
    /// With which device.
    pub device: DeviceId,
    /// Since when.
    pub since: Timestamp,
    /// When something came last.
    pub last_activity: Timestamp,
    /// Where it is in its life, since when.
    pub state: State,
    /// Since when it is there.
    pub state_since: Timestamp,
    /// Milliseconds spent in each state before this one, by [`State::ALL`].
    pub spent_ms: [u64; 4],
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
    by_device: BTreeMap<DeviceId, Session>,
    by_id: BTreeMap<Uuid, DeviceId>,
}

impl Sessions {
    /// Begins the session of a device that has none.
    pub fn begin(
        &mut self,
        user: UserId,
        device: DeviceId,
        seen: Seen,
        now: Timestamp,
    ) -> &Session {
        let id = Uuid::now_v7();
        self.by_id.insert(id, device);
        self.by_device.entry(device).or_insert(Session {
            id,
            user,
            device,
            since: seen.last_handshake.unwrap_or(now).min(now),
            last_activity: seen.last_received.unwrap_or(now).min(now),
            state: seen.state,
            state_since: now,
            spent_ms: [0; 4],
            seen,
            moved: Counted::default(),
            speed: (0, 0),
        })
    }

    /// Takes in what a core says of a session.
    pub fn see(&mut self, device: DeviceId, seen: Seen, now: Timestamp) {
        let Some(session) = self.by_device.get_mut(&device) else { return };
        if let Some(at) = seen.last_received {
            session.last_activity = session.last_activity.max(at.min(now));
        }
        if session.state != seen.state {
            let spent = u64::try_from(now.since(session.state_since)).unwrap_or(0);
            session.spent_ms[session.state as usize] += spent;
            (session.state, session.state_since) = (seen.state, now);
        }
        session.seen = seen;
    }

    /// Takes in what a device moved in the last `period_ms`.
    pub fn count(&mut self, device: DeviceId, more: Counted, period_ms: u64, now: Timestamp) {
        let Some(session) = self.by_device.get_mut(&device) else { return };
        session.moved = session.moved.plus(more);
        if more.up_packets > 0 {
            session.last_activity = session.last_activity.max(now);
        }
        let speed = |bytes: u64| bytes.saturating_mul(1000) / period_ms.max(1);
        session.speed = (speed(more.up_bytes), speed(more.down_bytes));
    }

    /// Ends the session of a device, if it has one.
    pub fn end(&mut self, device: DeviceId) -> Option<Session> {
        let session = self.by_device.remove(&device)?;
        self.by_id.remove(&session.id);
        Some(session)
    }

    /// The session of a device.
    #[must_use]
    pub fn of(&self, device: DeviceId) -> Option<&Session> {
        self.by_device.get(&device)
    }

    /// The session with this identifier.
    #[must_use]
    pub fn by_id(&self, id: Uuid) -> Option<&Session> {
        self.by_device.get(self.by_id.get(&id)?)
    }

    /// All of them, oldest first, after this one.
    pub fn after(&self, id: Option<Uuid>) -> impl Iterator<Item = &Session> {
        use std::ops::Bound;
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.by_id.range((from, Bound::Unbounded));
        ids.filter_map(|(_, device)| self.by_device.get(device))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_device.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_device.is_empty()
    }
}
