//! The link emulator on real datagrams: a UDP relay between clients and one server.
//!
//! ```text
//!   client A ──┐            ┌── upstream socket A ──┐
//!              ├─ listen ───┤      Link (to server) ├── server
//!   client B ──┘            └── upstream socket B ──┘
//!                 Link (to client) on the way back
//! ```
//!
//! To the server the relay looks like a NAT: each client has a socket of its own, and
//! [`Relay::rebind`] gives all of them new ports, as a NAT that lost its table does. One thread, no
//! threads inside; time is read once per turn.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringway_proto::Instant;

use crate::emulator::{Link, LinkConfig, LinkCounts};
use crate::netns::Netns;

/// Clients served at the same time; further ones are ignored.
const CLIENTS_MAX: usize = 1024;

/// Longest wait in one turn, so that the caller's stop flag is seen.
const TURN_MAX: Duration = Duration::from_millis(20);

/// Bytes of UDP and IP headers around a datagram, for the MTU and the rate.
const fn header_bytes(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(_) => 28,
        SocketAddr::V6(_) => 48,
    }
}

/// A relay with an impaired link in each direction.
#[derive(Debug)]
pub struct Relay {
    listen: UdpSocket,
    server: SocketAddr,
    clients: HashMap<SocketAddr, UdpSocket>,
    to_server: Link<SocketAddr>,
    to_client: Link<SocketAddr>,
    epoch: Clock,
    buffer: Vec<u8>,
}

impl Relay {
    /// Relays what arrives on `listen` to `server` and back. Runs in the namespace of the calling
    /// thread: that is where the sockets towards the server are made.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(
        listen: UdpSocket,
        server: SocketAddr,
        config: LinkConfig,
        seed: u64,
    ) -> Result<Self> {
        listen.set_nonblocking(true)?;
        Ok(Self {
            listen,
            server,
            clients: HashMap::new(),
            to_server: Link::new(config, seed),
            to_client: Link::new(config, seed.rotate_left(32) ^ 1),
            epoch: Clock::now(),
            buffer: vec![0; usize::from(u16::MAX)],
        })
    }

    /// Changes both directions from now on.
    pub const fn set_config(&mut self, config: LinkConfig) {
        self.to_server.set_config(config);
        self.to_client.set_config(config);
    }

    /// What happened on the way to the server and on the way back.
    #[must_use]
    pub const fn counts(&self) -> (LinkCounts, LinkCounts) {
        (self.to_server.counts(), self.to_client.counts())
    }

    /// Gives every client a new port towards the server, as a NAT does that lost its table.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn rebind(&mut self) -> Result<()> {
        for socket in self.clients.values_mut() {
            *socket = upstream(self.server)?;
        }
        Ok(())
    }

    /// Waits for the next event, 20 ms at the longest, and moves what can be moved.
    ///
    /// # Errors
    /// When polling fails; a refused datagram is a lost datagram.
    pub fn turn(&mut self) -> Result<()> {
        let sockets = std::iter::once(&self.listen).chain(self.clients.values());
        let mut polled: Vec<PollFd<'_>> =
            sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        let wait = PollTimeout::try_from(self.wait()).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, wait) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("Polling the relay's sockets"),
        }
        let now = self.now();
        self.receive_from_clients(now);
        self.receive_from_server(now);
        self.deliver(now);
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    fn wait(&self) -> Duration {
        let now = self.now();
        let due =
            [self.to_server.next_due(), self.to_client.next_due()].into_iter().flatten().min();
        // Poll counts in milliseconds: rounding down means the last one is spun, which keeps short
        // delays exact.
        due.map_or(TURN_MAX, |due| due.since(now).min(TURN_MAX))
    }

    fn receive_from_clients(&mut self, now: Instant) {
        while let Ok((length, client)) = self.listen.recv_from(&mut self.buffer) {
            if !self.clients.contains_key(&client) {
                let Ok(socket) = upstream(self.server) else { continue };
                if self.clients.len() >= CLIENTS_MAX {
                    continue;
                }
                self.clients.insert(client, socket);
            }
            let bytes = self.buffer[..length].to_vec();
            self.to_server.offer(bytes, length + header_bytes(client), client, now);
        }
    }

    fn receive_from_server(&mut self, now: Instant) {
        for (client, socket) in &self.clients {
            while let Ok(length) = socket.recv(&mut self.buffer) {
                let bytes = self.buffer[..length].to_vec();
                self.to_client.offer(bytes, length + header_bytes(*client), *client, now);
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        while let Some((bytes, client)) = self.to_server.take(now) {
            if let Some(socket) = self.clients.get(&client) {
                let _ = socket.send(&bytes);
            }
        }
        while let Some((bytes, client)) = self.to_client.take(now) {
            let _ = self.listen.send_to(&bytes, client);
        }
    }
}

/// Where and how [`with_relay`] relays.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Address clients send to.
    pub listen: SocketAddr,
    /// Address of the server.
    pub server: SocketAddr,
    /// What both directions do.
    pub config: LinkConfig,
    /// The seed.
    pub seed: u64,
}

/// Steers a relay that runs on another thread.
#[derive(Debug)]
pub struct Steering {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Config(LinkConfig),
    Rebind,
    Count(mpsc::Sender<(LinkCounts, LinkCounts)>),
}

impl Steering {
    /// Changes both directions from now on.
    pub fn set_config(&self, config: LinkConfig) {
        let _ = self.orders.send(Order::Config(config));
    }

    /// As [`Relay::rebind`].
    pub fn rebind(&self) {
        let _ = self.orders.send(Order::Rebind);
    }

    /// As [`Relay::counts`].
    ///
    /// # Errors
    /// When the relay has ended.
    pub fn counts(&self) -> Result<(LinkCounts, LinkCounts)> {
        let (answer, counts) = mpsc::channel();
        self.orders.send(Order::Count(answer)).context("The relay has ended")?;
        counts.recv().context("The relay has ended")
    }
}

/// Runs a relay in `netns` on a thread of its own while `work` runs on this one.
///
/// # Errors
/// Of the work, or of the relay.
pub fn with_relay<T>(
    netns: &Netns,
    setting: Setting,
    work: impl FnOnce(&Steering) -> Result<T>,
) -> Result<T> {
    let (orders, received) = mpsc::channel();
    thread::scope(|scope| {
        let relay = scope.spawn(move || netns.inside(move || run(setting, &received))?);
        let done = work(&Steering { orders }); // the channel closes here, which ends the relay
        match relay.join() {
            Ok(Ok(())) => done,
            Ok(Err(error)) => Err(error).context("The relay failed"),
            Err(_) => bail!("The relay panicked"),
        }
    })
}

fn run(setting: Setting, orders: &mpsc::Receiver<Order>) -> Result<()> {
    let listen = UdpSocket::bind(setting.listen)
        .with_context(|| format!("Binding {} for clients", setting.listen))?;
    let mut relay = Relay::new(listen, setting.server, setting.config, setting.seed)?;
    loop {
        match orders.try_recv() {
            Ok(Order::Config(config)) => relay.set_config(config),
            Ok(Order::Rebind) => relay.rebind()?,
            Ok(Order::Count(answer)) => drop(answer.send(relay.counts())),
            Err(TryRecvError::Empty) => relay.turn()?,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn upstream(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::wait::wait_until;

    const LIMIT: Duration = Duration::from_secs(5);

    fn local() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn exchange(relay: &mut Relay, at: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        wait_until("a datagram through the relay", LIMIT, || {
            relay.turn().unwrap();
            at.recv_from(&mut buffer).ok().map(|(length, from)| (buffer[..length].to_vec(), from))
        })
        .unwrap()
    }

    #[test]
    fn datagrams_pass_both_ways_and_rebinding_changes_the_port_the_server_sees() {
        let (client, server, listen) = (local(), local(), local());
        let entrance = listen.local_addr().unwrap();
        let to = server.local_addr().unwrap();
        let mut relay = Relay::new(listen, to, LinkConfig::default(), 1).unwrap();

        client.send_to(b"one", entrance).unwrap();
        let (bytes, seen) = exchange(&mut relay, &server);
        assert_eq!(bytes, b"one");
        server.send_to(b"two", seen).unwrap();
        assert_eq!(exchange(&mut relay, &client), (b"two".to_vec(), entrance));

        relay.rebind().unwrap();
        client.send_to(b"three", entrance).unwrap();
        let (bytes, seen_later) = exchange(&mut relay, &server);
        assert_eq!(bytes, b"three");
        assert_ne!(seen, seen_later);
    }

    #[test]
    fn a_black_hole_counts_what_it_swallowed() {
        let (client, server, listen) = (local(), local(), local());
        let entrance = listen.local_addr().unwrap();
        let config = LinkConfig { mtu_bytes: Some(60), ..LinkConfig::default() };
        let mut relay = Relay::new(listen, server.local_addr().unwrap(), config, 1).unwrap();
        client.send_to(&[1; 33], entrance).unwrap(); // 61 bytes with its headers
        client.send_to(&[2; 32], entrance).unwrap();
        assert_eq!(exchange(&mut relay, &server).0, [2; 32]);
        assert_eq!(relay.counts().0.too_big, 1);
    }
}
