//! Transport keys in three roles (section 6.2, and the kernel's rotation): *previous* still
//! receives, *current* sends and receives, *next* is what a responder made and may only receive
//! with until the first message under it proves that the initiator has it too.
//!
//! The roles point into three fixed slots, so a rotation moves no key and erases in place. A
//! keypair is plain data: keys, counters and replay marks are all there is to export.

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
pub(super) struct Keypair {
    pub(super) ours: ReceiverIndex,
    pub(super) theirs: ReceiverIndex,
    pub(super) born: Instant,
    /// Whether we sent the initiation: then rekeying by age is ours to do.
    pub(super) initiator: bool,
    /// Messages sent: the next counter.
    pub(super) sent: u64,
    pub(super) send: AeadKey,
    pub(super) receive: AeadKey,
    pub(super) replay: ReplayWindow,
}

impl Keypair {
    fn vacant() -> Self {
        Self {
            ours: ReceiverIndex(0),
            theirs: ReceiverIndex(0),
            born: Instant::ZERO,
            initiator: false,
            sent: 0,
            send: AeadKey::default(),
            receive: AeadKey::default(),
            replay: ReplayWindow::default(),
        }
    }

    fn erase(&mut self) {
        self.send.erase();
        self.receive.erase();
        self.replay.zeroize();
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

/// A slot of [`Keypairs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u8);

/// The three slots and the role of each.
pub(super) struct Keypairs {
    slots: [Keypair; 3],
    previous: Option<Slot>,
    current: Option<Slot>,
    next: Option<Slot>,
}

/// Positions of the roles in [`Keypairs::by_role`].
pub(super) const PREVIOUS: usize = 0;
const CURRENT: usize = 1;
pub(super) const NEXT: usize = 2;

/// Indices whose keypair is gone: at most two per change of roles.
pub(super) type Freed = [Option<ReceiverIndex>; 2];

impl Keypairs {
    pub(super) fn new() -> Self {
        let slots = [Keypair::vacant(), Keypair::vacant(), Keypair::vacant()];
        Self { slots, previous: None, current: None, next: None }
    }

    /// The keypair to send with, whatever its age.
    #[inline]
    pub(super) fn current(&self) -> Option<&Keypair> {
        self.current.map(|slot| self.get(slot))
    }

    #[inline]
    pub(super) fn current_mut(&mut self) -> Option<&mut Keypair> {
        self.current.map(|slot| &mut self.slots[usize::from(slot.0)])
    }

    /// The live keypair that has our `index`.
    #[inline]
    pub(super) fn find(&self, index: ReceiverIndex) -> Option<Slot> {
        let owns = |slot: &Slot| self.get(*slot).ours == index;
        [self.current, self.next, self.previous].into_iter().flatten().find(owns)
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> &Keypair {
        &self.slots[usize::from(slot.0)]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Keypair {
        &mut self.slots[usize::from(slot.0)]
    }

    #[inline]
    pub(super) fn is_next(&self, slot: Slot) -> bool {
        self.next == Some(slot)
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
        let mut freed = [self.previous.take(), None];
        // An unconfirmed next is worth more than the current one: its initiator may use it already.
        (self.previous, freed[1]) = match self.next.take() {
            Some(next) => (Some(next), self.current.take()),
            None => (self.current.take(), None),
        };
        if let Some(previous) = self.previous {
            self.get_mut(previous).send.erase();
        }
        let freed = self.free(freed);
        let slot = self.fill(keys, ours, true, now);
        self.get_mut(slot).send.prepare_for_data();
        self.current = Some(slot);
        freed
    }

    /// Takes the keys of a handshake that we answered: only to receive with until it is confirmed.
    pub(super) fn install_answered(
        &mut self,
        keys: &SessionKeys,
        ours: ReceiverIndex,
        now: Instant,
    ) -> Freed {
        let freed = [self.previous.take(), self.next.take()];
        let freed = self.free(freed);
        self.next = Some(self.fill(keys, ours, false, now));
        freed
    }

    /// The first message under `next` has verified: it becomes current.
    pub(super) fn confirm_next(&mut self) -> Freed {
        let Some(next) = self.next.take() else {
            return Freed::default();
        };
        let freed = [self.previous.take(), None];
        self.previous = self.current.replace(next);
        if let Some(previous) = self.previous {
            self.get_mut(previous).send.erase();
        }
        self.get_mut(next).send.prepare_for_data();
        self.free(freed)
    }

    /// The live keypairs: previous, current, next.
    pub(super) fn by_role(&self) -> [Option<&Keypair>; 3] {
        [self.previous, self.current, self.next].map(|slot| slot.map(|slot| self.get(slot)))
    }

    /// The keypairs that send now or will.
    pub(super) fn sending_mut(&mut self) -> impl Iterator<Item = &mut Keypair> {
        let sending = [self.current, self.next];
        let slots = self.slots.iter_mut().zip((0..3).map(Slot));
        slots.filter(move |(_, slot)| sending.contains(&Some(*slot))).map(|(keypair, _)| keypair)
    }

    /// Puts a keypair of an earlier life into its role, which is vacant.
    pub(super) fn restore(&mut self, role: usize, keypair: Keypair) {
        let slot = self.free_slot();
        *self.get_mut(slot) = keypair;
        match role {
            PREVIOUS => self.previous = Some(slot),
            CURRENT => self.current = Some(slot),
            _ => self.next = Some(slot),
        }
    }

    /// Erases everything; the indices of what was live.
    pub(super) fn erase(&mut self) -> [Option<ReceiverIndex>; 3] {
        let live = [self.previous.take(), self.current.take(), self.next.take()];
        live.map(|slot| slot.map(|slot| self.vacate(slot)))
    }

    fn free(&mut self, slots: [Option<Slot>; 2]) -> Freed {
        slots.map(|slot| slot.map(|slot| self.vacate(slot)))
    }

    fn vacate(&mut self, slot: Slot) -> ReceiverIndex {
        let keypair = self.get_mut(slot);
        keypair.erase();
        keypair.ours
    }

    /// Writes a new keypair into a free slot.
    fn fill(
        &mut self,
        keys: &SessionKeys,
        ours: ReceiverIndex,
        initiator: bool,
        now: Instant,
    ) -> Slot {
        let slot = self.free_slot();
        let keypair = self.get_mut(slot);
        keypair.ours = ours;
        keypair.theirs = keys.theirs;
        keypair.born = now;
        keypair.initiator = initiator;
        keypair.sent = 0;
        keypair.send = AeadKey::dormant(&keys.send);
        keypair.receive = AeadKey::for_data(&keys.receive);
        keypair.replay = ReplayWindow::default();
        slot
    }

    fn free_slot(&self) -> Slot {
        let taken = [self.previous, self.current, self.next];
        (0..3)
            .map(Slot)
            .find(|slot| !taken.contains(&Some(*slot)))
            .expect("whoever fills a role has vacated another")
    }
}
