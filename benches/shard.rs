//! What a shard itself costs per packet, by the number of sessions the packets are spread over: the
//! world's driver hands them over and takes them, so that no kernel is in it.
//!
//! ```text
//! cargo bench --package ringway-benches --bench shard -- [SESSIONS,.. [BYTES,.. [CHAIN]]]
//! ```
//!
//! Nanoseconds per packet, medians of turns with 64 datagrams, or 64 packets for clients, that came
//! one by one. Between two turns the clients seal theirs, which leaves little of the gateway in the
//! caches: of many sessions none is warm. To carry from exit to client is measured with whole
//! trains of one packet. With CHAIN, every session is in an account of its own, at the end of a
//! chain of so many accounts that limit by rate and volume, to more than passes.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, ensure};
use ringway_dataplane::command::{AccountChange, Exhausted, Volume, VolumeChange};
use ringway_dataplane::{Command, PeerChange};
use ringway_flow::qos::Rate;
use ringway_proto::AccountId;
use ringway_ring::{Driver, Ecn, Wait};
use ringway_tests::client::Client;
use ringway_tests::driver::Pools;
use ringway_tests::gateway::Gateway;
use ringway_tests::packets::udp4;

const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TURNS: usize = 2_001;
const PACKETS: usize = 64;

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let mut lists = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let sessions = numbers(lists.next().as_deref().unwrap_or("1,10,100,1000,10000"))?;
    let sizes = numbers(lists.next().as_deref().unwrap_or("64,1360"))?;
    let chain = lists.next().map_or(Ok(0), |word| word.parse().context("a number"))?;
    println!("| sessions | bytes | to exit ns | range | to client ns | range |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in sessions {
        let mut crowd = Crowd::new(count, chain)?;
        for bytes in &sizes {
            let [exit, client] = [crowd.exit_turns(*bytes)?, crowd.client_turns(*bytes)?].map(told);
            println!("| {count} | {bytes} | {exit} | {client} |");
        }
    }
    Ok(())
}

fn numbers(list: &str) -> anyhow::Result<Vec<usize>> {
    list.split(',').map(|number| number.parse().context("a list of numbers")).collect()
}

/// Median, and the middle four fifths.
fn told(mut ns: Vec<f64>) -> String {
    ns.sort_by(f64::total_cmp);
    let at = |tenths: usize| ns[ns.len() * tenths / 10];
    format!("{:.0} | {:.0}–{:.0}", at(5), at(1), at(9))
}

struct Crowd {
    gateway: Gateway,
    clients: Vec<Client>,
    next: usize,
}

impl Crowd {
    fn new(count: usize, chain: u32) -> anyhow::Result<Self> {
        let address: SocketAddr = "198.51.100.1:51820".parse()?;
        let pools = Pools { receive: 256, transmit: 256, tun: 256 };
        let mut gateway = Gateway::new(7, address, pools);
        let key = Gateway::public_of(7);
        let mut clients = Vec::new();
        for number in 0..count {
            let from = SocketAddr::from((outside(number), 40_000));
            let mut client = Client::new(1_000 + number as u64, key, from, [0; 32]);
            gateway.add_peer(client.public(), &[&format!("{}/32", inside(number))]);
            let mut waiting = client.send(&udp4(inside(number), BEYOND, b"first"), gateway.now);
            while !waiting.is_empty() {
                let answers = gateway.receive(&waiting, client.address);
                let bytes = answers.iter().map(|sent| &sent.bytes);
                waiting = bytes.flat_map(|bytes| client.receive(bytes, gateway.now)).collect();
            }
            limit(&mut gateway, &client, number as u32, chain);
            clients.push(client);
        }
        Ok(Self { gateway, clients, next: 0 })
    }

    /// Sessions in no order that a cache could guess.
    fn some(&mut self) -> usize {
        self.next += 1;
        self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.clients.len()
    }

    fn exit_turns(&mut self, bytes: usize) -> anyhow::Result<Vec<f64>> {
        let payload = vec![1; bytes.saturating_sub(28)];
        (0..TURNS)
            .map(|_| {
                for _ in 0..PACKETS {
                    let number = self.some();
                    let client = &mut self.clients[number];
                    let packet = udp4(inside(number), BEYOND, &payload);
                    let datagrams = client.send(&packet, self.gateway.now);
                    let driver = self.gateway.shard.driver_mut();
                    driver.inject_outside(&datagrams, client.address, None, Ecn::default());
                }
                let before = self.gateway.shard.counters_mut().to_exit_packets;
                let ns = self.turn();
                let carried = self.gateway.shard.counters_mut().to_exit_packets - before;
                ensure!(carried == PACKETS as u64, "{carried} of {PACKETS} were carried");
                Ok(ns)
            })
            .collect()
    }

    fn client_turns(&mut self, bytes: usize) -> anyhow::Result<Vec<f64>> {
        let payload = vec![1; bytes.saturating_sub(28)];
        (0..TURNS)
            .map(|_| {
                for _ in 0..PACKETS {
                    let packet = udp4(BEYOND, inside(self.some()), &payload);
                    self.gateway.shard.driver_mut().inject_packet(&packet);
                }
                let before = self.gateway.shard.counters_mut().to_client_packets;
                let ns = self.turn();
                let carried = self.gateway.shard.counters_mut().to_client_packets - before;
                ensure!(carried == PACKETS as u64, "{carried} of {PACKETS} were carried");
                Ok(ns)
            })
            .collect()
    }

    /// Nanoseconds per packet of a turn of the shard.
    fn turn(&mut self) -> f64 {
        let start = Instant::now();
        self.gateway.shard.turn(self.gateway.now);
        let ns = start.elapsed().as_secs_f64() * 1e9;
        let driver = self.gateway.shard.driver_mut();
        driver.swallow();
        let _never_fails = driver.turn(Wait::No);
        ns / PACKETS as f64
    }
}

/// Puts a client at the end of a chain of accounts, of which only the last is its own.
fn limit(gateway: &mut Gateway, client: &Client, number: u32, chain: u32) {
    let account = |level: u32| AccountId(if level + 1 == chain { chain + number } else { level });
    for level in 0..chain {
        let volume = Volume { number: 1, bytes: u64::MAX / 2, then: Exhausted::Drop };
        gateway.command(Command::PutAccount(Box::new(AccountChange {
            id: account(level),
            owner: 1,
            parent: level.checked_sub(1).map(account),
            rates: [Some(Rate { bytes_per_second: 1_250_000_000, burst: 1 << 30 }); 2],
            volume: if number == 0 || level + 1 == chain {
                VolumeChange::Begin(volume)
            } else {
                VolumeChange::Keep
            },
        })));
    }
    let account = chain.checked_sub(1).map(account);
    gateway.put_peer(PeerChange { account: Some(account), ..PeerChange::of(client.public()) });
}

fn inside(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 2).to_bits() + number as u32)
}

fn outside(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 2).to_bits() + number as u32)
}
