//! What one core holds of one account: credit that may be spent packet by packet.
//!
//! The packet path reads and writes the first cache line of a branch and nothing else. What is
//! unlimited has a stock that no traffic uses up, so that there is no case for it. A branch asks
//! for more before it runs out, for larger portions while it does run out, and gives back what it
//! does not use but for a reserve, with which the first packets after a pause pass.
//!
//! This module must not know where the home of the account is.

use std::time::Duration;

use ringway_flow::qos::Rate;
use ringway_proto::Instant;

use super::change::{AccountChange, Exhausted, Volume, VolumeChange};
use super::credit::{Amounts, Ask, Grant};

/// Place of the volume among [`Amounts`].
pub(super) const VOLUME: usize = 2;

/// No account.
pub(super) const NOBODY: u32 = u32::MAX;

/// When a question without an answer is asked again, and when one that brought nothing is.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(1);

/// Bytes of a volume asked for at once, at first and at the most: they are called back where they
/// are missed, so they may be many.
const VOLUME_PORTION: u64 = 256 << 10;
const VOLUME_PORTION_MAX: u64 = 4 << 20;
/// Bytes of a volume that an idle core keeps.
const VOLUME_RESERVE: u64 = 64 << 10;

/// See the head of the module.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Branch {
    /// Bytes that may pass.
    pub(super) stock: Amounts,
    /// With less, more is asked for; 0 of what is unlimited.
    low: Amounts,
    /// The account above.
    pub(super) parent: u32,
    /// Whether its use is written down.
    counted: bool,
    /// What was spent of since the last look.
    used: [bool; 2],
    /// Nothing may pass.
    closed: bool,

    /// Bytes to have after an answer.
    portion: Amounts,
    rates: [Option<Rate>; 2],
    volume: Option<Volume>,
    pub(super) exhausted: bool,
    /// Number of the last volume.
    pub(super) number: u32,
    /// What the home thinks that we hold of the volume, but for what it is sending.
    known: u64,
    /// The question that is not wholly answered; 0 if none.
    pub(super) asked: u32,
    /// When something was last asked or not had.
    tried: Option<Instant>,
    /// And whether a packet waited for it.
    pressed: bool,
    /// It ran out since the last look.
    ran_short: bool,
    /// Peers at or below it.
    pub(super) peers: u32,
    pub(super) children: u32,
    /// Accounts on the longest way down, at most: while there are children it does not shrink.
    pub(super) height: u8,
    pub(super) dropped_rate: [u64; 2],
    pub(super) dropped_volume: u64,
}

impl Branch {
    /// A branch that holds nothing.
    pub(super) fn new(change: &AccountChange) -> Self {
        let mut branch = Self {
            stock: [0; 3],
            low: [0; 3],
            parent: NOBODY,
            counted: false,
            used: [false; 2],
            closed: false,
            portion: [0; 3],
            rates: [None; 2],
            volume: None,
            exhausted: false,
            number: 0,
            known: 0,
            asked: 0,
            tried: None,
            pressed: false,
            ran_short: false,
            peers: 0,
            children: 0,
            height: 0,
            dropped_rate: [0; 2],
            dropped_volume: 0,
        };
        branch.change(change);
        branch
    }

    /// Takes another form. What is held stays, within what may be.
    pub(super) fn change(&mut self, change: &AccountChange) {
        let before = [0, 1, VOLUME].map(|at| self.is_limited(at));
        self.counted = change.owner != 0;
        self.rates = change.rates;
        match change.volume {
            VolumeChange::Keep => {}
            VolumeChange::Unlimited => (self.volume, self.exhausted) = (None, false),
            VolumeChange::Begin(volume) => {
                self.volume = Some(volume);
                self.number = volume.number;
                self.exhausted = false;
                self.closed = false;
                (self.stock[VOLUME], self.known) = (0, 0);
            }
        }
        self.closed &= self.volume.is_some();
        self.shape(before);
    }

    /// The volume is used up.
    pub(super) fn exhaust(&mut self) {
        let before = [0, 1, VOLUME].map(|at| self.is_limited(at));
        let Some(volume) = self.volume else { return };
        self.exhausted = true;
        if volume.then == Exhausted::Drop {
            self.closed = true;
            self.stock = [0; 3];
            self.low = [0; 3];
        } else {
            self.shape(before);
        }
    }

    /// Sets what follows from rates and volume.
    fn shape(&mut self, before: [bool; 3]) {
        if self.closed {
            return;
        }
        for at in [0, 1, VOLUME] {
            let limits = match at {
                VOLUME => self.is_limited(VOLUME).then_some((VOLUME_PORTION, u64::MAX / 2)),
                way => self.rate(way).map(|rate| (rate.portion(), rate.portion_max())),
            };
            match limits {
                Some((portion, most)) => {
                    self.portion[at] = portion;
                    self.low[at] = portion / 2;
                    self.stock[at] = if before[at] { self.stock[at].min(most) } else { 0 };
                }
                None => (self.portion[at], self.low[at], self.stock[at]) = (0, 0, u64::MAX),
            }
        }
        self.tried = None;
    }

    /// The rate that holds now.
    fn rate(&self, way: usize) -> Option<Rate> {
        match self.volume {
            Some(Volume { then: Exhausted::Throttle(rates), .. }) if self.exhausted => {
                Some(rates[way])
            }
            _ => self.rates[way],
        }
    }

    pub(super) fn is_limited(&self, at: usize) -> bool {
        match at {
            VOLUME => self.volume.is_some() && !self.exhausted,
            way => self.rate(way).is_some(),
        }
    }

    /// Whether nothing may pass until another volume begins.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a packet may pass.
    #[inline]
    pub(super) const fn has_room(&self, way: usize, len: u64) -> bool {
        self.stock[way] >= len && self.stock[VOLUME] >= len
    }

    /// A packet passes for which there is room. Returns whether more should be asked for.
    #[inline]
    pub(super) const fn charge(&mut self, way: usize, len: u64) -> bool {
        self.stock[way] = self.stock[way].saturating_sub(len);
        self.stock[VOLUME] = self.stock[VOLUME].saturating_sub(len);
        self.used[way] = true;
        self.stock[way] < self.low[way] || self.stock[VOLUME] < self.low[VOLUME]
    }

    /// Whether its use is written down.
    #[inline]
    pub(super) const fn is_counted(&self) -> bool {
        self.counted
    }

    /// Whether anything is below what it should be.
    pub(super) fn is_low(&self) -> bool {
        !self.closed && self.stock.iter().zip(&self.low).any(|(stock, low)| stock < low)
    }

    /// Whether to ask now. A question under way is repeated after a while: what it waits for may
    /// be there.
    pub(super) fn may_ask(&self, waiting: bool, now: Instant, at_home: bool) -> bool {
        let Some(tried) = self.tried else { return true };
        if waiting && !self.pressed {
            return true;
        }
        if at_home { tried != now } else { now.since(tried) >= ASK_AGAIN }
    }

    /// A packet found no room: portions that are had whole become larger.
    pub(super) const fn note_short(&mut self) {
        self.ran_short = true;
    }

    fn grow(&mut self, at: usize) {
        self.portion[at] = (self.portion[at] * 2).min(self.portion_max(at));
        self.low[at] = self.portion[at] / 2;
    }

    fn portion_max(&self, at: usize) -> u64 {
        match at {
            VOLUME => VOLUME_PORTION_MAX,
            way => self.rate(way).map_or(0, |rate| rate.portion_max()),
        }
    }

    /// What to ask for, with a packet of `len` waiting or with none.
    pub(super) fn ask(
        &mut self,
        sequence: u32,
        waiting: Option<(usize, u64)>,
        now: Instant,
    ) -> Ask {
        let spent = self.report_spent();
        let held = if self.is_limited(VOLUME) { self.stock[VOLUME] } else { 0 };
        let mut ask = Ask { sequence, want: [0; 3], need: [0; 3], spent, held };
        for at in [0, 1, VOLUME] {
            let missing = match waiting {
                Some((way, len)) if at == way || at == VOLUME => len.saturating_sub(self.stock[at]),
                Some(_) | None => 0,
            };
            if self.is_limited(at) && (missing > 0 || self.stock[at] < self.low[at]) {
                let want = self.portion[at].saturating_sub(self.stock[at]);
                ask.want[at] = want.max(missing);
                ask.need[at] = missing;
            }
        }
        self.asked = sequence;
        self.tried = Some(now);
        self.pressed = waiting.is_some();
        ask
    }

    /// What was used of the volume since the home was last told.
    fn report_spent(&mut self) -> u64 {
        if !self.is_limited(VOLUME) {
            return 0;
        }
        let spent = self.known.saturating_sub(self.stock[VOLUME]);
        self.known = self.stock[VOLUME];
        spent
    }

    /// An answer, or a part of it, about volume `number`.
    pub(super) fn take(&mut self, grant: &Grant, number: u32) {
        if number == self.number && self.is_limited(VOLUME) {
            self.known += grant.amounts[VOLUME];
        }
        for at in [0, 1, VOLUME] {
            let applies = at != VOLUME || number == self.number;
            if !applies || !self.is_limited(at) || self.closed || grant.amounts[at] == 0 {
                continue;
            }
            self.stock[at] = self.stock[at].saturating_add(grant.amounts[at]);
            if self.ran_short && self.stock[at] >= self.portion[at] {
                self.grow(at);
            }
        }
        if number == self.number && grant.exhausted && !self.exhausted {
            self.exhaust();
        }
        if grant.sequence == self.asked {
            self.asked = if grant.last { 0 } else { self.asked };
            if grant.amounts != [0; 3] {
                self.tried = None;
            }
        }
    }

    /// Takes out what is held of the volume, with what was used of it besides.
    pub(super) fn give_back_volume(&mut self) -> (Amounts, u64) {
        let spent = self.report_spent();
        let held =
            if self.is_limited(VOLUME) { std::mem::take(&mut self.stock[VOLUME]) } else { 0 };
        self.known = 0;
        ([0, 0, held], spent)
    }

    /// The regular look: takes out what has not been used since the last one, but for the reserve.
    /// Returns it with what was used of the volume besides.
    pub(super) fn look(&mut self) -> (Amounts, u64) {
        let mut amounts = [0; 3];
        let used = std::mem::take(&mut self.used);
        let short = std::mem::take(&mut self.ran_short);
        for at in [0, 1, VOLUME] {
            let idle = if at == VOLUME { used == [false; 2] } else { !used[at] };
            if !self.is_limited(at) || self.closed {
                continue;
            }
            let (usual, reserve) = match at {
                VOLUME => (VOLUME_PORTION, VOLUME_RESERVE),
                way => self.rate(way).map_or((0, 0), |rate| (rate.portion(), rate.reserve())),
            };
            if !short {
                self.portion[at] = usual.max(self.portion[at] / 2);
                self.low[at] = self.portion[at] / 2;
            }
            if idle {
                amounts[at] = self.stock[at].saturating_sub(reserve);
                self.stock[at] -= amounts[at];
            }
        }
        let spent = if amounts == [0; 3] { 0 } else { self.report_returned(amounts[VOLUME]) };
        (amounts, spent)
    }

    fn report_returned(&mut self, returned: u64) -> u64 {
        if !self.is_limited(VOLUME) {
            return 0;
        }
        let spent = self.known.saturating_sub(self.stock[VOLUME] + returned);
        self.known = self.stock[VOLUME];
        spent
    }

    /// Whether it holds more than an idle core should.
    pub(super) fn is_loaded(&self) -> bool {
        !self.closed
            && [0, 1, VOLUME].into_iter().any(|at| {
                let reserve = match at {
                    VOLUME => VOLUME_RESERVE,
                    way => self.rate(way).map_or(0, |rate| rate.reserve()),
                };
                self.is_limited(at) && self.stock[at] > reserve
            })
    }

    /// What is held, for whoever looks.
    pub(super) fn held(&self) -> ([Option<u64>; 2], u64) {
        let way = |way: usize| self.is_limited(way).then_some(self.stock[way]);
        let volume = if self.is_limited(VOLUME) { self.stock[VOLUME] } else { 0 };
        ([way(0), way(1)], volume)
    }
}
