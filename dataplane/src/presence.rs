//! Where peers are, and whether their sessions live.
//!
//! A peer is where its last authenticated packet came from; a forged one moves nobody. Moves are
//! bounded per peer: whoever holds a peer's key could otherwise aim our answers elsewhere with
//! every packet, and have the path searched anew each time. While a peer has moved too often it
//! stays where it was, and its packets are taken all the same.
//!
//! What begins and ends here is counted by `wireguard::admission`, which is asked under load.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_alloc::forget;
use ringway_proto::limits::{ENDPOINT_MOVES_BURST, ENDPOINT_MOVES_PER_SECOND};
use ringway_proto::wireguard::{HalfOpen, SendState, Source};
use ringway_proto::{Instant, Now, PeerId, Stamp};
use ringway_ring::{Driver, Local};

use crate::peers::{Endpoint, Peer};
use crate::shard::Shard;

/// Credit of one move.
const MOVE_EVERY: Duration = Duration::from_millis(1_000 / ENDPOINT_MOVES_PER_SECOND as u64);

/// What a peer counts as, so that it can be taken back exactly.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presence {
    /// Where its live session is counted.
    pub(crate) source: Option<Source>,
    /// Since when its new session waits for the client's first packet.
    pub(crate) half_open: Option<HalfOpen>,
    /// When all moves so far will be paid for.
    moves_paid: Instant,
}

impl Presence {
    /// Whether the peer may move now; if so it is charged.
    fn may_move(&mut self, now: Instant) -> bool {
        let ahead = self.moves_paid.since(now);
        if ahead > MOVE_EVERY * (ENDPOINT_MOVES_BURST - 1) {
            return false;
        }
        self.moves_paid = self.moves_paid.max(now) + MOVE_EVERY;
        true
    }
}

impl<D: Driver> Shard<D> {
    /// An authenticated packet says where the peer is and which of our addresses it uses.
    #[inline]
    pub(crate) fn learn_endpoint(
        &mut self,
        id: PeerId,
        from: SocketAddr,
        to: Option<Local>,
        now: Now,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let learned = Endpoint { remote: from, local: to };
        if peer.endpoint != Some(learned) {
            self.move_endpoint(id, learned, now);
        }
    }

    fn move_endpoint(&mut self, id: PeerId, learned: Endpoint, now: Now) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.endpoint.is_some_and(|endpoint| endpoint.remote != learned.remote) {
            if !peer.presence.may_move(now.mono) {
                self.counters.roams_refused += 1;
                return;
            }
            self.counters.roamed += 1;
            peer.path.reset(self.policy.inner_mtu);
        }
        let before = peer.endpoint.replace(learned);
        let source = Source::of(learned.remote.ip());
        if let Some(counted) = peer.presence.source.filter(|counted| *counted != source) {
            peer.presence.source = Some(source);
            self.handshakes.admission.moved(counted, source);
        }
        if before.is_some_and(|before| before.remote.ip() != learned.remote.ip()) {
            self.forget_place(before);
        }
    }

    /// A peer is there no more. A gateway that forgets keeps nothing of the way to it.
    pub(crate) fn forget_place(&mut self, endpoint: Option<Endpoint>) {
        if let Some(endpoint) = endpoint.filter(|_| forget::is_on()) {
            self.driver.forget_path(endpoint.remote.ip());
        }
    }

    /// The peer answered an initiation of ours, which was the last thing that we said.
    pub(crate) fn note_connected(&mut self, id: PeerId, now: Now) {
        let sent = self.peers.get(id).and_then(|peer| peer.tunnel.handshake_sent());
        if let Some(sent) = sent {
            self.counters.session_connecting_ms.record_ms(now.mono.since(sent));
        }
    }

    /// Notes whether the peer's session lives, whether a new one is half-open, and how long it was
    /// as it was before.
    pub(crate) fn note_liveness(&mut self, id: PeerId, now: Now) {
        let mute = self.is_mute(id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        let live = !mute && peer.tunnel.send_state(now) == SendState::Ready;
        if live && let Some(expiry) = peer.tunnel.expires_at() {
            // No timer of the tunnel says that a session has ended.
            self.timers.arm(id, expiry);
            if let Some(deadline) = peer.path.poll_timeout() {
                self.timers.arm(id, deadline);
            }
        }
        if !peer.tunnel.is_half_open()
            && let Some(since) = peer.presence.half_open.take()
        {
            self.handshakes.admission.half_closed(since);
            if live && let Some(answered) = peer.tunnel.handshake_sent() {
                self.counters.session_link_up_ms.record_ms(now.mono.since(answered));
            }
        }
        if live != peer.live {
            let lasted = peer.live_since.instant().map(|since| now.mono.since(since));
            if let Some(lasted) = lasted {
                let counters = &mut self.counters;
                let before = if live {
                    &mut counters.session_disconnected_ms
                } else {
                    &mut counters.session_online_ms
                };
                before.record_ms(lasted);
            }
            peer.live = live;
            peer.live_since = Stamp::at(now.mono);
            if live {
                // A session has brought its endpoint.
                let ip = peer.endpoint.map(|endpoint| endpoint.remote.ip());
                let source = Source::of(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
                peer.presence.source = Some(source);
                self.handshakes.admission.began(source);
                self.counters.sessions += 1;
            } else {
                self.forget_presence(id);
            }
        }
    }

    /// The peer's session has ended.
    fn forget_presence(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(source) = peer.presence.source.take() {
            self.handshakes.admission.ended(source);
            self.counters.sessions = self.counters.sessions.saturating_sub(1);
        }
    }

    /// The peer is gone, and with it all that it counted as.
    pub(crate) fn forget_removed(&mut self, peer: &mut Peer, now: Now) {
        if let Some(since) = peer.live_since.instant().filter(|_| peer.live) {
            self.counters.session_online_ms.record_ms(now.mono.since(since));
        }
        if let Some(source) = peer.presence.source.take() {
            self.handshakes.admission.ended(source);
            self.counters.sessions = self.counters.sessions.saturating_sub(1);
        }
        if let Some(since) = peer.presence.half_open.take() {
            self.handshakes.admission.half_closed(since);
        }
    }

    /// An initiation of the peer was answered: its session is half-open, from now on.
    pub(crate) fn note_answered(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let since = self.handshakes.admission.half_opened(now.mono);
        if let Some(before) = peer.presence.half_open.replace(since) {
            self.handshakes.admission.half_closed(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_move_four_times_at_once_and_five_times_a_second() {
        let mut presence = Presence::default();
        let at = |ms: u64| Instant::from_nanos(10_000_000_000 + ms * 1_000_000);
        assert_eq!((0..10).filter(|_| presence.may_move(at(0))).count(), 4);
        assert!(!presence.may_move(at(199)));
        assert!(presence.may_move(at(200)));
        assert!(!presence.may_move(at(200)));
        let moved = (0..10_000).filter(|ms| presence.may_move(at(1_000 + ms))).count();
        assert!((50..=54).contains(&moved), "{moved} in ten seconds");
    }
}
