//! Exit → client: what was read from the TUN.
//!
//! Every branch of this direction is here; the callees are straight-line. [`Shard::to_client`]
//! finds the peer by the destination; [`Shard::send_to`] cuts a super-packet into segments, each
//! copied (and summed in the same pass) to its place in the peer's train, where it is sealed. The
//! mirror image is `to_exit.rs`.

use ringway_flow as flow;
use ringway_proto::offload::{Segments, VnetHeader};
use ringway_proto::wireguard::messages::PADDING_MULTIPLE;
use ringway_proto::wireguard::{REKEY_TIMEOUT, SendState};
use ringway_proto::{DropReason, Now, PeerId, ip};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{Driver, Ecn};

use crate::accounts::Way;
use crate::crossing::Arrival;
use crate::routes::Route;
use crate::shard::Shard;
use crate::transmit::outside::Departure;

impl<D: Driver> Shard<D> {
    /// Carries one packet or super-packet from the TUN, virtio header included.
    #[expect(clippy::wrong_self_convention, reason = "the name of a direction, not a conversion")]
    pub(crate) fn to_client(&mut self, bytes: &[u8], arrival: Arrival, now: Now) {
        if let Err(reason) = self.route(bytes, arrival, now) {
            self.counters.drop(reason);
            self.refuse(bytes, reason, now);
        }
    }

    /// Finds the peer and sends, or stages until there is a session; a peer of another core gets it
    /// there.
    fn route(&mut self, bytes: &[u8], arrival: Arrival, now: Now) -> Result<(), DropReason> {
        let (_, packet) = VnetHeader::parse(bytes)?;
        let view = ip::Packet::parse(packet).map_err(|_| DropReason::InsideNotIp)?;
        let route = self.allowed_ips.lookup(view.destination()).ok_or(DropReason::InsideNoPeer)?;
        let id = match (route, arrival) {
            (Route::Peer(id), Arrival::Direct | Arrival::Crossed) => id,
            (Route::Core(owner), Arrival::Direct) => {
                return self.crossing.packet(owner, bytes, &mut self.counters);
            }
            (Route::Core(_), Arrival::Crossed) => return Err(DropReason::CrossedTwice),
        };
        let mute = self.is_mute(id);
        if self.peers.get(id).is_some_and(|peer| peer.tunnel.is_half_open()) {
            // The datagram that confirms the session may be waiting in this turn.
            self.open_waiting(now);
        }
        let peer = self.peers.get_mut(id).ok_or(DropReason::PeerGone)?;
        if peer.endpoint.is_none() {
            return Err(DropReason::InsideNoEndpoint);
        }
        match peer.tunnel.send_state(now) {
            SendState::Ready if !mute => self.send_to(id, bytes, now),
            SendState::Ready | SendState::HandshakeNeeded if self.policy.draining && !peer.live => {
                // What the gateway would begin itself would be a new session too.
                Err(DropReason::HandshakeDraining)
            }
            SendState::Ready | SendState::HandshakeNeeded => {
                let before = peer.staged.len();
                let lost = peer.staged.push(&mut peer.heap, bytes, now.mono);
                self.counters.staged_packets += peer.staged.len() as u64;
                self.counters.staged_packets -= before as u64;
                if let Some(deadline) = peer.staged.deadline() {
                    self.timers.arm(id, deadline);
                }
                if self.listening && !mute {
                    peer.tunnel.want_handshake(now);
                }
                self.settle(id, now);
                lost.map_or(Ok(()), Err)
            }
        }
    }

    /// Cuts a packet into what fits the peer's path and puts each part into the peer's train.
    fn send_to(&mut self, id: PeerId, bytes: &[u8], now: Now) -> Result<(), DropReason> {
        let (header, packet) = VnetHeader::parse(bytes)?;
        let segments = Segments::new(&header, packet)?;
        let peer = self.peers.get_mut(id).ok_or(DropReason::PeerGone)?;
        let view = *segments.packet();
        let account = peer.account.id();
        if let Some(account) = account {
            // Before the path is told: what is not sent says nothing about it.
            let first = self.accounts.admit(account, Way::ToClient, segments.len_of(0), now);
            first.inspect_err(|reason| {
                self.counters.drops[*reason as usize] += (segments.count() - 1) as u64;
            })?;
        }
        peer.path.sent(packet, &view, segments.len_max(), now.mono);
        let mtu = peer.path.mtu(view.version());
        let searching = peer.path.is_searching();
        flow::fits(segments.len_max(), mtu)?;
        let ecn = Ecn(view.ecn());
        let mut out = Departure {
            peers: &mut self.peers,
            driver: &mut self.driver,
            counters: &mut self.counters,
            now,
        };
        for i in 0..segments.count() {
            let len = segments.len_of(i);
            let padded = padded_len(len, usize::from(mtu));
            if let Some(account) = account.filter(|_| i > 0) {
                // What fits passes; the rest of a super-packet is no shorter.
                let admitted = self.accounts.admit(account, Way::ToClient, len, now);
                admitted.inspect_err(|reason| {
                    out.counters.drops[*reason as usize] += (segments.count() - i - 1) as u64;
                })?;
            }
            let room = match self.trains.room(id, padded, ecn, &mut out) {
                Ok(room) => room,
                Err(reason) => {
                    // The caller counts one; the rest of a super-packet is lost with it.
                    out.counters.drops[reason as usize] += (segments.count() - i - 1) as u64;
                    return Err(reason);
                }
            };
            segments.write(i, &mut room[..len]);
            room[len..].fill(0);
            flow::to_client(&mut room[..len], &view, mtu, &self.policy, &mut self.flow);
            if let Some(account) = account {
                self.accounts.charge(account, Way::ToClient, len, now);
            }
        }
        if searching {
            // What was just sent may have raised the suspicion that the path swallows it.
            self.follow_path(id, now);
        }
        Ok(())
    }

    /// Lets staged packets go once there is a session. Returns whether there was one to go.
    pub(crate) fn release_staged(&mut self, id: PeerId, now: Now) -> bool {
        let mut released = false;
        if self.is_mute(id) {
            return released;
        }
        loop {
            let Some(peer) = self.peers.get_mut(id) else { return released };
            if peer.staged.is_empty() || peer.tunnel.send_state(now) != SendState::Ready {
                return released;
            }
            let Some(packet) = peer.staged.pop() else { return released };
            self.counters.staged_packets = self.counters.staged_packets.saturating_sub(1);
            match self.send_to(id, &packet, now) {
                Ok(()) => released = true,
                Err(reason) => {
                    self.counters.drop(reason);
                    self.refuse(&packet, reason, now);
                }
            }
        }
    }

    /// Packets that have waited longer than any handshake takes are lost, unless one is under way:
    /// that gives up by itself. There is none for a peer whose key is worthless, without an
    /// identity, and without sockets.
    pub(crate) fn expire_staged(&mut self, id: PeerId, now: Now) {
        let hopeful = self.listening && self.identity.is_some();
        let Some(peer) = self.peers.get(id) else { return };
        let Some(deadline) = peer.staged.deadline() else { return };
        if now.mono < deadline {
            self.timers.arm(id, deadline);
        } else if self.is_mute(id) || hopeful && peer.tunnel.is_shaking_hands() {
            self.timers.arm(id, now.mono + REKEY_TIMEOUT);
        } else {
            self.abandon_staged(id, now);
        }
    }

    /// Nobody answered: what waited is lost, and its senders are told.
    pub(crate) fn abandon_staged(&mut self, id: PeerId, now: Now) {
        while let Some(packet) = self.peers.get_mut(id).and_then(|peer| peer.staged.pop()) {
            self.counters.staged_packets = self.counters.staged_packets.saturating_sub(1);
            self.counters.drop(DropReason::StagedExpired);
            self.refuse(&packet, DropReason::StagedExpired, now);
        }
        if let Some(peer) = self.peers.get_mut(id) {
            peer.staged.clear();
        }
    }

    /// Tells the sending host why, where a router would (RFC 1812 section 4.3.3, RFC 4443 section
    /// 3).
    fn refuse(&mut self, bytes: &[u8], reason: DropReason, now: Now) {
        let Ok((_, packet)) = VnetHeader::parse(bytes) else { return };
        let mtu = self.refused_mtu(packet);
        let mut answer = [0; flow::ANSWER_BYTES_MAX];
        let allowance = &mut self.allowance;
        let policy = &self.policy;
        let written = flow::answer(packet, reason, mtu, policy, allowance, now.mono, &mut answer);
        let Some(len) = written else { return };
        let Some(mut write) = self.driver.reserve_tun() else { return };
        let filled =
            write.push_head(&[0; VNET_HEADER_BYTES]).and_then(|()| write.push_head(&answer[..len]));
        assert!(filled.is_ok(), "an empty write takes an ICMP error");
        self.counters.icmp_sent += 1;
        self.driver.write_tun(write);
    }

    /// What the path of the peer that a packet was for carries.
    fn refused_mtu(&self, packet: &[u8]) -> u16 {
        ip::Packet::parse(packet)
            .ok()
            .and_then(|view| {
                let Route::Peer(id) = self.allowed_ips.lookup(view.destination())? else {
                    return None;
                };
                Some(self.peers.get(id)?.path.mtu(view.version()))
            })
            .unwrap_or(self.policy.inner_mtu)
    }
}

/// Bytes of a packet with its padding: a multiple of 16, but never beyond the MTU (whitepaper
/// section 5.4.6).
pub(crate) fn padded_len(len: usize, mtu: usize) -> usize {
    len.next_multiple_of(PADDING_MULTIPLE).min(mtu.max(len))
}
