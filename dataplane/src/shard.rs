//! All state of one core, and its turn.

use std::io;
use std::time::Duration;

use ringway_alloc::heap::ShardHeap;
use ringway_flow::{Allowance, Policy};
use ringway_link::spsc;
use ringway_link::usage::UsageWriter;
use ringway_proto::crypto::{PrivateKey, Random};
use ringway_proto::limits::{
    COMPLETIONS_PER_TURN_MAX, HOUSEKEEPING_PERIOD, ICMP_ANSWERS_BURST, ICMP_ANSWERS_PER_SECOND,
    TURN_UNITS_MAX, WALK_UNITS_PER_TURN_MAX,
};
use ringway_proto::wireguard::{AdmissionLimits, Identity};
use ringway_proto::{CoreId, Instant, Now};
use ringway_ring::{Driver, Received, Wait};

use crate::accounts::Accounts;
use crate::command::{Envelope, Report};
use crate::counters::Counters;
use crate::crossing::{Arrival, Crossing};
use crate::fairness::{Fairness, units_of};
use crate::handshake::HandshakeQueue;
use crate::index_table::{IndexLayout, IndexTable};
use crate::opening::Opening;
use crate::peers::Peers;
use crate::routes::Routes;
use crate::state::Stand;
use crate::timers::Wheel;
use crate::transmit::outside::Departure;
use crate::transmit::{InsideQueue, Trains};
use crate::walk::{LostSource, Walk};

/// When an answer that found control's channel full is tried again.
const REPORT_RETRY: Duration = Duration::from_millis(1);

/// What a shard is made with.
pub struct ShardConfig {
    /// Which core of the node it is.
    pub core: CoreId,
    /// How receiver indices carry their owner.
    pub layout: IndexLayout,
    /// Rules for inner packets.
    pub policy: Box<Policy>,
    /// Memory for what varies per session.
    pub heap: ShardHeap,
    /// Randomness of keys and cookies.
    pub random: Box<dyn Random>,
    /// Randomness of receiver indices (may be the cheaper kind).
    pub index_random: Box<dyn Random>,
    /// Commands of control.
    pub commands: spsc::Receiver<Envelope>,
    /// Answers to control.
    pub reports: spsc::Sender<Report>,
    /// The way to and from the other cores.
    pub crossing: Crossing,
    /// Where it writes what accounts used.
    pub usage: UsageWriter,
}

/// Everything one core owns.
pub struct Shard<D: Driver> {
    pub(crate) core: CoreId,
    pub(crate) driver: D,
    pub(crate) crossing: Crossing,
    pub(crate) accounts: Accounts,
    pub(crate) peers: Peers,
    pub(crate) indices: IndexTable,
    pub(crate) allowed_ips: Routes,
    pub(crate) opening: Opening,
    pub(crate) trains: Trains,
    pub(crate) inside: InsideQueue,
    pub(crate) handshakes: HandshakeQueue,
    pub(crate) fairness: Fairness,
    pub(crate) timers: Wheel,
    pub(crate) counters: Counters,
    pub(crate) identity: Option<Box<Identity>>,
    /// Stands in while no identity is set: peers may be configured before the key. It is drawn at
    /// random and never speaks.
    pub(crate) nobody: Identity,
    pub(crate) policy: Box<Policy>,
    pub(crate) flow: ringway_flow::Counters,
    /// How many ICMP errors may be sent now.
    pub(crate) allowance: Allowance,
    pub(crate) heap: ShardHeap,
    pub(crate) random: Box<dyn Random>,
    pub(crate) index_random: Box<dyn Random>,
    pub(crate) commands: spsc::Receiver<Envelope>,
    pub(crate) reports: spsc::Sender<Report>,
    /// An answer that control's full channel refused; it goes first when there is room.
    pub(crate) unsent: Option<Report>,
    pub(crate) stopping: bool,
    /// Whether there are UDP sockets, as far as control said. Without them a handshake would only
    /// start its retry timer.
    pub(crate) listening: bool,
    /// Whether it carries packets.
    pub(crate) stand: Stand,
    /// A command that takes many turns.
    pub(crate) walk: Option<Walk>,
    /// An address of ours that is no longer ours, and whose peers are being told so.
    pub(crate) lost: Option<LostSource>,
    /// See [`WALK_UNITS_PER_TURN_MAX`].
    pub(crate) walk_units: u32,
    /// Counts identities, so that a walk knows which peers it has rekeyed.
    pub(crate) identity_number: u32,
    /// Not all peers have been rekeyed since the identity changed.
    pub(crate) rekeying: bool,
    housekeeping_due: Instant,
    /// Whether something was counted since the last publication.
    pub(crate) unpublished: bool,
}

/// What the loop does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long the next wait may be.
    pub wait: Wait,
    /// The counters changed and should be published now.
    pub publish: bool,
    /// Answers wait for control.
    pub reported: bool,
    /// There was something to do.
    pub worked: bool,
    /// The shard was told to stop.
    pub stop: bool,
}

impl<D: Driver> Shard<D> {
    /// A shard without peers, identity or traffic.
    #[must_use]
    pub fn new(mut config: ShardConfig, driver: D, now: Now) -> Self {
        let mut key = [0; 32];
        config.random.fill(&mut key);
        Self {
            core: config.core,
            driver,
            peers: Peers::default(),
            indices: IndexTable::new(config.layout, config.core),
            allowed_ips: Routes::new(),
            opening: Opening::new(),
            trains: Trains::new(),
            inside: InsideQueue::new(),
            handshakes: HandshakeQueue::new(
                &mut *config.random,
                config.crossing.cores(),
                &config.policy,
            ),
            accounts: Accounts::new(config.core, config.crossing.cores(), config.usage, now.mono),
            crossing: config.crossing,
            fairness: Fairness::new(),
            timers: Wheel::new(now.mono),
            counters: Counters::default(),
            identity: None,
            nobody: Identity::new(PrivateKey::from_bytes(key)),
            policy: config.policy,
            flow: ringway_flow::Counters::default(),
            allowance: Allowance::new(ICMP_ANSWERS_PER_SECOND, ICMP_ANSWERS_BURST),
            heap: config.heap,
            random: config.random,
            index_random: config.index_random,
            commands: config.commands,
            reports: config.reports,
            unsent: None,
            stopping: false,
            listening: true,
            stand: Stand::Running,
            walk: None,
            lost: None,
            walk_units: WALK_UNITS_PER_TURN_MAX,
            identity_number: 0,
            rekeying: false,
            housekeeping_due: now.mono,
            unpublished: true,
        }
    }

    /// Wipes what is kept of senders without need: after their datagrams were carried, lists and
    /// buffers still have who they were. Not on the packet path.
    pub fn forget(&mut self) {
        self.driver.forget();
        self.opening.forget();
        self.handshakes.forget();
        self.fairness.forget();
    }

    /// One turn. The driver has collected completions; what is committed here leaves with its next
    /// turn.
    pub fn turn(&mut self, now: Now) -> Turn {
        let reported = self.take_commands(now) | self.report_exhausted();
        let (running, frozen) = (self.stand == Stand::Running, self.stand == Stand::Frozen);
        let crossed = !frozen && self.take_crossings(now);
        let carried = !frozen && self.carry(now);
        // Before handshakes, which may end the keys that it came under.
        self.open_waiting(now);
        let fired = running && self.fire_timers(now);
        let shaken = running && self.do_handshakes(now);
        if running {
            self.accounts.keep_house(now.mono);
        }
        let worked = reported || crossed || carried || fired || shaken;
        self.unpublished |= worked;
        self.commit(now);
        self.counters.turns += 1;
        self.plan(reported, worked, now)
    }

    /// The world, for the loop around the shard.
    pub const fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// What happened so far.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Whether commands of control wait that can be taken: none is while an answer finds no room.
    #[must_use]
    pub fn has_commands(&self) -> bool {
        self.lost.is_some()
            || self.unsent.is_none() && (self.walk.is_some() || !self.commands.is_empty())
    }

    /// Tells control that the shard has ended. Its channel may be full of answers that nobody reads
    /// any more; the end of the thread says the same.
    pub fn end(&mut self, error: Option<io::Error>) {
        let _unread = self.reports.push(Report::Stopped { error });
    }

    /// Whether there are sockets at the start; later [`Command::ReplaceSockets`] says so.
    ///
    /// [`Command::ReplaceSockets`]: crate::Command::ReplaceSockets
    pub const fn start_listening(&mut self, listening: bool) {
        self.listening = listening;
    }

    /// Lets commands do less per turn than [`WALK_UNITS_PER_TURN_MAX`], for tests: one peer or
    /// prefix per turn at the least.
    pub fn set_walk_units(&mut self, units: u32) {
        self.walk_units = units.max(1);
    }

    /// Lets a core under load take other numbers of sessions than its share of the limits.
    pub const fn set_admission(&mut self, limits: AdmissionLimits) {
        self.handshakes.admission.set_limits(limits);
    }

    /// The peers, for tests and for walks of control.
    #[must_use]
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// How many prefixes lead somewhere, for tests.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.allowed_ips.len()
    }

    /// The receiver indices that are handed out, for tests.
    #[must_use]
    pub const fn indices(&self) -> &IndexTable {
        &self.indices
    }

    /// Bytes of variable memory that all sessions hold, for tests.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.heap.used()
    }

    /// Carries what was received, each packet in its direction. Returns whether there was any.
    pub(crate) fn carry(&mut self, now: Now) -> bool {
        if self.fairness.is_pressed() {
            return self.carry_fairly(now);
        }
        let mut spent = self.fairness.crossed();
        for count in 0..COMPLETIONS_PER_TURN_MAX {
            if spent >= TURN_UNITS_MAX {
                break;
            }
            let Some(received) = self.driver.next() else {
                if self.fairness.has_crossings_left() {
                    self.press(now);
                }
                return count > 0;
            };
            spent += units_of(&received);
            self.carry_one(received, now);
        }
        self.press(now);
        true
    }

    /// A turn ended with things left. A pause ends by itself, and loses nothing.
    fn press(&mut self, now: Now) {
        if self.stand == Stand::Running {
            self.fairness.press(now.mono);
        }
    }

    pub(crate) fn carry_one(&mut self, received: Received, now: Now) {
        match received {
            Received::Outside(outside) => self.outside(outside, now),
            Received::Inside(inside) => {
                let bytes = &inside.buf[inside.start..inside.start + inside.len];
                self.to_client(bytes, Arrival::Direct, now);
            }
        }
        if self.trains.is_settling_due() {
            self.settle_departed(now);
        }
    }

    /// Closes every open super-packet and train.
    pub(crate) fn commit(&mut self, now: Now) {
        self.inside.flush(&mut self.driver, &mut self.counters);
        self.flush_trains(now);
        while self.trains.has_departed() {
            self.settle_departed(now);
            // Settling may have let staged packets go, whose peers have to be settled again.
            self.flush_trains(now);
        }
        self.accounts.depart(&mut self.crossing, &mut self.counters);
        self.crossing.depart(&mut self.counters);
    }

    pub(crate) fn settle_departed(&mut self, now: Now) {
        while let Some(id) = self.trains.next_departed() {
            self.settle_data(id, false, now);
        }
    }

    fn flush_trains(&mut self, now: Now) {
        let mut out = Departure {
            peers: &mut self.peers,
            driver: &mut self.driver,
            counters: &mut self.counters,
            now,
        };
        self.trains.flush(&mut out);
    }

    /// Levels are only looked at here, never on the packet path.
    fn plan(&mut self, reported: bool, worked: bool, now: Now) -> Turn {
        self.unpublished |= reported;
        let publish = self.unpublished && now.mono >= self.housekeeping_due;
        if publish {
            self.gauge(now);
            self.unpublished = false;
            self.housekeeping_due = now.mono + HOUSEKEEPING_PERIOD;
        }
        let running = self.stand == Stand::Running;
        let arrivals = self.has_arrivals();
        let handshakes = running && !self.handshakes.is_empty();
        let pressed = self.stand != Stand::Frozen && self.fairness.is_pressed();
        let busy = handshakes || self.has_commands() || arrivals || pressed;
        let mut wait = if busy { Wait::No } else { Wait::Forever };
        let publish_in = self.unpublished.then(|| self.housekeeping_due.since(now.mono));
        // Control does not say when it has read its answers.
        let unsaid = self.unsent.is_some() || !self.accounts.exhausted.is_empty();
        let report_in = unsaid.then_some(REPORT_RETRY);
        let timer_in = if running { self.timers.sleep(now.mono) } else { None };
        let credit_in = if running { self.accounts.sleep(now.mono) } else { None };
        let sleeps = [timer_in, publish_in, report_in, credit_in];
        for sleep in sleeps.into_iter().flatten() {
            wait = match wait {
                // Timers that this turn had no more room for.
                _ if sleep.is_zero() => Wait::No,
                Wait::No => Wait::No,
                Wait::AtMost(other) => Wait::AtMost(other.min(sleep)),
                Wait::Forever => Wait::AtMost(sleep),
            };
        }
        Turn { wait, publish, reported, worked, stop: self.stopping && self.unsent.is_none() }
    }

    fn gauge(&mut self, now: Now) {
        self.counters.mss_clamped = self.flow.mss_clamped;
        self.counters.congestion_marked = self.flow.congestion_marked;
        self.counters.peers = self.peers.len() as u64;
        self.counters.handshakes_queued = self.handshakes.len() as u64;
        self.counters.under_load = u64::from(self.handshakes.under_load(now));
        let admission = &mut self.handshakes.admission;
        self.counters.half_open = u64::from(admission.half_open(now.mono));
        let lookups = self.indices.bytes() + self.allowed_ips.memory_bytes() + self.timers.bytes();
        let fixed = self.peers.bytes() + lookups + admission.bytes();
        self.counters.accounts = self.accounts.len() as u64;
        let fixed = fixed + self.accounts.bytes();
        self.counters.session_bytes = (fixed + self.heap.used()) as u64;
    }
}
