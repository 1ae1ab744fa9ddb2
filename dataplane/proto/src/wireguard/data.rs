//! Transport messages in runs (section 5.4.6): what arrived, or leaves, together for one tunnel.
//!
//! A run goes through three passes. Headers: counters are read (or given out) and tested.
//! Cryptography: several messages per call where the machine can ([`super::batch`]), also of
//! several tunnels: who has runs of many of them does each pass over all. Marks: replay window,
//! timers and statistics, once. Nothing is allocated and nothing is copied.

use super::batch::{open_batch, seal_batch};
use super::keypair::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, Role};
use super::messages::{
    DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, Message, classify, counter_of, write_data_header,
};
use super::replay::ReplayWindow;
use super::timers::{
    KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_AFTER, REJECT_AFTER_TIME, REKEY_AFTER_TIME, Timer,
};
use super::tunnel::Tunnel;
use crate::crypto::{AeadKey, TAG_BYTES};
use crate::limits::RUN_MAX;
use crate::{DropReason, Instant, Now, ReceiverIndex};

/// A transport message, opened in place.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The whole datagram. Its contents are unspecified once it was refused.
    pub bytes: &'a mut [u8],
    /// What became of it; [`Outcome::Pending`] before.
    pub outcome: Outcome,
}

impl<'a> Datagram<'a> {
    /// A datagram that is still to be opened.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, outcome: Outcome::Pending }
    }
}

/// What became of a [`Datagram`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not opened yet.
    Pending,
    /// An authentic message without contents.
    Keepalive,
    /// An authentic message with an inner packet: these bytes of the datagram, padding trimmed.
    /// Whether the peer may use its source address is not checked.
    Packet {
        /// Offset of the IP header in the datagram.
        start: usize,
        /// Length by the IP header, in bytes.
        len: usize,
    },
    /// Refused. [`DropReason::InnerMalformed`] is an authentic message nevertheless.
    Dropped(DropReason),
}

/// A packet to be sealed in place: 16 bytes of room for the header, the plaintext including its
/// padding (none for a keepalive), 16 bytes of room for the tag.
#[derive(Debug)]
pub struct Plain<'a> {
    /// All of it; becomes the datagram.
    pub bytes: &'a mut [u8],
}

/// What a run brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// Inner packets.
    pub packets: u32,
    /// Bytes of the inner packets.
    pub bytes: u64,
    /// Whether any message was authentic: then its sender's address is the peer's endpoint.
    pub authenticated: bool,
    /// Position in the run of the last authentic message.
    pub last_authenticated: Option<usize>,
    /// The run confirmed a new keypair: staged packets may go now.
    pub confirmed: bool,
}

/// Whether a tunnel can seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// [`Tunnel::seal_run`] will succeed for a run of up to [`RUN_MAX`].
    Ready,
    /// No usable keypair: stage the packet and call [`Tunnel::want_handshake`].
    HandshakeNeeded,
}

impl Tunnel {
    /// Opens transport messages in place, in three passes: [`Tunnel::admit`], [`open_batch`],
    /// [`Tunnel::accept`]. All of `run` carry our `index`; those that are not
    /// [`Outcome::Pending`] are left alone.
    pub fn open_run(
        &mut self,
        index: ReceiverIndex,
        run: &mut [Datagram<'_>],
        now: Now,
    ) -> RunSummary {
        let Some(key) = self.admit(index, run, now) else { return RunSummary::default() };
        let keys = [Some(key); RUN_MAX];
        run.chunks_mut(RUN_MAX).for_each(|run| open_batch(&keys[..run.len()], run));
        self.accept(index, run, now)
    }

    /// The first pass, over headers: refuses what is not worth opening. The key for the rest; none
    /// if all were refused for want of one.
    pub fn admit(
        &self,
        index: ReceiverIndex,
        run: &mut [Datagram<'_>],
        now: Now,
    ) -> Option<&AeadKey> {
        let keypair = match self.keypairs.find(index) {
            Some(keypair) if keypair.is_young(now.mono) => keypair,
            Some(_) => return refuse(run, DropReason::KeypairExpired),
            None => return refuse(run, DropReason::IndexUnknown),
        };
        for datagram in run.iter_mut().filter(|datagram| datagram.outcome == Outcome::Pending) {
            if let Err(reason) = acceptable(datagram.bytes, keypair.ours, &keypair.replay) {
                datagram.outcome = Outcome::Dropped(reason);
            }
        }
        Some(&keypair.receive)
    }

    /// The last pass: what is pending has verified under the key of `index`. Marks, timers and
    /// statistics. What was opened meanwhile may have ended the keypair: then it has come too late.
    pub fn accept(
        &mut self,
        index: ReceiverIndex,
        run: &mut [Datagram<'_>],
        now: Now,
    ) -> RunSummary {
        let mut summary = RunSummary::default();
        let Some((role, keypair)) = self.keypairs.find_mut(index) else {
            let _no_key = refuse(run, DropReason::IndexUnknown);
            return summary;
        };
        let mut wire_bytes = 0;
        let mut data = false;
        for (at, datagram) in run.iter_mut().enumerate() {
            if datagram.outcome != Outcome::Pending {
                continue;
            }
            // The same counter may stand twice in one run: only here the second is found.
            if !keypair.replay.mark(counter_of(datagram.bytes)) {
                datagram.outcome = Outcome::Dropped(DropReason::DataReplayed);
                continue;
            }
            summary.last_authenticated = Some(at);
            wire_bytes += datagram.bytes.len() as u64;
            datagram.outcome = inner(datagram.bytes);
            data |= datagram.outcome != Outcome::Keepalive;
            if let Outcome::Packet { len, .. } = datagram.outcome {
                summary.packets += 1;
                summary.bytes += len as u64;
            }
        }
        if summary.last_authenticated.is_some() {
            summary.authenticated = true;
            summary.confirmed = self.received(role, wire_bytes, data, now);
        }
        summary
    }

    /// What one or more authentic messages under a keypair mean for roles, timers and statistics.
    /// Whether they confirmed a keypair.
    fn received(&mut self, role: Role, wire_bytes: u64, data: bool, now: Now) -> bool {
        self.stats.rx_bytes += wire_bytes;
        let confirmed = role == Role::Next;
        if confirmed {
            self.confirm(now);
        }
        self.rekey_on_receive(now);
        self.authenticated_received(now);
        if data {
            self.timers.set_if_idle(Timer::SendKeepalive, now.mono + KEEPALIVE_TIMEOUT);
        }
        confirmed
    }

    /// Whether there is a keypair to send with.
    #[must_use]
    #[inline]
    pub fn send_state(&self, now: Now) -> SendState {
        match self.keypairs.current() {
            Some(keypair) if keypair.can_send(RUN_MAX, now.mono) => SendState::Ready,
            Some(_) | None => SendState::HandshakeNeeded,
        }
    }

    /// Whether a keypair that we answered with waits for the initiator's first message.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.keypairs.has_next()
    }

    /// Packets are about to be sealed: they say what a keepalive would.
    pub fn data_follows(&mut self) {
        self.keepalive_due = false;
    }

    /// When the keypair to send with gets too old; `None` without one.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        self.keypairs.current().map(|keypair| keypair.born + REJECT_AFTER_TIME)
    }

    /// Seals packets in place into transport messages: [`Tunnel::prepare_run`], then
    /// [`seal_batch`].
    ///
    /// # Errors
    /// As [`Tunnel::prepare_run`].
    ///
    /// # Panics
    /// As [`Tunnel::prepare_run`].
    pub fn seal_run(&mut self, run: &mut [Plain<'_>], now: Now) -> Result<(), DropReason> {
        self.prepare_run(run, now)?;
        let keys = [self.sending_key(); RUN_MAX];
        run.chunks_mut(RUN_MAX).for_each(|run| seal_batch(&keys[..run.len()], run));
        Ok(())
    }

    /// The first pass over packets that are to be sealed: gives out counters, writes headers, and
    /// counts them as sent. All or nothing. The caller seals them next with
    /// [`Tunnel::sending_key`], before anything else is done with the tunnel.
    ///
    /// # Errors
    /// [`DropReason::KeypairExpired`] if there is no keypair that can send them all; nothing was
    /// written then, and a handshake is wanted.
    ///
    /// # Panics
    /// If a packet has no room for header and tag: the caller's invariant, independent of contents.
    pub fn prepare_run(&mut self, run: &mut [Plain<'_>], now: Now) -> Result<(), DropReason> {
        let keypair = self.keypairs.current_mut();
        let Some(keypair) = keypair.filter(|keypair| keypair.can_send(run.len(), now.mono)) else {
            self.want_handshake(now);
            return Err(DropReason::KeypairExpired);
        };
        let first = keypair.sent;
        keypair.sent += run.len() as u64;
        let mut wire_bytes = 0;
        let mut data = false;
        for (packet, counter) in run.iter_mut().zip(first..) {
            assert!(packet.bytes.len() >= DATA_OVERHEAD_BYTES, "a packet has room for its header");
            write_data_header(packet.bytes, keypair.theirs, counter);
            wire_bytes += packet.bytes.len() as u64;
            data |= packet.bytes.len() > DATA_OVERHEAD_BYTES;
        }
        if !run.is_empty() {
            self.stats.tx_bytes += wire_bytes;
            self.keepalive_due = false;
            self.authenticated_sent(now);
            if data && !self.timers.is_armed(Timer::NewHandshake) {
                let at = now.mono + NEW_HANDSHAKE_AFTER + self.jitter.draw();
                self.timers.set(Timer::NewHandshake, at);
            }
            self.rekey_on_send(now);
        }
        Ok(())
    }

    /// The key of [`Tunnel::prepare_run`]; none without a keypair to send with.
    #[must_use]
    #[inline]
    pub fn sending_key(&self) -> Option<&AeadKey> {
        self.keypairs.current().map(|keypair| &keypair.send)
    }

    /// Starts a new handshake when the current key is old and ours to renew, or much used.
    fn rekey_on_send(&mut self, now: Now) {
        let stale = self.keypairs.current().is_some_and(|keypair| {
            let old = now.mono.since(keypair.born) >= REKEY_AFTER_TIME;
            (keypair.initiator && old) || keypair.sent > REKEY_AFTER_MESSAGES
        });
        if stale {
            self.want_handshake(now);
        }
    }
}

/// Refuses all that is pending: there is no key for it.
#[cold]
fn refuse<'a>(run: &mut [Datagram<'_>], reason: DropReason) -> Option<&'a AeadKey> {
    for datagram in run.iter_mut().filter(|datagram| datagram.outcome == Outcome::Pending) {
        datagram.outcome = Outcome::Dropped(reason);
    }
    None
}

/// The header of a message under a keypair, tested before anything is decrypted.
#[inline]
fn acceptable(bytes: &[u8], ours: ReceiverIndex, replay: &ReplayWindow) -> Result<(), DropReason> {
    match classify(bytes)? {
        Message::Data { receiver, .. } if receiver != ours => Err(DropReason::IndexUnknown),
        Message::Data { counter, .. } if counter >= REJECT_AFTER_MESSAGES => {
            Err(DropReason::KeypairExpired)
        }
        Message::Data { counter, .. } if replay.is_fresh(counter) => Ok(()),
        Message::Data { .. } => Err(DropReason::DataReplayed),
        Message::Initiation | Message::Response { .. } | Message::Cookie { .. } => {
            Err(DropReason::MessageTypeUnknown)
        }
    }
}

/// What an opened message carries: nothing, or an IP packet that says itself how long it is.
#[inline]
fn inner(bytes: &[u8]) -> Outcome {
    let text = &bytes[DATA_HEADER_BYTES..bytes.len() - TAG_BYTES];
    let be16 = |at: usize| usize::from(u16::from_be_bytes([text[at], text[at + 1]]));
    let (len, header_bytes) = match text.first().map(|first| first >> 4) {
        None => return Outcome::Keepalive,
        Some(4) if text.len() >= 20 => (be16(2), 20),
        Some(6) if text.len() >= 40 => (be16(4) + 40, 40),
        Some(_) => return Outcome::Dropped(DropReason::InnerMalformed),
    };
    if len < header_bytes || len > text.len() {
        return Outcome::Dropped(DropReason::InnerMalformed);
    }
    Outcome::Packet { start: DATA_HEADER_BYTES, len }
}
