//! The connection log: an entry when a session begins and one when it ends, as far as may be kept.
//!
//! In the mode `no-log` there are no entries at all: who was connected when says enough about
//! somebody even without an address. What is older than the retention is purged once a day. An end
//! that no process came to tell is told by the next one, from what was noted while the session
//! lived. Pure: whoever has the records writes and purges.

use super::privacy::{Mode, Privacy, canonical_ip};
use crate::access::people::Out;
use crate::access::sessions::Session;
use crate::store::ids::Timestamp;
use crate::store::query::SessionNote;
use crate::store::records::{ConnectionEntry, OpenSession};

/// Milliseconds between two purges: a day.
pub const PURGE_EVERY_MS: i64 = 86_400_000;

/// Why a session ended: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client fell silent.
    Silent,
    /// The gateway took its access away.
    Out(Out),
    /// The gateway was stopped.
    Stopped,
    /// The gateway was gone without telling the end: killed, or out of power.
    Lost,
}

impl Ending {
    /// Ends that come with the gateway's own.
    pub const OF_GATEWAY: [Self; 2] = [Self::Stopped, Self::Lost];

    /// The code in the connection log; none for a client that fell silent.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Silent => None,
            Self::Out(out) => Some(out.code()),
            Self::Stopped => Some("gateway_stopped"),
            Self::Lost => Some("gateway_lost"),
        }
    }
}

/// What the log is told of a session that begins; nothing of a peer of the configuration file.
#[must_use]
pub fn connected(session: &Session, privacy: &Privacy) -> Option<SessionNote> {
    let open = open(session, privacy)?;
    let entry = ConnectionEntry {
        at: open.since,
        user: open.user,
        device: open.device,
        event: "connected".to_owned(),
        endpoint: open.endpoint.clone(),
        reason: None,
        duration_s: None,
        up_bytes: 0,
        down_bytes: 0,
    };
    Some(SessionNote::Begun { open, entry })
}

/// What the log is told of a session that ended at `now`.
#[must_use]
pub fn disconnected(
    session: &Session,
    ending: Ending,
    now: Timestamp,
    privacy: &Privacy,
) -> Option<SessionNote> {
    Some(ended(open(session, privacy)?, ending, now))
}

/// What the log is told of a session of which no end is known. It ended after its gateway last
/// noted that it lived; that moment is told, for a later one would be made up.
#[must_use]
pub fn lost(open: OpenSession, noted_at: Timestamp) -> SessionNote {
    let at = noted_at.max(open.since);
    ended(open, Ending::Lost, at)
}

/// A session as the store keeps it while it lives, as far as it may be kept.
#[must_use]
pub fn open(session: &Session, privacy: &Privacy) -> Option<OpenSession> {
    let (user, device) = session.owner?;
    (privacy.mode == Mode::Full).then(|| OpenSession {
        session: session.id,
        user,
        device,
        since: session.since,
        endpoint: endpoint(session, privacy),
        up_bytes: session.moved.up_bytes,
        down_bytes: session.moved.down_bytes,
    })
}

fn ended(open: OpenSession, ending: Ending, at: Timestamp) -> SessionNote {
    let duration_s = u64::try_from(at.since(open.since)).unwrap_or(0) / 1000;
    let entry = ConnectionEntry {
        at,
        user: open.user,
        device: open.device,
        event: "disconnected".to_owned(),
        endpoint: open.endpoint,
        reason: ending.code().map(str::to_owned),
        duration_s: Some(duration_s),
        up_bytes: open.up_bytes,
        down_bytes: open.down_bytes,
    };
    SessionNote::Ended { session: open.session, entry, is_alone: false }
}

/// Before which moment entries are to be purged now, if a purge is due: the first one at once, then
/// one a day. `last` is when the last one was. Entries of a time before the mode `no-log` all go.
#[must_use]
pub fn purge_due(privacy: &Privacy, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let due = last.is_none_or(|last| now.since(last) >= PURGE_EVERY_MS || now < last);
    match privacy.mode {
        _ if !due => None,
        Mode::NoLog => Some(now),
        Mode::Full => privacy.purge_before(now),
    }
}

/// The address without the port: the port says nothing that lasts.
fn endpoint(session: &Session, privacy: &Privacy) -> Option<String> {
    let endpoint = privacy.keep(session.seen.endpoint?)?;
    Some(canonical_ip(endpoint).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use ringway_proto::crypto::PublicKey;

    use super::*;
    use crate::access::sessions::{Counted, Seen, Sessions, State};
    use crate::store::records::{DeviceId, UserId};

    fn session() -> Session {
        let seen = Seen {
            state: State::Online,
            endpoint: Some("[::ffff:192.0.2.7]:4711".parse().unwrap()),
            last_handshake: Some(Timestamp(1_000)),
            last_received: None,
            path_mtu: 1420,
            core: 0,
            outer_bytes: (0, 0),
        };
        let mut sessions = Sessions::default();
        let key = PublicKey([7; 32]);
        let owner = Some((UserId::fresh(), DeviceId::fresh()));
        sessions.begin(key, owner, seen, Timestamp(2_000));
        let moved = Counted { up_bytes: 7, down_bytes: 9, ..Counted::default() };
        sessions.count(&key, moved, 1000, Timestamp(3_000));
        *sessions.end(&key).unwrap()
    }

    const NO_LOG: Privacy = Privacy { mode: Mode::NoLog, show_live: true, retention_days: 30 };

    fn entry(note: SessionNote) -> ConnectionEntry {
        match note {
            SessionNote::Begun { entry, .. } | SessionNote::Ended { entry, .. } => entry,
        }
    }

    #[test]
    fn a_session_has_an_entry_at_its_beginning_and_one_at_its_end() {
        let session = session();
        let begun = entry(connected(&session, &Privacy::default()).unwrap());
        assert_eq!((begun.at, begun.event.as_str()), (Timestamp(1_000), "connected"));
        assert_eq!(begun.endpoint.as_deref(), Some("192.0.2.7"));
        let now = Timestamp(61_500);
        for (ending, code) in [
            (Ending::Silent, None),
            (Ending::Out(Out::Killed), Some("killed")),
            (Ending::Stopped, Some("gateway_stopped")),
        ] {
            let ended = entry(disconnected(&session, ending, now, &Privacy::default()).unwrap());
            assert_eq!((ended.at, ended.reason.as_deref()), (now, code));
            assert_eq!((ended.duration_s, ended.up_bytes, ended.down_bytes), (Some(60), 7, 9));
        }
    }

    #[test]
    fn a_lost_session_ended_when_it_was_last_noted_and_never_before_it_began() {
        let open = open(&session(), &Privacy::default()).unwrap();
        for (noted, at, lasted) in [(91_999, 91_999, 90), (1_000, 1_000, 0), (-5, 1_000, 0)] {
            let ended = entry(lost(open.clone(), Timestamp(noted)));
            assert_eq!((ended.at, ended.duration_s), (Timestamp(at), Some(lasted)));
            assert_eq!(ended.reason.as_deref(), Some("gateway_lost"));
            assert_eq!((ended.up_bytes, ended.down_bytes), (7, 9));
            assert_eq!(ended.endpoint.as_deref(), Some("192.0.2.7"));
        }
    }

    #[test]
    fn without_a_log_there_is_no_entry_whatever_may_be_shown() {
        assert_eq!(connected(&session(), &NO_LOG), None);
        assert_eq!(open(&session(), &NO_LOG), None);
        let silent = Ending::Silent;
        assert_eq!(disconnected(&session(), silent, Timestamp(9_000), &NO_LOG), None);
    }

    #[test]
    fn a_purge_is_due_at_the_start_and_then_once_a_day() {
        let now = Timestamp(100 * PURGE_EVERY_MS);
        let full = Privacy { retention_days: 30, ..Privacy::default() };
        let before = Some(Timestamp(70 * PURGE_EVERY_MS));
        assert_eq!(purge_due(&full, None, now), before);
        assert_eq!(purge_due(&full, Some(now.plus_ms(-PURGE_EVERY_MS)), now), before);
        assert_eq!(purge_due(&full, Some(now.plus_ms(1 - PURGE_EVERY_MS)), now), None);
        assert_eq!(purge_due(&full, Some(now.plus_ms(5)), now), before, "the clock went back");
        assert_eq!(purge_due(&Privacy { retention_days: 0, ..full }, None, now), None);
        assert_eq!(purge_due(&NO_LOG, None, now), Some(now), "nothing from before is kept");
    }
}
