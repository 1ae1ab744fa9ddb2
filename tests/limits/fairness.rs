//! An overloaded core: a model of one that needs a fixed time for every packet, fed by clients that
//! keep to their share and by clients that do not.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::Command;
use ringway_dataplane::state::Pending;
use ringway_proto::limits::{BUFFER_UNITS, PACKET_UNITS, TURN_UNITS_MAX};
use ringway_proto::{DropReason, Instant};
use ringway_ring::Ecn;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup};
use ringway_tests::packets::udp;
use ringway_tests::pair::{Families, Pair, SEED};

use crate::crowds::{BEYOND, Crowd, inner};

/// What the model core needs to carry a packet: it carries 100,000 in a second.
const CARRY: Duration = Duration::from_micros(10);
/// What it needs to throw one away.
const THROW: Duration = Duration::from_nanos(100);
/// What a turn needs besides.
const TURN: Duration = Duration::from_micros(5);
/// Buffers that the driver has handed over, and that it is lent in addition while it works.
const BUFFERS: usize = 192;
/// Packets that the kernel keeps for want of a buffer.
const SOCKET_MAX: usize = 12_000;
/// Inner bytes of every packet.
const BYTES: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToExit,
    ToClient,
}

/// Somebody who sends, or is sent, packets at a steady rate.
struct Source {
    client: usize,
    way: Way,
    gap: Duration,
    /// Packets that arrive together.
    merged: usize,
    /// Something that nobody can open lies in front of them.
    disguised: bool,
    next: Instant,
    sent: u32,
    arrived: u32,
    /// The longest that one was under way.
    slowest: Duration,
    due: VecDeque<Instant>,
}

impl Source {
    fn new(client: usize, way: Way, per_second: u64, merged: usize) -> Self {
        let gap = Duration::from_nanos(1_000_000_000 * merged as u64 / per_second);
        Self {
            client,
            way,
            gap,
            merged,
            disguised: false,
            next: Instant::ZERO,
            sent: 0,
            arrived: 0,
            slowest: Duration::ZERO,
            due: VecDeque::new(),
        }
    }
}

/// A buffer in the kernel.
struct Arrived {
    source: usize,
    datagrams: Vec<Vec<u8>>,
}

struct Model {
    crowd: Crowd,
    sources: Vec<Source>,
    kernel: VecDeque<Arrived>,
    kernel_packets: usize,
    kernel_lost: usize,
    longest_turn: Duration,
}

impl Model {
    fn new(clients: usize, sources: Vec<Source>) -> Self {
        let pools = Pools { receive: BUFFERS as u32 + 8, transmit: 1_024, tun: 256 };
        let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
        let mut crowd = Crowd::connected_to(Gateway::with(setup), clients);
        let start = crowd.gateway.now.mono;
        let mut sources = sources;
        for (number, source) in sources.iter_mut().enumerate() {
            // Not all at the same moment.
            source.next = start + Duration::from_micros(7 * number as u64);
        }
        crowd.gateway.run();
        Self {
            crowd,
            sources,
            kernel: VecDeque::new(),
            kernel_packets: 0,
            kernel_lost: 0,
            longest_turn: Duration::ZERO,
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.crowd.gateway.now.mono + span;
        while self.crowd.gateway.now.mono < end {
            self.arrive();
            self.fill_driver();
            let took = self.turn();
            self.longest_turn = self.longest_turn.max(took);
            self.crowd.gateway.now.mono = self.crowd.gateway.now.mono + took;
            self.depart();
        }
    }

    /// Everything that was sent until now is in the kernel.
    fn arrive(&mut self) {
        let now = self.crowd.gateway.now;
        let Self { crowd, sources, kernel, kernel_packets, kernel_lost, .. } = self;
        loop {
            let earliest = sources.iter().enumerate().min_by_key(|(_, source)| source.next);
            let Some((number, _)) = earliest.filter(|(_, source)| source.next <= now.mono) else {
                return;
            };
            let source = &mut sources[number];
            let mut datagrams = Vec::new();
            for _ in 0..source.merged {
                source.sent += 1;
                source.due.push_back(source.next);
                let mut payload = vec![0; BYTES - 28];
                payload[..4].copy_from_slice(&source.sent.to_be_bytes());
                let (home, own): (IpAddr, _) = (inner(source.client), source.way);
                match own {
                    Way::ToExit => {
                        let packet = udp(home, BEYOND, &payload);
                        datagrams.extend(crowd.clients[source.client].send(&packet, now));
                    }
                    Way::ToClient => datagrams.push(udp(BEYOND, home, &payload)),
                }
            }
            if source.disguised {
                let mut front = datagrams[0].clone();
                front[4] ^= 1;
                datagrams.insert(0, front);
            }
            source.next = source.next + source.gap;
            if *kernel_packets + datagrams.len() > SOCKET_MAX {
                *kernel_lost += datagrams.len();
                continue;
            }
            *kernel_packets += datagrams.len();
            kernel.push_back(Arrived { source: number, datagrams });
        }
    }

    /// The driver hands over what it has buffers for.
    fn fill_driver(&mut self) {
        while self.crowd.gateway.shard.driver_mut().receive_in_use() < BUFFERS {
            let Some(Arrived { source, datagrams }) = self.kernel.pop_front() else { return };
            self.kernel_packets -= datagrams.len();
            let source = &self.sources[source];
            let gateway = &mut self.crowd.gateway;
            match source.way {
                Way::ToExit => {
                    let home: SocketAddr = self.crowd.clients[source.client].address;
                    gateway.deliver(&datagrams, home, gateway.ip(), Ecn::default());
                }
                Way::ToClient => {
                    let driver = gateway.shard.driver_mut();
                    datagrams.iter().for_each(|packet| driver.inject_packet(packet));
                }
            }
        }
    }

    /// One turn, and the time it took.
    fn turn(&mut self) -> Duration {
        let counts = |gateway: &mut Gateway| {
            let counters = gateway.shard.counters_mut();
            let carried = counters.to_exit_packets + counters.to_client_packets;
            (carried, counters.drops.iter().sum::<u64>())
        };
        let before = counts(&mut self.crowd.gateway);
        self.crowd.gateway.turn();
        let after = counts(&mut self.crowd.gateway);
        let carried = (after.0 - before.0) as u32;
        let thrown = (after.1 - before.1) as u32;
        TURN + CARRY * carried + THROW * thrown
    }

    /// What left at the end of the turn.
    fn depart(&mut self) {
        let now = self.crowd.gateway.now;
        let written = std::mem::take(&mut self.crowd.gateway.written);
        let mut arrivals: Vec<(Way, IpAddr, u32)> = Vec::new();
        let number = |payload: &[u8]| u32::from_be_bytes(payload[..4].try_into().unwrap());
        for packet in &written {
            let from = IpAddr::from(<[u8; 4]>::try_from(&packet[22..26]).unwrap());
            // Packets that left merged have a payload after the other.
            for payload in packet[38..].chunks(BYTES - 28) {
                arrivals.push((Way::ToExit, from, number(payload)));
            }
        }
        for sent in std::mem::take(&mut self.crowd.gateway.shard.driver_mut().sent) {
            let client = self.crowd.clients.iter_mut().find(|client| client.address == sent.to);
            let client = client.unwrap();
            client.receive(&sent.bytes, now);
            for packet in client.received.drain(..) {
                let to = IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap());
                arrivals.push((Way::ToClient, to, number(&packet[28..])));
            }
        }
        for (way, home, number) in arrivals {
            let source = self.sources.iter_mut();
            let mut source = source.filter(|source| inner(source.client) == home);
            let source = source.find(|source| source.way == way).unwrap();
            assert!(number > source.sent - source.due.len() as u32, "order is kept");
            // What was lost before it never arrives.
            let first = source.sent - source.due.len() as u32 + 1;
            let gone = (number - first) as usize;
            source.due.drain(..gone);
            let sent_at = source.due.pop_front().unwrap();
            source.arrived += 1;
            source.slowest = source.slowest.max(now.mono.since(sent_at));
        }
    }

    /// Time for the longest turn by the limits: its units in packets of this size.
    fn turn_max(&self, merged: u64) -> Duration {
        let datagram = BYTES as u64 + 12 + 32 + PACKET_UNITS;
        let buffer = (datagram * merged).max(BUFFER_UNITS);
        let packets = (TURN_UNITS_MAX / buffer + 1) * merged;
        TURN + CARRY * packets as u32 + THROW * (BUFFERS as u32 * merged as u32)
    }

    /// An overload begins, which might have been a burst: honest sources lose nothing and wait
    /// until the core has lost its patience. Then they wait for three turns at the most.
    fn run_and_check(&mut self, honest: impl Fn(&Source) -> bool, turn_max: Duration) {
        self.run(Duration::from_millis(80));
        let patience = turn_max * 16;
        for source in self.sources.iter_mut().filter(|source| honest(source)) {
            assert!(source.slowest <= patience, "{:?}", source.slowest);
            source.slowest = Duration::ZERO;
        }
        self.run(Duration::from_millis(80));
        assert_eq!(self.kernel_lost, 0, "the kernel held all");
        assert!(self.longest_turn <= turn_max, "{:?} > {turn_max:?}", self.longest_turn);
        for source in self.sources.iter().filter(|source| honest(source)) {
            let under_way = source.sent - source.arrived;
            assert!(source.arrived > 10 && under_way <= 8, "{under_way} of {}", source.sent);
            let name = inner(source.client);
            assert!(source.slowest <= turn_max * 3, "{name}: {:?}", source.slowest);
        }
    }

    fn over_share(&mut self) -> u64 {
        self.crowd.gateway.drops(DropReason::OverShare)
    }
}

/// Clients with 500 packets a second in each direction.
fn honest(clients: std::ops::Range<usize>) -> Vec<Source> {
    let ways = [Way::ToExit, Way::ToClient];
    clients.flat_map(|client| ways.map(|way| Source::new(client, way, 500, 1))).collect()
}

#[test]
fn one_who_floods_harms_only_himself_in_either_direction_merged_or_not() {
    for way in [Way::ToExit, Way::ToClient] {
        for merged in [1, 16] {
            let merged = if way == Way::ToClient { 1 } else { merged };
            let mut sources = vec![Source::new(0, way, 300_000, merged)];
            sources.extend(honest(1..9));
            let mut model = Model::new(9, sources);
            let bound = model.turn_max(merged as u64);
            model.run_and_check(|source| source.client != 0, bound);
            assert!(model.over_share() > 1_000);
            let flooder = &model.sources[0];
            let carried = f64::from(flooder.arrived) / 0.16 / 100_000.0;
            assert!(carried > 0.7, "what nobody wants is his: {carried} of the core");
        }
    }
}

#[test]
fn a_flood_behind_something_that_nobody_can_open_is_on_its_senders_account() {
    let mut sources = vec![Source::new(0, Way::ToExit, 300_000, 16)];
    sources[0].disguised = true;
    sources.extend(honest(1..9));
    let mut model = Model::new(9, sources);
    let bound = model.turn_max(17);
    model.run_and_check(|source| source.client != 0, bound);
    assert!(model.over_share() > 1_000);
}

#[test]
fn several_who_flood_share_what_is_left_and_harm_nobody_else() {
    let mut sources: Vec<_> =
        (0..5).map(|client| Source::new(client, Way::ToExit, 60_000, 1)).collect();
    sources.extend(honest(5..15));
    let mut model = Model::new(15, sources);
    let bound = model.turn_max(1);
    model.run_and_check(|source| source.client >= 5, bound);
    let arrived: Vec<_> = model.sources[..5].iter().map(|source| source.arrived).collect();
    let (least, most) = (arrived.iter().min().unwrap(), arrived.iter().max().unwrap());
    assert!(most * 2 < least * 3, "{arrived:?}");
}

#[test]
fn a_burst_below_the_share_passes_a_flood() {
    let mut sources = vec![Source::new(0, Way::ToExit, 300_000, 1)];
    // Twenty at once, a hundred times a second.
    sources.push(Source::new(1, Way::ToExit, 2_000, 20));
    let mut model = Model::new(2, sources);
    model.run(Duration::from_millis(80));
    model.sources[1].slowest = Duration::ZERO;
    model.run(Duration::from_millis(120));
    let bound = model.turn_max(1);
    assert_eq!(model.kernel_lost, 0);
    let burst = &model.sources[1];
    assert!(burst.sent - burst.arrived <= 20, "{} of {}", burst.arrived, burst.sent);
    assert!(burst.slowest <= bound * 3, "{:?}", burst.slowest);
}

#[test]
fn a_core_that_can_do_what_it_is_asked_drops_nothing() {
    let mut sources = vec![Source::new(0, Way::ToExit, 60_000, 16)];
    sources.push(Source::new(1, Way::ToClient, 20_000, 1));
    sources.extend(honest(2..6));
    let mut model = Model::new(6, sources);
    model.run(Duration::from_millis(100));
    assert_eq!(model.crowd.gateway.all_drops(), 0);
    assert_eq!(model.kernel_lost, 0);
}

#[test]
fn a_download_that_fills_the_core_alone_queues_before_it_loses() {
    // Thirty buffers of 16 come at once, and the next ones when they are done.
    let mut sources = vec![Source::new(0, Way::ToExit, 80_000, 480)];
    sources[0].merged = 16;
    let mut model = Model::new(1, sources);
    for _ in 0..20 {
        for _ in 0..30 {
            let source = &mut model.sources[0];
            source.next = model.crowd.gateway.now.mono;
            model.arrive();
        }
        model.sources[0].next = Instant::from_nanos(u64::MAX);
        model.run(Duration::from_millis(6));
    }
    assert_eq!(model.crowd.gateway.all_drops(), 0);
    assert_eq!(model.sources[0].arrived, model.sources[0].sent);
}

#[test]
fn forgeries_from_elsewhere_are_not_on_the_account_of_the_session_they_name() {
    let mut model = Model::new(2, vec![Source::new(1, Way::ToExit, 1_000, 1)]);
    let home = model.crowd.clients[1].address;
    let from = SocketAddr::new([198, 18, 0, 1].into(), 1);
    let payload = vec![1; BYTES - 28];
    let now = model.crowd.gateway.now;
    let mut forged = model.crowd.clients[1].send(&udp(inner(1), BEYOND, &payload), now).remove(0);
    forged[500] ^= 1;
    model.run(Duration::from_millis(1));
    for _ in 0..100 {
        let gateway = &mut model.crowd.gateway;
        while gateway.shard.driver_mut().receive_in_use() < BUFFERS - 8 {
            gateway.deliver(&vec![forged.clone(); 8], from, gateway.ip(), Ecn::default());
        }
        model.run(Duration::from_millis(2));
    }
    assert!(model.over_share() > 1_000);
    let source = &model.sources[0];
    assert!(source.sent - source.arrived <= 4, "{} of {}", source.arrived, source.sent);
    let known = model.crowd.clients[1].public();
    let peers = model.crowd.gateway.peers();
    let peer = peers.iter().find(|peer| peer.public == known).unwrap();
    assert_eq!(peer.endpoint, Some(home));
}

#[test]
fn a_client_that_roams_is_heard_through_a_flood_of_forgeries() {
    let mut model = Model::new(2, vec![Source::new(1, Way::ToExit, 1_000, 1)]);
    let from = SocketAddr::new([198, 18, 0, 1].into(), 1);
    let now = model.crowd.gateway.now;
    let own = udp(inner(0), BEYOND, &vec![1; BYTES - 28]);
    let mut forged = model.crowd.clients[0].send(&own, now).remove(0);
    forged[500] ^= 1;
    let flood = |model: &mut Model| {
        let gateway = &mut model.crowd.gateway;
        while gateway.shard.driver_mut().receive_in_use() < BUFFERS - 8 {
            gateway.deliver(&vec![forged.clone(); 8], from, gateway.ip(), Ecn::default());
        }
        model.run(Duration::from_nanos(1));
    };
    for round in 0..1_600_u16 {
        if round % 400 == 100 {
            let home = SocketAddr::new([203, 0, 114, (round / 100) as u8].into(), 4_000);
            model.crowd.clients[1].address = home;
        }
        flood(&mut model);
    }
    assert!(model.over_share() > 1_000);
    let source = &model.sources[0];
    assert!(source.sent - source.arrived <= 4, "{} of {}", source.arrived, source.sent);
}

/// Two sessions, one of which floods until the other's core has no patience left: its turns are
/// short, and all places of what waits are taken.
fn pressed() -> Crowd {
    let pools = Pools { receive: 400, transmit: 64, tun: 512 };
    let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut crowd = Crowd::connected_to(Gateway::with(setup), 2);
    let now = crowd.gateway.now;
    for _ in 0..40 {
        for (client, merged, buffers) in [(1, 1, 1), (0, 16, 80)] {
            let packet = udp(inner(client), BEYOND, &[7; BYTES - 28]);
            for _ in 0..buffers {
                let home = &mut crowd.clients[client];
                let sealed: Vec<_> = (0..merged).flat_map(|_| home.send(&packet, now)).collect();
                let (from, to) = (home.address, crowd.gateway.ip());
                crowd.gateway.deliver(&sealed, from, to, Ecn::default());
            }
        }
        crowd.gateway.turn();
    }
    assert!(crowd.gateway.drops(DropReason::OverShare) > 1_000);
    assert!(!crowd.gateway.shard.driver_mut().has_received());
    crowd
}

#[test]
fn what_waits_is_carried_through_a_flood_of_what_nobody_can_open() {
    let mut crowd = pressed();
    let before = crowd.gateway.shard.counters_mut().to_exit_packets;
    let from = SocketAddr::new([198, 18, 0, 1].into(), 1);
    let mut junk = vec![4; 64];
    for round in 0..100_u32 {
        for number in 0..180 {
            junk[1..4].fill(0);
            junk[4..8].copy_from_slice(&(round * 180 + number).to_le_bytes());
            let to = crowd.gateway.ip();
            crowd.gateway.deliver(&[junk.clone()], from, to, Ecn::default());
        }
        crowd.gateway.turn();
    }
    let after = crowd.gateway.shard.counters_mut().to_exit_packets;
    assert!(after - before >= 16 * 20, "{}", after - before);
}

#[test]
fn a_pause_while_pressed_loses_nothing() {
    let mut crowd = pressed();
    let now = crowd.gateway.now;
    let packet = udp(inner(0), BEYOND, &[7; BYTES - 28]);
    for _ in 0..200 {
        let home = &mut crowd.clients[0];
        let sealed: Vec<_> = (0..16).flat_map(|_| home.send(&packet, now)).collect();
        let (from, to) = (home.address, crowd.gateway.ip());
        crowd.gateway.deliver(&sealed, from, to, Ecn::default());
    }
    let before = crowd.gateway.all_drops();
    let carried = crowd.gateway.shard.counters_mut().to_exit_packets;
    crowd.gateway.command(Command::Pause(Pending::default()));
    assert_eq!(crowd.gateway.all_drops(), before);
    let carried = crowd.gateway.shard.counters_mut().to_exit_packets - carried;
    assert!(carried >= 16 * (200 + 20), "{carried}");
    assert!(crowd.gateway.shard.driver_mut().at_rest());
}

/// A flood of a client, in one turn, while others use the core: strangers do.
pub(crate) fn over_share() -> Pair {
    let pools = Pools { receive: 360, tun: 256, ..Pools::default() };
    let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
    let mut pair = Pair::new(setup, Families::V4);
    pair.connect();
    for number in 0..310 {
        let sealed: Vec<_> = (0..16)
            .flat_map(|_| pair.client.send(&pair.to_exit(&[7; 1_000]), pair.now()))
            .collect();
        pair.gateway.deliver(&sealed, pair.client.address, pair.gateway.ip(), Ecn::default());
        if number % 8 == 0 {
            let mut forged = sealed[0].clone();
            *forged.last_mut().unwrap() ^= 1;
            let elsewhere = "198.51.100.7:4000".parse().unwrap();
            pair.gateway.deliver(&[forged], elsewhere, pair.gateway.ip(), Ecn::default());
        }
    }
    pair.gateway.run();
    pair
}

#[test]
fn a_session_that_fills_the_core_alone_is_left_alone_until_another_one_speaks() {
    let mut model = Model::new(2, vec![Source::new(0, Way::ToExit, 300_000, 1)]);
    model.run(Duration::from_millis(400));
    let before = model.over_share();
    model.run(Duration::from_millis(100));
    assert_eq!(model.over_share(), before, "what is too much waits in the kernel");
    let mut another = Source::new(1, Way::ToExit, 1_000, 1);
    another.next = model.crowd.gateway.now.mono;
    model.sources.push(another);
    model.run(Duration::from_millis(200));
    let first = model.sources[1].slowest;
    assert!(first < CARRY * (SOCKET_MAX + 1_000) as u32, "{first:?}");
    // Some of its first packets found the kernel's buffers full; no later one does.
    let missing = |source: &Source| source.sent - source.arrived;
    let missing_before = missing(&model.sources[1]);
    model.sources[1].slowest = Duration::ZERO;
    model.kernel_lost = 0;
    model.run(Duration::from_millis(100));
    let (source, bound) = (&model.sources[1], model.turn_max(1));
    assert_eq!(model.kernel_lost, 0);
    assert!(missing(source) <= missing_before + 4, "{missing_before}, {}", missing(source));
    assert!(source.slowest <= bound * 2, "{:?}", source.slowest);
    assert!(model.over_share() > before);
}
