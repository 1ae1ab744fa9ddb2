//! The one crossing: packets that came in on a core which does not own their session.
//!
//! Steering brings nearly everything to its owner. What it does not (no steering in this kernel, a
//! prefix that is just moving, an initiation, whose owner nobody can see from outside) is copied
//! once by its finder into a [`Parcel`] and handed over; the owner treats it as if it had received
//! it itself. Who crossed once and is at the wrong core again is dropped.
//!
//! **Memory.** A parcel collects all that goes to one core, so a turn pushes one or a few, however
//! small the packets are. Parcels are made at start and circulate: the owner gives each back to
//! the core that filled it. What a client sent is copied a second time, into a buffer of the
//! owner's own (*stray* buffers), because it is opened in place and the TUN's write refers to it
//! after the turn: so parcels return at once, no count of references crosses threads, and the copy
//! is the one transfer between caches that opening would have to make anyway. What comes from the
//! TUN is sealed out of the parcel, since it is copied into a train in any case.
//!
//! **Order.** Between two cores everything stays in the order in which the finder met it, and a
//! turn takes parcels before what the core itself received. Two packets of a flow that take
//! different ways (one crosses, a later one comes directly) may be swapped. That needs their
//! steering to change in between: the kernel picks the socket by the index (the owner) or by the
//! addresses outside, and the TUN's queue by the prefix (the owner) or by the flow. So it happens
//! once when a client roams while nothing steers, when a prefix moves, and when the kernel learns
//! a flow's queue because its first answer left by another; never in between. One packet per rekey
//! may be swapped in spite of steering: the kernel merges by addresses and steers by the first
//! datagram, so a short one merged behind an initiation comes to the core of the initiation.
//!
//! This module must not know what a datagram or a packet says.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_alloc::{Arena, Buf, forget};
use ringway_link::mesh;
use ringway_proto::limits::{COMPLETIONS_PER_TURN_MAX, PACKET_UNITS};
use ringway_proto::wireguard::{OpenedInitiation, UNDER_LOAD_FOR};
use ringway_proto::{CoreId, DropReason, Instant, Now};
use ringway_ring::{BUFFER_BYTES, Driver, Ecn, Local, Outside};

use crate::accounts::credit::Credit;
use crate::counters::Counters;
use crate::shard::Shard;
use crate::state::Stand;

/// Parcels of one core: as many as a turn takes completions, so that even if every one of them is a
/// full buffer for another core the turn finds room. With their lists 12 MiB where there is more
/// than one core, of which little more is touched than what was once filled.
pub const PARCELS: usize = COMPLETIONS_PER_TURN_MAX;

/// Slots of a ring between two cores: all parcels of both, so that it is never full and a parcel
/// always finds its way home.
pub const LINE_SLOTS: usize = 2 * PARCELS;

/// Stray buffers of one core, 8 MiB where there is more than one, of which only what is used is
/// touched: those of a turn, and those of the turn before, whose writes to the TUN are being
/// submitted.
pub const STRAY_BUFFERS: u32 = 2 * PARCELS_PER_TURN_MAX as u32;

/// Parcels taken in one turn, if they are small; of large ones, half of what a turn carries. The
/// other half is for what the core received itself: with bad steering neither waits long for the
/// other.
const PARCELS_PER_TURN_MAX: usize = COMPLETIONS_PER_TURN_MAX / 2;

/// Packets and runs of datagrams in one parcel: 64 KiB of 256 bytes each.
const ITEMS_MAX: usize = 256;

/// By how much a load has to become longer before other cores are told: a quarter of what it lasts.
const LOAD_STEP: Duration = Duration::from_millis(UNDER_LOAD_FOR.as_millis() as u64 / 4);

/// Messages about credit in one parcel.
const CREDITS_MAX: usize = 64;

/// Initiations in one parcel.
const INITIATIONS_MAX: usize = 32;

const _: () = assert!(LINE_SLOTS.is_power_of_two(), "cursors of a ring wrap by a mask");

/// A core's place in the mesh of all cores.
pub type MeshPort = mesh::Port<Box<Parcel>>;

/// Whether something came from the world or from another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// From the kernel.
    Direct,
    /// From the core that received it.
    Crossed,
}

/// How datagrams of one sender lie in a buffer, and how they came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagrams {
    /// Bytes of each but the last.
    pub(crate) stride: usize,
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<Local>,
    pub(crate) ecn: Ecn,
}

/// An initiation whose static key belongs to this core, and how it came.
pub(crate) struct Claim {
    pub(crate) opened: OpenedInitiation,
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<Local>,
    /// The core that opened it was under load.
    pub(crate) pressed: bool,
    /// So many waited there that the core is under load if they are worth nothing.
    pub(crate) crowded: bool,
    /// It came with a cookie.
    pub(crate) vouched: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Datagrams(Datagrams),
    Packet,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: usize,
    len: usize,
    kind: Kind,
}

/// What a parcel holds, for the counters.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    datagrams: u64,
    packets: u64,
    handshakes: u64,
    credits: u64,
}

const _: () = assert!(align_of::<Parcel>() == 128 && size_of::<Parcel>().is_multiple_of(128));

impl Tally {
    const fn sum(self) -> u64 {
        self.datagrams + self.packets + self.handshakes
    }
}

/// What one core hands to another at once. Nothing in it is allocated after its start. Parcels are
/// made side by side and are then at different cores, so each has its cache lines to itself.
#[repr(align(128))]
pub struct Parcel {
    home: CoreId,
    bytes: Vec<u8>,
    items: Vec<Item>,
    initiations: Vec<Claim>,
    credits: Vec<Credit>,
    tally: Tally,
    /// A handshake opened it.
    urgent: bool,
}

/// Bytes of a super-packet for which it counts as one more packet: a power of two near the usual
/// size of a segment.
const SEGMENT_BYTES: u64 = 2_048;

impl Parcel {
    fn new(home: CoreId) -> Box<Self> {
        Box::new(Self {
            home,
            bytes: Vec::with_capacity(BUFFER_BYTES),
            items: Vec::with_capacity(ITEMS_MAX),
            initiations: Vec::with_capacity(INITIATIONS_MAX),
            credits: Vec::with_capacity(CREDITS_MAX),
            tally: Tally::default(),
            urgent: false,
        })
    }

    fn clear(&mut self) {
        if forget::is_on() {
            self.wipe();
        }
        self.bytes.clear();
        self.items.clear();
        self.initiations.clear();
        self.credits.clear();
        self.tally = Tally::default();
    }

    /// Wipes who sent what was in it.
    #[cold]
    fn wipe(&mut self) {
        self.items.clear();
        self.initiations.clear();
        forget::wipe_list(&mut self.items);
        forget::wipe_list(&mut self.initiations);
    }

    /// What it costs to carry, in the units of `TURN_UNITS_MAX`.
    const fn units(&self) -> u64 {
        let bytes = self.bytes.len() as u64;
        let packets = self.tally.datagrams + self.tally.packets + bytes / SEGMENT_BYTES;
        bytes + packets * PACKET_UNITS
    }

    fn takes(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= BUFFER_BYTES
            && self.items.len() < ITEMS_MAX
            && self.initiations.len() < INITIATIONS_MAX
            && self.credits.len() < CREDITS_MAX
    }

    fn put(&mut self, bytes: &[u8], kind: Kind) {
        self.items.push(Item { start: self.bytes.len(), len: bytes.len(), kind });
        self.bytes.extend_from_slice(bytes);
    }
}

/// For what a parcel is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Data,
    Handshake,
    Credit,
}

/// What one core needs to hand over and to take.
#[expect(clippy::vec_box, reason = "boxes are what circulates between cores")]
pub struct Crossing {
    port: MeshPort,
    /// Empty parcels of this core.
    pool: Vec<Box<Parcel>>,
    /// Parcels of this core, wherever they are.
    parcels: usize,
    /// Those that are not at home, by the core they went to.
    away: Box<[usize]>,
    /// Those of them that a handshake opened.
    urgent: usize,
    /// Parcels being filled in this turn, by the core they go to.
    open: Box<[Option<Box<Parcel>>]>,
    strays: Option<Arena>,
}

impl Crossing {
    /// For one core among those of `port`. `strays` has [`STRAY_BUFFERS`] buffers of
    /// [`BUFFER_BYTES`]; without it nothing can be taken, which is right for a single core.
    ///
    /// # Panics
    /// If buffers are smaller.
    #[must_use]
    pub fn new(port: MeshPort, strays: Option<Arena>) -> Self {
        Self::with_parcels(port, strays, PARCELS)
    }

    /// As [`Crossing::new`], with fewer parcels than [`PARCELS`], for tests.
    ///
    /// # Panics
    /// If buffers are smaller than [`BUFFER_BYTES`].
    #[must_use]
    pub fn with_parcels(port: MeshPort, strays: Option<Arena>, parcels: usize) -> Self {
        let home = CoreId(port.core());
        if let Some(strays) = &strays {
            assert!(strays.buffer_bytes() >= BUFFER_BYTES, "a whole parcel fits a stray buffer");
        }
        let parcels = if port.cores() > 1 { parcels.min(PARCELS) } else { 0 };
        Self {
            pool: (0..parcels).map(|_| Parcel::new(home)).collect(),
            parcels,
            away: (0..port.cores()).map(|_| 0).collect(),
            urgent: 0,
            open: (0..port.cores()).map(|_| None).collect(),
            port,
            strays,
        }
    }

    /// How many cores there are.
    pub(crate) const fn cores(&self) -> u16 {
        self.port.cores()
    }

    /// Tells all cores how long they should ask for cookies. Said again only when it has become
    /// much later, because all of them read it.
    pub(crate) fn demand_cookies_until(&self, until: Instant) {
        if until.since(self.cookies_until()) >= LOAD_STEP {
            self.port.raise(until.as_nanos());
        }
    }

    /// How long any core wants cookies to be asked for.
    pub(crate) fn cookies_until(&self) -> Instant {
        Instant::from_nanos(self.port.mark())
    }

    /// Whether there is something to take. Room to take it into may only come with the next turn
    /// of the driver, which nobody would end if it were waited for asleep.
    #[must_use]
    pub(crate) fn has_arrivals(&self) -> bool {
        self.strays.is_some() && !self.port.is_empty()
    }

    /// Whether nothing waits to be taken, room or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.port.is_empty()
    }

    /// Hands over datagrams that belong together.
    pub(crate) fn datagrams(
        &mut self,
        owner: CoreId,
        bytes: &[u8],
        how: Datagrams,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let parcel = self.room(owner, bytes.len(), Load::Data, counters)?;
        parcel.put(bytes, Kind::Datagrams(how));
        parcel.tally.datagrams += bytes.len().div_ceil(how.stride.max(1)) as u64;
        Ok(())
    }

    /// Hands over a response or a cookie reply.
    pub(crate) fn message(
        &mut self,
        owner: CoreId,
        bytes: &[u8],
        how: Datagrams,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let parcel = self.room(owner, bytes.len(), Load::Handshake, counters)?;
        parcel.put(bytes, Kind::Datagrams(how));
        parcel.tally.handshakes += 1;
        Ok(())
    }

    /// Hands over what was read from the TUN, virtio header included.
    pub(crate) fn packet(
        &mut self,
        owner: CoreId,
        bytes: &[u8],
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let parcel = self.room(owner, bytes.len(), Load::Data, counters)?;
        parcel.put(bytes, Kind::Packet);
        parcel.tally.packets += 1;
        Ok(())
    }

    /// Hands over an initiation to the core that may answer it.
    pub(crate) fn initiation(
        &mut self,
        owner: CoreId,
        claim: Claim,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let parcel = self.room(owner, 0, Load::Handshake, counters)?;
        parcel.initiations.push(claim);
        parcel.tally.handshakes += 1;
        Ok(())
    }

    /// Hands over a message about credit. It may be refused: whoever has it keeps it then.
    pub(crate) fn credit(
        &mut self,
        to: CoreId,
        credit: Credit,
        counters: &mut Counters,
    ) -> Result<(), DropReason> {
        let parcel = self.room(to, 0, Load::Credit, counters)?;
        parcel.credits.push(credit);
        parcel.tally.credits += 1;
        Ok(())
    }

    /// Pushes what this turn collected, and wakes who sleeps.
    pub(crate) fn depart(&mut self, counters: &mut Counters) {
        for owner in 0..self.port.cores() {
            self.push(CoreId(owner), counters);
        }
        self.port.flush();
    }

    /// The next parcel of another core. Takes back empty ones of this core on the way.
    fn arrive(&mut self) -> Option<Box<Parcel>> {
        while self.can_take() {
            let (from, parcel) = self.port.pop()?;
            if parcel.home.0 != self.port.core() {
                return Some(parcel);
            }
            self.come_home(CoreId(from), parcel);
        }
        None
    }

    /// A parcel of this core comes back from another one.
    fn come_home(&mut self, from: CoreId, mut parcel: Box<Parcel>) {
        self.away[usize::from(from.0)] -= 1;
        self.urgent -= usize::from(parcel.urgent);
        parcel.clear();
        self.pool.push(parcel);
    }

    /// Sends a parcel home. Its core may have ended: then it is the last to hold it.
    fn give_back(&mut self, mut parcel: Box<Parcel>) {
        parcel.clear();
        drop(self.port.push_quietly(parcel.home.0, parcel));
    }

    fn stray(&self) -> Option<Buf> {
        self.strays.as_ref()?.take()
    }

    /// A parcel needs one stray buffer at the most.
    fn can_take(&self) -> bool {
        self.strays.as_ref().is_some_and(|strays| strays.free() > 0)
    }

    /// The open parcel for `owner`, with room for this.
    fn room(
        &mut self,
        owner: CoreId,
        bytes: usize,
        load: Load,
        counters: &mut Counters,
    ) -> Result<&mut Parcel, DropReason> {
        let at = usize::from(owner.0);
        if self.open[at].as_ref().is_some_and(|parcel| !parcel.takes(bytes)) {
            self.push(owner, counters);
        }
        if self.open[at].is_none() {
            if bytes > BUFFER_BYTES || !self.may_open(owner, load) {
                return Err(DropReason::CrossingFull);
            }
            let mut parcel = self.pool.pop().ok_or(DropReason::CrossingFull)?;
            parcel.urgent = load == Load::Handshake;
            self.urgent += usize::from(parcel.urgent);
            self.away[at] += 1;
            self.open[at] = Some(parcel);
        }
        self.open[at].as_deref_mut().ok_or(DropReason::CrossingFull)
    }

    /// Whether another parcel may be opened for `owner`. Nobody gets more than half of all while
    /// there are others, so that a slow core does not keep what they need. Handshakes get an eighth
    /// that data leaves to them; beyond it they leave half to data. Messages about credit take any:
    /// each core is sent one parcel of them per turn.
    fn may_open(&self, owner: CoreId, load: Load) -> bool {
        let others = usize::from(self.port.cores()) - 1;
        if others > 1 && self.away[usize::from(owner.0)] >= self.parcels.div_ceil(2) {
            return false;
        }
        let reserved = self.parcels / 8;
        match load {
            Load::Handshake => self.urgent < reserved || self.pool.len() > self.parcels / 2,
            Load::Data => self.pool.len() > reserved.saturating_sub(self.urgent),
            Load::Credit => true,
        }
    }

    fn push(&mut self, owner: CoreId, counters: &mut Counters) {
        let Some(parcel) = self.open[usize::from(owner.0)].take() else { return };
        let tally = parcel.tally;
        match self.port.push(owner.0, parcel) {
            Ok(()) => {
                counters.crossed_out_datagrams += tally.datagrams;
                counters.crossed_out_packets += tally.packets;
                counters.crossed_out_handshakes += tally.handshakes;
                counters.crossed_out_credits += tally.credits;
            }
            Err(parcel) => {
                // That core has ended.
                counters.drops[DropReason::CrossingFull as usize] += tally.sum();
                self.come_home(owner, parcel);
            }
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Takes what other cores handed over, up to half of what a turn carries. Returns whether there
    /// was anything.
    pub(crate) fn take_crossings(&mut self, now: Now) -> bool {
        self.fairness.begin_turn();
        let judged = self.fairness.is_pressed();
        for count in 0..PARCELS_PER_TURN_MAX {
            if !self.fairness.takes_crossings() {
                break;
            }
            let Some(mut parcel) = self.crossing.arrive() else { return count > 0 };
            self.counters.crossed_in_datagrams += parcel.tally.datagrams;
            self.counters.crossed_in_packets += parcel.tally.packets;
            self.counters.crossed_in_handshakes += parcel.tally.handshakes;
            self.counters.crossed_in_credits += parcel.tally.credits;
            if !judged {
                self.fairness.charge_crossed(parcel.units());
            }
            self.unpack(&mut parcel, judged, now);
            self.crossing.give_back(parcel);
        }
        true
    }

    /// Whether other cores have handed something over, or given something back, and this one takes
    /// it now: while it stands still, what comes must not keep it awake.
    #[must_use]
    pub fn has_arrivals(&self) -> bool {
        self.stand != Stand::Frozen && self.crossing.has_arrivals()
    }

    /// Carries what is in a parcel: what is below its session's share, if that is to be `judged`.
    fn unpack(&mut self, parcel: &mut Parcel, judged: bool, now: Now) {
        for claim in parcel.initiations.drain(..) {
            if let Err(reason) = self.handshakes.claim(claim, now) {
                self.counters.drop(reason);
            }
        }
        for credit in parcel.credits.drain(..) {
            self.accounts.receive(credit, now.mono);
        }
        let mut buf = None;
        for item in &parcel.items {
            let bytes = &parcel.bytes[item.start..item.start + item.len];
            let how = match &item.kind {
                Kind::Datagrams(how) => Some(how),
                Kind::Packet => None,
            };
            if judged && !self.admits_crossed(bytes, how) {
                continue;
            }
            match item.kind {
                Kind::Packet => self.to_client(bytes, Arrival::Crossed, now),
                Kind::Datagrams(how) => {
                    let Some(mut stray) = buf.take().or_else(|| self.crossing.stray()) else {
                        // `arrive` saw a free one, and one is enough.
                        self.counters.drop(DropReason::CrossingFull);
                        continue;
                    };
                    stray[item.start..item.start + item.len].copy_from_slice(bytes);
                    buf = Some(self.unpack_datagrams(stray, item, how, now));
                }
            }
            if self.trains.is_settling_due() {
                self.settle_departed(now);
            }
        }
    }

    fn unpack_datagrams(&mut self, buf: Buf, item: &Item, how: Datagrams, now: Now) -> Buf {
        let Datagrams { stride, from, to, ecn } = how;
        let (start, len) = (item.start, item.len);
        let mut outside = Outside { buf, start, len, stride, from, to, ecn };
        self.carry_outside(&mut outside, Arrival::Crossed, now);
        outside.buf
    }
}
