//! The one place where an account's credit comes from: its buckets and its volume.
//!
//! The home lends to the cores that ask, its own among them, at most what it has. So all that the
//! cores let pass is never more than rate and burst. Who cannot be served waits; whoever got
//! something longest ago is next to get of it, and nobody overtakes him.
//!
//! The last bytes of a volume may lie with cores that do not need them: they are called back before
//! the volume is said to be used up, so it is used up to the last byte that a packet fits into.
//!
//! This module must not know how messages travel.

use std::time::Duration;

use ringway_flow::qos::{Bucket, Rate};
use ringway_proto::Instant;

use super::branch::VOLUME;
use super::change::{AccountChange, Exhausted, HomeStatus, Volume, VolumeChange};
use super::credit::{Amounts, Ask, Grant};

/// When cores are asked again for what they hold of a volume.
const RECALL_AGAIN: Duration = Duration::from_millis(1);

/// How long a core may keep what it got of a volume: otherwise the last bytes of it would travel
/// between cores, always too late for the packet that waited for them.
const KEEPS: Duration = Duration::from_millis(50);

/// Bytes of a volume that are lent at least, and to nobody for whom no packet waits: the last ones
/// are for packets.
const VOLUME_LEAST: u64 = 4 << 10;

/// Bytes that a home takes for each core, besides itself.
pub(super) const LEASE_BYTES: usize = size_of::<Lease>() + size_of::<u16>();

/// What one core has.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    /// Bytes of the volume that it got and neither used, as far as it told, nor gave back.
    lent: u64,
    /// When it last got some of it.
    lent_at: Option<Instant>,
    /// The last question that was wholly answered.
    answered: u32,
    /// When it last got something of each.
    served: [u64; 3],
    /// Its question, while it waits.
    waits: Option<Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    sequence: u32,
    /// The volume it is about.
    number: u32,
    want: Amounts,
    need: Amounts,
    /// Bytes of the volume that it said it holds.
    held: u64,
    /// What it got and was not told yet.
    given: Amounts,
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Home {
    rates: [Option<Rate>; 2],
    buckets: [Option<Bucket>; 2],
    volume: Option<Volume>,
    /// Bytes of the volume that nobody holds.
    left: u64,
    pub(super) number: u32,
    exhausted: bool,
    recalled: Option<Instant>,
    /// By core.
    leases: Box<[Lease]>,
    /// Cores that wait, in no order. Each is in it at most once.
    line: Vec<u16>,
    /// Counts what was given.
    served: u64,
}

/// Whom the home speaks to.
pub(super) trait Cores {
    /// The core that the home is on.
    fn own(&self) -> u16;
    /// Whether a message to the core finds room.
    fn can_take(&self, core: u16) -> bool;
    /// Answers a core.
    fn grant(&mut self, core: u16, number: u32, grant: Grant);
    /// Asks a core for what it holds of the volume. The home's own core gives it at once.
    fn recall(&mut self, core: u16, number: u32) -> Option<(Amounts, u64)>;
}

impl Home {
    /// The home of an account, its buckets full.
    pub(super) fn new(change: &AccountChange, cores: u16, now: Instant) -> Self {
        let mut home = Self {
            rates: change.rates,
            buckets: change.rates.map(|rate| rate.map(|rate| Bucket::full(rate, now))),
            volume: None,
            left: 0,
            number: 0,
            exhausted: false,
            recalled: None,
            leases: vec![Lease::default(); usize::from(cores)].into_boxed_slice(),
            line: Vec::with_capacity(usize::from(cores)),
            served: 0,
        };
        home.begin(change.volume);
        home
    }

    /// Takes another form.
    pub(super) fn change(&mut self, change: &AccountChange, now: Instant) {
        self.rates = change.rates;
        self.begin(change.volume);
        self.shape(now);
    }

    fn begin(&mut self, change: VolumeChange) {
        match change {
            VolumeChange::Keep => return,
            VolumeChange::Unlimited => (self.volume, self.left) = (None, 0),
            VolumeChange::Begin(volume) => {
                self.volume = Some(volume);
                self.left = volume.bytes;
                self.number = volume.number;
            }
        }
        self.exhausted = false;
        self.recalled = None;
        for lease in &mut self.leases {
            (lease.lent, lease.lent_at) = (0, None);
            if let Some(wait) = &mut lease.waits {
                // Of the volume before.
                wait.given[VOLUME] = 0;
            }
        }
    }

    /// Buckets by the rates that hold now.
    fn shape(&mut self, now: Instant) {
        let throttle = match self.volume {
            Some(Volume { then: Exhausted::Throttle(rates), .. }) if self.exhausted => Some(rates),
            _ => None,
        };
        for way in 0..2 {
            let rate = throttle.map_or(self.rates[way], |rates| Some(rates[way]));
            match (&mut self.buckets[way], rate) {
                (Some(bucket), Some(rate)) => bucket.change(rate, now),
                (bucket, rate) => *bucket = rate.map(|rate| Bucket::full(rate, now)),
            }
        }
    }

    /// Whether somebody waits.
    pub(super) const fn is_awaited(&self) -> bool {
        !self.line.is_empty()
    }

    /// A core asks. It is answered by [`Home::serve`].
    pub(super) fn ask(&mut self, core: u16, number: u32, ask: &Ask) {
        let Some(lease) = self.leases.get_mut(usize::from(core)) else { return };
        if number == self.number {
            lease.lent = lease.lent.saturating_sub(ask.spent);
        }
        if ask.sequence == lease.answered {
            return;
        }
        let Ask { sequence, want, need, held, .. } = *ask;
        let given = match lease.waits {
            Some(wait) => wait.given,
            None => {
                self.line.push(core);
                [0; 3]
            }
        };
        lease.waits = Some(Wait { sequence, number, want, need, held, given });
    }

    /// A core gives back what it does not need.
    pub(super) fn take_back(
        &mut self,
        core: u16,
        number: u32,
        amounts: Amounts,
        spent: u64,
        now: Instant,
    ) {
        for (bucket, amount) in self.buckets.iter_mut().zip(amounts) {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                bucket.give_back(amount);
            }
        }
        let Some(lease) = self.leases.get_mut(usize::from(core)) else { return };
        if number == self.number {
            lease.lent = lease.lent.saturating_sub(spent + amounts[VOLUME]);
            self.left += amounts[VOLUME];
        }
    }

    /// Serves those that wait: of each thing, whoever has waited for it longest. Returns whether
    /// the volume was used up by that.
    pub(super) fn serve(&mut self, now: Instant, cores: &mut impl Cores) -> bool {
        if self.line.is_empty() {
            return false;
        }
        self.buckets.iter_mut().flatten().for_each(|bucket| bucket.refill(now));
        let was_exhausted = self.exhausted;
        for at in [0, 1, VOLUME] {
            while let Some(core) = self.next_to_serve(at) {
                let amount = self.draw(at, core, now, cores);
                if amount == 0 && !(at == VOLUME && self.exhausted) {
                    break;
                }
                self.served += 1;
                let served = self.served;
                let lease = &mut self.leases[usize::from(core)];
                lease.served[at] = served;
                if let Some(wait) = &mut lease.waits {
                    wait.given[at] += amount;
                    wait.want[at] = 0;
                }
            }
        }
        let line = self.line.len();
        for at in (0..line).rev() {
            if self.answer(self.line[at], cores) {
                self.line.swap_remove(at);
            }
        }
        self.exhausted && !was_exhausted
    }

    /// Of the cores that want something, the one that got it longest ago.
    fn next_to_serve(&mut self, at: usize) -> Option<u16> {
        let mut next: Option<((bool, u64), u16)> = None;
        for core in &self.line {
            let lease = &mut self.leases[usize::from(*core)];
            let Some(wait) = &mut lease.waits else { continue };
            if at == VOLUME {
                let same = wait.number == self.number;
                if wait.number < self.number || same && (self.exhausted || self.volume.is_none()) {
                    // It is over, or none: there is nothing to say about it.
                    wait.want[VOLUME] = 0;
                }
                if wait.need[VOLUME] == 0 && self.left < VOLUME_LEAST {
                    // No packet waits, and there is none to spare: it may ask again.
                    wait.want[VOLUME] = 0;
                }
                if !same {
                    continue;
                }
            }
            // The last bytes of a volume are for whom a packet waits.
            let rank = (at == VOLUME && wait.need[at] == 0, lease.served[at]);
            if wait.want[at] > 0 && next.is_none_or(|(best, _)| rank < best) {
                next = Some((rank, *core));
            }
        }
        next.map(|(_, core)| core)
    }

    /// Sends a core what it was given. Returns whether it waits no longer.
    fn answer(&mut self, core: u16, cores: &mut impl Cores) -> bool {
        let lease = &mut self.leases[usize::from(core)];
        let Some(wait) = &mut lease.waits else { return true };
        let last = wait.want == [0; 3];
        let amounts = wait.given;
        if !last && amounts == [0; 3] || !cores.can_take(core) {
            return false;
        }
        wait.given = [0; 3];
        let sequence = wait.sequence;
        if last {
            lease.answered = sequence;
            lease.waits = None;
        }
        let exhausted = self.exhausted;
        cores.grant(core, self.number, Grant { sequence, amounts, last, exhausted });
        last
    }

    /// Takes out for a core what there is of what it wants.
    fn draw(&mut self, at: usize, core: u16, now: Instant, cores: &mut impl Cores) -> u64 {
        let Some(wait) = self.leases[usize::from(core)].waits else { return 0 };
        if at == VOLUME {
            let amount = self.draw_volume(core, &wait, now, cores);
            if amount > 0 {
                let lease = &mut self.leases[usize::from(core)];
                lease.lent += amount;
                lease.lent_at = Some(now);
            }
            return amount;
        }
        self.draw_bucket(at, wait.want[at], wait.need[at])
    }

    /// Bytes of a bucket, or nothing if they would be too few to be worth a message.
    fn draw_bucket(&mut self, way: usize, want: u64, need: u64) -> u64 {
        // The core will hear that there is no limit any more.
        let Some(bucket) = &mut self.buckets[way] else { return want };
        let most = bucket.rate().portion_max().max(need);
        let least = (want / 8).max(need).min(most).min(bucket.rate().burst());
        if bucket.level() < least { 0 } else { bucket.take_up_to(want.min(most)) }
    }

    /// Bytes of the volume. If a waiting packet does not fit into what is left, they are called
    /// back from others; if nobody has any, the volume is used up.
    fn draw_volume(&mut self, core: u16, wait: &Wait, now: Instant, cores: &mut impl Cores) -> u64 {
        let need = wait.need[VOLUME];
        if self.left < need {
            self.recall(core, now, cores);
        }
        let least = if need > 0 { need } else { VOLUME_LEAST };
        if self.left >= least {
            let share = self.left / (2 * self.leases.len() as u64);
            let amount = wait.want[VOLUME].min(share.max(least)).min(self.left);
            self.left -= amount;
            return amount;
        }
        // What is on its way to the core that asks may be enough.
        let held = |at: usize| if at == usize::from(core) { wait.held } else { 0 };
        let lent = |(at, lease): (usize, &Lease)| lease.lent > held(at);
        if need > 0 && !self.leases.iter().enumerate().any(lent) {
            self.exhausted = true;
            self.shape(now);
        }
        0
    }

    fn recall(&mut self, except: u16, now: Instant, cores: &mut impl Cores) {
        let recently = self.recalled.is_some_and(|last| now.since(last) < RECALL_AGAIN);
        for core in 0..self.leases.len() as u16 {
            let lease = &mut self.leases[usize::from(core)];
            let waits = recently && core != cores.own();
            let keeps = lease.lent_at.is_some_and(|at| now.since(at) < KEEPS);
            if core == except || lease.lent == 0 || keeps || waits || !cores.can_take(core) {
                continue;
            }
            self.recalled = Some(now);
            if let Some((amounts, spent)) = cores.recall(core, self.number) {
                lease.lent = lease.lent.saturating_sub(spent + amounts[VOLUME]);
                self.left += amounts[VOLUME];
            }
        }
    }

    /// What there is, as of `now`.
    pub(super) fn status(&self, now: Instant) -> HomeStatus {
        let level = |bucket: &Option<Bucket>| {
            let mut bucket = bucket.clone()?;
            bucket.refill(now);
            Some(bucket.level())
        };
        HomeStatus {
            tokens: [level(&self.buckets[0]), level(&self.buckets[1])],
            volume_number: self.number,
            volume: self.volume.map(|_| self.left),
            exhausted: self.exhausted,
        }
    }
}
