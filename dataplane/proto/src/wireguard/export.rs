//! A tunnel's state as a record, and back: so that another process, or another gateway, can go on
//! with its sessions and their peers notice nothing.
//!
//! - Send counters: an importer begins above what the exporter has used, and an exporter that goes
//!   on after all begins above what the importer may have used ([`LEASE`], [`RESUME_LEAP`]). So no
//!   nonce is used twice, whoever goes on.
//! - Replay windows are exact: what the exporter has accepted, the importer refuses.
//! - Times are ages at the moment of the export. Whoever imports says which of its own instants
//!   that
//!   moment was.
//! - Not in it: handshakes under way (their messages are repeated by timers, which are in it), the
//!   cookie, and randomness.
//!
//! A record is read whole or refused whole. It holds keys in the clear: whoever moves it seals it.
//! This file must not know endpoints, index tables or processes.

use std::time::Duration;

use zeroize::Zeroizing;

use super::keypair::{Keypair, Role};
use super::noise::Tai64n;
use super::replay::{ReplayWindow, WINDOW_BYTES_MAX};
use super::timers::{TIMERS, Timers};
use super::tunnel::{Tunnel, TunnelStats};
use crate::crypto::{AeadKey, KEY_BYTES, PresharedKey, PublicKey};
use crate::record::{Reader, RecordError, Writer};
use crate::{Instant, Now, ReceiverIndex};

/// Version of the record. Another one is refused.
pub const STATE_VERSION: u16 = 1;

/// How far above the exported counter an importer begins, in messages. The exporter stands still,
/// so nothing is needed; this much forgives a few messages that left it after the export all the
/// same. It stays far below a peer's replay window (8,128), so that what the exporter sent and is
/// still on its way arrives.
pub const LEASE: u64 = 256;

/// How far above its own counter an exporter goes on, in messages, when somebody may have imported
/// its state: the importer has all below. At a million messages per second under one key it could
/// send for 71 minutes, and a key is used for three.
pub const RESUME_LEAP: u64 = 1 << 32;

/// Bytes of a keypair's record at most.
const KEYPAIR_BYTES_MAX: usize = 1 + 4 + 4 + 8 + 1 + 8 + 2 * KEY_BYTES + WINDOW_BYTES_MAX;

/// Bytes of a record at most.
pub const STATE_BYTES_MAX: usize = 2 // version
    + 2 * KEY_BYTES // peer, preshared key
    + 2 * 12 // stamps
    + 2 + 1 + 3 // keepalive, retries, flags
    + (2 + TIMERS) * 8 // spans
    + 3 * 8 + 5 * 4 // statistics
    + 1 + 3 * KEYPAIR_BYTES_MAX;

/// A tunnel as it was when it was exported. Its keys erase themselves.
pub struct TunnelState {
    peer: PublicKey,
    preshared: PresharedKey,
    our_stamp: Tai64n,
    their_stamp: Tai64n,
    keepalive_s: u16,
    retries: u8,
    initiation_due: bool,
    keepalive_due: bool,
    rekeyed_on_receive: bool,
    /// How long ago; as all spans here.
    initiation_accepted: Option<Duration>,
    handshake_sent: Option<Duration>,
    /// How long until each timer fires.
    timers: [Option<Duration>; TIMERS],
    stats: TunnelStats,
    /// Previous, current, next.
    keypairs: [Option<KeypairState>; 3],
}

struct KeypairState {
    ours: ReceiverIndex,
    theirs: ReceiverIndex,
    age: Duration,
    initiator: bool,
    sent: u64,
    /// Zeros in a previous keypair, which sends no more.
    send: Zeroizing<[u8; KEY_BYTES]>,
    receive: Zeroizing<[u8; KEY_BYTES]>,
    replay: ReplayWindow,
}

impl TunnelState {
    /// Whose tunnel it is.
    #[must_use]
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Whether the peer was never heard of and never spoken to: then there is nothing to go on with
    /// but what is configured.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let spans = [self.initiation_accepted, self.handshake_sent];
        self.indices().next().is_none()
            && [self.our_stamp, self.their_stamp] == [Tai64n::default(); 2]
            && spans.iter().chain(&self.timers).all(Option::is_none)
            && !self.initiation_due
            && !self.keepalive_due
            && self.stats == TunnelStats::default()
    }

    /// The indices that the peer sends to.
    fn indices(&self) -> impl Iterator<Item = ReceiverIndex> + '_ {
        self.keypairs.iter().flatten().map(|keypair| keypair.ours)
    }

    /// Appends the record to memory with room for [`STATE_BYTES_MAX`].
    ///
    /// # Panics
    /// If there is too little room.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut out = Writer::new(out);
        out.u16(STATE_VERSION);
        out.bytes(&self.peer.0);
        out.bytes(&self.preshared.0);
        out.bytes(&self.our_stamp.0);
        out.bytes(&self.their_stamp.0);
        out.u16(self.keepalive_s);
        out.u8(self.retries);
        for flag in [self.initiation_due, self.keepalive_due, self.rekeyed_on_receive] {
            out.u8(flag.into());
        }
        out.span(self.initiation_accepted);
        out.span(self.handshake_sent);
        self.timers.into_iter().for_each(|left| out.span(left));
        let stats = &self.stats;
        out.span(stats.last_handshake_wall);
        out.u64(stats.rx_bytes);
        out.u64(stats.tx_bytes);
        let counts = [
            stats.initiations_sent,
            stats.responses_sent,
            stats.completed,
            stats.refused,
            stats.gave_up,
        ];
        counts.into_iter().for_each(|count| out.u32(count));
        for keypair in &self.keypairs {
            out.u8(keypair.is_some().into());
            if let Some(keypair) = keypair {
                keypair.write(&mut out);
            }
        }
    }

    /// Reads a record that these bytes are, from anybody.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of it can be used then.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let state = Self::read(&mut reader)?;
        reader.end().map(|()| state)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        let found = reader.u16()?;
        if found != STATE_VERSION {
            return Err(RecordError::Version { found, known: STATE_VERSION });
        }
        let state = Self {
            peer: PublicKey(*reader.array()?),
            preshared: PresharedKey(*reader.array()?),
            our_stamp: Tai64n(*reader.array()?),
            their_stamp: Tai64n(*reader.array()?),
            keepalive_s: reader.u16()?,
            retries: reader.u8()?,
            initiation_due: reader.flag("initiation due")?,
            keepalive_due: reader.flag("keepalive due")?,
            rekeyed_on_receive: reader.flag("rekeyed on receive")?,
            initiation_accepted: reader.span()?,
            handshake_sent: reader.span()?,
            timers: read_timers(reader)?,
            stats: TunnelStats {
                last_handshake_wall: reader.span()?,
                rx_bytes: reader.u64()?,
                tx_bytes: reader.u64()?,
                initiations_sent: reader.u32()?,
                responses_sent: reader.u32()?,
                completed: reader.u32()?,
                refused: reader.u32()?,
                gave_up: reader.u32()?,
            },
            keypairs: read_keypairs(reader)?,
        };
        state.check()?;
        Ok(state)
    }

    /// What a tunnel never is.
    fn check(&self) -> Result<(), RecordError> {
        let live: Vec<ReceiverIndex> = self.indices().collect();
        if (1..live.len()).any(|at| live[..at].contains(&live[at])) {
            return Err(RecordError::Impossible { field: "receiver index" });
        }
        // Counts that no tunnel reaches leave no room to count on.
        let TunnelStats { rx_bytes, tx_bytes, initiations_sent, responses_sent, .. } = self.stats;
        let TunnelStats { completed, refused, gave_up, .. } = self.stats;
        let counts = [initiations_sent, responses_sent, completed, refused, gave_up];
        if rx_bytes.max(tx_bytes) > u64::MAX / 2 || counts.iter().any(|count| *count > u32::MAX / 2)
        {
            return Err(RecordError::Impossible { field: "statistics" });
        }
        // A keypair waits to be confirmed only by whoever answered.
        match &self.keypairs[Role::Next as usize] {
            Some(next) if next.initiator => Err(RecordError::Impossible { field: "next keypair" }),
            Some(_) | None => Ok(()),
        }
    }
}

impl std::fmt::Debug for TunnelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TunnelState({:?}, {} keypairs)", self.peer, self.indices().count())
    }
}

impl KeypairState {
    fn write(&self, out: &mut Writer<'_>) {
        out.u32(self.ours.0);
        out.u32(self.theirs.0);
        out.span(Some(self.age));
        out.u8(self.initiator.into());
        out.u64(self.sent);
        out.bytes(&self.send[..]);
        out.bytes(&self.receive[..]);
        self.replay.write(out);
    }

    fn read(reader: &mut Reader<'_>, is_previous: bool) -> Result<Self, RecordError> {
        let keypair = Self {
            ours: ReceiverIndex(reader.u32()?),
            theirs: ReceiverIndex(reader.u32()?),
            age: reader.span()?.ok_or(RecordError::Impossible { field: "age of a keypair" })?,
            initiator: reader.flag("initiator")?,
            sent: reader.u64()?,
            send: Zeroizing::new(*reader.array()?),
            receive: Zeroizing::new(*reader.array()?),
            replay: ReplayWindow::read(reader)?,
        };
        if is_previous && *keypair.send != [0; KEY_BYTES] {
            return Err(RecordError::Impossible { field: "key of a keypair that sends no more" });
        }
        Ok(keypair)
    }
}

impl Tunnel {
    /// The state of now. Nothing changes, and nothing is allocated; but from now on, until
    /// [`Tunnel::leap`], nothing may be sealed if somebody may import it.
    #[must_use]
    pub fn export(&self, now: Now) -> TunnelState {
        let age = |at: Instant| now.mono.since(at);
        let keypair = |keypair: &Keypair| KeypairState {
            ours: keypair.ours,
            theirs: keypair.theirs,
            age: age(keypair.born),
            initiator: keypair.initiator,
            sent: keypair.sent,
            send: Zeroizing::new(*keypair.send.bytes()),
            receive: Zeroizing::new(*keypair.receive.bytes()),
            replay: keypair.replay.clone(),
        };
        TunnelState {
            peer: self.peer,
            preshared: self.preshared.clone(),
            our_stamp: self.our_stamp,
            their_stamp: self.their_stamp,
            keepalive_s: self.keepalive_s,
            retries: self.retries,
            initiation_due: self.initiation_due,
            keepalive_due: self.keepalive_due,
            rekeyed_on_receive: self.rekeyed_on_receive,
            initiation_accepted: self.initiation_accepted.map(age),
            handshake_sent: self.handshake_sent.map(age),
            timers: self.timers.deadlines().map(|at| at.map(|at| at.since(now.mono))),
            stats: self.stats,
            keypairs: self.keypairs.by_role().map(|found| found.map(keypair)),
        }
    }

    /// Goes on from `state`, which is this peer's, exported at `at` (of this machine's clock). The
    /// send counters begin `ahead` above it: at least [`LEASE`]. The tunnel has no keys when this
    /// is called. Afterwards the caller makes [`Tunnel::indices`] lead to it.
    ///
    /// # Errors
    /// [`RecordError::Impossible`] if it is another peer's; nothing has changed then.
    ///
    /// # Panics
    /// If the tunnel has keys.
    pub fn import(
        &mut self,
        state: &TunnelState,
        at: Instant,
        ahead: u64,
    ) -> Result<(), RecordError> {
        if state.peer != self.peer {
            return Err(RecordError::Impossible { field: "peer" });
        }
        assert!(self.keypairs.by_role().iter().all(Option::is_none), "a tunnel without keys");
        self.preshared = state.preshared.clone();
        self.resume_stamps(state.our_stamp, state.their_stamp);
        self.keepalive_s = state.keepalive_s;
        self.retries = state.retries;
        self.initiation_due = state.initiation_due;
        self.keepalive_due = state.keepalive_due;
        self.rekeyed_on_receive = state.rekeyed_on_receive;
        self.initiation_accepted = state.initiation_accepted.map(|age| at - age);
        self.handshake_sent = state.handshake_sent.map(|age| at - age);
        self.timers = Timers::of(state.timers.map(|left| left.map(|left| at + left)));
        self.stats = state.stats;
        for (role, keypair) in Role::ALL.into_iter().zip(&state.keypairs) {
            // A clock that has run for less than the keypair's age cannot say when it expires: such
            // a keypair is left out.
            if let Some(keypair) = keypair
                && let Some(born) = earlier(at, keypair.age)
            {
                self.keypairs.restore(role, restored(keypair, born, role, ahead));
            }
        }
        Ok(())
    }

    /// The indices that the peer sends to, whatever the age of their keypairs.
    pub fn indices(&self) -> impl Iterator<Item = ReceiverIndex> + '_ {
        self.keypairs.by_role().into_iter().flatten().map(|keypair| keypair.ours)
    }

    /// Jumps over `messages` counters of every key, which somebody else may have used.
    pub fn leap(&mut self, messages: u64) {
        for keypair in self.keypairs.sending_mut() {
            keypair.sent = keypair.sent.saturating_add(messages);
        }
    }
}

fn restored(state: &KeypairState, born: Instant, role: Role, ahead: u64) -> Box<Keypair> {
    let send = match role {
        Role::Previous => AeadKey::default(),
        Role::Current => AeadKey::for_data(&state.send),
        // It is prepared when it is confirmed.
        Role::Next => AeadKey::dormant(&state.send),
    };
    Box::new(Keypair {
        ours: state.ours,
        theirs: state.theirs,
        born,
        initiator: state.initiator,
        sent: state.sent.saturating_add(ahead),
        send,
        receive: AeadKey::for_data(&state.receive),
        replay: state.replay.clone(),
    })
}

fn earlier(at: Instant, age: Duration) -> Option<Instant> {
    (age.as_nanos() <= u128::from(at.as_nanos())).then(|| at - age)
}

fn read_timers(reader: &mut Reader<'_>) -> Result<[Option<Duration>; TIMERS], RecordError> {
    let mut timers = [None; TIMERS];
    for left in &mut timers {
        *left = reader.span()?;
    }
    Ok(timers)
}

fn read_keypairs(reader: &mut Reader<'_>) -> Result<[Option<KeypairState>; 3], RecordError> {
    let mut keypairs = [None, None, None];
    for (role, keypair) in Role::ALL.into_iter().zip(&mut keypairs) {
        if reader.flag("keypair")? {
            *keypair = Some(KeypairState::read(reader, role == Role::Previous)?);
        }
    }
    Ok(keypairs)
}
