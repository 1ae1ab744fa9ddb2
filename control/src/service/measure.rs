//! What devices used: from the counter pages of the cores to sessions, quotas and records.
//!
//! The pages are exact at any moment and outlive the process; the ledger enters each byte once. A
//! tick looks at some devices only, so that a hundred thousand of them are seen once a second.

use std::collections::{BTreeMap, BTreeSet};

use ringway_link::usage::{Usage as Words, UsageReader};
use tracing::info;

use super::Service;
use crate::access::chain::Subject;
use crate::access::ledger::{Ledger, Mark, Slot};
use crate::access::sessions::Counted;
use crate::access::{Moment, Number, Projection, Step};
use crate::store::StoreError;
use crate::store::query::{OpenSessions, UsageMark};
use crate::store::records::{DeviceId, Timestamp, Usage, UserId};

/// Devices that a tick looks at, at least; ten ticks look at all.
const DEVICES_PER_TICK: usize = 4_096;

/// Slots in a row that are nobody's, after which no more are looked for.
const EMPTY_SLOTS_MAX: u32 = 4_096;

const DAY_MS: i64 = 86_400_000;

/// What is measured, and what of it waits for the store.
#[derive(Debug, Default)]
pub(super) struct Measure {
    readers: Vec<UsageReader>,
    ledger: Ledger,
    devices: BTreeMap<Number, Measured>,
    /// Where the next tick goes on.
    next: Number,
    pending: BTreeMap<(UserId, DeviceId, i32), Counted>,
    /// Accounts that were counted for the last time, until the store has it: their numbers may be
    /// somebody else's only then.
    settling: Vec<Number>,
    /// When it was last noted that sessions live, on the steady clock.
    pub(super) noted: Option<Timestamp>,
    /// What the store was told and did not answer about.
    pub(super) unsure: Option<Entered>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    tag: u64,
    user: UserId,
    device: DeviceId,
    /// When it was last looked at, on the steady clock.
    at: Timestamp,
    /// Whether it moved anything then.
    busy: bool,
}

/// What of the measurements the store should have.
#[derive(Clone, Debug, Default)]
pub(super) struct Entered {
    pub(super) usage: Vec<Usage>,
    pub(super) marks: Vec<(Slot, Mark)>,
    /// Accounts whose last bytes these are.
    pub(super) settled: Vec<Number>,
}

impl Entered {
    pub(super) fn is_empty(&self) -> bool {
        self.usage.is_empty() && self.marks.is_empty()
    }
}

impl Measure {
    /// Remembers whose counters accounts have from now on.
    pub(super) fn remember(&mut self, steps: &[Step], projection: &Projection, now: Moment) {
        for step in steps {
            let Step::PutAccount(plan) = step else { continue };
            let Some(Subject::Device(device)) = projection.subject(plan.number) else { continue };
            let Some(user) = projection.owner_of(device) else { continue };
            let fresh = Measured { tag: plan.tag, user, device, at: now.steady, busy: false };
            self.devices.insert(plan.number, fresh);
        }
    }

    /// What is new of a device on all cores.
    fn take(&mut self, number: Number) -> Option<(Measured, Counted)> {
        let measured = *self.devices.get(&number)?;
        let mut new = Counted::default();
        for (core, reader) in self.readers.iter().enumerate() {
            let Some(words) = reader.read(number) else { continue };
            if words.owner == measured.tag {
                let slot = (core as u16, number);
                new = new.plus(self.ledger.take(slot, words.owner, counted(&words)));
            }
        }
        Some((measured, new))
    }

    fn enter(&mut self, user: UserId, device: DeviceId, new: Counted, wall: Timestamp) {
        if new == Counted::default() {
            return;
        }
        let day = i32::try_from(wall.0.div_euclid(DAY_MS)).unwrap_or(i32::MAX);
        let entry = self.pending.entry((user, device, day)).or_default();
        *entry = entry.plus(new);
    }

    /// What a user moved since a day that the store does not know of yet.
    pub(super) fn pending_of(&self, user: UserId, from_day: i32) -> u64 {
        let first = (user, DeviceId(uuid::Uuid::nil()), i32::MIN);
        let of_user = self
            .pending
            .range(first..)
            .take_while(|((other, _, _), _)| *other == user)
            .filter(|((_, _, day), _)| *day >= from_day);
        of_user.map(|(_, counted)| counted.bytes()).sum()
    }

    /// Takes what the store should have.
    pub(super) fn take_entered(&mut self) -> Entered {
        let pending = std::mem::take(&mut self.pending).into_iter();
        let usage = pending.map(|((user, device, day), counted)| Usage {
            user,
            device,
            day,
            up_bytes: counted.up_bytes,
            down_bytes: counted.down_bytes,
            up_packets: counted.up_packets,
            down_packets: counted.down_packets,
        });
        Entered {
            usage: usage.collect(),
            marks: self.ledger.take_dirty(),
            settled: std::mem::take(&mut self.settling),
        }
    }

    /// The store did not take it.
    pub(super) fn keep_entered(&mut self, entered: Entered) {
        for usage in entered.usage {
            let counted = Counted {
                up_bytes: usage.up_bytes,
                down_bytes: usage.down_bytes,
                up_packets: usage.up_packets,
                down_packets: usage.down_packets,
            };
            let entry = self.pending.entry((usage.user, usage.device, usage.day)).or_default();
            *entry = entry.plus(counted);
        }
        self.ledger.keep_dirty(entered.marks);
        self.settling.extend(entered.settled);
    }
}

fn counted(words: &Words) -> Counted {
    Counted {
        up_bytes: words.bytes[0],
        down_bytes: words.bytes[1],
        up_packets: words.packets[0],
        down_packets: words.packets[1],
    }
}

impl Service {
    /// Looks at the counters of some devices.
    pub(super) fn take_usage(&self, now: Moment) {
        let numbers: Vec<Number> = {
            let measure = self.measure.borrow();
            let some = DEVICES_PER_TICK.max(measure.devices.len().div_ceil(10));
            let from_here = measure.devices.range(measure.next..).map(|(number, _)| *number);
            let numbers: Vec<Number> = from_here.take(some).collect();
            numbers
        };
        let more = self.measure.borrow().devices.len() > numbers.len();
        let next = numbers.last().filter(|_| more).map_or(0, |last| last + 1);
        let ended = numbers.len() < DEVICES_PER_TICK;
        self.measure.borrow_mut().next = if ended { 0 } else { next };
        for number in numbers {
            self.count_device(number, now);
        }
    }

    /// Looks at all counters of these users now, not with the next tick: what a quota leaves is
    /// reckoned from it.
    pub(super) fn count_users(&self, users: &BTreeSet<UserId>, now: Moment) {
        let numbers: Vec<Number> = {
            let measure = self.measure.borrow();
            let theirs = measure.devices.iter().filter(|(_, device)| users.contains(&device.user));
            theirs.map(|(number, _)| *number).collect()
        };
        numbers.into_iter().for_each(|number| self.count_device(number, now));
    }

    /// As [`Self::count_users`], of everybody.
    pub(super) fn count_everybody(&self, now: Moment) {
        let numbers: Vec<Number> = self.measure.borrow().devices.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.count_device(number, now));
    }

    fn count_device(&self, number: Number, now: Moment) {
        let mut measure = self.measure.borrow_mut();
        let Some((measured, new)) = measure.take(number) else { return };
        measure.enter(measured.user, measured.device, new, now.wall);
        let moved = new != Counted::default();
        if let Some(entry) = measure.devices.get_mut(&number) {
            (entry.at, entry.busy) = (now.steady, moved);
        }
        drop(measure);
        if moved || measured.busy {
            let period = u64::try_from(now.steady.since(measured.at)).unwrap_or(0);
            self.projection.borrow_mut().count(number, new, period, now);
        }
    }

    /// The cores have let go of these accounts: what they used is counted for the last time.
    pub(super) fn retire(&self, numbers: &[Number], now: Moment) {
        for number in numbers {
            // Its owner may have come back to it meanwhile, and goes on under it.
            if !self.projection.borrow().is_retiring(*number) {
                continue;
            }
            self.count_device(*number, now);
            let mut measure = self.measure.borrow_mut();
            match measure.devices.remove(number) {
                Some(_) => measure.settling.push(*number),
                None => self.projection.borrow_mut().retired(*number),
            }
        }
    }

    /// The store has what these accounts used: their numbers may be somebody else's now, unless
    /// their owners have come back.
    pub(super) fn release(&self, settled: &[Number]) {
        let measure = self.measure.borrow();
        for number in settled {
            if !measure.devices.contains_key(number) && !measure.settling.contains(number) {
                self.projection.borrow_mut().retired(*number);
            }
        }
    }

    /// Enters what a process before this one counted and did not enter. `devices` are all that the
    /// store knows, by their tags. Returns what that was, and the sessions that it left.
    ///
    /// # Errors
    /// Those of the store; nothing was entered then.
    pub(super) async fn recover_usage(
        &self,
        devices: &BTreeMap<u64, (UserId, DeviceId)>,
        now: Moment,
    ) -> Result<(OpenSessions, BTreeMap<DeviceId, Counted>), StoreError> {
        let readers = self.desk.usage_readers();
        let pages: Vec<String> = (0..readers.len()).map(|core| self.page(core as u16)).collect();
        let (names, gateway) = (pages.clone(), self.name.clone());
        // Behind whatever another process is still telling the store.
        let read = self.store.write(move |db| {
            let marks = names.iter().map(|page| db.usage_marks(page));
            Ok((marks.collect::<Result<Vec<_>, _>>()?, db.open_sessions(&gateway)?))
        });
        let (marks, sessions) = read.await?;
        let same_life =
            marks.into_iter().zip(&readers).enumerate().flat_map(|(core, (marks, reader))| {
                let epoch = reader.epoch();
                marks.into_iter().filter(move |mark| mark.epoch == epoch).map(move |mark| {
                    let [up_bytes, down_bytes, up_packets, down_packets] = mark.seen;
                    let seen = Counted { up_bytes, down_bytes, up_packets, down_packets };
                    ((core as u16, mark.slot), Mark { tag: mark.tag, seen })
                })
            });
        let mut ledger = Ledger::resume(same_life);
        let mut found = Vec::new();
        for (core, reader) in readers.iter().enumerate() {
            for (slot, words) in slots(reader) {
                let Some((user, device)) = devices.get(&words.owner) else { continue };
                let new = ledger.take((core as u16, slot), words.owner, counted(&words));
                found.push((*user, *device, new));
            }
        }
        let bytes: u64 = found.iter().map(|(_, _, new)| new.bytes()).sum();
        if bytes > 0 {
            info!("{bytes} bytes that the process before counted are entered now");
        }
        let mut measure = self.measure.borrow_mut();
        (measure.readers, measure.ledger) = (readers, ledger);
        let mut moved: BTreeMap<DeviceId, Counted> = BTreeMap::new();
        for (user, device, new) in found {
            measure.enter(user, device, new, now.wall);
            let sum = moved.entry(device).or_default();
            *sum = sum.plus(new);
        }
        Ok((sessions, moved))
    }

    /// The name of a core's page in the store.
    fn page(&self, core: u16) -> String {
        format!("{}/{core}", self.name)
    }

    /// The marks as the store keeps them.
    pub(super) fn marks(&self, marks: &[(Slot, Mark)]) -> Vec<UsageMark> {
        let measure = self.measure.borrow();
        let epoch =
            |core: u16| measure.readers.get(usize::from(core)).map_or(0, UsageReader::epoch);
        let stored = marks.iter().map(|((core, slot), mark)| UsageMark {
            page: self.page(*core),
            epoch: epoch(*core),
            slot: *slot,
            tag: mark.tag,
            seen: [
                mark.seen.up_bytes,
                mark.seen.down_bytes,
                mark.seen.up_packets,
                mark.seen.down_packets,
            ],
        });
        stored.collect()
    }
}

/// All slots of a page that are somebody's.
fn slots(reader: &UsageReader) -> impl Iterator<Item = (Number, Words)> + '_ {
    let mut empty = 0;
    (0..reader.slots())
        .map(|slot| (slot, reader.read(slot)))
        .take_while(move |(_, words)| {
            empty = if words.is_some() { 0 } else { empty + 1 };
            empty < EMPTY_SLOTS_MAX
        })
        .filter_map(|(slot, words)| Some((slot, words?)))
}
