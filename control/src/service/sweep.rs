//! Looks at all peers again and again, so that sessions are seen to begin, to move and to end.
//!
//! Cores are asked for a page at a time, and a round takes a second at the least: with a hundred
//! thousand peers it takes ten, and costs a core less than a thousandth of its time.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::command::{PeerPage, PeerStatus, SessionState};
use ringway_proto::crypto::PublicKey;
use tokio::time::Instant;

use super::Service;
use crate::access::sessions::{Seen, Session, State};
use crate::gateway::desk::PEERS_PER_PAGE;
use crate::stats::query::Place;
use crate::store::records::{DeviceId, Timestamp};

/// The shortest round.
const ROUND: Duration = Duration::from_secs(1);

/// How often it is noted which devices are there.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// Between two pages of a long round.
const PAGE_PAUSE: Duration = Duration::from_millis(12);

/// Pages of a round that are read without a pause.
const PAGES_AT_ONCE: usize = 16;

impl Service {
    pub(super) async fn sweep_peers(self: Rc<Self>) {
        let (mut noted, mut since) = (Instant::now(), self.now().wall);
        loop {
            let begun = Instant::now();
            // Before, nobody knows whose keys these are.
            if self.loaded.get() && !self.stopped.get() {
                self.sweep().await;
            }
            if noted.elapsed() >= SEEN_EVERY {
                self.note_seen(since);
                (noted, since) = (begun, self.now().wall);
            }
            tokio::time::sleep_until(begun + ROUND).await;
        }
    }

    /// Notes which devices of live sessions something has come from since then: a session may last
    /// for weeks, and the process may be killed before it ends.
    pub(super) fn note_seen(&self, since: Timestamp) {
        let privacy = self.desk.privacy();
        let seen: Vec<(DeviceId, Timestamp)> = self.with_projection(|projection| {
            let all = projection.sessions().after(None);
            let lately = all.filter(|session| session.last_activity >= since);
            let of = |session: &Session| {
                Some((session.owner?.1, privacy.keep_seen(session.last_activity)?))
            };
            lately.filter_map(of).collect()
        });
        let mut outbox = self.outbox.borrow_mut();
        seen.into_iter().for_each(|(device, at)| outbox.seen(device, at));
    }

    pub(super) async fn sweep(&self) {
        let _sweeping = self.sweeping.lock().await;
        let mut place = Some(Place::default());
        let mut there: BTreeSet<PublicKey> = BTreeSet::new();
        let mut pages = 0;
        while let Some(from) = place {
            let Ok((page, next)) = self.desk.read_peers(from, PEERS_PER_PAGE).await else {
                // The gateway is stopping.
                return;
            };
            self.see(&page, from.core, &mut there);
            place = next;
            pages += 1;
            if pages % PAGES_AT_ONCE == 0 {
                tokio::time::sleep(PAGE_PAUSE).await;
            }
        }
        self.miss(&there);
    }

    /// Takes in a page; who has a session is noted in `there`.
    fn see(&self, page: &PeerPage, core: u16, there: &mut BTreeSet<PublicKey>) {
        let now = self.now();
        if self.stopped.get() {
            // The gateway has begun to end since the cores were asked.
            return;
        }
        {
            let mut projection = self.projection.borrow_mut();
            for status in &page.peers {
                let seen = seen(status, core);
                if seen.state.is_session() {
                    there.insert(status.public);
                }
                projection.see(&status.public, seen, now);
            }
        }
        self.take_notes(now);
    }

    /// A peer that was removed is on no page any more.
    fn miss(&self, there: &BTreeSet<PublicKey>) {
        let now = self.now();
        {
            let mut projection = self.projection.borrow_mut();
            let known = projection.sessions().after(None).map(|session| session.public);
            let gone: Vec<PublicKey> = known.filter(|public| !there.contains(public)).collect();
            gone.iter().for_each(|public| projection.gone(public, now));
        }
        self.take_notes(now);
    }
}

fn seen(status: &PeerStatus, core: u16) -> Seen {
    let moment = |since_epoch: Duration| {
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    };
    Seen {
        state: match status.state {
            SessionState::Disconnected => State::Disconnected,
            SessionState::Connecting => State::Connecting,
            SessionState::LinkUp => State::LinkUp,
            SessionState::Online => State::Online,
        },
        endpoint: status.endpoint,
        last_handshake: status.last_handshake.map(moment),
        last_received: status.last_received.map(moment),
        path_mtu: status.path_mtu,
        core,
        outer_bytes: (status.rx_bytes, status.tx_bytes),
    }
}
