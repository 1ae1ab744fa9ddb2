//! Client → exit: what arrived on the UDP sockets.
//!
//! Every branch of this direction is here, and in `opening.rs` for datagrams that came alone; the
//! callees are straight-line. [`Shard::carry_outside`] splits a receive buffer into runs;
//! [`Shard::to_exit`] opens a run in place and commits its packets to
//! the TUN by reference: after the kernel's copy into the buffer no byte moves again. The mirror
//! image is `to_client.rs`.

use std::net::IpAddr;
use std::ops::Range;

use ringway_flow as flow;
use ringway_proto::ip::Version;
use ringway_proto::limits::RUN_MAX;
use ringway_proto::wireguard::{Datagram, Message, Outcome, RunSummary, Tunnel};
use ringway_proto::{AccountId, CoreId, DropReason, Now, PeerId, ReceiverIndex, ip};
use ringway_ring::{Driver, Outside};

use crate::accounts::Way;
use crate::classify::{self, Run};
use crate::crossing::{Arrival, Datagrams};
use crate::routes::Route;
use crate::shard::Shard;
use crate::transmit::inside::Place;

/// Runs up to this long use the small array: setting up room for a full run costs more than opening
/// one datagram's header.
const SHORT_RUN: usize = 4;

impl<D: Driver> Shard<D> {
    /// Carries one receive buffer: many datagrams that arrived together at once, few with others of
    /// this turn.
    pub(crate) fn outside(&mut self, outside: Outside, now: Now) {
        let datagrams = outside.len.div_ceil(outside.stride.max(1));
        self.counters.receive_packets.record(datagrams as u64);
        if let Some(mut outside) = self.put_off(outside, now) {
            self.carry_outside(&mut outside, Arrival::Direct, now);
        }
    }

    /// Carries datagrams of one sender, run by run.
    pub(crate) fn carry_outside(&mut self, outside: &mut Outside, arrival: Arrival, now: Now) {
        let mut at = outside.start;
        let end = outside.start + outside.len;
        while at < end {
            let bytes = &outside.buf[at..end];
            let run = classify::next_run(bytes, outside.stride);
            match run.message {
                Ok(Message::Data { receiver, .. }) => {
                    if let Err(reason) = self.to_exit(receiver, outside, at, &run, arrival, now) {
                        self.counters.drops[reason as usize] += run.count as u64;
                    }
                }
                Ok(message) => {
                    let bytes = &bytes[..run.bytes];
                    if let Err(reason) =
                        self.receive_handshake(bytes, message, outside, arrival, now)
                    {
                        self.counters.drop(reason);
                    }
                }
                Err(reason) => self.counters.drop(reason),
            }
            at += run.bytes;
        }
    }

    /// Carries a run of data messages of one session from a client to its exits. An error concerns
    /// the whole run.
    #[expect(clippy::wrong_self_convention, reason = "the name of a direction, not a conversion")]
    fn to_exit(
        &mut self,
        receiver: ReceiverIndex,
        outside: &mut Outside,
        at: usize,
        run: &Run,
        arrival: Arrival,
        now: Now,
    ) -> Result<(), DropReason> {
        let Some(id) = self.indices.lookup(receiver) else {
            let owner = self.other_owner(receiver, arrival)?;
            let bytes = &outside.buf[at..at + run.bytes];
            return self.crossing.datagrams(owner, bytes, how(outside), &mut self.counters);
        };
        if self.is_mute(id) {
            return Err(DropReason::IndexUnknown);
        }
        let peer = self.peers.get_mut(id).ok_or(DropReason::PeerGone)?;
        self.counters.run_packets.record(run.count as u64);

        let bytes = &mut outside.buf[at..at + run.bytes];
        let stride = outside.stride;
        let mut outcomes = [Outcome::Pending; RUN_MAX];
        let outcomes = &mut outcomes[..run.count];
        let summary = if run.count <= SHORT_RUN {
            open::<SHORT_RUN>(&mut peer.tunnel, receiver, bytes, stride, outcomes, now)
        } else {
            open::<RUN_MAX>(&mut peer.tunnel, receiver, bytes, stride, outcomes, now)
        };
        if summary.authenticated {
            self.heard(id, outside, now);
        }
        let mut sender = self.sender(id)?;
        self.deliver_run(&mut sender, outside, at, outcomes, now);
        self.settle_data(id, summary.confirmed, now);
        Ok(())
    }

    /// A session was heard from where `outside` came from.
    pub(crate) fn heard(&mut self, id: PeerId, outside: &Outside, now: Now) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.path.heard(now.mono);
        }
        self.learn_endpoint(id, outside.from, outside.to, now);
    }

    /// Opened packets of one session, which lie in a row in a buffer from `at` on.
    pub(crate) fn deliver_run(
        &mut self,
        sender: &mut Sender,
        outside: &mut Outside,
        at: usize,
        outcomes: &[Outcome],
        now: Now,
    ) {
        for (place, outcome) in outcomes.iter().enumerate() {
            let delivered = match *outcome {
                Outcome::Keepalive => {
                    self.counters.keepalives_received += 1;
                    continue;
                }
                Outcome::Packet { start, len } => {
                    let start = at + place * outside.stride + start;
                    self.deliver(sender, outside, start..start + len, now)
                }
                Outcome::Dropped(reason) => Err(reason),
                Outcome::Pending => Err(DropReason::DataUndecryptable),
            };
            if let Err(reason) = delivered {
                self.counters.drop(reason);
            }
        }
    }

    /// One opened packet: may it speak for its source, what does policy say, and off to the TUN.
    #[inline]
    fn deliver(
        &mut self,
        sender: &mut Sender,
        outside: &mut Outside,
        span: Range<usize>,
        now: Now,
    ) -> Result<(), DropReason> {
        let bytes = &mut outside.buf[span.clone()];
        let packet = ip::Packet::parse(bytes).map_err(|_| DropReason::InnerMalformed)?;
        // Cryptokey routing: a peer may only speak for addresses that we would route back to it.
        let source = packet.source();
        if sender.allowed_source != Some(source) {
            if self.allowed_ips.lookup(source) != Some(Route::Peer(sender.id)) {
                return Err(DropReason::SourceNotAllowed);
            }
            sender.allowed_source = Some(source);
        }
        if sender.searching && self.answers_probe(sender.id, bytes, &packet, now) {
            return Ok(());
        }
        let mtu = match packet.version() {
            Version::V4 => sender.mtu_v4,
            Version::V6 => sender.mtu_v6,
        };
        flow::to_exit(bytes, &packet, outside.ecn.0, mtu, &self.policy, &mut self.flow)?;
        if let Some(account) = sender.account {
            self.accounts.admit(account, Way::ToExit, span.len(), now)?;
        }
        let place = Place { buf: &outside.buf, start: span.start, len: span.len() };
        self.inside.push(place, &self.policy, &mut self.driver, &mut self.counters)?;
        self.counters.to_exit_packets += 1;
        self.counters.to_exit_bytes += span.len() as u64;
        if let Some(account) = sender.account {
            self.accounts.charge(account, Way::ToExit, span.len(), now);
        }
        Ok(())
    }

    /// The other core that may know an index which we do not.
    pub(crate) fn other_owner(
        &self,
        receiver: ReceiverIndex,
        arrival: Arrival,
    ) -> Result<CoreId, DropReason> {
        let owner = self.indices.owner(receiver);
        if owner == self.core || owner.0 >= self.crossing.cores() {
            return Err(DropReason::IndexUnknown);
        }
        match arrival {
            Arrival::Direct => Ok(owner),
            Arrival::Crossed => Err(DropReason::CrossedTwice),
        }
    }

    pub(crate) fn sender(&self, id: PeerId) -> Result<Sender, DropReason> {
        let peer = self.peers.get(id).ok_or(DropReason::PeerGone)?;
        let path = &peer.path;
        Ok(Sender {
            id,
            account: peer.account.id(),
            mtu_v4: path.mtu(Version::V4),
            mtu_v6: path.mtu(Version::V6),
            searching: path.is_searching(),
            allowed_source: None,
        })
    }
}

/// How the datagrams of a buffer came.
pub(crate) const fn how(outside: &Outside) -> Datagrams {
    Datagrams { stride: outside.stride, from: outside.from, to: outside.to, ecn: outside.ecn }
}

/// What is the same for all packets of a run.
pub(crate) struct Sender {
    id: PeerId,
    /// What limits and meters it.
    account: Option<AccountId>,
    mtu_v4: u16,
    mtu_v6: u16,
    /// Answers to probes of the path are awaited.
    searching: bool,
    /// The source of the packet before, which was allowed: most packets of a run share it.
    allowed_source: Option<IpAddr>,
}

/// Opens the datagrams of a run with an array of `N` places.
fn open<const N: usize>(
    tunnel: &mut Tunnel,
    receiver: ReceiverIndex,
    bytes: &mut [u8],
    stride: usize,
    outcomes: &mut [Outcome],
    now: Now,
) -> RunSummary {
    let mut datagrams = bytes.chunks_mut(stride);
    let mut run: [Datagram<'_>; N] =
        std::array::from_fn(|_| Datagram::new(datagrams.next().unwrap_or_default()));
    let run = &mut run[..outcomes.len()];
    let summary = tunnel.open_run(receiver, run, now);
    for (outcome, datagram) in outcomes.iter_mut().zip(run) {
        *outcome = datagram.outcome;
    }
    summary
}
