//! A gateway of several cores with one client on each, that send and get as much as is wanted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ringway_dataplane::PeerChange;
use ringway_dataplane::command::{
    AccountChange, AccountPage, AccountStatus, Command, Report, Volume, VolumeChange,
};
use ringway_flow::Policy;
use ringway_flow::qos::Rate;
use ringway_proto::{AccountId, CoreId};
use ringway_ring::Ecn;
use ringway_tests::client::Client;
use ringway_tests::cluster::{Cluster, Steering};
use ringway_tests::driver::{Pools, Sent};
use ringway_tests::gateway::{Gateway, Setup, change_of};
use ringway_tests::packets::udp4;

const SEED: u64 = 7;
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn inside(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8 + 2)
}

/// An account without limits whose use is counted.
pub(crate) fn metered(id: u32) -> AccountChange {
    AccountChange {
        id: AccountId(id),
        owner: 1_000 + u64::from(id),
        parent: None,
        rates: [None; 2],
        volume: VolumeChange::Keep,
    }
}

/// The same with a rate both ways.
pub(crate) fn limited(id: u32, rate: Rate) -> AccountChange {
    AccountChange { rates: [Some(rate); 2], ..metered(id) }
}

pub(crate) struct Gang {
    pub(crate) cluster: Cluster,
    clients: Vec<Client>,
    /// Inner bytes that came through, by client: to exit, to client.
    pub(crate) passed: Vec<[u64; 2]>,
    /// What homes said is used up.
    pub(crate) exhausted: Vec<(AccountId, u32)>,
}

impl Gang {
    /// A client on each core, with a session, in no account.
    pub(crate) fn new(cores: u16) -> Self {
        let at = |text: &str| text.parse().expect("an address");
        let setup = Setup {
            pools: Pools { receive: 512, transmit: 512, tun: 512 },
            // So that what is written is what passed.
            policy: Policy { merge: false, ..Policy::default() },
            ..Setup::new(SEED, at("198.51.100.1:51820"))
        };
        let mut cluster = Cluster::new(&setup, cores, Steering::Right);
        let key = Gateway::public_of(SEED);
        let mut strangers =
            (100..).map(|seed| Client::new(seed, key, at("203.0.113.5:40000"), [0; 32]));
        let mut clients = Vec::new();
        for core in 0..cores {
            let client = strangers.find(|client| cluster.owner(&client.public()) == CoreId(core));
            clients.push(client.expect("one of many"));
            let net = format!("{}/32", inside(clients.len() - 1));
            cluster.put_peer(change_of(clients[clients.len() - 1].public(), &[&net]));
        }
        let passed = vec![[0; 2]; clients.len()];
        let mut gang = Self { cluster, clients, passed, exhausted: Vec::new() };
        for client in 0..gang.clients.len() {
            gang.send(client, 0, &[28]);
            assert!(gang.clients[client].ready(gang.cluster.now));
        }
        gang.passed.fill([0; 2]);
        gang
    }

    pub(crate) fn put(&mut self, change: AccountChange) {
        self.cluster.everywhere(|_| Command::PutAccount(Box::new(change)));
        self.hear();
    }

    pub(crate) fn begin_volume(&mut self, change: AccountChange, volume: Volume) {
        self.put(AccountChange { volume: VolumeChange::Begin(volume), ..change });
    }

    /// Lets an account limit and meter a client.
    pub(crate) fn bind(&mut self, client: usize, account: Option<u32>) {
        let change = PeerChange {
            account: Some(account.map(AccountId)),
            update_only: true,
            ..PeerChange::of(self.clients[client].public())
        };
        self.cluster.put_peer(change);
        self.settle();
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.cluster.now.mono = self.cluster.now.mono + by;
        self.cluster.now.wall += by;
        self.settle();
    }

    /// The client sends, or gets if `way` is 1, packets of these lengths.
    pub(crate) fn send(&mut self, client: usize, way: usize, lens: &[usize]) {
        self.leave(client, way, lens);
        self.settle();
    }

    /// The same, but nothing is looked at yet.
    pub(crate) fn leave(&mut self, client: usize, way: usize, lens: &[usize]) {
        for len in lens {
            let payload = vec![7; len - 28];
            if way == 1 {
                let packet = udp4(BEYOND, inside(client), &payload);
                assert!(self.cluster.inject_packet(&packet), "no buffer");
            } else {
                let packet = udp4(inside(client), BEYOND, &payload);
                let datagrams = self.clients[client].send(&packet, self.cluster.now);
                self.deliver(client, &datagrams);
            }
        }
    }

    fn deliver(&mut self, client: usize, datagrams: &[Vec<u8>]) {
        let to = "198.51.100.1".parse().expect("an address");
        for datagram in datagrams {
            let from = self.clients[client].address;
            let datagram = std::slice::from_ref(datagram);
            assert_eq!(self.cluster.deliver(datagram, from, to, Ecn::default()), 0, "no buffer");
        }
    }

    /// Turns until nobody has anything to say.
    pub(crate) fn settle(&mut self) {
        loop {
            let sent = self.cluster.run();
            self.count_written();
            if sent.is_empty() {
                return;
            }
            self.take(&sent);
        }
    }

    fn take(&mut self, sent: &[Sent]) {
        let now = self.cluster.now;
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            let answers: Vec<_> =
                sent.iter().flat_map(|datagram| client.receive(&datagram.bytes, now)).collect();
            for packet in std::mem::take(&mut client.received) {
                self.passed[number][1] += packet.len() as u64;
            }
            self.deliver(number, &answers);
        }
    }

    fn count_written(&mut self) {
        let numbers: BTreeMap<_, _> =
            (0..self.clients.len()).map(|number| (inside(number).octets(), number)).collect();
        for written in std::mem::take(&mut self.cluster.written) {
            let packet = &written[10..];
            let source: [u8; 4] = packet[12..16].try_into().expect("four bytes");
            self.passed[numbers[&source]][0] += packet.len() as u64;
        }
        self.hear();
    }

    fn hear(&mut self) {
        for shard in &mut self.cluster.shards {
            while let Some(report) = shard.reports.pop() {
                if let Report::AccountExhausted { account, volume } = report {
                    self.exhausted.push((account, volume));
                }
            }
        }
    }

    /// What came through both ways, of all clients.
    pub(crate) fn sum(&self) -> [u64; 2] {
        [0, 1].map(|way| self.passed.iter().map(|passed| passed[way]).sum())
    }

    /// What the usage pages say of an account.
    pub(crate) fn used(&self, account: u32) -> [u64; 2] {
        let read = self.cluster.shards.iter().filter_map(|shard| shard.used.read(account));
        read.fold([0; 2], |all, one| [all[0] + one.bytes[0], all[1] + one.bytes[1]])
    }

    /// What one core says of its accounts.
    pub(crate) fn accounts(&mut self, core: u16) -> Vec<AccountStatus> {
        let accounts = Vec::with_capacity(64);
        let page = Box::new(AccountPage { cursor: None, accounts });
        match self.cluster.at(CoreId(core)).apply(Command::ReadAccounts(page)) {
            Report::Done { spent: Command::ReadAccounts(page), .. } => page.accounts,
            other @ (Report::Done { .. }
            | Report::Stopped { .. }
            | Report::AccountExhausted { .. }) => panic!("{other:?}"),
        }
    }

    /// Loads these clients with so many bytes per second each, both ways, for a time.
    pub(crate) fn load(&mut self, clients: &[usize], bytes_per_second: u64, time: Duration) {
        const STEP: Duration = Duration::from_millis(1);
        let mut owed = vec![0_i64; self.clients.len()];
        for step in 0..time.as_millis() as u64 {
            for (place, client) in clients.iter().enumerate() {
                owed[*client] += bytes_per_second as i64 / 1_000;
                let mut number = step + place as u64;
                while owed[*client] > 0 {
                    // Of any length.
                    let len = 200 + (number * 331 % 1_200) as usize;
                    number += 1;
                    owed[*client] -= len as i64;
                    self.leave(*client, 0, &[len]);
                    self.leave(*client, 1, &[len]);
                }
            }
            self.advance(STEP);
        }
    }
}
