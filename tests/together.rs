//! Datagrams of many sessions that came one by one: opened together, sealed together, and each
//! treated as if it had been alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::counters::{Counters, Histogram};
use ringway_proto::DropReason;
use ringway_proto::wireguard::messages::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES};
use ringway_ring::Ecn;
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::Gateway;
use ringway_tests::packets::udp4;

const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn inside(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 2).to_bits() + number as u32)
}

struct Crowd {
    gateway: Gateway,
    clients: Vec<Client>,
}

impl Crowd {
    /// So many clients, of which each has a session that is used.
    fn new(count: usize) -> Self {
        let address: SocketAddr = "198.51.100.1:51820".parse().expect("an address");
        let pools = Pools { receive: 256, transmit: 256, tun: 256 };
        let mut gateway = Gateway::new(7, address, pools);
        let key = Gateway::public_of(7);
        let mut clients = Vec::new();
        for number in 0..count {
            let from = SocketAddr::from(([203, 0, 113, 5], 40_000 + number as u16));
            let client = Client::new(1_000 + number as u64, key, from, [0; 32]);
            gateway.add_peer(client.public(), &[&format!("{}/32", inside(number))]);
            clients.push(client);
        }
        let mut crowd = Self { gateway, clients };
        for number in 0..count {
            crowd.connect(number);
        }
        crowd.gateway.written.clear();
        crowd
    }

    fn connect(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let mut waiting = client.send(&udp4(inside(number), BEYOND, b"first"), self.gateway.now);
        while !waiting.is_empty() {
            let answers = self.gateway.receive(&waiting, client.address);
            let now = self.gateway.now;
            waiting = answers.iter().flat_map(|sent| client.receive(&sent.bytes, now)).collect();
        }
    }

    /// What a client would send.
    fn sealed(&mut self, number: usize, payload: &[u8]) -> Vec<u8> {
        let packet = udp4(inside(number), BEYOND, payload);
        let mut datagrams = self.clients[number].send(&packet, self.gateway.now);
        datagrams.pop().expect("a session")
    }

    /// Delivers datagrams each by itself, to be looked at in one turn.
    fn deliver(&mut self, number: usize, datagrams: &[Vec<u8>]) {
        let (from, to) = (self.clients[number].address, self.gateway.ip());
        self.gateway.deliver(datagrams, from, to, Ecn::default());
    }

    /// What reached the TUN since it was asked last: the number in the source, and the payload.
    fn arrived(&mut self) -> Vec<(usize, Vec<u8>)> {
        let first = inside(0).to_bits();
        let packets = std::mem::take(&mut self.gateway.written).into_iter().map(|packet| {
            let packet = &packet[VNET_HEADER_BYTES..];
            let source = u32::from_be_bytes(packet[12..16].try_into().expect("an address"));
            ((source - first) as usize, packet[28..].to_vec())
        });
        packets.collect()
    }

    /// A new handshake of a client, without what it says first under the new key: that is returned.
    fn renew(&mut self, number: usize) -> Vec<u8> {
        self.gateway.advance(Duration::from_secs(6));
        let initiation = self.initiation(number);
        let address = self.clients[number].address;
        let answers = self.gateway.receive(&[initiation], address);
        let now = self.gateway.now;
        let mut said = self.clients[number].receive(&answers[0].bytes, now);
        assert_eq!(said.len(), 1);
        said.remove(0)
    }

    fn initiation(&mut self, number: usize) -> Vec<u8> {
        let now = self.gateway.now;
        self.clients[number].tunnel().want_handshake(now);
        let initiation = self.clients[number].output(now).pop().expect("an initiation");
        assert_eq!(initiation[0], 1);
        initiation
    }

    fn counters(&mut self) -> &mut Counters {
        self.gateway.shard.counters_mut()
    }
}

/// What was done together at the most, down to a power of two.
fn largest(batches: &Histogram) -> u64 {
    1 << (batches.counts().iter().rposition(|count| *count > 0).expect("some") - 1)
}

fn payload(number: usize) -> Vec<u8> {
    // All remainders by 16 and by 64, and lone ones among equals.
    let len = [32, 32, 32, 1, 700, 32, 1360, 33][number % 8] + number / 8;
    vec![number as u8; len]
}

#[test]
fn lone_datagrams_of_many_sessions_all_arrive_in_their_order() {
    let mut crowd = Crowd::new(60);
    for round in 0..2 {
        for number in (0..60).map(|n| (n * 7 + round) % 60) {
            let datagram = crowd.sealed(number, &payload(number));
            crowd.deliver(number, &[datagram]);
        }
    }
    crowd.gateway.run();
    let arrived = crowd.arrived();
    let expected = (0..120).map(|n| ((n % 60) * 7 + n / 60) % 60);
    assert_eq!(arrived, expected.map(|n| (n, payload(n))).collect::<Vec<_>>());
    assert_eq!(crowd.gateway.all_drops(), 0);
    assert_eq!(largest(&crowd.counters().run_packets), 64);
}

#[test]
fn what_is_forged_or_repeated_costs_only_itself() {
    let mut crowd = Crowd::new(20);
    let mut expected = Vec::new();
    for number in 0..20 {
        let mut datagram = crowd.sealed(number, &payload(number));
        let genuine = datagram.clone();
        match number % 5 {
            0 => *datagram.last_mut().expect("a tag") ^= 1,
            1 => datagram[DATA_HEADER_BYTES + 3] ^= 0x80,
            // Under the counter of another message, and under another's index.
            2 => datagram[8] ^= 0x40,
            3 => {
                let other = crowd.sealed((number + 1) % 20, b"x");
                datagram[4..8].copy_from_slice(&other[4..8]);
            }
            _ => {}
        }
        crowd.deliver(number, &[datagram]);
        // Twice the same in one turn: the second is a replay.
        crowd.deliver(number, std::slice::from_ref(&genuine));
        crowd.deliver(number, &[genuine]);
        expected.push((number, payload(number)));
    }
    crowd.gateway.run();
    assert_eq!(crowd.arrived(), expected);
    assert_eq!(crowd.gateway.drops(DropReason::DataUndecryptable), 16);
    assert_eq!(crowd.gateway.drops(DropReason::DataReplayed), 20 + 4);
    assert_eq!(crowd.gateway.all_drops(), 16 + 24);
}

#[test]
fn who_forges_from_elsewhere_moves_nobody() {
    let mut crowd = Crowd::new(10);
    let endpoints = |crowd: &mut Crowd| -> Vec<_> {
        crowd.gateway.peers().iter().map(|peer| peer.endpoint).collect()
    };
    let at_home = endpoints(&mut crowd);
    for number in 0..10 {
        let mut forged = crowd.sealed(number, b"from elsewhere");
        forged[20] ^= 1;
        // Beside a genuine one from home, before it or behind.
        let genuine = crowd.sealed(number, b"from home");
        if number % 2 == 0 {
            crowd.deliver(number, std::slice::from_ref(&genuine));
        }
        crowd.deliver((number + 1) % 10, &[forged]);
        if number % 2 == 1 {
            crowd.deliver(number, &[genuine]);
        }
    }
    crowd.gateway.run();
    assert_eq!(crowd.arrived().len(), 10);
    assert_eq!(crowd.gateway.drops(DropReason::DataUndecryptable), 10);
    assert_eq!(endpoints(&mut crowd), at_home);
}

#[test]
fn a_client_that_moves_in_the_middle_is_followed_to_where_it_was_last() {
    let mut crowd = Crowd::new(4);
    for number in 0..4 {
        for step in 0..3 {
            crowd.clients[number].address.set_port(50_000 + 10 * number as u16 + step);
            let datagram = crowd.sealed(number, b"moving");
            crowd.deliver(number, &[datagram]);
        }
    }
    crowd.gateway.run();
    // Packets of one flow are merged again.
    let bytes: usize = crowd.arrived().iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(bytes, 4 * 3 * b"moving".len());
    let mut ports: Vec<u16> = crowd
        .gateway
        .peers()
        .iter()
        .filter_map(|peer| peer.endpoint.map(|endpoint| endpoint.port()))
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [50_002, 50_012, 50_022, 50_032]);
}

#[test]
fn an_initiation_among_them_costs_nothing_that_came_before() {
    let mut crowd = Crowd::new(3);
    let confirmations: Vec<Vec<u8>> = (0..3).map(|number| crowd.renew(number)).collect();
    crowd.gateway.advance(Duration::from_secs(6));
    let before = crowd.counters().keepalives_received;
    for (number, confirmation) in confirmations.into_iter().enumerate() {
        // Its answer ends the key that was not confirmed yet.
        let initiation = crowd.initiation(number);
        crowd.deliver(number, &[confirmation]);
        crowd.deliver(number, &[initiation]);
        let data = crowd.sealed(number, b"under the key before");
        crowd.deliver(number, &[data]);
    }
    let answers = crowd.gateway.run();
    assert_eq!(answers.iter().filter(|sent| sent.bytes[0] == 2).count(), 3);
    assert_eq!(crowd.counters().keepalives_received - before, 3);
    assert_eq!(crowd.arrived().len(), 3);
    assert_eq!(crowd.gateway.all_drops(), 0);
}

#[test]
fn datagrams_under_three_keys_of_a_session_are_told_apart() {
    for confirmed_first in [true, false] {
        let mut crowd = Crowd::new(2);
        // Ended by the answer to the second handshake.
        let oldest = crowd.sealed(0, b"oldest");
        let confirmation = crowd.renew(0);
        crowd.deliver(0, &[confirmation]);
        crowd.gateway.run();
        let middle = crowd.sealed(0, b"middle");
        let confirmation = crowd.renew(0);
        let newest = crowd.sealed(0, b"newest");
        let other = crowd.sealed(1, b"other");
        let mut turn = vec![(0, confirmation), (1, other), (0, oldest), (0, middle), (0, newest)];
        if !confirmed_first {
            turn.rotate_left(1);
            turn.swap(3, 4);
        }
        turn.into_iter().for_each(|(number, datagram)| crowd.deliver(number, &[datagram]));
        crowd.gateway.run();
        // Packets of one flow are merged again.
        let text: Vec<u8> = crowd.arrived().into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_eq!(String::from_utf8_lossy(&text), "othermiddlenewest", "{confirmed_first}");
        assert_eq!(crowd.gateway.drops(DropReason::IndexUnknown), 1);
        assert_eq!(crowd.gateway.all_drops(), 1);
    }
}

#[test]
fn strangers_do_not_part_what_is_opened_together() {
    let mut crowd = Crowd::new(60);
    for number in 0..60 {
        let datagram = crowd.sealed(number, b"genuine");
        crowd.deliver(number, &[datagram]);
        // Alone, and merged by the kernel.
        crowd.deliver(number, &vec![vec![0xff; 40]; 1 + number % 2]);
        let mut unknown = vec![0; 48];
        unknown[0] = 4;
        unknown[4..8].copy_from_slice(&(number as u32).to_le_bytes());
        crowd.deliver(number, &[unknown]);
    }
    crowd.gateway.run();
    assert_eq!(crowd.arrived().len(), 60);
    assert_eq!(crowd.gateway.all_drops(), 150);
    assert_eq!(largest(&crowd.counters().run_packets), 32, "120 or so buffers a turn");
}

#[test]
fn lone_packets_for_many_clients_are_sealed_together_and_each_reaches_its_own() {
    const CLIENTS: usize = 100;
    let mut crowd = Crowd::new(CLIENTS);
    for number in 0..CLIENTS {
        let packet = udp4(BEYOND, inside(number), &payload(number));
        crowd.gateway.shard.driver_mut().inject_packet(&packet);
    }
    // One that has several, of which the last is shorter.
    for len in [100, 100, 100, 50] {
        let packet = udp4(BEYOND, inside(7), &vec![7; len]);
        crowd.gateway.shard.driver_mut().inject_packet(&packet);
    }
    for sent in crowd.gateway.run() {
        assert!(sent.bytes.len() >= DATA_OVERHEAD_BYTES);
        let number = usize::from(sent.to.port() - 40_000);
        let now = crowd.gateway.now;
        crowd.clients[number].receive(&sent.bytes, now);
    }
    for (number, client) in crowd.clients.iter().enumerate() {
        let expected = udp4(BEYOND, inside(number), &payload(number));
        let several = if number == 7 { 4 } else { 0 };
        assert_eq!(client.received.len(), 1 + several);
        assert_eq!((client.refused, &client.received[0]), (0, &expected));
    }
    assert_eq!(largest(&crowd.counters().seal_packets), 64);
}

#[test]
fn a_packet_for_a_client_whose_first_datagram_waits_is_not_staged() {
    let mut crowd = Crowd::new(1);
    let confirmation = crowd.renew(0);
    crowd.deliver(0, &[confirmation]);
    let packet = udp4(BEYOND, inside(0), b"answer");
    crowd.gateway.shard.driver_mut().inject_packet(&packet);
    let sent = crowd.gateway.run();
    let now = crowd.gateway.now;
    sent.iter().for_each(|sent| drop(crowd.clients[0].receive(&sent.bytes, now)));
    assert_eq!((crowd.clients[0].refused, &crowd.clients[0].received[..]), (0, &[packet][..]));
}

#[test]
fn what_came_before_a_removal_is_carried_and_what_comes_after_is_not() {
    let mut crowd = Crowd::new(2);
    let [first, second] = [0, 1].map(|number| crowd.sealed(number, b"data"));
    crowd.deliver(0, &[first]);
    crowd.deliver(1, &[second]);
    crowd.gateway.run();
    assert_eq!(crowd.arrived().len(), 2);
    let public = crowd.clients[0].public();
    crowd.gateway.apply(ringway_dataplane::Command::RemovePeer(public));
    let [first, second] = [0, 1].map(|number| crowd.sealed(number, b"data"));
    crowd.deliver(0, &[first]);
    crowd.deliver(1, &[second]);
    crowd.gateway.run();
    let from: Vec<usize> = crowd.arrived().into_iter().map(|(number, _)| number).collect();
    assert_eq!(from, [1]);
    assert_eq!(crowd.gateway.drops(DropReason::IndexUnknown), 1);
}
