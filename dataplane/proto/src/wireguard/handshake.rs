//! What goes in and out of a tunnel's handshakes (section 5.4), both roles, and the messages that
//! no packet asked for.
//!
//! When both sides start at once, the initiation of the one with the greater public key counts, and
//! both have the same session a round trip later; the kernel, where neither counts, waits for the
//! next repetition. An initiation is always answered, also while ours is under way: the peer may
//! have moved to where ours does not reach it.

use super::cookie::CookieJar;
use super::data::{Plain, SendState};
use super::identity::Identity;
use super::messages::{
    COOKIE_REPLY_BYTES, DATA_OVERHEAD_BYTES, HANDSHAKE_TOS, INITIATION_BYTES, Message,
    RESPONSE_BYTES, classify,
};
use super::noise::{Initiation, OpenedInitiation, SessionKeys, Tai64n};
use super::timers::{REKEY_TIMEOUT, Timer};
use super::tunnel::{Cx, Tunnel};
use crate::{DropReason, Instant, Now, ReceiverIndex};
use std::time::Duration;

/// Least time between two initiations of one peer that are worked on: a fiftieth of a second.
pub const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// A message that [`Tunnel::poll_transmit`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its length in bytes.
    pub len: usize,
    /// What it is.
    pub kind: OutgoingKind,
    /// The whole traffic class byte for the outer IP header (not shifted): 0x88, AF41, for
    /// handshake messages, 0 for keepalives.
    pub tos: u8,
}

/// The messages that a tunnel sends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// A handshake initiation.
    Initiation,
    /// A handshake response.
    Response,
    /// A transport message without contents.
    Keepalive,
}

/// What a tunnel holds while a handshake is under way, and not before or after: most peers are
/// configured, and few of them shake hands. Its secrets erase themselves.
#[derive(Default)]
pub(super) struct Handshake {
    pub(super) initiation: Option<PendingInitiation>,
    /// A response that waits for [`Tunnel::poll_transmit`].
    pub(super) response: Option<[u8; RESPONSE_BYTES]>,
    pub(super) jar: CookieJar,
}

impl Handshake {
    /// Whether nothing of it will be asked for any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.initiation.is_none() && self.response.is_none() && self.jar.is_idle(now)
    }
}

/// An initiation that was sent and not answered yet.
pub(super) struct PendingInitiation {
    pub(super) index: ReceiverIndex,
    state: Initiation,
}

impl Tunnel {
    /// Answers an initiation of this peer. On success the response is output, the sender's address
    /// is the peer's endpoint, and a new keypair receives.
    ///
    /// # Errors
    /// [`DropReason::HandshakePeerUnknown`] if it is another peer's,
    /// [`DropReason::HandshakeLowOrderPoint`], [`DropReason::HandshakeUndecryptable`],
    /// [`DropReason::HandshakeReplayed`], [`DropReason::HandshakeTooSoon`],
    /// [`DropReason::IndexExhausted`].
    pub fn accept_initiation(
        &mut self,
        opened: OpenedInitiation,
        cx: &mut Cx<'_>,
    ) -> Result<(), DropReason> {
        self.release_freed(cx.indices);
        let answered = self.answer(opened, cx);
        self.count_refusal(answered)
    }

    fn answer(&mut self, mut opened: OpenedInitiation, cx: &mut Cx<'_>) -> Result<(), DropReason> {
        if opened.peer != self.peer {
            return Err(DropReason::HandshakePeerUnknown);
        }
        let shared = self.static_static.as_ref().ok_or(DropReason::HandshakeLowOrderPoint)?;
        let stamp = opened.authenticate(shared)?;
        if stamp <= self.their_stamp {
            return Err(DropReason::HandshakeReplayed);
        }
        let now = cx.now.mono;
        if self.initiation_accepted.is_some_and(|last| now.since(last) < INITIATION_INTERVAL_MIN) {
            return Err(DropReason::HandshakeTooSoon);
        }
        self.their_stamp = stamp;
        self.initiation_accepted = Some(now);

        let index = cx.indices.allocate().ok_or(DropReason::IndexExhausted)?;
        let mut message = [0; RESPONSE_BYTES];
        let keys = opened
            .respond(&self.preshared, index, cx.random, &mut message)
            .inspect_err(|_| cx.indices.release(index))?;
        let handshake = self.handshake.get_or_insert_default();
        handshake.jar.stamp(&self.peer, &mut message, now);
        handshake.response = Some(message);
        self.freed = self.keypairs.install_answered(&keys, index, now);
        self.release_freed(cx.indices);
        if cx.identity.public() < self.peer {
            self.forget_initiation(cx.indices);
        }
        self.handshake_sent = Some(now);

        self.stats.rx_bytes += INITIATION_BYTES as u64;
        self.session_derived(cx.now);
        self.authenticated_received(cx.now);
        Ok(())
    }

    /// Takes the answer to our initiation: a new keypair sends and receives. Staged packets may go
    /// now; if there are none, a keepalive is output, without which the responder would stay mute.
    ///
    /// # Errors
    /// The reasons of [`classify`] for what is no response,
    /// [`DropReason::HandshakeUnexpected`], [`DropReason::HandshakeLowOrderPoint`],
    /// [`DropReason::HandshakeUndecryptable`]. The handshake under way is not disturbed.
    pub fn accept_response(&mut self, message: &[u8], cx: &mut Cx<'_>) -> Result<(), DropReason> {
        self.release_freed(cx.indices);
        let opened = self.open_response(message, cx.identity);
        let (index, keys) = self.count_refusal(opened)?;
        // Its index is the keypair's now.
        self.take_initiation();
        self.initiation_due = false;
        self.freed = self.keypairs.install_initiated(&keys, index, cx.now.mono);
        self.release_freed(cx.indices);

        self.stats.rx_bytes += RESPONSE_BYTES as u64;
        self.session_derived(cx.now);
        self.handshake_complete(cx.now);
        self.authenticated_received(cx.now);
        self.keepalive_due = true;
        Ok(())
    }

    fn open_response(
        &self,
        message: &[u8],
        identity: &Identity,
    ) -> Result<(ReceiverIndex, SessionKeys), DropReason> {
        let kind = classify(message)?;
        let message = message.try_into().map_err(|_| DropReason::MessageTypeUnknown)?;
        let pending = self.handshake.as_ref().and_then(|handshake| handshake.initiation.as_ref());
        let pending = pending.ok_or(DropReason::HandshakeUnexpected)?;
        if kind != (Message::Response { receiver: pending.index }) {
            return Err(DropReason::HandshakeUnexpected);
        }
        let keys = pending.state.finish(identity, &self.preshared, message)?;
        Ok((pending.index, keys))
    }

    /// Takes a cookie for the next handshake message. Nothing is repeated at once, and the sender's
    /// address means nothing.
    ///
    /// # Errors
    /// The reasons of [`classify`] for what is no cookie reply,
    /// [`DropReason::HandshakeUnexpected`] if it answers nothing,
    /// [`DropReason::HandshakeUndecryptable`].
    pub fn accept_cookie(&mut self, message: &[u8], now: Now) -> Result<(), DropReason> {
        let accepted = classify(message).and_then(|kind| {
            let message: &[u8; COOKIE_REPLY_BYTES] = message
                .try_into()
                .ok()
                .filter(|_| matches!(kind, Message::Cookie { .. }))
                .ok_or(DropReason::MessageTypeUnknown)?;
            let handshake = self.handshake.as_mut().ok_or(DropReason::HandshakeUnexpected)?;
            handshake.jar.accept(&self.peer, message, now.mono)
        });
        self.count_refusal(accepted)
    }

    fn count_refusal<T>(&mut self, result: Result<T, DropReason>) -> Result<T, DropReason> {
        self.stats.refused += u32::from(result.is_err());
        result
    }

    /// Writes the next message that the tunnel wants to send by itself, to the peer's endpoint.
    /// Call until None.
    ///
    /// # Panics
    /// If `out` is shorter than 148 bytes.
    pub fn poll_transmit(&mut self, cx: &mut Cx<'_>, out: &mut [u8]) -> Option<Outgoing> {
        self.release_freed(cx.indices);
        let response = self.handshake.as_mut().and_then(|handshake| handshake.response.take());
        if let Some(message) = response {
            out[..RESPONSE_BYTES].copy_from_slice(&message);
            self.stats.responses_sent += 1;
            return Some(self.handshake_message(RESPONSE_BYTES, OutgoingKind::Response, cx.now));
        }
        if std::mem::take(&mut self.keepalive_due) {
            match self.send_state(cx.now) {
                SendState::Ready => return self.keepalive(cx.now, out),
                SendState::HandshakeNeeded => self.want_handshake(cx.now),
            }
        }
        if std::mem::take(&mut self.initiation_due) {
            return self.initiate(cx, out);
        }
        None
    }

    fn keepalive(&mut self, now: Now, out: &mut [u8]) -> Option<Outgoing> {
        let bytes = &mut out[..DATA_OVERHEAD_BYTES];
        self.seal_run(&mut [Plain { bytes }], now).ok()?;
        Some(Outgoing { len: DATA_OVERHEAD_BYTES, kind: OutgoingKind::Keepalive, tos: 0 })
    }

    fn initiate(&mut self, cx: &mut Cx<'_>, out: &mut [u8]) -> Option<Outgoing> {
        let now = cx.now.mono;
        // A response may have been sent since the initiation became due.
        if let Some(sent) = self.handshake_sent.filter(|sent| now.since(*sent) < REKEY_TIMEOUT) {
            self.defer_handshake(sent);
            return None;
        }
        self.forget_initiation(cx.indices);
        self.jitter.stir(cx.random);
        self.handshake_sent = Some(now);
        self.timers.set(Timer::RetransmitHandshake, now + REKEY_TIMEOUT + self.jitter.draw());

        // Both can fail for want of an index or for a peer without a usable key: then the
        // repetition tries again, or nothing is ever sent.
        let message = out.first_chunk_mut::<INITIATION_BYTES>().expect("room for an initiation");
        let shared = self.static_static.as_ref()?;
        let index = cx.indices.allocate()?;
        self.our_stamp = Tai64n::after(self.our_stamp, cx.now.wall);
        let created = Initiation::create(
            cx.identity,
            &self.peer,
            shared,
            self.our_stamp,
            index,
            cx.random,
            message,
        );
        let Ok(state) = created else {
            cx.indices.release(index);
            return None;
        };
        let handshake = self.handshake.get_or_insert_default();
        handshake.jar.stamp(&self.peer, message, now);
        handshake.initiation = Some(PendingInitiation { index, state });
        self.stats.initiations_sent += 1;
        Some(self.handshake_message(INITIATION_BYTES, OutgoingKind::Initiation, cx.now))
    }

    fn handshake_message(&mut self, len: usize, kind: OutgoingKind, now: Now) -> Outgoing {
        self.stats.tx_bytes += len as u64;
        self.authenticated_sent(now);
        Outgoing { len, kind, tos: HANDSHAKE_TOS }
    }
}
