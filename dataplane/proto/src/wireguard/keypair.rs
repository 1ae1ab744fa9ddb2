//! Transport keys in three roles (section 6.2, and the kernel's rotation): *previous* still
//! receives, *current* sends and receives, *next* is what a responder made and may only receive
//! with until the first message under it proves that the initiator has it too.
//!
//! Each keypair is a block of its own, made by a handshake and given back with its erasure: a peer
//! without a session holds none, and a rotation moves no key. A keypair is plain data: keys,
//! counters and replay marks are all there is to export.

use std::mem::offset_of;

use zeroize::Zeroize;

use super::noise::SessionKeys;
use super::replay::ReplayWindow;
use super::timers::REJECT_AFTER_TIME;
use crate::crypto::AeadKey;
use crate::{Instant, ReceiverIndex};

/// After this many messages sent under one key a new handshake is started.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Counters from here on are neither sent nor accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Both keys of one session, with their counters.
///
/// Of many sessions hardly one is in the cache when a packet comes, so what a packet needs lies
/// together: the key that opens it and the numbers around it on two lines, the window behind them.
#[repr(C, align(64))]
pub(super) struct Keypair {
    pub(super) receive: AeadKey,
    pub(super) ours: ReceiverIndex,
    pub(super) theirs: ReceiverIndex,
    pub(super) born: Instant,
    /// Messages sent: the next counter.
    pub(super) sent: u64,
    /// Whether we sent the initiation: then rekeying by age is ours to do.
    pub(super) initiator: bool,
    pub(super) replay: ReplayWindow,
    pub(super) send: AeadKey,
}

/// Two lines of a cache. A provider may keep its context in the key, which then takes a little
/// more.
const LINES: usize = 128;
const _: () = assert!(offset_of!(Keypair, replay) + size_of::<u64>() <= LINES);

impl Keypair {
    /// A keypair that neither sends nor receives yet. It is filled where it stays, so that no copy
    /// of a key remains on the stack.
    fn vacant() -> Box<Self> {
        Box::new(Self {
            ours: ReceiverIndex(0),
            theirs: ReceiverIndex(0),
            born: Instant::ZERO,
            initiator: false,
            sent: 0,
            send: AeadKey::default(),
            receive: AeadKey::default(),
            replay: ReplayWindow::default(),
        })
    }

    /// With the keys of a handshake; they do not send yet.
    fn made(keys: &SessionKeys, ours: ReceiverIndex, initiator: bool, now: Instant) -> Box<Self> {
        let mut keypair = Self::vacant();
        keypair.ours = ours;
        keypair.theirs = keys.theirs;
        keypair.born = now;
        keypair.initiator = initiator;
        keypair.send = AeadKey::dormant(&keys.send);
        keypair.receive = AeadKey::for_data(&keys.receive);
        keypair
    }

    /// Whether the keypair is young enough to send and receive.
    #[inline]
    pub(super) fn is_young(&self, now: Instant) -> bool {
        now.since(self.born) < REJECT_AFTER_TIME
    }

    /// Whether `messages` more can be sent.
    #[inline]
    pub(super) fn can_send(&self, messages: usize, now: Instant) -> bool {
        let left = REJECT_AFTER_MESSAGES.saturating_sub(self.sent);
        self.is_young(now) && messages as u64 <= left
    }
}

impl Drop for Keypair {
    /// The keys erase themselves.
    fn drop(&mut self) {
        self.replay.zeroize();
    }
}

/// What a keypair is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Receives what is still on its way.
    Previous,
    /// Sends and receives.
    Current,
    /// Receives, until it is confirmed.
    Next,
}

impl Role {
    /// In the order of [`Keypairs::by_role`].
    pub(super) const ALL: [Self; 3] = [Self::Previous, Self::Current, Self::Next];
}

/// The keypairs that there are, each in its role.
#[derive(Default)]
pub(super) struct Keypairs {
    previous: Option<Box<Keypair>>,
    current: Option<Box<Keypair>>,
    next: Option<Box<Keypair>>,
}

/// Indices whose keypair is gone: at most two per change of roles.
pub(super) type Freed = [Option<ReceiverIndex>; 2];

impl Keypairs {
    /// The keypair to send with, whatever its age.
    #[inline]
    pub(super) fn current(&self) -> Option<&Keypair> {
        self.current.as_deref()
    }

    #[inline]
    pub(super) fn current_mut(&mut self) -> Option<&mut Keypair> {
        self.current.as_deref_mut()
    }

    /// The keypair that has our `index`.
    #[inline]
    pub(super) fn find(&self, index: ReceiverIndex) -> Option<&Keypair> {
        let likely_first = [&self.current, &self.next, &self.previous];
        likely_first.into_iter().flatten().map(|keypair| &**keypair).find(|it| it.ours == index)
    }

    /// The keypair that has our `index`, and its role.
    #[inline]
    pub(super) fn find_mut(&mut self, index: ReceiverIndex) -> Option<(Role, &mut Keypair)> {
        let Self { previous, current, next } = self;
        let likely_first =
            [(Role::Current, current), (Role::Next, next), (Role::Previous, previous)];
        likely_first.into_iter().find_map(|(role, place)| {
            place.as_deref_mut().filter(|keypair| keypair.ours == index).map(|found| (role, found))
        })
    }

    /// Whether there is a keypair that waits to be confirmed.
    pub(super) const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Takes the keys of a handshake that we initiated: the peer has them, so they are current.
    pub(super) fn install_initiated(
        &mut self,
        keys: &SessionKeys,
        ours: ReceiverIndex,
        now: Instant,
    ) -> Freed {
        let mut freed = [end(&mut self.previous), None];
        // An unconfirmed next is worth more than the current one: its initiator may use it already.
        self.previous = match self.next.take() {
            Some(next) => {
                freed[1] = end(&mut self.current);
                Some(next)
            }
            None => self.current.take(),
        };
        if let Some(previous) = &mut self.previous {
            previous.send.erase();
        }
        let mut keypair = Keypair::made(keys, ours, true, now);
        keypair.send.prepare_for_data();
        self.current = Some(keypair);
        freed
    }

    /// Takes the keys of a handshake that we answered: only to receive with until it is confirmed.
    pub(super) fn install_answered(
        &mut self,
        keys: &SessionKeys,
        ours: ReceiverIndex,
        now: Instant,
    ) -> Freed {
        let freed = [end(&mut self.previous), end(&mut self.next)];
        self.next = Some(Keypair::made(keys, ours, false, now));
        freed
    }

    /// The first message under `next` has verified: it becomes current.
    pub(super) fn confirm_next(&mut self) -> Freed {
        let Some(mut next) = self.next.take() else {
            return Freed::default();
        };
        let freed = [end(&mut self.previous), None];
        next.send.prepare_for_data();
        self.previous = self.current.replace(next);
        if let Some(previous) = &mut self.previous {
            previous.send.erase();
        }
        freed
    }

    /// The keypairs: previous, current, next.
    pub(super) fn by_role(&self) -> [Option<&Keypair>; 3] {
        [&self.previous, &self.current, &self.next].map(Option::as_deref)
    }

    /// The keypairs that send now or will.
    pub(super) fn sending_mut(&mut self) -> impl Iterator<Item = &mut Keypair> {
        [&mut self.current, &mut self.next].into_iter().flatten().map(|keypair| &mut **keypair)
    }

    /// Puts a keypair of an earlier life into its role, which is vacant.
    pub(super) fn restore(&mut self, role: Role, keypair: Box<Keypair>) {
        let place = match role {
            Role::Previous => &mut self.previous,
            Role::Current => &mut self.current,
            Role::Next => &mut self.next,
        };
        *place = Some(keypair);
    }

    /// Erases everything; the indices of what was live.
    pub(super) fn erase(&mut self) -> [Option<ReceiverIndex>; 3] {
        [&mut self.previous, &mut self.current, &mut self.next].map(end)
    }
}

/// Erases the keypair of a role, if there is one, and gives its memory back. Whose index is free.
fn end(place: &mut Option<Box<Keypair>>) -> Option<ReceiverIndex> {
    place.take().map(|keypair| keypair.ours)
}
