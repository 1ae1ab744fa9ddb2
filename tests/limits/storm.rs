//! Ten thousand clients that all begin at the same moment, as after a power cut, beside one that
//! has a session: all of them get in, and it notices nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::{Command, Envelope};
use ringway_proto::DropReason;
use ringway_proto::crypto::PublicKey;
use ringway_proto::wireguard::REKEY_ATTEMPT_TIME;
use ringway_ring::Wait;
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::packets::udp;
use ringway_tests::pair::{Families, SEED};

use crate::crowds::BEYOND;

const CLIENTS: u32 = 10_000;
/// What the model core needs for a handshake, and for a message that ends before any curve work.
const CURVE: Duration = Duration::from_micros(150);
const CHEAP: Duration = Duration::from_micros(3);
/// Datagrams that the sockets of the second bank keep (1 MiB), of which a turn takes some.
const BANK: usize = 1_300;
const TAKEN: usize = 16;
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
            } else if self.bank.len() < BANK {
                self.bank.push_back((home, datagram));
            } else {
                self.refused_by_bank += 1;
            }
        }
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
            let number = self.by_address[&sent.to];
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

#[test]
fn ten_thousand_clients_that_begin_at_once_all_get_in_and_a_session_notices_nothing() {
    let mut storm = Storm::new();
    storm.connect_first();
    let start = storm.gateway.now.mono;
    for number in 1..storm.clients.len() {
        let packet = udp(inner(number as u32), BEYOND, b"hello");
        let hello = storm.clients[number].send(&packet, storm.gateway.now);
        storm.post(number, hello);
    }
    let mut half_open_peak = 0;
    let mut next = start;
    let mut sent = 0;
    while storm.ready.contains(&false) {
        let now = storm.gateway.now.mono;
        assert!(now.since(start) < REKEY_ATTEMPT_TIME, "before anybody gives up");
        if now >= next {
            next = next + EVERY;
            storm.wake();
            let up = storm.clients[0].send(&udp(inner(0), BEYOND, b"up"), storm.gateway.now);
            storm.post(0, up);
            storm.gateway.shard.driver_mut().inject_packet(&udp(BEYOND, inner(0), b"down"));
            sent += 1;
            let received = storm.clients[0].received.len();
            let written = storm.gateway.written.len();
            storm.turn();
            assert!(storm.gateway.written.len() > written, "in the turn in which it came");
            assert_eq!(storm.clients[0].received.len(), received + 1);
        } else if !storm.turn() && storm.bank.is_empty() {
            storm.gateway.now.mono = storm.gateway.now.mono.max(next);
        }
        half_open_peak = half_open_peak.max(storm.gateway.shard.counters_mut().half_open);
    }
    let drops = storm.gateway.shard.counters_mut().drops;
    let drops = |reason: DropReason| drops[reason as usize];
    // One try to be told of the cookie, one to come in, and one for those whom the bank refused.
    let (took, without) = (storm.gateway.now.mono.since(start), drops(DropReason::Mac2Missing));
    assert!(took < Duration::from_secs(25), "{took:?}, {} refused", storm.refused_by_bank);
    assert!(without > 5_000, "{without} were sent for a cookie");
    assert!(sent > 200 && half_open_peak < 100, "{sent} and {half_open_peak}");
    assert_eq!(drops(DropReason::HandshakeHalfOpenFull), 0);
    assert_eq!(drops(DropReason::HandshakeSourceFull), 0);
    assert!(storm.longest_turn < Duration::from_millis(2), "{:?}", storm.longest_turn);
}
