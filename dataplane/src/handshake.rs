//! Handshakes, off the packet path and bounded.
//!
//! A handshake message is checked for its first MAC when it arrives (a third of a microsecond),
//! then waits in a bounded queue; a few are worked on per turn, after data. The length of the queue
//! and what comes of it are the load gauge: under load an initiation needs a valid cookie before
//! any curve work is done, and its source a share of the limiter. Who has no cookie is told so at
//! once and takes no place in the queue, so that a flood from forged addresses does not keep those
//! out who have one. Checks and answers are bounded per turn too: what comes beyond them is dropped
//! unseen. What claims to answer us (responses, cookie replies) is bounded apart from what asks us
//! (initiations), and what answers nothing is dropped before it costs either; a cookie reply is
//! read at once and never waits, since anybody could fill the queue with it.
//!
//! Steps: [`Shard::receive_handshake`] (cheap checks, queue) → [`Shard::do_handshakes`] (curve
//! work, the tunnel decides) → [`Shard::settle`] (what the tunnel wants sent, staged packets,
//! timer).

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringway_alloc::forget;
use ringway_flow::Policy;
use ringway_proto::crypto::Random;
use ringway_proto::limits::{
    ANSWERS_CHECKED_PER_TURN_MAX, COOKIES_PER_TURN_MAX, HANDSHAKES_CHECKED_PER_TURN_MAX,
    HANDSHAKES_PER_TURN_MAX, HANDSHAKES_QUEUED_MAX, TIMERS_PER_TURN_MAX,
};
use ringway_proto::wireguard::{
    Admission, CROWDED_FROM, CookieChecker, Cx, HandshakeLimiter, Identity, Indices, LoadGauge,
    Message, OpenedInitiation, OutgoingKind, SendState, Tunnel, UNDER_LOAD_FROM,
};
use ringway_proto::{DropReason, Now, PeerId, ReceiverIndex};
use ringway_ring::{Driver, Ecn, Local, Outside, Train};

use crate::crossing::{Arrival, Claim};
use crate::index_table::IndexTable;
use crate::owner::owner_of;
use crate::shard::Shard;
use crate::to_exit::how;

/// Bytes of the longest handshake message (the initiation).
const MESSAGE_BYTES_MAX: usize = 148;

/// Why a queued message ends before any curve work: a fiftieth of what it costs otherwise.
const CHEAP: [DropReason; 5] = [
    DropReason::Mac2Missing,
    DropReason::HandshakeRateLimited,
    DropReason::HandshakeUnexpected,
    DropReason::IndexUnknown,
    DropReason::NoIdentity,
];

/// Why a message leads to nothing although its sender may be as honest as any.
const BLAMELESS: [DropReason; 7] = [
    DropReason::HandshakeDraining,
    DropReason::HandshakeSourceFull,
    DropReason::HandshakeSessionsFull,
    DropReason::HandshakeHalfOpenFull,
    DropReason::HandshakeQueueFull,
    DropReason::CrossingFull,
    DropReason::IndexExhausted,
];

struct Queued {
    bytes: [u8; MESSAGE_BYTES_MAX],
    len: usize,
    /// Which handshake of ours it answers; none for an initiation.
    answers: Option<ReceiverIndex>,
    from: SocketAddr,
    to: Option<Local>,
    /// It came with a cookie, under load.
    vouched: bool,
}

/// Handshake messages that wait for their turn, and the means against floods.
pub struct HandshakeQueue {
    queue: VecDeque<Queued>,
    /// Initiations that another core has opened.
    claims: VecDeque<Claim>,
    load: LoadGauge,
    limiter: HandshakeLimiter,
    cookies: Option<CookieChecker>,
    /// Initiations that may still be checked in this turn.
    checks_left: usize,
    /// Responses and cookie replies that may still be checked in this turn.
    answer_checks_left: usize,
    /// Cookies that may still be sent in this turn.
    cookies_left: usize,
    pub(crate) admission: Admission,
}

impl HandshakeQueue {
    /// An empty queue with room for all it may hold.
    #[must_use]
    pub fn new(random: &mut dyn Random, cores: u16, policy: &Policy) -> Self {
        let claims = if cores > 1 { HANDSHAKES_QUEUED_MAX } else { 0 };
        let mut queue = Self {
            queue: VecDeque::with_capacity(HANDSHAKES_QUEUED_MAX),
            claims: VecDeque::with_capacity(claims),
            load: LoadGauge::default(),
            limiter: HandshakeLimiter::new(random),
            cookies: None,
            checks_left: HANDSHAKES_CHECKED_PER_TURN_MAX,
            answer_checks_left: ANSWERS_CHECKED_PER_TURN_MAX,
            cookies_left: COOKIES_PER_TURN_MAX,
            admission: Admission::new(policy.admission.share_of(cores)),
        };
        queue.set_limits(policy, cores);
        queue
    }

    /// Takes as many as the policy says from now on; this is one of `cores` cores.
    pub fn set_limits(&mut self, policy: &Policy, cores: u16) {
        self.admission.set_limits(policy.admission.share_of(cores));
        self.limiter.set_rate(policy.handshakes_per_source);
    }

    /// MACs are keyed with the gateway's public key: a new identity brings new ones, and what waits
    /// is stale. Returns how many messages that were.
    pub fn set_identity(&mut self, identity: Option<&Identity>) -> usize {
        let stale = self.len();
        self.queue.clear();
        self.claims.clear();
        self.cookies = identity.map(CookieChecker::new);
        stale
    }

    /// Wipes who sent what waits no more.
    pub(crate) fn forget(&mut self) {
        forget::wipe_queue(&mut self.queue);
        forget::wipe_queue(&mut self.claims);
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len() + self.claims.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this core is under load now.
    #[must_use]
    pub fn under_load(&mut self, now: Now) -> bool {
        self.load.observe(self.len(), now.mono)
    }

    /// Allows checks and answers anew: those of messages that wait, and those of new ones.
    const fn begin_turn(&mut self) {
        self.checks_left = HANDSHAKES_CHECKED_PER_TURN_MAX;
        self.answer_checks_left = ANSWERS_CHECKED_PER_TURN_MAX;
        self.cookies_left = COOKIES_PER_TURN_MAX;
    }

    /// Takes one of this turn's checks.
    fn may_check(&mut self, answer: bool) -> Result<(), DropReason> {
        let left = if answer { &mut self.answer_checks_left } else { &mut self.checks_left };
        *left = left.checked_sub(1).ok_or(DropReason::HandshakeQueueFull)?;
        Ok(())
    }

    /// Queues an initiation that another core opened. Those without a cookie find room until they
    /// are load whatever they are worth: the other cores hear of it at the end of the turn.
    pub(crate) fn claim(&mut self, claim: Claim, now: Now) -> Result<(), DropReason> {
        self.load.observe(self.len() + 1, now.mono);
        let room = if claim.vouched { HANDSHAKES_QUEUED_MAX } else { CROWDED_FROM };
        if self.claims.len() >= room {
            return Err(DropReason::HandshakeQueueFull);
        }
        self.claims.push_back(claim);
        Ok(())
    }
}

/// The first that waits. The queue begins anew, where it is in the cache, once it was empty.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        queue.clear();
    }
    first
}

/// Whether work led to nothing for a reason that lies with who asked for it.
fn is_wasted<T>(done: &Result<T, DropReason>) -> bool {
    done.as_ref().is_err_and(|reason| !BLAMELESS.contains(reason))
}

/// The index table bound to one peer, as a tunnel sees it.
pub(crate) struct PeerIndices<'a> {
    pub(crate) table: &'a mut IndexTable,
    pub(crate) peer: PeerId,
    pub(crate) random: &'a mut dyn Random,
}

impl Indices for PeerIndices<'_> {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        self.table.allocate(self.peer, self.random)
    }

    fn release(&mut self, index: ReceiverIndex) {
        self.table.release(index);
    }
}

impl<D: Driver> Shard<D> {
    /// Checks what is cheap to check and queues the message.
    pub(crate) fn receive_handshake(
        &mut self,
        bytes: &[u8],
        message: Message,
        outside: &Outside,
        arrival: Arrival,
        now: Now,
    ) -> Result<(), DropReason> {
        if self.handshakes.cookies.is_none() {
            return Err(DropReason::NoIdentity);
        }
        match message {
            Message::Initiation => {
                self.handshakes.may_check(false)?;
                self.check_mac1(bytes)?;
                self.queue(bytes, None, outside, now)
            }
            Message::Response { receiver } | Message::Cookie { receiver } => {
                self.receive_answer(bytes, message, receiver, outside, arrival, now)
            }
            Message::Data { .. } => Err(DropReason::MessageTypeUnknown),
        }
    }

    /// A response or a cookie reply. What answers nothing must not take the place of what does, so
    /// whether it could is asked first.
    fn receive_answer(
        &mut self,
        bytes: &[u8],
        message: Message,
        receiver: ReceiverIndex,
        outside: &Outside,
        arrival: Arrival,
        now: Now,
    ) -> Result<(), DropReason> {
        let cookie_reply = matches!(message, Message::Cookie { .. });
        let Some(id) = self.indices.lookup(receiver) else {
            let owner = self.other_owner(receiver, arrival)?;
            self.handshakes.may_check(true)?;
            if !cookie_reply {
                self.check_mac1(bytes)?;
            }
            return self.crossing.message(owner, bytes, how(outside), &mut self.counters);
        };
        let tunnel = &self.peers.get(id).ok_or(DropReason::PeerGone)?.tunnel;
        let awaited =
            if cookie_reply { tunnel.awaits_cookie() } else { tunnel.awaits_response_to(receiver) };
        if !awaited {
            return Err(DropReason::HandshakeUnexpected);
        }
        self.handshakes.may_check(true)?;
        if cookie_reply {
            // It proves nothing about where the peer is, and nothing is sent at once.
            self.with_tunnel(id, now, |tunnel, cx| tunnel.accept_cookie(bytes, cx.now))?;
            self.counters.cookies_received += 1;
            return Ok(());
        }
        self.check_mac1(bytes)?;
        self.queue(bytes, Some(receiver), outside, now)
    }

    fn check_mac1(&self, bytes: &[u8]) -> Result<(), DropReason> {
        let cookies = self.handshakes.cookies.as_ref().ok_or(DropReason::NoIdentity)?;
        if cookies.check_mac1(bytes) { Ok(()) } else { Err(DropReason::Mac1Wrong) }
    }

    /// Queues a message whose first MAC is right, under load only with a cookie.
    fn queue(
        &mut self,
        bytes: &[u8],
        answers: Option<ReceiverIndex>,
        outside: &Outside,
        now: Now,
    ) -> Result<(), DropReason> {
        let (from, to) = (outside.from, outside.to);
        let vouched = self.wants_cookies(now);
        if vouched && let Err(reason) = self.demand_cookie(bytes, from, to, now) {
            self.handshakes.load.turned_away(now.mono);
            return Err(reason);
        }
        let handshakes = &mut self.handshakes;
        if handshakes.queue.len() == HANDSHAKES_QUEUED_MAX {
            return Err(DropReason::HandshakeQueueFull);
        }
        handshakes.load.observe(handshakes.len() + 1, now.mono);
        let len = bytes.len();
        let mut queued = Queued { bytes: [0; MESSAGE_BYTES_MAX], len, answers, from, to, vouched };
        let Some(room) = queued.bytes.get_mut(..len) else {
            return Err(DropReason::DatagramOversized);
        };
        room.copy_from_slice(bytes);
        handshakes.queue.push_back(queued);
        Ok(())
    }

    /// Works on a few of the queued messages. Returns whether there was one.
    pub(crate) fn do_handshakes(&mut self, now: Now) -> bool {
        self.handshakes.begin_turn();
        let worked = self.work_on_handshakes(now);
        self.handshakes.begin_turn();
        if let Some(until) = self.handshakes.load.until() {
            self.crossing.demand_cookies_until(until);
        }
        worked
    }

    /// Whether initiations need a cookie now. Whose they are is known only after the curve work,
    /// and then another core may have to answer, so the load of any core is asked about.
    fn wants_cookies(&mut self, now: Now) -> bool {
        self.handshakes.under_load(now) || now.mono < self.crossing.cookies_until()
    }

    fn work_on_handshakes(&mut self, now: Now) -> bool {
        let mut worked = 0;
        for count in 0..COOKIES_PER_TURN_MAX {
            if worked == HANDSHAKES_PER_TURN_MAX {
                break;
            }
            // In turns, so that neither kind keeps the other waiting.
            let claim = if count % 2 == 0 || self.handshakes.queue.is_empty() {
                pop(&mut self.handshakes.claims)
            } else {
                None
            };
            let (done, cheap) = if let Some(claim) = claim {
                // What is refused here is refused before any curve work of this core.
                let done = self.answer_claim(claim, now);
                let refused = done.is_err();
                (done, refused)
            } else if let Some(queued) = pop(&mut self.handshakes.queue) {
                let done = self.handshake(&queued, now);
                let cheap = done.as_ref().is_err_and(|reason| CHEAP.contains(reason));
                if !cheap {
                    self.handshakes.load.worked(is_wasted(&done), now.mono);
                }
                (done, cheap)
            } else {
                return count > 0;
            };
            worked += usize::from(!cheap);
            match done {
                Ok(Some(id)) => self.settle(id, now),
                Ok(None) => {}
                Err(reason) => self.counters.drop(reason),
            }
        }
        true
    }

    /// As [`Shard::answer`], of what another core has opened: whether that was worth its work is
    /// known only here.
    fn answer_claim(&mut self, claim: Claim, now: Now) -> Result<Option<PeerId>, DropReason> {
        let crowded = claim.crowded;
        let done = self.answer(claim, now);
        let load = &mut self.handshakes.load;
        load.worked(is_wasted(&done), now.mono);
        if crowded {
            load.observe(UNDER_LOAD_FROM, now.mono);
        }
        done.map(Some)
    }

    /// Answers an initiation whose static key belongs to this core. Only here, on the one core that
    /// does so for the key, its timestamp is looked at.
    fn answer(&mut self, claim: Claim, now: Now) -> Result<PeerId, DropReason> {
        let Claim { opened, from, to, pressed, .. } = claim;
        let id = self.peers.by_key(&opened.peer).ok_or(DropReason::HandshakePeerUnknown)?;
        if self.is_mute(id) {
            self.rekey_peer(id, now);
        }
        // A session that lives is renewed whatever the counts say.
        let live = self.peers.get(id).is_some_and(|peer| peer.live);
        if !live && self.policy.draining {
            return Err(DropReason::HandshakeDraining);
        }
        if !live && (pressed || self.handshakes.under_load(now)) {
            self.handshakes.admission.judge_new(from.ip(), now.mono)?;
        }
        self.with_tunnel(id, now, |tunnel, cx| tunnel.accept_initiation(opened, cx))?;
        self.counters.handshakes_completed_responder += 1;
        self.note_answered(id, now);
        self.learn_endpoint(id, from, to, now);
        Ok(id)
    }

    /// Works on one message. Returns whose it was, unless it was another core's.
    fn handshake(&mut self, queued: &Queued, now: Now) -> Result<Option<PeerId>, DropReason> {
        let bytes = &queued.bytes[..queued.len];
        let pressed = self.handshakes.under_load(now);
        let vouched = queued.vouched || self.wants_cookies(now);
        if vouched && !queued.vouched {
            self.demand_cookie(bytes, queued.from, queued.to, now)?;
        }
        if let Some(receiver) = queued.answers {
            let id = self.indices.lookup(receiver).ok_or(DropReason::IndexUnknown)?;
            self.with_tunnel(id, now, |tunnel, cx| tunnel.accept_response(bytes, cx))?;
            self.counters.handshakes_completed_initiator += 1;
            self.note_connected(id, now);
            self.learn_endpoint(id, queued.from, queued.to, now);
            return Ok(Some(id));
        }
        // With several cores nobody knows yet which of them has the session.
        if pressed && self.crossing.cores() == 1 {
            self.handshakes.admission.judge_unopened(queued.from.ip(), now.mono)?;
        }
        let identity = self.identity.as_deref().ok_or(DropReason::NoIdentity)?;
        let opened = OpenedInitiation::open(identity, bytes)?;
        let owner = owner_of(&opened.peer, self.crossing.cores());
        let crowded = self.handshakes.len() >= UNDER_LOAD_FROM;
        let claim = Claim { opened, from: queued.from, to: queued.to, pressed, crowded, vouched };
        if owner != self.core {
            self.crossing.initiation(owner, claim, &mut self.counters)?;
            return Ok(None);
        }
        self.answer(claim, now).map(Some)
    }

    /// Under load: no valid second MAC, no curve work, but a cookie; and no source may have more
    /// than its share.
    fn demand_cookie(
        &mut self,
        bytes: &[u8],
        from: SocketAddr,
        to: Option<Local>,
        now: Now,
    ) -> Result<(), DropReason> {
        let handshakes = &mut self.handshakes;
        let cookies = handshakes.cookies.as_mut().ok_or(DropReason::NoIdentity)?;
        if cookies.check_mac2(bytes, from, now.mono) {
            if handshakes.limiter.allow(from, now.mono) {
                return Ok(());
            }
            return Err(DropReason::HandshakeRateLimited);
        }
        let Some(left) = handshakes.cookies_left.checked_sub(1) else {
            return Err(DropReason::Mac2Missing);
        };
        handshakes.cookies_left = left;
        let mut reply = [0; 64];
        cookies.reply(bytes, from, now.mono, &mut *self.random, &mut reply)?;
        self.counters.cookies_sent += 1;
        self.send_single(&reply, from, to, 0)?;
        Err(DropReason::Mac2Missing)
    }

    /// Lets a tunnel work with everything it may need.
    pub(crate) fn with_tunnel<T>(
        &mut self,
        id: PeerId,
        now: Now,
        work: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> Result<T, DropReason>,
    ) -> Result<T, DropReason> {
        let identity = self.identity.as_deref().ok_or(DropReason::NoIdentity)?;
        if self.is_mute(id) {
            return Err(DropReason::IndexUnknown);
        }
        let peer = self.peers.get_mut(id).ok_or(DropReason::PeerGone)?;
        let mut indices =
            PeerIndices { table: &mut self.indices, peer: id, random: &mut *self.index_random };
        let mut cx = Cx { identity, now, random: &mut *self.random, indices: &mut indices };
        work(&mut peer.tunnel, &mut cx)
    }

    /// After anything happened to a tunnel: sends what it wants sent, lets staged packets go,
    /// counts its memory, re-arms its timer.
    pub(crate) fn settle(&mut self, id: PeerId, now: Now) {
        if self.release_staged(id, now)
            && let Some(peer) = self.peers.get_mut(id)
        {
            // They say what a keepalive would.
            peer.tunnel.data_follows();
        }
        if self.listening {
            self.say(id, now);
        }
        self.note_liveness(id, now);
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.count_blocks();
        if let Some((deadline, _why)) = peer.tunnel.poll_timeout() {
            self.timers.arm(id, deadline);
        }
    }

    /// Sends what the tunnel wants to say by itself. Without sockets it has to wait.
    fn say(&mut self, id: PeerId, now: Now) {
        let mut message = [0; 256];
        while let Ok(Some(outgoing)) =
            self.with_tunnel(id, now, |tunnel, cx| Ok(tunnel.poll_transmit(cx, &mut message)))
        {
            let Some(endpoint) = self.peers.get(id).and_then(|peer| peer.endpoint) else {
                self.counters.drop(DropReason::InsideNoEndpoint);
                continue;
            };
            let bytes = &message[..outgoing.len];
            match self.send_single(bytes, endpoint.remote, endpoint.local, outgoing.tos >> 2) {
                Ok(()) if outgoing.kind == OutgoingKind::Initiation => {
                    self.counters.handshakes_sent += 1;
                }
                Ok(()) => {}
                Err(reason) => self.counters.drop(reason),
            }
        }
    }

    /// The cheap form of [`Shard::settle`] for the packet path: nearly always there is nothing to
    /// send and the timer is armed early enough.
    #[inline]
    pub(crate) fn settle_data(&mut self, id: PeerId, confirmed: bool, now: Now) {
        let Some(peer) = self.peers.get(id) else { return };
        if confirmed || peer.tunnel.has_output() {
            return self.settle(id, now);
        }
        if let Some((deadline, _why)) = peer.tunnel.poll_timeout() {
            self.timers.arm(id, deadline);
        }
    }

    /// Fires some of the timers that are due; the rest has its turn next. Returns whether there was
    /// one.
    pub(crate) fn fire_timers(&mut self, now: Now) -> bool {
        let mut fired = false;
        for _ in 0..TIMERS_PER_TURN_MAX {
            let Some(id) = self.timers.expire(now.mono) else { return fired };
            self.unpublished = true;
            self.expire_staged(id, now);
            let Ok(events) = self.with_tunnel(id, now, |tunnel, cx| Ok(tunnel.handle_timeout(cx)))
            else {
                continue;
            };
            fired = true;
            if let Some(peer) = self.peers.get_mut(id)
                && peer.tunnel.send_state(now) == SendState::Ready
            {
                // Asking the path must not wake a tunnel that is asleep: it waits for a session.
                peer.path.handle_timeout(now.mono);
                self.follow_path(id, now);
            }
            if events.gave_up {
                self.counters.handshakes_abandoned += 1;
                self.abandon_staged(id, now);
            }
            if events.clear_source
                && let Some(endpoint) =
                    self.peers.get_mut(id).and_then(|peer| peer.endpoint.as_mut())
            {
                // The path may have changed under us: let the kernel choose the source address
                // again.
                endpoint.local = None;
            }
            self.settle(id, now);
        }
        fired
    }

    /// Sends one small message of our own.
    fn send_single(
        &mut self,
        bytes: &[u8],
        to: SocketAddr,
        from: Option<Local>,
        dscp: u8,
    ) -> Result<(), DropReason> {
        let mut buf = self.driver.reserve_train().ok_or(DropReason::TransmitExhausted)?;
        buf[..bytes.len()].copy_from_slice(bytes);
        self.driver.send(Train {
            buf,
            len: bytes.len(),
            segment_bytes: bytes.len(),
            to,
            from,
            ecn: Ecn::default(),
            dscp,
        });
        Ok(())
    }
}
