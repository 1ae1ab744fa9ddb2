//! The WireGuard state of one peer, sans-IO: keys, handshakes, timers.
//!
//! Its methods are in three files: here what it is made of, time and what timers do; `handshake.rs`
//! what goes in and out of a handshake; `data.rs` transport messages. After any method that is
//! given a message, a time or a configuration, and after [`Tunnel::prepare_run`], the caller asks
//! [`Tunnel::has_output`] (then [`Tunnel::poll_transmit`] until it is exhausted, but staged packets
//! first) and [`Tunnel::poll_timeout`].
//!
//! It must not know the peer's address, its allowed IPs, or staged packets.

use std::time::Duration;

use super::handshake::Handshake;
use super::identity::Identity;
use super::keypair::{Keypair, Keypairs};
use super::noise::{Shared, Tai64n};
use super::timers::{
    REKEY_JITTER, REKEY_ON_RECEIVE_AFTER, REKEY_TIMEOUT, RETRIES_MAX, Timer, Timers,
    ZERO_KEYS_AFTER,
};
use crate::crypto::{PresharedKey, PublicKey, Random, hash};
use crate::{Instant, Now, ReceiverIndex, Stamp};

/// What is configured about a peer's tunnel.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The peer's static key.
    pub public: PublicKey,
    /// Mixed into handshakes; zeros for none.
    pub preshared: PresharedKey,
    /// Persistent keepalive interval in seconds; 0 is off.
    pub keepalive_s: u16,
}

/// What a tunnel is lent for one call.
pub struct Cx<'a> {
    /// Our static key.
    pub identity: &'a Identity,
    /// Both clocks.
    pub now: Now,
    /// Secure randomness.
    pub random: &'a mut dyn Random,
    /// The index table, bound to this peer.
    pub indices: &'a mut dyn Indices,
}

/// The table of receiver indices, bound to one peer by the caller.
pub trait Indices {
    /// A new index that leads to this peer; None if there is none left.
    fn allocate(&mut self) -> Option<ReceiverIndex>;
    /// Gives back an index of this peer.
    fn release(&mut self, index: ReceiverIndex);
}

/// What the caller has to do after [`Tunnel::handle_timeout`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutEvents {
    /// No answer for 90 s: drop the packets staged for this peer.
    pub gave_up: bool,
    /// All keys were erased and their indices released.
    pub keys_erased: bool,
    /// A handshake is repeated: forget the local address used towards this peer, in case that it is
    /// the cause of the trouble.
    pub clear_source: bool,
}

/// Counters of a tunnel. Bytes are counted as `wg` shows them: whole authentic messages, handshakes
/// included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelStats {
    /// When the last handshake was completed, as time since the Unix epoch.
    pub last_handshake_wall: Option<Duration>,
    /// Bytes received in authentic messages.
    pub rx_bytes: u64,
    /// Bytes of messages sent.
    pub tx_bytes: u64,
    /// Initiations sent, repetitions included.
    pub initiations_sent: u32,
    /// Initiations answered.
    pub responses_sent: u32,
    /// Handshakes completed: a response accepted, or a keypair of ours confirmed.
    pub completed: u32,
    /// Handshake messages for this peer that were refused.
    pub refused: u32,
    /// Times that 90 s of initiations brought no answer.
    pub gave_up: u32,
}

/// The tunnel to one peer.
pub struct Tunnel {
    pub(super) peer: PublicKey,
    pub(super) preshared: PresharedKey,
    /// None if the peer's key is a point of low order: such a peer is silently dead.
    pub(super) static_static: Option<Shared>,
    pub(super) keypairs: Keypairs,
    /// There from the first message of a handshake until it is complete or given up, and as long as
    /// a cookie for the next one can be used.
    pub(super) handshake: Option<Box<Handshake>>,
    pub(super) timers: Timers,
    /// Indices to give back at the next call that is lent the table.
    pub(super) freed: [Option<ReceiverIndex>; 2],
    /// Stamp of the last initiation accepted.
    pub(super) their_stamp: Tai64n,
    /// Stamp of the last initiation sent.
    pub(super) our_stamp: Tai64n,
    pub(super) initiation_accepted: Option<Instant>,
    /// When the last initiation or response was sent.
    pub(super) handshake_sent: Option<Instant>,
    pub(super) keepalive_s: u16,
    pub(super) retries: u8,
    pub(super) initiation_due: bool,
    pub(super) keepalive_due: bool,
    /// The one handshake that receiving on an old key may start was started.
    pub(super) rekeyed_on_receive: bool,
    /// When something authentic last came, and when something was last sent.
    pub(super) heard: Stamp,
    pub(super) spoke: Stamp,
    pub(super) jitter: Jitter,
    pub(super) stats: TunnelStats,
}

impl Tunnel {
    /// A tunnel without keys. One Diffie-Hellman operation. With a persistent keepalive there is
    /// output at once.
    #[must_use]
    pub fn new(identity: &Identity, config: PeerConfig) -> Self {
        Self {
            peer: config.public,
            preshared: config.preshared,
            static_static: identity.private().agree(&config.public),
            keypairs: Keypairs::default(),
            handshake: None,
            timers: Timers::default(),
            freed: [None; 2],
            their_stamp: Tai64n::default(),
            our_stamp: Tai64n::default(),
            initiation_accepted: None,
            handshake_sent: None,
            keepalive_s: config.keepalive_s,
            retries: 0,
            initiation_due: false,
            keepalive_due: config.keepalive_s != 0,
            rekeyed_on_receive: false,
            heard: Stamp::NONE,
            spoke: Stamp::NONE,
            jitter: Jitter::new(identity, &config.public),
            stats: TunnelStats::default(),
        }
    }

    /// Our key pair was replaced: all keys are erased, all handshakes forgotten.
    pub fn identity_changed(&mut self, identity: &Identity, indices: &mut dyn Indices) {
        self.clear(indices);
        self.static_static = identity.private().agree(&self.peer);
        self.keepalive_due = self.keepalive_s != 0;
    }

    /// Replaces the preshared key, from the next handshake on.
    pub fn set_preshared(&mut self, key: PresharedKey) {
        self.preshared = key;
    }

    /// Replaces the persistent keepalive interval; 0 turns it off. Turning it on sends one at once.
    pub fn set_keepalive(&mut self, seconds: u16, now: Now) {
        let was_off = self.keepalive_s == 0;
        self.keepalive_s = seconds;
        if seconds == 0 {
            self.timers.cancel(Timer::PersistentKeepalive);
            return;
        }
        self.keepalive_due |= was_off;
        self.arm_persistent(now);
    }

    /// The peer's static key.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The stamps that must survive a restart: of the last initiation sent, and of the last one
    /// accepted.
    #[must_use]
    pub fn stamps(&self) -> (Tai64n, Tai64n) {
        (self.our_stamp, self.their_stamp)
    }

    /// Takes over the stamps of an earlier life; never goes back.
    pub fn resume_stamps(&mut self, ours: Tai64n, theirs: Tai64n) {
        self.our_stamp = self.our_stamp.max(ours);
        self.their_stamp = self.their_stamp.max(theirs);
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> TunnelStats {
        self.stats
    }

    /// Erases all keys and releases all indices: the peer was removed.
    pub fn clear(&mut self, indices: &mut dyn Indices) {
        self.erase_keys(indices);
        self.handshake = None;
        self.timers.cancel_all();
        self.handshake_sent = None;
        self.initiation_due = false;
        self.keepalive_due = false;
        self.retries = 0;
        self.rekeyed_on_receive = false;
    }

    /// When something authentic last came, and when something was last sent, to an eighth of a
    /// second.
    #[must_use]
    pub fn last_seen(&self) -> [Option<Instant>; 2] {
        [self.heard.instant(), self.spoke.instant()]
    }

    /// The same, to be kept.
    #[must_use]
    pub fn seen(&self) -> [Stamp; 2] {
        [self.heard, self.spoke]
    }

    /// Takes over what an earlier life said of that.
    pub fn resume_seen(&mut self, [heard, spoke]: [Stamp; 2]) {
        (self.heard, self.spoke) = (heard, spoke);
    }

    /// When the last handshake message was sent, while a handshake of ours is under way or one
    /// that we answered waits for its first packet.
    #[must_use]
    pub fn handshake_began(&self) -> Option<Instant> {
        let under_way = self.is_shaking_hands() || self.awaits_response() || self.is_half_open();
        self.handshake_sent.filter(|_| under_way)
    }

    /// When the last handshake message was sent, also of a handshake that is over.
    #[must_use]
    pub const fn handshake_sent(&self) -> Option<Instant> {
        self.handshake_sent
    }

    /// Whether an initiation of ours waits for its answer.
    #[must_use]
    pub fn awaits_response(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.initiation.is_some())
    }

    /// Whether it is this initiation of ours that waits for its answer.
    #[must_use]
    pub fn awaits_response_to(&self, index: ReceiverIndex) -> bool {
        let pending = self.handshake.as_ref().and_then(|handshake| handshake.initiation.as_ref());
        pending.is_some_and(|pending| pending.index == index)
    }

    /// Whether a handshake message of ours may still be answered with a cookie: none was, and the
    /// handshake is not complete.
    #[must_use]
    pub fn awaits_cookie(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.jar.is_waiting())
    }

    /// Sizes in bytes of the blocks that the tunnel holds besides itself, for the session's ledger:
    /// keypairs, and what a handshake under way needs. They come with handshakes and go when the
    /// keys are erased; nothing comes with a packet. What a cryptographic provider allocates for a
    /// key is not in it: without batches (`AeadKey::prepare_for_data`) that is 600 bytes each.
    pub fn blocks(&self) -> impl Iterator<Item = usize> {
        let keypairs = self.keypairs.by_role().into_iter().flatten().map(size_of_val::<Keypair>);
        keypairs.chain(self.handshake.as_deref().map(size_of_val::<Handshake>))
    }

    /// The earliest deadline and its reason.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.earliest()
    }

    /// Does what is due at `cx.now`; may be called early.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> TimeoutEvents {
        self.release_freed(cx.indices);
        let mut events = TimeoutEvents::default();
        while let Some(timer) = self.timers.pop_due(cx.now.mono) {
            match timer {
                Timer::RetransmitHandshake => self.retry_handshake(cx, &mut events),
                // One is enough: it answers all that was received before it.
                Timer::SendKeepalive => self.keepalive_due = true,
                Timer::NewHandshake => {
                    events.clear_source = true;
                    self.want_handshake(cx.now);
                }
                Timer::ZeroKeys => {
                    events.keys_erased = true;
                    self.erase_keys(cx.indices);
                    if !self.is_shaking_hands() {
                        // What the last attempt left is older than it may be used for.
                        self.handshake = None;
                    }
                }
                Timer::PersistentKeepalive => {
                    self.keepalive_due = true;
                    self.arm_persistent(cx.now);
                }
            }
        }
        events
    }

    /// Whether [`Tunnel::poll_transmit`] has something to say.
    #[must_use]
    #[inline]
    pub fn has_output(&self) -> bool {
        self.has_response() || self.initiation_due || self.keepalive_due
    }

    #[inline]
    fn has_response(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.response.is_some())
    }

    /// Whether a handshake of ours is under way, or arranged.
    #[must_use]
    pub fn is_shaking_hands(&self) -> bool {
        self.initiation_due || self.timers.is_armed(Timer::RetransmitHandshake)
    }

    /// Something waits for a session, or the session is to be renewed: starts a handshake, or, when
    /// the last handshake message is younger than 5 s, sees to it that one is started then. A
    /// handshake under way gets another 90 s.
    pub fn want_handshake(&mut self, now: Now) {
        if self.static_static.is_none() {
            return;
        }
        self.retries = 0;
        match self.handshake_sent {
            Some(sent) if now.mono.since(sent) < REKEY_TIMEOUT => self.defer_handshake(sent),
            Some(_) | None => self.initiation_due = true,
        }
    }

    /// Tries again 5 s after the last handshake message, unless that is arranged already.
    pub(super) fn defer_handshake(&mut self, sent: Instant) {
        if !self.timers.is_armed(Timer::RetransmitHandshake) {
            let at = sent + REKEY_TIMEOUT + self.jitter.draw();
            self.timers.set(Timer::RetransmitHandshake, at);
        }
    }

    fn retry_handshake(&mut self, cx: &mut Cx<'_>, events: &mut TimeoutEvents) {
        if self.retries < RETRIES_MAX {
            self.retries += 1;
            self.initiation_due = true;
            events.clear_source = true;
            return;
        }
        events.gave_up = true;
        self.stats.gave_up += 1;
        self.forget_initiation(cx.indices);
        self.initiation_due = false;
        self.end_handshake(cx.now);
        self.timers.cancel(Timer::SendKeepalive);
        // What is left of a partial exchange must not stay forever.
        self.timers.set_if_idle(Timer::ZeroKeys, cx.now.mono + ZERO_KEYS_AFTER);
    }

    /// The initiator's last chance to renew a session on which it only receives.
    pub(super) fn rekey_on_receive(&mut self, now: Now) {
        let stale = !self.rekeyed_on_receive
            && self.keypairs.current().is_some_and(|keypair| {
                keypair.initiator && now.mono.since(keypair.born) >= REKEY_ON_RECEIVE_AFTER
            });
        if stale {
            self.rekeyed_on_receive = true;
            self.want_handshake(now);
        }
    }

    /// A message under the keypair that we answered with: the initiator has it too.
    pub(super) fn confirm(&mut self, now: Now) {
        let [freed, _] = self.keypairs.confirm_next();
        // An initiation of ours that is still unanswered would only bring an older keypair.
        self.freed = [freed, self.take_initiation()];
        self.initiation_due = false;
        self.handshake_complete(now);
    }

    pub(super) fn handshake_complete(&mut self, now: Now) {
        self.end_handshake(now);
        self.timers.cancel(Timer::RetransmitHandshake);
        self.retries = 0;
        self.rekeyed_on_receive = false;
        self.stats.last_handshake_wall = Some(now.wall);
        self.stats.completed += 1;
    }

    pub(super) fn session_derived(&mut self, now: Now) {
        self.timers.set(Timer::ZeroKeys, now.mono + ZERO_KEYS_AFTER);
    }

    /// Data, a keepalive or a handshake message was sent.
    pub(super) fn authenticated_sent(&mut self, now: Now) {
        self.spoke = Stamp::at(now.mono);
        self.timers.cancel(Timer::SendKeepalive);
        self.arm_persistent(now);
    }

    /// Data, a keepalive or a handshake message was received and is authentic.
    pub(super) fn authenticated_received(&mut self, now: Now) {
        self.heard = Stamp::at(now.mono);
        self.timers.cancel(Timer::NewHandshake);
        self.arm_persistent(now);
    }

    fn arm_persistent(&mut self, now: Now) {
        if self.keepalive_s != 0 {
            let interval = Duration::from_secs(u64::from(self.keepalive_s));
            self.timers.set(Timer::PersistentKeepalive, now.mono + interval);
        }
    }

    /// Keys, handshakes and what waits to be sent under them.
    fn erase_keys(&mut self, indices: &mut dyn Indices) {
        self.release_freed(indices);
        self.forget_initiation(indices);
        if let Some(handshake) = &mut self.handshake {
            handshake.response = None;
        }
        self.keypairs.erase().into_iter().flatten().for_each(|index| indices.release(index));
    }

    pub(super) fn forget_initiation(&mut self, indices: &mut dyn Indices) {
        if let Some(index) = self.take_initiation() {
            indices.release(index);
        }
    }

    /// Forgets the initiation that waits for its answer. Whose index is free.
    pub(super) fn take_initiation(&mut self) -> Option<ReceiverIndex> {
        let handshake = self.handshake.as_mut()?;
        let index = handshake.initiation.as_ref()?.index;
        // Erased where it lies: to take it out would leave a copy of its secrets behind.
        handshake.initiation = None;
        Some(index)
    }

    /// No answer is waited for any more: gives back what only a handshake under way needs, unless
    /// the next one can use its cookie.
    fn end_handshake(&mut self, now: Now) {
        self.handshake.take_if(|handshake| {
            handshake.jar.stop_waiting();
            handshake.is_over(now.mono)
        });
    }

    pub(super) fn release_freed(&mut self, indices: &mut dyn Indices) {
        self.freed.iter_mut().filter_map(Option::take).for_each(|index| indices.release(index));
    }
}

/// Spreads repetitions, so that two peers, or many, do not keep step. Not a secret: a small
/// generator that real randomness is stirred into whenever some is at hand.
pub(super) struct Jitter(u64);

impl Jitter {
    fn new(identity: &Identity, peer: &PublicKey) -> Self {
        // Ordered, so that the two ends of a tunnel start from different places.
        let seed = hash(&[&identity.public().0, &peer.0]);
        Self(seed[..8].iter().fold(0, |seed, &byte| seed << 8 | u64::from(byte)))
    }

    pub(super) fn stir(&mut self, random: &mut dyn Random) {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        self.0 ^= u64::from_le_bytes(bytes);
    }

    /// Uniform in 0 to [`REKEY_JITTER`], by SplitMix64.
    pub(super) fn draw(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let nanos = (u128::from(mixed) * REKEY_JITTER.as_nanos()) >> 64;
        Duration::from_nanos(nanos as u64)
    }
}
