//! What arrives at a core that does not own it: it crosses once, whole and in order, within bounds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringway_dataplane::Command;
use ringway_dataplane::command::RouteChange;
use ringway_dataplane::crossing::PARCELS;
use ringway_proto::limits::{PACKET_UNITS, TURN_UNITS_MAX};
use ringway_proto::{CoreId, DropReason};
use ringway_ring::Ecn;
use ringway_tests::client::Client;
use ringway_tests::cluster::{Cluster, Steering};
use ringway_tests::driver::{Pools, Sent};
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::packets::{TcpPacket, udp4};

const SEED: u64 = 7;
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn inside(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 2)
}

/// A client that nobody has configured.
fn stranger(seed: u64) -> Client {
    Client::new(seed, Gateway::public_of(SEED), at("203.0.113.5:40000"), [0; 32])
}

/// A gateway of several cores with one client of each core, all behind one address.
struct Crowd {
    cluster: Cluster,
    clients: Vec<Client>,
}

impl Crowd {
    fn new(cores: u16) -> Self {
        Self::owned_by(cores, 0..cores)
    }

    /// With a client of each of these cores.
    fn owned_by(cores: u16, owners: impl IntoIterator<Item = u16>) -> Self {
        let setup = Setup {
            pools: Pools { receive: 256, transmit: 256, ..Pools::default() },
            ..Setup::new(SEED, at("198.51.100.1:51820"))
        };
        let mut cluster = Cluster::new(&setup, cores, Steering::Right);
        let mut strangers = (100..).map(stranger);
        let owned_by = |core| {
            strangers.find(|client| cluster.owner(&client.public()) == CoreId(core)).expect("one")
        };
        let clients: Vec<_> = owners.into_iter().map(owned_by).collect();
        for (number, client) in clients.iter().enumerate() {
            let net = format!("{}/32", inside(number));
            cluster.put_peer(change_of(client.public(), &[&net]));
        }
        Self { cluster, clients }
    }

    fn connected(cores: u16) -> Self {
        Self::new(cores).connect()
    }

    fn connect(mut self) -> Self {
        for number in 0..self.clients.len() {
            let datagrams = self.sealed(number, b"hello");
            self.talk(number, 0, datagrams);
            assert!(self.clients[number].ready(self.cluster.now));
        }
        self.cluster.written.clear();
        self
    }

    /// A packet of a client, in datagrams.
    fn sealed(&mut self, number: usize, payload: &[u8]) -> Vec<Vec<u8>> {
        let packet = udp4(inside(number), BEYOND, payload);
        self.clients[number].send(&packet, self.cluster.now)
    }

    /// Datagrams that arrived together reach one core; they are not looked at yet.
    fn deliver(&mut self, core: u16, datagrams: &[Vec<u8>]) {
        let to = at("198.51.100.1:51820").ip();
        let from = self.clients[0].address;
        self.cluster.at(CoreId(core)).deliver(datagrams, from, to, Ecn::default());
    }

    /// One client talks to one core until both have nothing more to say.
    fn talk(&mut self, number: usize, core: u16, mut out: Vec<Vec<u8>>) {
        while !out.is_empty() {
            for datagram in out {
                self.deliver(core, &[datagram]);
            }
            let sent = self.cluster.run();
            out = self.answer(number, &sent);
        }
    }

    fn answer(&mut self, number: usize, sent: &[Sent]) -> Vec<Vec<u8>> {
        let now = self.cluster.now;
        let client = &mut self.clients[number];
        sent.iter().flat_map(|datagram| client.receive(&datagram.bytes, now)).collect()
    }

    fn counted(&mut self, core: u16) -> &mut ringway_dataplane::counters::Counters {
        self.cluster.shards[usize::from(core)].shard.counters_mut()
    }
}

/// The payload of a UDP packet that was written to the TUN alone.
fn payload(written: &[u8]) -> &[u8] {
    &written[10 + 28..]
}

#[test]
fn a_handshake_on_any_core_is_answered_by_the_owner() {
    for core in 0..4 {
        let mut crowd = Crowd::new(4);
        let initiation = crowd.sealed(2, b"hello");
        assert_eq!(initiation.len(), 1);
        crowd.deliver(core, &initiation);
        let sent = crowd.cluster.run();
        let crossed = u64::from(core != 2);
        assert_eq!(crowd.counted(core).crossed_out_handshakes, crossed);
        assert_eq!(crowd.counted(2).crossed_in_handshakes, crossed);
        assert_eq!(crowd.counted(2).handshakes_completed_responder, 1);
        let data = crowd.answer(2, &sent);
        crowd.talk(2, core, data);
        assert_eq!(payload(&crowd.cluster.written[0]), b"hello");
        let used: Vec<_> =
            crowd.cluster.shards.iter().map(|shard| shard.shard.indices().used()).collect();
        assert_eq!(used.iter().filter(|used| **used > 0).count(), 1, "{used:?}");
        assert!(used[2] > 0);
    }
}

#[test]
fn a_handshake_that_the_gateway_begins_is_finished_on_any_core() {
    let mut crowd = Crowd::new(2);
    let endpoint = Some(crowd.clients[1].address);
    let change = change_of(crowd.clients[1].public(), &[]);
    crowd.cluster.put_peer(ringway_dataplane::PeerChange { endpoint, ..change });
    crowd.cluster.inject_packet(&udp4(BEYOND, inside(1), b"anybody?"));
    let sent = crowd.cluster.run();
    assert_eq!(sent.len(), 1, "an initiation");
    let response = crowd.answer(1, &sent);
    // Another core gets the response.
    crowd.deliver(0, &response);
    let sent = crowd.cluster.run();
    crowd.answer(1, &sent);
    assert_eq!(crowd.clients[1].received, [udp4(BEYOND, inside(1), b"anybody?")]);
    assert_eq!(crowd.counted(0).crossed_out_handshakes, 1);
    assert_eq!(crowd.counted(1).handshakes_completed_initiator, 1);
}

#[test]
fn each_run_of_a_merged_buffer_goes_to_its_own_core_in_order() {
    let mut crowd = Crowd::connected(4);
    let mut datagrams = Vec::new();
    for round in 0..3_u8 {
        for number in 0..4 {
            for packet in 0..4 {
                datagrams.extend(crowd.sealed(number, &[number as u8, round, packet, 0]));
            }
        }
    }
    crowd.deliver(1, &datagrams);
    crowd.cluster.run();
    let mut last = [None; 4];
    for written in std::mem::take(&mut crowd.cluster.written) {
        // Merged or not: four bytes for each packet.
        for one in payload(&written).chunks(4) {
            let place = Some((one[1], one[2]));
            let last = &mut last[usize::from(one[0])];
            assert!(place > *last, "{place:?} after {last:?}");
            *last = place;
        }
    }
    assert_eq!(last, [Some((2, 3)); 4]);
    assert_eq!(crowd.counted(1).crossed_out_datagrams, 3 * 3 * 4);
    for core in 0..4 {
        assert_eq!(crowd.counted(core).to_exit_packets, 1 + 3 * 4);
    }
}

#[test]
fn what_crossed_and_what_did_not_is_told_apart_in_one_write() {
    // Buffers of both arenas have the same numbers: a super-packet refers to both.
    let mut crowd = Crowd::connected(2);
    let segment = |sequence: u32, byte: u8| {
        let path = (IpAddr::from(inside(1)), IpAddr::from(BEYOND));
        TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &[byte; 500] }.build()
    };
    let now = crowd.cluster.now;
    let first = crowd.clients[1].send(&segment(1, 1), now);
    let second = crowd.clients[1].send(&segment(501, 2), now);
    crowd.deliver(0, &first);
    crowd.cluster.at(CoreId(0)).turn();
    crowd.deliver(1, &second);
    crowd.cluster.run();
    assert_eq!(crowd.cluster.written.len(), 1, "merged");
    let written = &crowd.cluster.written[0];
    assert_eq!(written[10 + 40..], [[1; 500], [2; 500]].concat());
}

#[test]
fn a_super_packet_of_the_tun_crosses_whole() {
    let mut crowd = Crowd::connected(2);
    let path = (IpAddr::from(BEYOND), IpAddr::from(inside(1)));
    let payload: Vec<u8> = (0..40 * 1_300_u32).map(|at| (at / 1_300) as u8).collect();
    let segment = TcpPacket { path, sequence: 1, flags: 0x10, options: &[], payload: &payload };
    let shard = crowd.cluster.at(CoreId(0));
    shard.shard.driver_mut().inject_inside(&segment.build_super(1_300));
    let sent = crowd.cluster.run();
    crowd.answer(1, &sent);
    let received = std::mem::take(&mut crowd.clients[1].received);
    assert_eq!(received.len(), 40);
    assert!((0..).zip(&received).all(|(at, packet)| packet[40..] == [at; 1_300]));
    assert_eq!(crowd.counted(0).crossed_out_packets, 1);
    assert_eq!(crowd.counted(1).crossed_in_packets, 1);
    assert!(crowd.cluster.at_rest());
}

#[test]
fn without_room_it_is_dropped_and_counted_and_everything_comes_home() {
    let mut crowd = Crowd::connected(2);
    let before = crowd.cluster.sum(|counters| counters.to_exit_packets);
    for round in 0..3 {
        // One parcel per turn, and the owner does nothing. An eighth is left to handshakes.
        let (extra, room) = (10, PARCELS - PARCELS / 8);
        for number in 0..room + extra {
            let datagrams = crowd.sealed(1, &number.to_le_bytes());
            crowd.deliver(0, &datagrams);
            crowd.cluster.at(CoreId(0)).turn();
        }
        let lost = crowd.cluster.drops(DropReason::CrossingFull);
        assert_eq!(lost, (round + 1) * extra as u64);
        crowd.cluster.run();
        let carried = crowd.cluster.sum(|counters| counters.to_exit_packets) - before;
        assert_eq!(carried, (round + 1) * room as u64);
    }
}

#[test]
fn what_crosses_has_its_share_of_an_overloaded_core() {
    let mut crowd = Crowd::owned_by(2, [0, 1, 1]).connect();
    let mut most = 0;
    for round in 0..80 {
        for _ in 0..40 {
            let flood: Vec<_> = (0..16).flat_map(|_| crowd.sealed(1, &[7; 1_000])).collect();
            crowd.deliver(0, &flood);
        }
        crowd.cluster.at(CoreId(0)).turn();
        let honest = crowd.sealed(2, b"honest");
        crowd.deliver(1, &honest);
        let before = crowd.counted(1).to_exit_packets;
        crowd.cluster.at(CoreId(1)).turn();
        if round > 60 {
            most = most.max(crowd.counted(1).to_exit_packets - before);
        }
    }
    // Half of a turn, and one parcel.
    assert!(most <= TURN_UNITS_MAX / 2 / (1_060 + PACKET_UNITS) + 3 * 16, "{most}");
    assert!(crowd.counted(1).drops[DropReason::OverShare as usize] > 1_000);
    let written = &crowd.cluster.shards[1].written;
    // Headers, and as many payloads as left together.
    let honest = written.iter().filter(|packet| payload(packet).starts_with(b"honest"));
    let arrived: usize = honest.map(|packet| payload(packet).len() / b"honest".len()).sum();
    assert!(arrived >= 78, "{arrived}");
}

#[test]
fn a_burst_that_crosses_queues_before_it_loses() {
    let mut crowd = Crowd::connected(2);
    for _ in 0..3 {
        for _ in 0..20 {
            let flood: Vec<_> = (0..16).flat_map(|_| crowd.sealed(1, &[7; 1_000])).collect();
            crowd.deliver(0, &flood);
            crowd.cluster.at(CoreId(0)).turn();
        }
        crowd.cluster.at(CoreId(1)).turn();
    }
    assert!(crowd.cluster.at(CoreId(1)).shard.has_arrivals(), "more than it carries");
    crowd.cluster.run();
    assert_eq!(crowd.cluster.drops(DropReason::OverShare), 0);
    assert_eq!(crowd.counted(1).to_exit_packets, 3 * 20 * 16 + 1);
    assert!(crowd.counted(1).turns_pressed > 0);
}

#[test]
fn a_slow_core_keeps_half_of_the_room_at_most() {
    let mut crowd = Crowd::connected(3);
    for number in 0..PARCELS {
        let datagrams = crowd.sealed(1, &number.to_le_bytes());
        crowd.deliver(0, &datagrams);
        crowd.cluster.at(CoreId(0)).turn();
    }
    assert_eq!(crowd.cluster.drops(DropReason::CrossingFull), PARCELS as u64 / 2);
    let datagrams = crowd.sealed(2, b"data");
    crowd.deliver(0, &datagrams);
    crowd.cluster.run();
    let written = &crowd.cluster.written;
    assert!(written.iter().any(|packet| payload(packet) == b"data"));
    assert_eq!(crowd.cluster.drops(DropReason::CrossingFull), PARCELS as u64 / 2);
}

#[test]
fn data_leaves_an_eighth_of_the_room_to_handshakes() {
    let mut crowd = Crowd::connected(2);
    for number in 0..PARCELS {
        let datagrams = crowd.sealed(1, &number.to_le_bytes());
        crowd.deliver(0, &datagrams);
        crowd.cluster.at(CoreId(0)).turn();
    }
    let lost = crowd.cluster.drops(DropReason::CrossingFull);
    assert_eq!(lost, PARCELS as u64 / 8);
    let mut strangers = (1_000..).map(stranger);
    let public = |stranger: &Client| crowd.cluster.owner(&stranger.public()) == CoreId(1);
    let mut stranger = strangers.find(public).expect("one");
    let initiation = stranger.send(&[0; 20], crowd.cluster.now);
    crowd.deliver(0, &initiation);
    crowd.cluster.run();
    assert_eq!(crowd.cluster.drops(DropReason::CrossingFull), lost);
    assert_eq!(crowd.cluster.drops(DropReason::HandshakePeerUnknown), 1);
}

#[test]
fn the_longest_packet_of_the_tun_crosses() {
    let mut crowd = Crowd::connected(2);
    let path = (IpAddr::from(BEYOND), IpAddr::from(inside(1)));
    let payload = vec![1; 65_535 - 40];
    let segment = TcpPacket { path, sequence: 1, flags: 0x10, options: &[], payload: &payload };
    let shard = crowd.cluster.at(CoreId(0));
    shard.shard.driver_mut().inject_inside(&segment.build_super(1_300));
    let sent = crowd.cluster.run();
    crowd.answer(1, &sent);
    let received: usize = crowd.clients[1].received.iter().map(|packet| packet.len() - 40).sum();
    assert_eq!(received, payload.len());
    assert_eq!(crowd.counted(0).crossed_out_packets, 1);
}

#[test]
fn handshakes_leave_half_of_the_room_to_data() {
    let mut crowd = Crowd::connected(2);
    // Strangers whose keys belong to the other core; each has to begin a parcel of its own.
    let strangers = (1_000..).map(stranger);
    let strangers: Vec<_> = strangers
        .filter(|stranger| crowd.cluster.owner(&stranger.public()) == CoreId(1))
        .take(PARCELS)
        .collect();
    for mut stranger in strangers {
        let initiation = stranger.send(&[0; 20], crowd.cluster.now);
        crowd.deliver(0, &initiation);
        crowd.cluster.at(CoreId(0)).turn();
    }
    assert_eq!(crowd.cluster.drops(DropReason::CrossingFull), PARCELS as u64 / 2);
    assert_eq!(crowd.counted(0).crossed_out_handshakes, 1 + PARCELS as u64 / 2);
    let datagrams = crowd.sealed(1, b"data");
    crowd.deliver(0, &datagrams);
    crowd.cluster.run();
    assert_eq!(payload(&crowd.cluster.written[0]), b"data");
    assert_eq!(crowd.cluster.drops(DropReason::HandshakePeerUnknown), PARCELS as u64 / 2);
}

#[test]
fn what_crossed_is_never_handed_on() {
    let mut crowd = Crowd::connected(3);
    // Two cores were told different things of a prefix.
    let net = "10.9.9.9/32".parse().expect("a prefix");
    for (core, owner) in [(0, 1), (1, 2)] {
        let change = RouteChange { net, core: Some(CoreId(owner)) };
        crowd.cluster.at(CoreId(core)).command(Command::PutRoutes(Box::new(vec![change])));
    }
    let lost = udp4(BEYOND, Ipv4Addr::new(10, 9, 9, 9), b"whose am I?");
    crowd.cluster.at(CoreId(0)).shard.driver_mut().inject_packet(&lost);
    crowd.cluster.at(CoreId(0)).turn();
    crowd.cluster.at(CoreId(1)).turn();
    assert_eq!(crowd.cluster.drops(DropReason::CrossedTwice), 1);
    assert_eq!(crowd.counted(1).crossed_out_packets, 0);
    assert_eq!(crowd.counted(2).crossed_in_packets, 0);
}

#[test]
fn an_index_that_no_core_can_have_handed_out_goes_nowhere() {
    let mut crowd = Crowd::connected(3);
    let before = crowd.counted(0).crossed_out_datagrams;
    // A quarter of all indices names a fourth core.
    for number in 0..64_u32 {
        let mut datagram = vec![4, 0, 0, 0];
        datagram.extend((number << 26).to_le_bytes());
        datagram.resize(64, 0);
        crowd.deliver(0, &[datagram]);
    }
    crowd.cluster.run();
    assert_eq!(crowd.counted(0).crossed_out_datagrams - before, 32);
    assert_eq!(crowd.cluster.drops(DropReason::IndexUnknown), 64);
}

#[test]
fn a_core_that_has_ended_holds_nobody_back() {
    let mut crowd = Crowd::connected(2);
    let gone = crowd.cluster.shards.pop();
    drop(gone);
    let now = crowd.cluster.now;
    for number in 0..3 * PARCELS {
        let datagrams = crowd.clients[1].send(&udp4(inside(1), BEYOND, &number.to_le_bytes()), now);
        let home = crowd.clients[1].address;
        let shard = &mut crowd.cluster.shards[0];
        shard.receive(&datagrams, home);
    }
    assert_eq!(crowd.counted(0).drops[DropReason::CrossingFull as usize], 3 * PARCELS as u64);
}

#[test]
fn a_prefix_that_moves_between_cores_is_followed() {
    let mut crowd = Crowd::connected(2);
    let [first, second] = [0, 1].map(|number| crowd.clients[number].public());
    for (taker, number) in [(second, 1), (first, 0), (second, 1)] {
        crowd.cluster.put_peer(change_of(taker, &["10.7.7.7/32"]));
        for core in 0..2 {
            let packet = udp4(BEYOND, Ipv4Addr::new(10, 7, 7, 7), &[number as u8, core]);
            crowd.cluster.at(CoreId(core.into())).shard.driver_mut().inject_packet(&packet);
            let sent = crowd.cluster.run();
            crowd.answer(number, &sent);
            assert_eq!(crowd.clients[number].received.pop(), Some(packet));
        }
    }
    crowd.cluster.remove_peer(&second);
    let packet = udp4(BEYOND, Ipv4Addr::new(10, 7, 7, 7), b"gone");
    crowd.cluster.at(CoreId(0)).shard.driver_mut().inject_packet(&packet);
    crowd.cluster.run();
    assert_eq!(crowd.cluster.drops(DropReason::InsideNoPeer), 1);
}
