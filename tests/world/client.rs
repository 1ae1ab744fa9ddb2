//! A WireGuard client made of the same tunnel code, without a shard: it seals what it is given,
//! opens what it receives and obeys its timers.

use std::net::SocketAddr;

use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey, Random};
use ringway_proto::wireguard::{
    Cx, Datagram, Identity, Indices, Message, OpenedInitiation, Outcome, PeerConfig, Plain,
    SendState, Tai64n, Tunnel, classify,
};
use ringway_proto::{Instant, Now, ReceiverIndex};

/// Randomness from a seed (SplitMix64): good enough for a world, useless for secrets.
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }
}

impl Random for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.draw().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Indices counted upwards: a client has one peer.
#[derive(Debug)]
struct Counted(u32);

impl Indices for Counted {
    fn allocate(&mut self) -> Option<ReceiverIndex> {
        self.0 += 1;
        Some(ReceiverIndex(self.0))
    }

    fn release(&mut self, _index: ReceiverIndex) {}
}

/// A client of the gateway.
pub struct Client {
    identity: Identity,
    config: PeerConfig,
    tunnel: Tunnel,
    indices: Counted,
    random: Seeded,
    staged: Vec<Vec<u8>>,
    /// Where it sends from; change it to roam.
    pub address: SocketAddr,
    /// Inner packets that came out of the tunnel.
    pub received: Vec<Vec<u8>>,
    /// Datagrams refused by its tunnel.
    pub refused: usize,
}

impl Client {
    /// A client with a key drawn from `seed`, for the gateway `gateway`.
    #[must_use]
    pub fn new(seed: u64, gateway: PublicKey, address: SocketAddr, preshared: [u8; 32]) -> Self {
        let mut random = Seeded(seed);
        let mut key = [0; 32];
        random.fill(&mut key);
        let identity = Identity::new(PrivateKey::from_bytes(key));
        let config =
            PeerConfig { public: gateway, preshared: PresharedKey(preshared), keepalive_s: 0 };
        let tunnel = Tunnel::new(&identity, config.clone());
        Self {
            identity,
            config,
            tunnel,
            indices: Counted(0),
            random,
            staged: Vec::new(),
            address,
            received: Vec::new(),
            refused: 0,
        }
    }

    /// Turns persistent keepalives on, every so many seconds, or off.
    pub fn keep_alive(&mut self, seconds: u16, now: Now) {
        self.config.keepalive_s = seconds;
        self.tunnel.set_keepalive(seconds, now);
    }

    /// Uses another preshared key from the next handshake on.
    pub fn set_preshared(&mut self, key: [u8; 32]) {
        self.config.preshared = PresharedKey(key);
        self.tunnel.set_preshared(PresharedKey(key));
    }

    /// Starts again with nothing but its configuration and the stamp of its last initiation,
    /// towards a gateway that may have another key.
    pub fn restart(&mut self, gateway: PublicKey) {
        let (ours, _) = self.tunnel.stamps();
        self.config.public = gateway;
        self.tunnel = Tunnel::new(&self.identity, self.config.clone());
        self.tunnel.resume_stamps(ours, Tai64n::default());
        self.staged.clear();
    }

    /// Its static key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.identity.public()
    }

    /// The tunnel, to be looked at or configured.
    pub const fn tunnel(&mut self) -> &mut Tunnel {
        &mut self.tunnel
    }

    /// Whether it can send.
    #[must_use]
    pub fn ready(&self, now: Now) -> bool {
        self.tunnel.send_state(now) == SendState::Ready
    }

    /// Takes an inner packet; returns the datagrams that leave now.
    pub fn send(&mut self, packet: &[u8], now: Now) -> Vec<Vec<u8>> {
        self.staged.push(packet.to_vec());
        if !self.ready(now) {
            self.tunnel.want_handshake(now);
        }
        self.output(now)
    }

    /// Takes a datagram; returns the datagrams that leave now.
    pub fn receive(&mut self, datagram: &[u8], now: Now) -> Vec<Vec<u8>> {
        if self.take(datagram, now).is_none() {
            self.refused += 1;
        }
        self.output(now)
    }

    /// Does what is due; returns the datagrams that leave now.
    pub fn wake(&mut self, now: Now) -> Vec<Vec<u8>> {
        let due = self.deadline().is_some_and(|deadline| deadline <= now.mono);
        if due && self.with_tunnel(now, Tunnel::handle_timeout).gave_up {
            self.staged.clear();
        }
        self.output(now)
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.tunnel.poll_timeout().map(|(deadline, _)| deadline)
    }

    /// Everything that wants to leave.
    pub fn output(&mut self, now: Now) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while self.ready(now) && !self.staged.is_empty() {
            let packet = self.staged.remove(0);
            let padded = packet.len().next_multiple_of(16).min(1420.max(packet.len()));
            let mut bytes = vec![0; 16 + padded + 16];
            bytes[16..16 + packet.len()].copy_from_slice(&packet);
            if self.tunnel.seal_run(&mut [Plain { bytes: &mut bytes }], now).is_ok() {
                out.push(bytes);
            }
        }
        let mut message = [0; 256];
        while let Some(len) = self
            .with_tunnel(now, |tunnel, cx| tunnel.poll_transmit(cx, &mut message))
            .map(|outgoing| outgoing.len)
        {
            out.push(message[..len].to_vec());
        }
        out
    }

    fn take(&mut self, datagram: &[u8], now: Now) -> Option<()> {
        match classify(datagram).ok()? {
            Message::Initiation => {
                let opened = OpenedInitiation::open(&self.identity, datagram).ok()?;
                self.with_tunnel(now, |tunnel, cx| tunnel.accept_initiation(opened, cx)).ok()
            }
            Message::Response { .. } => {
                self.with_tunnel(now, |tunnel, cx| tunnel.accept_response(datagram, cx)).ok()
            }
            Message::Cookie { .. } => self.tunnel.accept_cookie(datagram, now).ok(),
            Message::Data { receiver, .. } => {
                let mut bytes = datagram.to_vec();
                let mut run = [Datagram::new(&mut bytes)];
                self.tunnel.open_run(receiver, &mut run, now);
                match run[0].outcome {
                    Outcome::Packet { start, len } => {
                        self.received.push(bytes[start..start + len].to_vec());
                        Some(())
                    }
                    Outcome::Keepalive => Some(()),
                    Outcome::Dropped(_) | Outcome::Pending => None,
                }
            }
        }
    }

    fn with_tunnel<T>(&mut self, now: Now, work: impl FnOnce(&mut Tunnel, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            identity: &self.identity,
            now,
            random: &mut self.random,
            indices: &mut self.indices,
        };
        work(&mut self.tunnel, &mut cx)
    }
}
