//! What the path to each peer carries: asks when it has to, and remembers the answer.
//!
//! The knowledge is `flow::PathMtu`'s; here its echo requests are put into the peer's train, its
//! deadline is armed beside the tunnel's, and its changes are counted. Probing needs an address of
//! ours inside and one of the peer's: without them nothing is asked and the size stays.

use std::net::IpAddr;

use ringway_flow::icmp::write_echo;
use ringway_flow::path_mtu::{ECHO_IDENTIFIER, Probe};
use ringway_proto::ip::Packet;
use ringway_proto::{DropReason, Now, PeerId};
use ringway_ring::{Driver, Ecn};

use crate::shard::Shard;
use crate::to_client::padded_len;
use crate::transmit::outside::Departure;

impl<D: Driver> Shard<D> {
    /// Sends the probes that are due and counts what has changed.
    pub(crate) fn follow_path(&mut self, id: PeerId, now: Now) {
        while let Some(probe) = self.peers.get_mut(id).and_then(|peer| peer.path.poll_probe()) {
            if let Err(reason) = self.send_probe(id, probe, now) {
                self.counters.drop(reason);
            }
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        while let Some(change) = peer.path.poll_change() {
            self.counters.path_narrowed += u64::from(change.to < change.from);
        }
        if peer.path.poll_trains_lost()
            && let Some(endpoint) = peer.endpoint
        {
            self.driver.suspect(endpoint.remote.ip());
        }
        if let Some(deadline) = peer.path.poll_timeout() {
            self.timers.arm(id, deadline);
        }
    }

    /// Whether the packet is the answer to a probe, and so not for anybody behind us.
    pub(crate) fn answers_probe(
        &mut self,
        id: PeerId,
        bytes: &[u8],
        packet: &Packet,
        now: Now,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let taken = peer.path.take_answer(bytes, packet, now.mono);
        if taken {
            self.follow_path(id, now);
        }
        taken
    }

    fn send_probe(&mut self, id: PeerId, probe: Probe, now: Now) -> Result<(), DropReason> {
        let peer = self.peers.get(id).ok_or(DropReason::PeerGone)?;
        let [inner_v4, inner_v6] = peer.inner;
        let ours_v4 = self.policy.address_v4.map(IpAddr::V4);
        let ours_v6 = self.policy.address_v6.map(IpAddr::V6);
        let pair = ours_v4.zip(inner_v4).or_else(|| ours_v6.zip(inner_v6));
        let Some((from, to)) = pair else { return Ok(()) };
        let len = usize::from(probe.bytes);
        let mut out = Departure {
            peers: &mut self.peers,
            driver: &mut self.driver,
            counters: &mut self.counters,
            now,
        };
        let padded = padded_len(len, len);
        if probe.alone {
            self.trains.close(id, &mut out);
        }
        let room = self.trains.room(id, padded, Ecn::default(), &mut out)?;
        let written = write_echo(from, to, ECHO_IDENTIFIER, probe.sequence, &mut room[..len]);
        assert!(written, "a probe has room for its headers and one address family");
        if probe.alone {
            self.trains.close(id, &mut out);
        }
        self.counters.path_probes += 1;
        Ok(())
    }
}
