//! A gateway and one client of it, for tests that are about the two and not about a network between
//! them: what one sends the other has at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ringway_proto::{DropReason, Instant, Now};

use crate::client::Client;
use crate::driver::Sent;
use crate::gateway::{Gateway, Setup, change_of};
use crate::packets::udp;

/// Seed of the gateway of a [`Pair`].
pub const SEED: u64 = 7;

/// Outer and inner family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The tunnel runs over IPv6.
    pub outside_v6: bool,
    /// Packets in it are IPv6.
    pub inside_v6: bool,
}

impl Families {
    /// IPv4 in IPv4.
    pub const V4: Self = Self { outside_v6: false, inside_v6: false };

    /// All four.
    pub const ALL: [Self; 4] = [
        Self::V4,
        Self { outside_v6: true, inside_v6: false },
        Self { outside_v6: false, inside_v6: true },
        Self { outside_v6: true, inside_v6: true },
    ];

    /// The gateway's address and port.
    #[must_use]
    pub fn gateway(self) -> SocketAddr {
        let v4 = Ipv4Addr::new(198, 51, 100, 1);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
        SocketAddr::new(if self.outside_v6 { v6.into() } else { v4.into() }, 51_820)
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(self) -> SocketAddr {
        let v4 = Ipv4Addr::new(203, 0, 113, 5);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 5);
        SocketAddr::new(if self.outside_v6 { v6.into() } else { v4.into() }, 40_000)
    }

    /// The client's address inside.
    #[must_use]
    pub fn inside(self) -> IpAddr {
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
        if self.inside_v6 { v6.into() } else { Ipv4Addr::new(10, 0, 0, 2).into() }
    }

    /// An address beyond the gateway.
    #[must_use]
    pub fn beyond(self) -> IpAddr {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
        if self.inside_v6 { v6.into() } else { Ipv4Addr::new(192, 0, 2, 1).into() }
    }
}

/// A gateway and its client.
pub struct Pair {
    /// The gateway.
    pub gateway: Gateway,
    /// The client.
    pub client: Client,
    /// What they talk.
    pub families: Families,
}

impl Pair {
    /// Over IPv4, with a handshake done and one packet delivered.
    #[must_use]
    pub fn connected() -> Self {
        Self::connected_over(Families::V4)
    }

    /// With a handshake done and one packet delivered.
    #[must_use]
    pub fn connected_over(families: Families) -> Self {
        let mut pair = Self::new(Setup::new(SEED, families.gateway()), families);
        pair.connect();
        pair
    }

    /// A configured peer that has never been heard of.
    #[must_use]
    pub fn new(setup: Setup, families: Families) -> Self {
        let public = Gateway::public_of(setup.key_seed);
        let mut gateway = Gateway::with(setup);
        let client = Client::new(11, public, families.client(), [0; 32]);
        gateway.put_peer(change_of(client.public(), &["10.0.0.2/32", "fd00::2/128"]));
        Self { gateway, client, families }
    }

    /// A peer whose endpoint is known, without a session.
    #[must_use]
    pub fn reachable() -> Self {
        let families = Families::V4;
        let mut pair = Self::new(Setup::new(SEED, families.gateway()), families);
        let endpoint = Some(families.client());
        let change = change_of(pair.client.public(), &[]);
        pair.gateway.put_peer(ringway_dataplane::PeerChange { endpoint, ..change });
        pair
    }

    /// Sends one packet from the client, which makes a session, and forgets it.
    ///
    /// # Panics
    /// If there is no session then.
    pub fn connect(&mut self) {
        let packet = self.to_exit(b"hello");
        self.send(&packet);
        assert!(self.client.ready(self.gateway.now));
        self.gateway.written.clear();
    }

    /// A packet of the client.
    #[must_use]
    pub fn to_exit(&self, payload: &[u8]) -> Vec<u8> {
        udp(self.families.inside(), self.families.beyond(), payload)
    }

    /// A packet for the client.
    #[must_use]
    pub fn to_client(&self, payload: &[u8]) -> Vec<u8> {
        udp(self.families.beyond(), self.families.inside(), payload)
    }

    /// The client sends a packet; both talk until they have nothing more to say.
    pub fn send(&mut self, packet: &[u8]) {
        let out = self.client.send(packet, self.gateway.now);
        self.talk(out);
    }

    /// A packet from the TUN; both talk until they have nothing more to say. Returns what the
    /// gateway sent first.
    pub fn inside(&mut self, packet: &[u8]) -> Vec<Sent> {
        let sent = self.gateway.inside(packet);
        self.answer(sent.clone());
        sent
    }

    /// Leaves a packet for the client in the TUN, to be seen in the next turn.
    pub fn leave_inside(&mut self, payload: &[u8]) {
        let packet = self.to_client(payload);
        self.gateway.shard.driver_mut().inject_packet(&packet);
    }

    /// The client gets these datagrams, and so on.
    pub fn answer(&mut self, sent: Vec<Sent>) {
        let now = self.gateway.now;
        let mut out = Vec::new();
        for datagram in sent {
            if datagram.to == self.client.address {
                out.extend(self.client.receive(&datagram.bytes, now));
            }
        }
        self.talk(out);
    }

    /// The gateway gets these datagrams one by one, and so on.
    pub fn talk(&mut self, mut out: Vec<Vec<u8>>) {
        while !out.is_empty() {
            let mut replies = Vec::new();
            for datagram in out {
                let home = self.client.address;
                let sent = self.gateway.receive(&[datagram], home);
                for datagram in sent.iter().filter(|sent| sent.to == home) {
                    replies.extend(self.client.receive(&datagram.bytes, self.gateway.now));
                }
            }
            out = replies;
        }
    }

    /// Time passes, and both do what is due, when it is due. Returns what the gateway sent by
    /// itself, with its times.
    pub fn pass(&mut self, span: Duration) -> Vec<(Instant, Sent)> {
        self.pass_with(span, true)
    }

    /// As [`Pair::pass`], with a client that is gone.
    pub fn pass_alone(&mut self, span: Duration) -> Vec<(Instant, Sent)> {
        self.pass_with(span, false)
    }

    fn pass_with(&mut self, span: Duration, reachable: bool) -> Vec<(Instant, Sent)> {
        let end = self.gateway.now.mono + span;
        let mut seen = Vec::new();
        loop {
            let client = self.client.deadline().filter(|_| reachable);
            let next = self.gateway.wake_at.into_iter().chain(client).min();
            let at = next.unwrap_or(end).max(self.gateway.now.mono).min(end);
            let sent = self.gateway.advance(at.since(self.gateway.now.mono));
            seen.extend(sent.iter().map(|sent| (at, sent.clone())));
            if reachable {
                self.answer(sent);
                let out = self.client.wake(self.gateway.now);
                self.talk(out);
            }
            if at == end {
                return seen;
            }
        }
    }

    /// Both clocks.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.gateway.now
    }

    /// How often something was dropped for this reason.
    pub fn drops(&mut self, reason: DropReason) -> u64 {
        self.gateway.drops(reason)
    }
}
