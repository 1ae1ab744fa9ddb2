//! A client of a simulated run, with its place in the network and its clocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ringway_dataplane::PeerChange;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use ringway_proto::{Instant, Now};

use crate::client::Client;
use crate::gateway::change_of;
use crate::model::Way;
use crate::network::Cable;
use crate::scenario::GuestPlan;

/// Where the gateway is, by the outer family.
#[must_use]
pub fn gateway_address(v6: bool) -> SocketAddr {
    if v6 {
        SocketAddr::new([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1].into(), 51_820)
    } else {
        SocketAddr::new([198, 51, 100, 1].into(), 51_820)
    }
}

/// The clocks of one host, as they differ from the world's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How far the boot clock is ahead of the world.
    pub ahead: Duration,
    /// Seconds by which somebody stepped the wall clock.
    pub stepped_s: i64,
    /// The most it ever was.
    pub stepped_max_s: i64,
}

impl Clock {
    /// What it shows when the world is at `time`.
    #[must_use]
    pub fn now(&self, time: Instant) -> Now {
        let mono = time + self.ahead;
        let epoch_s = 1_700_000_000_u64.saturating_add_signed(self.stepped_s);
        Now { mono, wall: Duration::from_secs(epoch_s) + mono.since(Instant::ZERO) }
    }

    /// Steps the wall clock.
    pub fn step(&mut self, seconds: i64) {
        self.stepped_s += seconds;
        self.stepped_max_s = self.stepped_max_s.max(self.stepped_s);
    }

    /// When the world is where this clock shows `mono`; the past counts as the start.
    #[must_use]
    pub fn world(&self, mono: Instant) -> Instant {
        mono - self.ahead
    }
}

/// A client with everything around it.
pub struct Guest {
    /// What it is meant to be.
    pub plan: GuestPlan,
    /// Its number.
    pub number: usize,
    /// Its protocol.
    pub client: Client,
    /// Its clocks.
    pub clock: Clock,
    /// Its way to the gateway.
    pub cable: Cable,
    /// The gateway has it among its peers.
    pub configured: bool,
    /// The preshared key that the gateway has.
    pub preshared: [u8; 32],
    /// How often it moved.
    pub moves: u16,
}

impl Guest {
    /// The client `number` of a run.
    #[must_use]
    pub fn new(plan: GuestPlan, number: usize, seed: u64, gateway: PublicKey) -> Self {
        let mut known = plan.preshared;
        known[31] ^= u8::from(plan.wrong_preshared);
        let seed = seed ^ ((number as u64 + 1) << 40);
        Self {
            client: Client::new(seed, gateway, address(&plan, number, 0), known),
            clock: Clock::default(),
            cable: Cable::new(plan.up, plan.down, seed ^ 0xcab1e),
            configured: false,
            preshared: plan.preshared,
            moves: 0,
            number,
            plan,
        }
    }

    /// Moves it to another address and port, now and then of the other family.
    pub fn roam(&mut self) {
        self.moves += 1;
        self.plan.outside_v6 ^= self.moves.is_multiple_of(3) || self.number.is_multiple_of(4);
        self.client.address = address(&self.plan, self.number, self.moves);
    }

    /// How the gateway is told of it.
    #[must_use]
    pub fn as_peer(&self) -> PeerChange {
        let number = self.number;
        let v4 = format!("10.0.0.{}/32", number + 2);
        let v6 = format!("fd00::{:x}/128", number + 2);
        let nets: Vec<&str> = [(self.plan.inside_v4, &v4), (self.plan.inside_v6, &v6)]
            .into_iter()
            .filter_map(|(has, net)| has.then_some(net.as_str()))
            .collect();
        let keepalive_s = self.plan.gateway_keepalive_s;
        PeerChange {
            preshared: Some(PresharedKey(self.preshared)),
            endpoint: self.plan.endpoint_known.then_some(self.client.address),
            keepalive_s: (keepalive_s != 0).then_some(keepalive_s),
            ..change_of(self.client.public(), &nets)
        }
    }

    /// Inner source and destination of a packet that goes this way.
    #[must_use]
    pub fn path(&self, way: Way, v6: bool) -> (IpAddr, IpAddr) {
        let (own, beyond) = inner(self.number, v6);
        match way {
            Way::ToExit => (own, beyond),
            Way::ToClient => (beyond, own),
        }
    }

    /// Whether its next packet is IPv6 inside; `coin` decides where both are possible.
    #[must_use]
    pub const fn chooses_v6(&self, coin: bool) -> bool {
        self.plan.inside_v6 && (coin || !self.plan.inside_v4)
    }
}

/// The inner address of a client, and one beyond the gateway.
#[must_use]
pub fn inner(number: usize, v6: bool) -> (IpAddr, IpAddr) {
    let host = number as u16 + 2;
    if v6 {
        let own = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
        (own.into(), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into())
    } else {
        (Ipv4Addr::new(10, 0, 0, host as u8).into(), Ipv4Addr::new(192, 0, 2, 1).into())
    }
}

fn address(plan: &GuestPlan, number: usize, moves: u16) -> SocketAddr {
    let port = 40_000 + number as u16 + 100 * (moves % 7);
    if plan.outside_v6 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 2, number as u16, 0, 0, 0, moves / 2 + 1);
        SocketAddr::new(ip.into(), port)
    } else {
        SocketAddr::new(Ipv4Addr::new(203, 0, number as u8 + 1, moves as u8 / 2 + 1).into(), port)
    }
}
