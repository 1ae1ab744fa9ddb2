//! Ten thousand clients that all begin at the same moment, as after a power cut, beside one that
//! has a session: all of them get in with their first try, and it notices nothing. Beside a flood
//! they need a cookie and another try.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ringway_dataplane::{Command, Envelope};
use ringway_proto::DropReason;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::REKEY_ATTEMPT_TIME;
use ringway_ring::Wait;
use ringway_tests::client::{Client, Seeded};
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::network::initiation;
use ringway_tests::packets::udp;
use ringway_tests::pair::{Families, SEED};

use crate::crowds::BEYOND;

const CLIENTS: u32 = 10_000;
/// What the model core needs for a handshake, and for a message that ends before any curve work.
const CURVE: Duration = Duration::from_micros(150);
const CHEAP: Duration = Duration::from_micros(3);
/// Datagrams that the sockets of the second bank keep (4 MiB), of which a turn takes some.
const BANK: usize = 10_400;
const TAKEN: usize = 16;
/// Where forgeries seem to come from.
const FORGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 1);
/// How often the client with a session sends.
const EVERY: Duration = Duration::from_millis(20);

fn inner(number: u32) -> IpAddr {
    IpAddr::from((0x0a01_0000 + number).to_be_bytes())
}

struct Storm {
    gateway: Gateway,
    clients: Vec<Client>,
    by_address: BTreeMap<SocketAddr, usize>,
    /// Clients that have been connected.
    ready: Vec<bool>,
    /// What waits in the sockets of the second bank.
    bank: VecDeque<(SocketAddr, Vec<u8>)>,
    refused_by_bank: u64,
    longest_turn: Duration,
}

impl Storm {
    fn new() -> Self {
        let pools = Pools { receive: 256, transmit: 256, ..Pools::default() };
        let setup = Setup { pools, ..Setup::new(SEED, Families::V4.gateway()) };
        let mut gateway = Gateway::with(setup);
        let public: PublicKey = Gateway::public_of(SEED);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let home = IpAddr::from((0xcb00_0000_u32 + number).to_be_bytes());
                let home = SocketAddr::new(home, 51_820);
                Client::new(1_000 + u64::from(number), public, home, [0; 32])
            })
            .collect();
        for (number, client) in (0..).zip(&clients) {
            let change = change_of(client.public(), &[&format!("{}/32", inner(number))]);
            let command = Command::PutPeer(Box::new(change));
            let envelope = Envelope { sequence: u64::from(number), command };
            assert!(gateway.commands.push(envelope).is_ok());
            if number % 8 == 7 {
                gateway.turn();
                while gateway.reports.pop().is_some() {}
            }
        }
        gateway.run();
        let by_address = clients.iter().map(|client| client.address).zip(0..).collect();
        Self {
            ready: vec![false; clients.len()],
            gateway,
            clients,
            by_address,
            bank: VecDeque::new(),
            refused_by_bank: 0,
            longest_turn: Duration::ZERO,
        }
    }

    fn connect_first(&mut self) {
        let hello = self.clients[0].send(&udp(inner(0), BEYOND, b"hello"), self.gateway.now);
        self.post(0, hello);
        while !self.bank.is_empty() {
            self.turn();
        }
        assert!(self.ready[0]);
        self.gateway.written.clear();
    }

    /// Data goes to the first bank and is there at once; the rest may find the second one full.
    fn post(&mut self, number: usize, datagrams: Vec<Vec<u8>>) {
        let home = self.clients[number].address;
        for datagram in datagrams {
            if datagram[0] == 4 {
                self.gateway.deliver(&[datagram], home, self.gateway.ip(), Default::default());
            } else {
                self.queue_in_bank(home, datagram);
            }
        }
    }

    fn queue_in_bank(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        if self.bank.len() < BANK {
            self.bank.push_back((from, datagram));
        } else {
            self.refused_by_bank += 1;
        }
    }

    /// The client with a session sends, and is sent, a packet: both arrive in the same turn.
    fn speak(&mut self) {
        let up = self.clients[0].send(&udp(inner(0), BEYOND, b"up"), self.gateway.now);
        self.post(0, up);
        self.gateway.shard.driver_mut().inject_packet(&udp(BEYOND, inner(0), b"down"));
        let received = self.clients[0].received.len();
        let written = self.gateway.written.len();
        self.turn();
        assert!(self.gateway.written.len() > written, "in the turn in which it came");
        assert_eq!(self.clients[0].received.len(), received + 1);
    }

    /// A turn, in the time that it takes. Returns whether it wants another one at once.
    fn turn(&mut self) -> bool {
        for _ in 0..TAKEN.min(self.bank.len()) {
            let Some((from, datagram)) = self.bank.pop_front() else { break };
            self.gateway.deliver(&[datagram], from, self.gateway.ip(), Default::default());
        }
        let count = |gateway: &mut Gateway| {
            let done = gateway.shard.counters_mut().handshakes_completed_responder as u32;
            (done, gateway.all_drops() as u32)
        };
        let before = count(&mut self.gateway);
        let wait = self.gateway.turn().wait;
        let after = count(&mut self.gateway);
        let took =
            CURVE * (after.0 - before.0) + CHEAP * (after.1 - before.1) + Duration::from_micros(10);
        self.longest_turn = self.longest_turn.max(took);
        self.gateway.now.mono = self.gateway.now.mono + took;
        self.gateway.now.wall += took;
        for sent in std::mem::take(&mut self.gateway.shard.driver_mut().sent) {
            // Nobody is where forgeries come from.
            let Some(&number) = self.by_address.get(&sent.to) else { continue };
            let out = self.clients[number].receive(&sent.bytes, self.gateway.now);
            self.ready[number] |= self.clients[number].ready(self.gateway.now);
            self.post(number, out);
        }
        wait == Wait::No
    }

    /// All clients do what is due.
    fn wake(&mut self) {
        let now = self.gateway.now;
        for number in 0..self.clients.len() {
            if self.clients[number].deadline().is_some_and(|at| at <= now.mono) {
                let out = self.clients[number].wake(now);
                self.post(number, out);
            }
        }
    }
}

/// What the storm was like for those in it.
struct Weather {
    took: Duration,
    half_open_peak: u64,
    /// Packets of the client with a session, each way.
    sent: u32,
}

/// All of them begin, `forged` worthless initiations before each of them.
fn blow(storm: &mut Storm, forged: usize) -> Weather {
    let start = storm.gateway.now.mono;
    let mut random = Seeded(5);
    for number in 1..storm.clients.len() {
        for _ in 0..forged {
            let message = initiation(&mut random, &Gateway::public_of(SEED));
            storm.queue_in_bank(FORGER.into(), message);
        }
        let packet = udp(inner(number as u32), BEYOND, b"hello");
        let hello = storm.clients[number].send(&packet, storm.gateway.now);
        storm.post(number, hello);
    }
    let mut weather = Weather { took: Duration::ZERO, half_open_peak: 0, sent: 0 };
    let mut next = start;
    while storm.ready.contains(&false) {
        let now = storm.gateway.now.mono;
        assert!(now.since(start) < REKEY_ATTEMPT_TIME, "before anybody gives up");
        if now >= next {
            next = next + EVERY;
            storm.wake();
            storm.speak();
            weather.sent += 1;
        } else if !storm.turn() && storm.bank.is_empty() {
            storm.gateway.now.mono = storm.gateway.now.mono.max(next);
        }
        let half_open = storm.gateway.shard.counters_mut().half_open;
        weather.half_open_peak = weather.half_open_peak.max(half_open);
    }
    weather.took = storm.gateway.now.mono.since(start);
    weather
}

#[test]
fn ten_thousand_clients_that_begin_at_once_are_in_within_two_seconds_and_without_cookies() {
    let mut storm = Storm::new();
    storm.connect_first();
    let weather = blow(&mut storm, 0);
    assert!(weather.took < Duration::from_secs(2), "{:?}", weather.took);
    assert_eq!((storm.gateway.all_drops(), storm.refused_by_bank), (0, 0));
    assert_eq!(storm.gateway.shard.counters_mut().cookies_sent, 0);
    assert!(weather.sent > 50 && weather.half_open_peak < 100);
    assert!(storm.longest_turn < Duration::from_millis(2), "{:?}", storm.longest_turn);
}

#[test]
fn among_forgeries_ten_thousand_clients_get_in_with_cookies() {
    let mut storm = Storm::new();
    storm.connect_first();
    let weather = blow(&mut storm, 1);
    let drops = storm.gateway.shard.counters_mut().drops;
    let drops = |reason: DropReason| drops[reason as usize];
    // One try to be told of the cookie, one to come in, and one for those whom the bank refused.
    let (took, without) = (weather.took, drops(DropReason::Mac2Missing));
    assert!(took < Duration::from_secs(25), "{took:?}, {} refused", storm.refused_by_bank);
    assert!(without > 5_000, "{without} were sent for a cookie");
    let opened = drops(DropReason::HandshakeUndecryptable);
    assert!(opened < 500, "{opened} of 10,000 forgeries cost curve work");
    assert!(weather.sent > 200 && weather.half_open_peak < 100);
    assert_eq!(drops(DropReason::HandshakeHalfOpenFull), 0);
    assert_eq!(drops(DropReason::HandshakeSourceFull), 0);
    assert!(storm.longest_turn < Duration::from_millis(2), "{:?}", storm.longest_turn);
}
