//! Very many clients that speak the real protocol, from one thread.
//!
//! Every client has keys of its own, a source address of its own (or shares one with a few
//! neighbours), real handshakes, timers and transport keys; only the TUN is missing. Everything
//! about client `n` follows from a seed and its number ([`Roster`]). What it costs here is about
//! what it costs the gateway, so one processor of fleet loads one processor of gateway.
//!
//! [`Fleet::shake`] runs handshakes (all at once or a few at a time), [`Fleet::hold`] keeps
//! sessions alive, [`Fleet::drive`] sends numbered datagrams over them and judges what the far end
//! sends back ([`far`]); [`Fleet::seal_volley`] seals first and leaves sending to others.
//! [`Forger`] is the attacker: initiations that look right, from anywhere. [`Grounds`] are the
//! namespaces it all happens in.
//!
//! IPv4 outside and inside; a fleet does not roam and must not know the insides of the gateway.

mod client;
mod drive;
pub mod far;
mod forge;
mod grounds;
mod roster;
mod volley;
mod wire;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result, ensure};
use ringway_proto::Instant;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::Message;

use crate::netns::Netns;
use crate::rr::RoundTrips;
use client::{Client, Reaction, World};
use drive::Flow;
use wire::Wire;

pub use drive::{Driven, Load};
pub use forge::{Forged, Forger, Forgery};
pub use grounds::{Grounds, OUTER_PREFIX, cpu_count, hurry_this_thread, pin_this_thread};
pub use roster::Roster;
pub use volley::carrier_bytes;

/// Longest sleep of the loop, so that timers of clients are at most so late.
const NAP_MAX: Duration = Duration::from_millis(1);

/// Clients and the sockets they share.
pub struct Fleet {
    roster: Roster,
    clients: Vec<Client>,
    wire: Wire,
    world: World,
    /// When which client wants to be woken; entries that moved are recognised when they come up.
    agenda: BinaryHeap<Reverse<(Instant, u32)>>,
    flows: Vec<Flow>,
    trips: Vec<Duration>,
    shaking: Shaking,
    tally: Tally,
}

/// What a fleet counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cookie replies that were believed.
    pub cookies: u64,
    /// Authentic messages received, keepalives included.
    pub received: u64,
    /// Messages that no client could use.
    pub refused: u64,
    /// Handshakes that the gateway began and a client answered.
    pub answered: u64,
}

/// Handshakes under way, as [`Fleet::shake`] watches them.
#[derive(Debug, Default)]
struct Shaking {
    /// When each client of the range began; `None` before and after.
    begun: Vec<Option<Clock>>,
    took: Vec<Duration>,
}

/// How handshakes went.
#[derive(Clone, Debug)]
pub struct Shaken {
    /// Sessions that came about.
    pub completed: u32,
    /// Clients without a session when the time was up.
    pub failed: u32,
    /// Initiations beyond the first of each client.
    pub retries: u64,
    /// Cookie replies received.
    pub cookies: u64,
    /// From the first initiation to the response's arrival.
    pub took: Option<RoundTrips>,
    /// From the first initiation of all to the last response.
    pub wall: Duration,
}

impl Fleet {
    /// Makes the clients of `roster` for the gateway at `to` with public key `gateway`; nothing is
    /// sent. Costs two curve operations per client. The sockets are in `netns`.
    ///
    /// # Errors
    /// Without the privilege for raw sockets, or when a buffer cannot be enlarged.
    pub fn enlist(
        roster: Roster,
        gateway: PublicKey,
        to: SocketAddrV4,
        netns: &Netns,
    ) -> Result<Self> {
        let wire = netns.inside(|| Wire::open(to, roster.per_source))??;
        Ok(Self::with_wire(roster, gateway, wire))
    }

    /// As [`Fleet::enlist`], in the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Fleet::enlist`].
    pub fn enlist_here(roster: Roster, gateway: PublicKey, to: SocketAddrV4) -> Result<Self> {
        Ok(Self::with_wire(roster, gateway, Wire::open(to, roster.per_source)?))
    }

    fn with_wire(roster: Roster, gateway: PublicKey, wire: Wire) -> Self {
        let world = World::new(roster.seed ^ u64::from(roster.first));
        let port = |number: u32| wire.port((number % roster.per_source) as usize);
        let clients = (0..roster.count).map(|number| {
            let from = SocketAddrV4::new(roster.outer(number), port(number));
            Client::new(number, roster.private(number), gateway, from)
        });
        Self {
            clients: clients.collect(),
            flows: Vec::new(),
            trips: Vec::new(),
            wire,
            world,
            agenda: BinaryHeap::new(),
            shaking: Shaking::default(),
            tally: Tally::default(),
            roster,
        }
    }

    /// Who they are.
    #[must_use]
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The public key of a client.
    #[must_use]
    pub fn public(&self, number: u32) -> PublicKey {
        self.clients[number as usize].public()
    }

    /// What happened so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// How many of them have a session.
    #[must_use]
    pub fn live(&self) -> u32 {
        let now = self.world.now();
        self.clients.iter().filter(|client| client.is_live(now)).count() as u32
    }

    /// Shakes hands for the clients of `range`, at most `at_once` under way at a time, until all
    /// have a session or `limit` has passed. With `at_once` as large as the range, all initiations
    /// leave, one after the other as they are made, before the first answer is read: times are an
    /// upper bound then.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn shake(&mut self, range: Range<u32>, at_once: u32, limit: Duration) -> Result<Shaken> {
        ensure!(range.end <= self.roster.count, "There are no clients {range:?}");
        let wanted = range.end - range.start;
        let initiations_before = self.initiations(&range);
        let cookies_before = self.tally.cookies;
        self.shaking = Shaking { begun: vec![None; self.clients.len()], took: Vec::new() };
        let mut next = range.start;
        let start = Clock::now();
        let mut last = start;
        loop {
            let done = self.shaking.took.len() as u32;
            if done == wanted || start.elapsed() >= limit {
                break;
            }
            while next < range.end && next - range.start - done < at_once {
                self.begin(next);
                next += 1;
            }
            self.turn(NAP_MAX)?;
            if self.shaking.took.len() as u32 > done {
                last = Clock::now();
            }
        }
        let took = std::mem::take(&mut self.shaking).took;
        let completed = took.len() as u32;
        let sent = self.initiations(&range) - initiations_before;
        Ok(Shaken {
            completed,
            failed: wanted - completed,
            retries: sent.saturating_sub((next - range.start).into()),
            cookies: self.tally.cookies - cookies_before,
            took: RoundTrips::of(took),
            wall: last.duration_since(start),
        })
    }

    /// Answers, keepalives and rekeys for `period`.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn hold(&mut self, period: Duration) -> Result<()> {
        let start = Clock::now();
        while let Some(left) = period.checked_sub(start.elapsed()) {
            self.turn(left.min(NAP_MAX))?;
        }
        Ok(())
    }

    /// All clients forget their sessions, as if they had been restarted.
    pub fn forget(&mut self) {
        for client in &mut self.clients {
            client.forget(&mut self.world);
        }
        self.agenda.clear();
    }

    /// All clients send from other addresses from now on.
    pub fn roam(&mut self) {
        for (client, number) in self.clients.iter_mut().zip(0..) {
            client.set_address(self.roster.outer_after_roaming(number));
        }
    }

    /// One pass: what arrived, what is due, what is to be sent; then sleeps if nothing was there.
    fn turn(&mut self, nap: Duration) -> Result<()> {
        let received = self.receive()?;
        self.fire();
        self.wire.flush()?;
        if received == 0 && !nap.is_zero() {
            self.wire.wait(nap)?;
        }
        Ok(())
    }

    fn begin(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        self.shaking.begun[number as usize] = Some(Clock::now());
        client.want_handshake(&mut self.world, &mut self.wire);
        self.arm(number);
    }

    fn receive(&mut self) -> Result<usize> {
        let mut count = 0;
        // Bounded, so that what is due is seen under a flood.
        for _ in 0..64 {
            let Some(mut batch) = self.wire.receive()? else { break };
            let at = Clock::now();
            for datagram in batch.datagrams() {
                count += 1;
                self.take(datagram, at);
            }
            self.wire.recycle(batch);
        }
        Ok(count)
    }

    fn take(&mut self, datagram: &mut [u8], at: Clock) {
        let Some((number, message)) = client::addressee(datagram, self.clients.len()) else {
            self.tally.refused += 1;
            return;
        };
        let client = &mut self.clients[number as usize];
        let reaction = client.take(datagram, message, &mut self.world, &mut self.wire);
        match reaction {
            Reaction::Session => self.note_session(number, at),
            Reaction::Answered => self.tally.answered += 1,
            Reaction::Cookie => self.tally.cookies += 1,
            Reaction::Keepalive => self.tally.received += 1,
            Reaction::Packet(range) => {
                self.tally.received += 1;
                self.judge(number, &datagram[range]);
            }
            Reaction::Refused => self.tally.refused += 1,
        }
        if !matches!(message, Message::Data { .. }) {
            self.arm(number);
        }
    }

    fn note_session(&mut self, number: u32, at: Clock) {
        let Some(begun) = self.shaking.begun.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        self.shaking.took.push(at.duration_since(begun));
    }

    fn fire(&mut self) {
        let now = self.world.now().mono;
        while let Some(Reverse((due, number))) = self.agenda.peek().copied() {
            if due > now {
                return;
            }
            self.agenda.pop();
            let client = &mut self.clients[number as usize];
            if client.armed != Some(due) {
                continue;
            }
            client.armed = None;
            client.handle_timeout(&mut self.world, &mut self.wire);
            self.arm(number);
        }
    }

    /// A deadline that moved later is found out when the earlier one comes up.
    fn arm(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        let Some(deadline) = client.deadline() else { return };
        if client.armed.is_none_or(|armed| deadline < armed) {
            client.armed = Some(deadline);
            self.agenda.push(Reverse((deadline, number)));
        }
    }

    /// Initiations that clients sent since the fleet was made.
    #[must_use]
    pub fn initiations(&self, range: &Range<u32>) -> u64 {
        let range = range.start as usize..range.end as usize;
        self.clients[range].iter().map(Client::initiations).sum()
    }
}

impl Shaken {
    /// A percentile of the time a handshake took, in milliseconds.
    ///
    /// # Errors
    /// When none was completed.
    pub fn percentile_ms(&self, share: f64) -> Result<f64> {
        let took = self.took.as_ref().context("No handshake was completed")?;
        Ok(took.percentile_us(share) / 1e3)
    }

    /// Handshakes per second from the first initiation to the last response.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        f64::from(self.completed) / self.wall.as_secs_f64().max(1e-9)
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("roster", &self.roster)
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}
