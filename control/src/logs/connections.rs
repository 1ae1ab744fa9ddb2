//! The connection log: an entry when a session begins and one when it ends, as far as may be kept.
//!
//! In the mode `no-log` there are no entries at all: who was connected when says enough about
//! somebody even without an address. What is older than the retention is purged once a day. Pure:
//! whoever has the records writes and purges.

use super::privacy::{Mode, Privacy, canonical_ip};
use crate::access::people::Out;
use crate::access::sessions::Session;
use crate::store::ids::Timestamp;
use crate::store::records::ConnectionEntry;

/// Milliseconds between two purges: a day.
pub const PURGE_EVERY_MS: i64 = 86_400_000;

/// The entry of a session that begins; none for a peer of the configuration file.
#[must_use]
pub fn connected(session: &Session, privacy: &Privacy) -> Option<ConnectionEntry> {
    let (user, device) = session.owner?;
    (privacy.mode == Mode::Full).then(|| ConnectionEntry {
        at: session.since,
        user,
        device,
        event: "connected".to_owned(),
        endpoint: endpoint(session, privacy),
        reason: None,
        duration_s: None,
        up_bytes: 0,
        down_bytes: 0,
    })
}

/// The entry of a session that ended at `now`; without a reason the client fell silent.
#[must_use]
pub fn disconnected(
    session: &Session,
    reason: Option<Out>,
    now: Timestamp,
    privacy: &Privacy,
) -> Option<ConnectionEntry> {
    let (user, device) = session.owner?;
    let duration_s = u64::try_from(now.since(session.since)).unwrap_or(0) / 1000;
    (privacy.mode == Mode::Full).then(|| ConnectionEntry {
        at: now,
        user,
        device,
        event: "disconnected".to_owned(),
        endpoint: endpoint(session, privacy),
        reason: reason.map(|reason| reason.code().to_owned()),
        duration_s: Some(duration_s),
        up_bytes: session.moved.up_bytes,
        down_bytes: session.moved.down_bytes,
    })
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

    #[test]
    fn a_session_has_an_entry_at_its_beginning_and_one_at_its_end() {
        let session = session();
        let begun = connected(&session, &Privacy::default()).unwrap();
        assert_eq!((begun.at, begun.event.as_str()), (Timestamp(1_000), "connected"));
        assert_eq!(begun.endpoint.as_deref(), Some("192.0.2.7"));
        let now = Timestamp(61_500);
        let ended = disconnected(&session, Some(Out::Killed), now, &Privacy::default()).unwrap();
        assert_eq!(ended.reason.as_deref(), Some("killed"));
        assert_eq!((ended.duration_s, ended.up_bytes, ended.down_bytes), (Some(60), 7, 9));
    }

    #[test]
    fn without_a_log_there_is_no_entry_whatever_may_be_shown() {
        assert_eq!(connected(&session(), &NO_LOG), None);
        assert_eq!(disconnected(&session(), None, Timestamp(9_000), &NO_LOG), None);
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
