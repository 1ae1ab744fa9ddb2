//! The attacker: initiations that look right and lead nowhere, from any address.
//!
//! The expensive part, the first MAC, does not depend on the source, so a pool of messages is made
//! once and then sent from ever new addresses: as a batch of single packets, or merged.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant as Clock};

use anyhow::Result;
use ringway_proto::crypto::{PublicKey, Random as _, hash, mac};
use ringway_proto::wireguard::messages::INITIATION_BYTES;

use super::client::Seeded;
use super::wire::Wire;
use crate::netns::Netns;

/// Different messages; a multiple of the longest train.
const POOL: usize = 4_096;

/// Initiations per train: what fits 64 KiB is more, but 64 is what older kernels merge.
const TRAIN: usize = 64;

/// Sources are drawn from 2^16 addresses of the fleets' range.
const SOURCES_FIRST: u32 = u32::from_be_bytes([10, 192, 0, 0]);

/// What to forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgery {
    /// Initiations per second.
    pub per_s: u64,
    /// Whether they arrive in trains of 64 of one source, or one by one from a source each.
    pub merged: bool,
    /// Whether the first MAC is right, so that the gateway has to look further.
    pub right_mac1: bool,
}

/// What was forged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forged {
    /// Initiations sent.
    pub sent: u64,
    /// In this time.
    pub wall: Duration,
}

/// Sends forged initiations to one gateway.
pub struct Forger {
    wire: Wire,
    pool: Vec<[u8; INITIATION_BYTES]>,
    random: Seeded,
    forgery: Forgery,
}

impl Forger {
    /// Makes the pool for the gateway at `to`; nothing is sent.
    ///
    /// # Errors
    /// Without the privilege for raw sockets.
    pub fn new(
        forgery: Forgery,
        gateway: &PublicKey,
        to: SocketAddrV4,
        netns: &Netns,
    ) -> Result<Self> {
        let wire = netns.inside(|| Wire::open(to, 1))??;
        let mut random = Seeded(0xf0f0);
        let key = hash(&[b"mac1----", &gateway.0]);
        let pool = (0..POOL).map(|_| {
            let mut message = [0; INITIATION_BYTES];
            random.fill(&mut message[4..132]);
            message[0] = 1;
            if forgery.right_mac1 {
                let mac1 = mac(&key, &[&message[..116]]);
                message[116..132].copy_from_slice(&mac1);
            }
            message
        });
        let pool = pool.collect();
        Ok(Self { wire, pool, random, forgery })
    }

    /// Sends at the rate asked for until `done` says so.
    ///
    /// # Errors
    /// When the kernel refuses to send.
    pub fn run(&mut self, done: impl Fn() -> bool) -> Result<Forged> {
        let (start, mut sent) = (Clock::now(), 0_u64);
        let port = self.wire.port(0);
        while !done() {
            let due = start.elapsed().as_nanos() * u128::from(self.forgery.per_s) / 1_000_000_000;
            let owed = due.saturating_sub(u128::from(sent));
            if owed < TRAIN as u128 {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            let at = sent as usize % POOL;
            // What the gateway answers to a spoofed source is nobody's business.
            let run = &self.pool[at..at + TRAIN];
            if self.forgery.merged {
                let bytes = run.as_flattened();
                let from = SocketAddrV4::new(source(&mut self.random), port);
                self.wire.train(from, bytes, INITIATION_BYTES)?;
            } else {
                for message in run {
                    let random = self.random.next();
                    let from = SocketAddrV4::new(source(&mut self.random), random as u16 | 1_024);
                    self.wire.push(from, message, 0);
                }
                self.wire.flush()?;
            }
            sent += TRAIN as u64;
        }
        Ok(Forged { sent, wall: start.elapsed() })
    }
}

fn source(random: &mut Seeded) -> Ipv4Addr {
    Ipv4Addr::from_bits(SOURCES_FIRST + (random.next() as u32 & 0xffff))
}

impl Forged {
    /// Initiations per second that really left.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn per_second(&self) -> f64 {
        self.sent as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}
