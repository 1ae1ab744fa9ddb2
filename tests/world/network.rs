//! What lies between the gateway and its clients: two links for each client, and somebody who reads
//! along and sends what he likes.
//!
//! The links are the seeded emulator's. A datagram to an address where nobody is (any more) is
//! lost.

use std::net::SocketAddr;

use ringway_perf::emulator::{Link, LinkConfig};
use ringway_proto::Instant;
use ringway_proto::crypto::{PublicKey, Random, hash, mac};

use crate::client::Seeded;

/// Datagrams that the attacker remembers.
const MEMORY_MAX: usize = 256;

/// A datagram under way.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Sender, as it claims.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
}

/// Both directions between the gateway and one client.
pub struct Cable {
    up: Link<(SocketAddr, SocketAddr)>,
    down: Link<(SocketAddr, SocketAddr)>,
}

impl Cable {
    /// A cable that does this to datagrams.
    #[must_use]
    pub const fn new(up: LinkConfig, down: LinkConfig, seed: u64) -> Self {
        Self { up: Link::new(up, seed), down: Link::new(down, !seed) }
    }

    /// Changes what it does from now on.
    pub const fn set(&mut self, up: LinkConfig, down: LinkConfig) {
        self.up.set_config(up);
        self.down.set_config(down);
    }

    /// Takes a datagram of the client.
    pub fn send_up(&mut self, datagram: Datagram, now: Instant) {
        offer(&mut self.up, datagram, now);
    }

    /// Takes a datagram of the gateway.
    pub fn send_down(&mut self, datagram: Datagram, now: Instant) {
        offer(&mut self.down, datagram, now);
    }

    /// The next datagram that reaches the gateway.
    pub fn take_up(&mut self, now: Instant) -> Option<Datagram> {
        take(&mut self.up, now)
    }

    /// The next datagram that reaches the client.
    pub fn take_down(&mut self, now: Instant) -> Option<Datagram> {
        take(&mut self.down, now)
    }

    /// When something arrives on either side.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.up.next_due().into_iter().chain(self.down.next_due()).min()
    }

    /// Datagrams that vanished, for any reason.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        let (up, down) = (self.up.counts(), self.down.counts());
        up.lost + up.queue_full + up.too_big + down.lost + down.queue_full + down.too_big
    }
}

fn offer(link: &mut Link<(SocketAddr, SocketAddr)>, datagram: Datagram, now: Instant) {
    let headers = if datagram.to.is_ipv6() { 48 } else { 28 };
    let wire_bytes = datagram.bytes.len() + headers;
    link.offer(datagram.bytes, wire_bytes, (datagram.from, datagram.to), now);
}

fn take(link: &mut Link<(SocketAddr, SocketAddr)>, now: Instant) -> Option<Datagram> {
    link.take(now).map(|(bytes, (from, to))| Datagram { bytes, from, to })
}

/// Reads along, and sends what he likes from where he likes.
pub struct Attacker {
    random: Seeded,
    memory: Vec<Datagram>,
}

impl Attacker {
    /// An attacker whose whims are drawn from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { random: Seeded(seed), memory: Vec::new() }
    }

    /// Reads a datagram on its way.
    pub fn overhear(&mut self, datagram: &Datagram) {
        if self.memory.len() < MEMORY_MAX {
            self.memory.push(datagram.clone());
        } else {
            let at = self.random.below(MEMORY_MAX as u64) as usize;
            self.memory[at] = datagram.clone();
        }
    }

    /// Something hostile for `to`, which belongs to `victim`, and whether it might be authentic.
    pub fn invent(&mut self, to: SocketAddr, victim: &PublicKey) -> (Datagram, bool) {
        let random = &mut self.random;
        let own: SocketAddr = if to.is_ipv6() {
            SocketAddr::new([0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1].into(), 666)
        } else {
            SocketAddr::new([203, 0, 113, 66].into(), 666)
        };
        let heard = (!self.memory.is_empty())
            .then(|| self.memory[random.below(self.memory.len() as u64) as usize].clone())
            .filter(|heard| heard.to.is_ipv6() == to.is_ipv6());
        let Some(heard) = heard else {
            return (Datagram { bytes: noise(random), from: own, to }, false);
        };
        let from = if random.below(2) == 0 { heard.from } else { own };
        let mut bytes = heard.bytes.clone();
        match random.below(8) {
            0 | 1 => {} // As it was: a replay.
            2 => flip(&mut bytes, random),
            3 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
            4 => bytes.extend(std::iter::repeat_n(0, 1 + random.below(64) as usize)),
            5 => bytes[1 + random.below(3) as usize] |= 1 << random.below(8),
            6 => bytes = initiation(random, victim),
            _ => bytes = noise(random),
        }
        // The second MAC of a handshake message may be anything while there is no load.
        let handshake = bytes.len() == heard.bytes.len() && matches!(bytes[0], 1 | 2);
        let authentic = handshake || bytes == heard.bytes;
        (Datagram { bytes, from, to }, authentic)
    }
}

fn flip(bytes: &mut [u8], random: &mut Seeded) {
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << random.below(8);
}

/// Random bytes, of which most claim to be a message.
fn noise(random: &mut Seeded) -> Vec<u8> {
    let mut bytes = vec![0; random.below(1_600) as usize];
    random.fill(&mut bytes);
    let kind = random.below(6) as u8;
    if let [first, rest @ ..] = &mut bytes[..]
        && rest.len() >= 3
        && kind > 0
    {
        *first = kind;
        rest[..3].fill(0);
        match kind {
            1 => bytes.resize(148, 7),
            2 => bytes.resize(92, 7),
            3 => bytes.resize(64, 7),
            _ => {}
        }
    }
    bytes
}

/// An initiation that means nothing, with a right first MAC: who knows our public key can make it.
#[must_use]
pub fn initiation(random: &mut Seeded, victim: &PublicKey) -> Vec<u8> {
    let mut bytes = vec![0; 148];
    random.fill(&mut bytes);
    bytes[..4].copy_from_slice(&[1, 0, 0, 0]);
    bytes[132..].fill(0);
    sign(&mut bytes, victim);
    bytes
}

/// Writes the first MAC of a handshake message to `victim`.
pub fn sign(message: &mut [u8], victim: &PublicKey) {
    let body = message.len() - 32;
    let key = hash(&[b"mac1----", &victim.0]);
    let first = mac(&key, &[&message[..body]]);
    message[body..body + 16].copy_from_slice(&first);
}
