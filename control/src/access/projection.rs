//! The state machine: records, use and time in; steps for the plane, and what happened, out.
//!
//! A change of one user never touches another: what is asked of the plane is the difference to what
//! it was asked before, down to nothing. Sessions are in `connect.rs`, accounts in `accounts.rs`.

mod accounts;
mod connect;
mod quota;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};

use super::chain::{AccountPlan, Number, Numbers, Subject};
use super::clock::Moment;
use super::people::{Client, Out, Person};
use super::sessions::{Session, Sessions};
use crate::store::records::{DeviceId, Excess, GroupId, QuotaAction, Rate, Timestamp, UserId};

/// What the plane should be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An account as it should be.
    PutAccount(AccountPlan),
    /// Nobody draws on this account any more.
    RemoveAccount(Number),
    /// A peer as it should be.
    PutPeer(PeerPlan),
    /// Ends the session of this peer and forgets it.
    RemovePeer(PublicKey),
}

/// A peer as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPlan {
    /// Its key.
    pub public: PublicKey,
    /// Zeros if there is none.
    pub preshared: PresharedKey,
    /// All that it may speak for.
    pub addresses: Vec<IpNet>,
    /// What its packets are charged to.
    pub account: Number,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A device may connect from now on.
    In {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
    },
    /// A device may not connect any more.
    Out {
        /// Whose.
        user: UserId,
        /// Which.
        device: DeviceId,
        /// Why.
        why: Out,
        /// Whether the store must know that the access of the last sign-in is over.
        ends_access: bool,
    },
    /// A session began.
    Connected(Box<Session>),
    /// A session goes on from another address or port of the client.
    Moved(Box<Session>),
    /// A session ended; why, if the gateway ended it.
    Disconnected(Box<Session>, Option<Out>),
    /// A quota is used up.
    QuotaReached {
        /// Whose.
        user: UserId,
        /// What follows.
        action: QuotaAction,
    },
    /// A quota began anew, or was raised.
    QuotaRenewed {
        /// Whose.
        user: UserId,
    },
}

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is a peer.
    In,
    /// It is not.
    Out(Out),
}

/// When access began and ends: as the store has it, by the calendar of whoever wrote it, and the
/// end on the steady clock, translated when it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Granted {
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    until_steady: Option<Timestamp>,
}

/// A user with what is known of it beyond its records.
#[derive(Debug)]
struct Entry {
    person: Person,
    places: BTreeMap<DeviceId, Place>,
    /// Bytes moved in the period of the quota.
    used: u64,
    /// When that period ends, by the calendar.
    period_ends: Option<Timestamp>,
    /// The quota is used up and this was said.
    exhausted: bool,
    /// When to look again, on the steady clock.
    deadline: Option<Timestamp>,
}

/// A device with what is known of it beyond its record.
#[derive(Debug)]
struct Place {
    stand: Stand,
    /// Why the last access ended before its time; forgotten with the next sign-in.
    ended: Option<Out>,
    /// The sign-in that gave access, as the store has it, and its end on the steady clock.
    granted: Granted,
    /// Waits for a session of the user to end.
    held: bool,
    /// When it was last active, on the steady clock.
    active: Timestamp,
}

/// The live picture.
#[derive(Debug, Default)]
pub struct Projection {
    users: BTreeMap<UserId, Entry>,
    owners: BTreeMap<DeviceId, UserId>,
    keys: BTreeMap<PublicKey, DeviceId>,
    groups: BTreeMap<GroupId, Rate>,
    gateway: Rate,
    numbers: Numbers,
    /// What the cores were last told of each account; the volume says nothing.
    told: BTreeMap<Number, AccountPlan>,
    /// What the plane was last told of each peer.
    peers: BTreeMap<PublicKey, PeerPlan>,
    /// Accounts whose last bytes have not been entered yet.
    retiring: BTreeSet<Number>,
    /// Accounts of groups that have another one now, until their users have moved.
    orphans: Vec<Number>,
    sessions: Sessions,
    deadlines: BTreeSet<(Timestamp, UserId)>,
    /// Nobody may be connected.
    drained: bool,
    steps: Vec<Step>,
    notes: Vec<Note>,
}

impl Projection {
    /// Puts a user as the store has it now in the place of what was known. `used` is what it moved
    /// in the period of its quota so far, if the caller has asked the store; else what is known
    /// stays.
    pub fn put_person(&mut self, person: Person, used: Option<u64>, now: Moment) {
        let id = person.id;
        let before = self.users.remove(&id);
        let quota_changed =
            before.as_ref().is_none_or(|before| before.person.rules.quota != person.rules.quota);
        let mut entry = match before {
            Some(mut entry) => {
                self.forget_lost(&mut entry, &person, now);
                entry.person = person;
                entry
            }
            None => Entry {
                person,
                places: BTreeMap::new(),
                used: 0,
                period_ends: None,
                exhausted: false,
                deadline: None,
            },
        };
        for client in &mut entry.person.clients {
            self.owners.insert(client.id, id);
            self.keys.insert(client.public, client.id);
            // Another process left it, or it came while the store did not answer.
            self.sessions.own(&client.public, (id, client.id));
            let fresh = Place {
                stand: Stand::Out(Out::NotSignedIn),
                ended: None,
                granted: Granted::default(),
                held: false,
                active: now.steady,
            };
            let place = entry.places.entry(client.id).or_insert(fresh);
            place.take_grant(client, now);
            if entry.person.rules.excess == Excess::KickOldest {
                // Whoever comes now does not wait: the oldest makes room.
                place.held = false;
            }
        }
        if let Some(used) = used {
            entry.used = used;
        }
        self.users.insert(id, entry);
        self.follow_quota(id, now);
        if self.numbers.get(Subject::User(id)).is_some() {
            self.tell_user_account(id, quota_changed || used.is_some());
        }
        self.refresh(id, now);
    }

    /// Forgets a user; its sessions end.
    pub fn remove_person(&mut self, id: UserId, now: Moment) {
        let Some(mut entry) = self.users.remove(&id) else { return };
        let gone = Person { clients: Vec::new(), ..entry.person.clone() };
        self.forget_lost(&mut entry, &gone, now);
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.retire(Subject::User(id));
    }

    /// The user's devices that are there no more, or have another key, are let go.
    fn forget_lost(&mut self, entry: &mut Entry, after: &Person, now: Moment) {
        for client in &entry.person.clients {
            let kept = after.clients.iter().find(|other| other.id == client.id);
            if kept.is_some_and(|other| other.public == client.public) {
                continue;
            }
            if let Some(place) = entry.places.get_mut(&client.id) {
                self.leave(client, place, after.id, Out::Removed, now);
            }
            self.keys.remove(&client.public);
            self.sessions.forget(&client.public);
            if kept.is_none() {
                entry.places.remove(&client.id);
                self.owners.remove(&client.id);
            }
        }
    }

    /// Decides anew about all devices of a user, and when to do so again.
    fn refresh(&mut self, id: UserId, now: Moment) {
        let Some(mut entry) = self.users.remove(&id) else { return };
        let person_out = self
            .drained
            .then_some(Out::Drained)
            .or_else(|| entry.person.out(now))
            .or_else(|| entry.quota_out());
        for client in &entry.person.clients {
            let Some(place) = entry.places.get_mut(&client.id) else { continue };
            let why =
                person_out.or_else(|| place.out(client, entry.person.rules.idle_timeout_s, now));
            match (place.stand, why) {
                (Stand::In, None) => self.stay(client, &entry.person),
                (Stand::In, Some(why)) => self.leave(client, place, id, why, now),
                (Stand::Out(_), None) => self.enter(client, place, &entry.person, entry.used, now),
                (Stand::Out(_), Some(why)) => {
                    place.stand = Stand::Out(why);
                    // The process before had let it in.
                    if let Some(session) = self.sessions.end(&client.public) {
                        self.notes.push(Note::Disconnected(session, Some(why)));
                    }
                }
            }
        }
        let deadline = entry.next_deadline(now);
        if let Some(old) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(deadline.map(|at| (at, id)));
        let anybody_in = entry.places.values().any(|place| place.stand == Stand::In);
        self.users.insert(id, entry);
        if !anybody_in {
            self.retire(Subject::User(id));
        }
        self.release_held(id, now);
    }

    fn enter(
        &mut self,
        client: &Client,
        place: &mut Place,
        person: &Person,
        used: u64,
        now: Moment,
    ) {
        place.stand = Stand::In;
        place.active = now.steady;
        self.admit(client, person, used);
        self.notes.push(Note::In { user: person.id, device: client.id });
    }

    fn leave(&mut self, client: &Client, place: &mut Place, user: UserId, why: Out, now: Moment) {
        if place.stand == Stand::In {
            self.expel(client);
            if let Some(session) = self.sessions.end(&client.public) {
                self.notes.push(Note::Disconnected(session, Some(why)));
            }
            let ends_access = why.ends_access();
            self.notes.push(Note::Out { user, device: client.id, why, ends_access });
        }
        place.stand = Stand::Out(why);
        place.active = now.steady;
        if why.ends_access() {
            place.ended = Some(why);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Moment) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now.steady
        {
            self.deadlines.remove(&(at, id));
            if let Some(entry) = self.users.get_mut(&id) {
                entry.deadline = None;
            }
            self.follow_quota(id, now);
            self.refresh(id, now);
        }
    }

    /// The calendar was set: everything that depends on it is looked at again.
    pub fn calendar_was_set(&mut self, now: Moment) {
        let ids: Vec<UserId> = self.users.keys().copied().collect();
        for id in ids {
            self.follow_quota(id, now);
            self.refresh(id, now);
        }
    }

    /// Lets nobody be connected, or everybody again who may.
    pub fn set_drained(&mut self, drained: bool, now: Moment) {
        if self.drained != drained {
            self.drained = drained;
            let ids: Vec<UserId> = self.users.keys().copied().collect();
            ids.into_iter().for_each(|id| self.refresh(id, now));
        }
    }

    /// When [`Self::tick`] has something to do, on the steady clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Ends the access of a device before its time. Returns whether it had any.
    pub fn end_access(&mut self, device: DeviceId, why: Out, now: Moment) -> bool {
        let Some(id) = self.owners.get(&device).copied() else { return false };
        let Some(entry) = self.users.get_mut(&id) else { return false };
        let Some(place) = entry.places.get_mut(&device) else { return false };
        if place.stand != Stand::In {
            return false;
        }
        place.ended = Some(why);
        self.refresh(id, now);
        true
    }

    /// What the plane should be told since this was last called.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// The plane could not be told these: they come before all others.
    pub fn put_first(&mut self, mut steps: Vec<Step>) {
        steps.append(&mut self.steps);
        self.steps = steps;
    }

    /// What happened since this was last called.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether a device may connect, or why not.
    #[must_use]
    pub fn stand(&self, device: DeviceId) -> Option<Stand> {
        let entry = self.users.get(self.owners.get(&device)?)?;
        entry.places.get(&device).map(|place| place.stand)
    }

    /// The user, as known here.
    #[must_use]
    pub fn person(&self, id: UserId) -> Option<&Person> {
        self.users.get(&id).map(|entry| &entry.person)
    }

    /// All users, in the order of their identifiers.
    pub fn people(&self) -> impl ExactSizeIterator<Item = &Person> {
        self.users.values().map(|entry| &entry.person)
    }

    /// Whose device this key is.
    #[must_use]
    pub fn device_of(&self, public: &PublicKey) -> Option<DeviceId> {
        self.keys.get(public).copied()
    }

    /// Whose this device is.
    #[must_use]
    pub fn owner_of(&self, device: DeviceId) -> Option<UserId> {
        self.owners.get(&device).copied()
    }

    /// Users with a session.
    #[must_use]
    pub fn users_connected(&self) -> u64 {
        let owners = self.sessions.after(None).filter_map(|session| session.owner);
        let users: BTreeSet<UserId> = owners.map(|(user, _)| user).collect();
        users.len() as u64
    }

    /// Devices that may not connect, by reason.
    #[must_use]
    pub fn kept_out(&self) -> Vec<(&'static str, u64)> {
        let mut counts = BTreeMap::new();
        for place in self.users.values().flat_map(|entry| entry.places.values()) {
            if let Stand::Out(why) = place.stand {
                *counts.entry(why.code()).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    /// Sessions that live.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

impl Entry {
    /// One of the user's devices.
    fn client(&self, device: DeviceId) -> Option<&Client> {
        self.person.clients.iter().find(|client| client.id == device)
    }

    /// Why the quota keeps the user out, if it does.
    fn quota_out(&self) -> Option<Out> {
        let ends = self.person.rules.quota?.action == QuotaAction::Disconnect;
        (ends && self.exhausted).then_some(Out::QuotaExceeded)
    }

    /// The next moment on the steady clock at which time alone changes something.
    fn next_deadline(&self, now: Moment) -> Option<Timestamp> {
        // A date, seen from the steady clock as things are now.
        let by_calendar = |at: Timestamp| now.steady.plus_ms(at.since(now.wall));
        let expiry = self.person.expires_at.map(by_calendar);
        let period = self.period_ends.map(by_calendar);
        let idle_ms = i64::from(self.person.rules.idle_timeout_s) * 1000;
        let devices = self.person.clients.iter().flat_map(|client| {
            let is_in = self.places.get(&client.id).filter(|place| place.stand == Stand::In);
            let idle = is_in.filter(|_| idle_ms > 0).map(|place| place.active.plus_ms(idle_ms));
            [is_in.and(client.access_until), idle]
        });
        let all = devices.chain([expiry, period]).flatten();
        all.filter(|at| *at > now.steady).min()
    }
}

impl Place {
    /// Takes in what the record says of access. The same sign-in again changes nothing: what has
    /// ended stays ended, and a calendar that was set meanwhile does not move the end.
    fn take_grant(&mut self, client: &mut Client, now: Moment) {
        let (from, until) = (client.access_from, client.access_until);
        if (from, until) != (self.granted.from, self.granted.until) {
            if from != self.granted.from {
                self.ended = None;
            }
            let until_steady = until.map(|at| now.steady.plus_ms(at.since(now.wall)));
            self.granted = Granted { from, until, until_steady };
        }
        client.access_until = self.granted.until_steady;
    }

    fn out(&self, client: &Client, idle_timeout_s: u32, now: Moment) -> Option<Out> {
        if self.ended.is_some() {
            return self.ended;
        }
        let idle_ms = i64::from(idle_timeout_s) * 1000;
        let is_idle =
            idle_ms > 0 && self.stand == Stand::In && now.steady.since(self.active) >= idle_ms;
        client
            .out(now)
            .or_else(|| is_idle.then_some(Out::IdleTimeout))
            .or_else(|| self.held.then_some(Out::TooManySessions))
    }
}
