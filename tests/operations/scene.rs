//! What is watched: shards that carry packets, round by round, from a client that this process
//! plays too. Only the turns of shard and driver are shown to the watcher.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{getppid, gettid};
use ringway_alloc::guard::blocks_of;
use ringway_alloc::heap::{HeapPolicy, ShardHeap};
use ringway_alloc::{Arena, Buf};
use ringway_dataplane::command::{AccountChange, Exhausted, Volume, VolumeChange};
use ringway_dataplane::crossing::{Crossing, LINE_SLOTS, MeshPort, STRAY_BUFFERS};
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::owner::owner_of;
use ringway_dataplane::shard::ShardConfig;
use ringway_dataplane::{Command, Envelope, PeerChange, Report, Shard};
use ringway_flow::Policy;
use ringway_flow::qos::Rate;
use ringway_link::usage::UsageWriter;
use ringway_link::{mesh, spsc, wake};
use ringway_proto::{AccountId, CoreId, Instant, Now};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{
    BUFFER_BYTES, Backend, Driver, DriverConfig, EpollDriver, Inside, Received, Train, TunWrite,
    UdpOptions, UdpSockets, UringDriver, Wait,
};
use ringway_tests::client::{Client, Seeded};
use ringway_tests::driver::{Pools, WorldDriver};
use ringway_tests::gateway::{Gateway, change_of, identity_of};
use ringway_tests::packets::udp4;

/// Rounds of a scene, each watched by itself.
pub(crate) const ROUNDS: usize = 4;

/// Packets of a round.
pub(crate) const PACKETS: usize = 40;

const SEED: u64 = 7;
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PAYLOAD: [u8; 100] = [7; 100];

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// A client's datagrams arrive together and leave for the TUN.
    ToExit,
    /// The same, limited by a chain of four accounts.
    ToExitLimited,
    /// Packets of the TUN leave for a client.
    ToClient,
    /// The same, limited by a chain of four accounts.
    ToClientLimited,
    /// Half of each, through sockets and the driver with a ring.
    Uring,
    /// The same through the driver without one.
    Epoll,
    /// Datagrams arrive at the core that does not own their session.
    Crossing,
    /// No packet: one of everything that is looked for.
    Guilty,
}

impl Scene {
    pub(crate) const ALL: [Self; 8] = [
        Self::ToExit,
        Self::ToExitLimited,
        Self::ToClient,
        Self::ToClientLimited,
        Self::Uring,
        Self::Epoll,
        Self::Crossing,
        Self::Guilty,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ToExit => "to exit",
            Self::ToExitLimited => "to exit in a chain of accounts",
            Self::ToClient => "to client",
            Self::ToClientLimited => "to client in a chain of accounts",
            Self::Uring => "both ways by io_uring",
            Self::Epoll => "both ways by epoll",
            Self::Crossing => "to exit by another core",
            Self::Guilty => "one of everything",
        }
    }
}

/// Plays a scene to a watcher.
pub(crate) fn play(scene: Scene) {
    match scene {
        Scene::ToExit => to_exit(false),
        Scene::ToExitLimited => to_exit(true),
        Scene::ToClient => to_client(false),
        Scene::ToClientLimited => to_client(true),
        Scene::Uring => both_ways::<UringDriver>(),
        Scene::Epoll => both_ways::<EpollDriver>(),
        Scene::Crossing => crossing(),
        Scene::Guilty => guilty(),
    }
}

/// Tells the watcher where to look, and waits until it does. Then the empty section.
#[allow(clippy::print_stdout, reason = "the watcher reads it")]
fn begin(shared: &[Range<usize>]) {
    // The harness has begun a line.
    println!("\nthread {}", gettid());
    for span in shared {
        println!("shared {} {}", span.start, span.end);
    }
    println!("ready");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).unwrap();
    shown(|| {});
}

/// Does something before the eyes of the watcher.
fn shown(work: impl FnOnce()) {
    raise(Signal::SIGUSR1).unwrap();
    work();
    raise(Signal::SIGUSR2).unwrap();
}

/// Time stands still: nothing is due but packets.
fn now() -> Now {
    let wall = std::time::Duration::from_secs(1_700_000_000);
    Now { mono: Instant::from_nanos(1_000_000_000), wall }
}

/// A core, and what joins it to control.
struct Core<D: Driver> {
    shard: Shard<D>,
    commands: spsc::Sender<Envelope>,
    reports: spsc::Receiver<Report>,
}

/// What cores share with control and with each other, and where it lies.
struct Links {
    ports: Vec<MeshPort>,
    channels: Vec<Channels>,
    _sleepers: Vec<wake::Sleeper>,
    spans: Vec<Range<usize>>,
}

type Channels = (
    (spsc::Sender<Envelope>, spsc::Receiver<Envelope>),
    (spsc::Sender<Report>, spsc::Receiver<Report>),
);

impl Links {
    /// As the gateway makes them.
    fn of(cores: u16) -> Self {
        let (mut links, spans) = blocks_of(|| {
            let channels = (0..cores).map(|_| (spsc::channel(1024), spsc::channel(1024))).collect();
            let pairs: Vec<_> = (0..cores).map(|_| wake::pair().unwrap()).collect();
            let (wakers, sleepers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let mut ports = mesh::ports(cores, LINE_SLOTS);
            ports.iter_mut().for_each(|port| port.set_wakers(&wakers));
            Self { ports, channels, _sleepers: sleepers, spans: Vec::new() }
        });
        // The ends of lines are in a block of each port, which is the core's own.
        links.spans = spans;
        links
    }
}

impl<D: Driver> Core<D> {
    fn new(driver: D, port: MeshPort, ((commands, taken), (given, reports)): Channels) -> Self {
        let (core, cores) = (CoreId(port.core()), port.cores());
        let strays = Arena::with_capacity(STRAY_BUFFERS, BUFFER_BYTES).unwrap();
        let config = ShardConfig {
            core,
            layout: IndexLayout::new(cores, 0x5eed_5eed),
            policy: Box::new(Policy::default()),
            heap: ShardHeap::new(HeapPolicy::Auto),
            random: Box::new(Seeded(SEED + u64::from(core.0))),
            index_random: Box::new(Seeded(SEED + 100 + u64::from(core.0))),
            commands: taken,
            reports: given,
            crossing: Crossing::new(port, (cores > 1).then_some(strays)),
            usage: UsageWriter::in_memory(16).unwrap(),
        };
        let mut core = Self { shard: Shard::new(config, driver, now()), commands, reports };
        core.command(Command::SetIdentity(Some(Box::new(identity_of(SEED)))));
        core
    }

    fn command(&mut self, command: Command) {
        self.commands.push(Envelope { sequence: 1, command }).unwrap();
        self.turn();
        assert!(self.reports.pop().is_some());
    }

    /// The turn of the shard alone.
    fn carry(&mut self) {
        let _what_it_wants = self.shard.turn(now());
    }

    fn turn(&mut self) {
        self.carry();
        self.shard.driver_mut().turn(Wait::No).unwrap();
    }
}

fn client(seed: u64, address: SocketAddr) -> Client {
    Client::new(seed, Gateway::public_of(SEED), address, [0; 32])
}

fn peer(client: &Client) -> Command {
    Command::PutPeer(Box::new(change_of(client.public(), &["10.0.0.2/32"])))
}

fn somewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 5], 40_000))
}

/// A core in the world with one client.
fn connected() -> (Core<WorldDriver>, Client, Vec<Range<usize>>) {
    let mut links = Links::of(1);
    let driver = WorldDriver::new(Pools::default()).unwrap();
    let mut core = Core::new(driver, links.ports.remove(0), links.channels.remove(0));
    let mut client = client(11, somewhere());
    core.command(peer(&client));
    let mut out = client.send(&udp4(INSIDE, BEYOND, b"hello"), now());
    while !out.is_empty() {
        inject(&mut core, &out);
        for _ in 0..3 {
            core.turn();
        }
        let sent = std::mem::take(&mut core.shard.driver_mut().sent);
        out = sent.iter().flat_map(|sent| client.receive(&sent.bytes, now())).collect();
    }
    assert!(client.ready(now()));
    (core, client, links.spans)
}

fn inject(core: &mut Core<WorldDriver>, datagrams: &[Vec<u8>]) {
    let to = ringway_ring::Local { address: IpAddr::from([198, 51, 100, 1]), interface: 1 };
    let driver = core.shard.driver_mut();
    driver.inject_outside(datagrams, somewhere(), Some(to), ringway_ring::Ecn(0));
}

fn sealed(client: &mut Client) -> Vec<Vec<u8>> {
    let packet = udp4(INSIDE, BEYOND, &PAYLOAD);
    (0..PACKETS).flat_map(|_| client.send(&packet, now())).collect()
}

/// Lets a chain of four accounts limit the client, by rate and volume, to more than it sends.
fn limit(core: &mut Core<WorldDriver>, client: &Client) {
    for id in 0..4 {
        let volume = Volume { number: 1 + id, bytes: 1 << 40, then: Exhausted::Drop };
        core.command(Command::PutAccount(Box::new(AccountChange {
            id: AccountId(id),
            owner: 7,
            parent: id.checked_sub(1).map(AccountId),
            rates: [Some(Rate::of(10_000_000)); 2],
            volume: VolumeChange::Begin(volume),
        })));
    }
    let account = Some(Some(AccountId(3)));
    let change = PeerChange { account, ..PeerChange::of(client.public()) };
    core.command(Command::PutPeer(Box::new(change)));
}

fn to_exit(limited: bool) {
    let (mut core, mut client, shared) = connected();
    if limited {
        limit(&mut core, &client);
    }
    let before = core.shard.counters_mut().to_exit_packets;
    begin(&shared);
    for _ in 0..ROUNDS {
        inject(&mut core, &sealed(&mut client));
        shown(|| core.carry());
        core.shard.driver_mut().swallow();
    }
    let carried = core.shard.counters_mut().to_exit_packets - before;
    assert_eq!(carried, (ROUNDS * PACKETS) as u64);
}

fn to_client(limited: bool) {
    let (mut core, client, shared) = connected();
    if limited {
        limit(&mut core, &client);
    }
    begin(&shared);
    for _ in 0..ROUNDS {
        for _ in 0..PACKETS {
            core.shard.driver_mut().inject_packet(&udp4(BEYOND, INSIDE, &PAYLOAD));
        }
        shown(|| core.carry());
        core.shard.driver_mut().swallow();
    }
    let carried = core.shard.counters_mut().to_client_packets;
    assert_eq!(carried, (ROUNDS * PACKETS) as u64);
}

fn crossing() {
    let mut links = Links::of(2);
    let mut cores: Vec<_> = links
        .ports
        .drain(..)
        .zip(links.channels.drain(..))
        .map(|(port, channels)| {
            Core::new(WorldDriver::new(Pools::default()).unwrap(), port, channels)
        })
        .collect();
    let clients = (11..).map(|seed| client(seed, somewhere()));
    let owned = |client: &Client| owner_of(&client.public(), 2) == CoreId(1);
    let mut client = clients.into_iter().find(owned).unwrap();
    cores[1].command(peer(&client));
    let mut out = client.send(&udp4(INSIDE, BEYOND, b"hello"), now());
    while !out.is_empty() {
        inject(&mut cores[0], &out);
        out.clear();
        for _ in 0..3 {
            for core in &mut cores {
                core.turn();
                for sent in std::mem::take(&mut core.shard.driver_mut().sent) {
                    out.extend(client.receive(&sent.bytes, now()));
                }
            }
        }
    }
    let before = cores[1].shard.counters_mut().to_exit_packets;
    begin(&links.spans);
    for _ in 0..ROUNDS {
        inject(&mut cores[0], &sealed(&mut client));
        shown(|| [0, 1, 0].into_iter().for_each(|core| cores[core].carry()));
        cores.iter_mut().for_each(|core| core.shard.driver_mut().swallow());
    }
    let carried = cores[1].shard.counters_mut().to_exit_packets - before;
    assert_eq!(carried, (ROUNDS * PACKETS) as u64);
}

fn guilty() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let ((mut sender, receiver), shared) = blocks_of(|| spsc::channel::<u64>(64));
    begin(&shared);
    for round in 0..ROUNDS as u64 {
        shown(|| {
            COUNTER.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            sender.push(round).unwrap();
            let _parent = getppid();
        });
    }
    assert_eq!(receiver.len(), ROUNDS);
}

/// A real driver with a TUN that is played.
struct Tapped<B> {
    driver: B,
    arena: Arena,
    inside: VecDeque<Inside>,
}

impl<B: Backend> Tapped<B> {
    fn inject(&mut self, packet: &[u8]) {
        let mut buf = self.arena.take().unwrap();
        let len = VNET_HEADER_BYTES + packet.len();
        buf[..VNET_HEADER_BYTES].fill(0);
        buf[VNET_HEADER_BYTES..len].copy_from_slice(packet);
        self.inside.push_back(Inside { buf, start: 0, len });
    }
}

impl<B: Backend> Driver for Tapped<B> {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.driver.turn(wait)
    }

    fn next(&mut self) -> Option<Received> {
        self.driver.next().or_else(|| self.inside.pop_front().map(Received::Inside))
    }

    fn reserve_train(&mut self) -> Option<Buf> {
        self.driver.reserve_train()
    }

    fn send(&mut self, train: Train) {
        self.driver.send(train);
    }

    fn reserve_tun(&mut self) -> Option<Box<TunWrite>> {
        self.driver.reserve_tun()
    }

    fn write_tun(&mut self, write: Box<TunWrite>) {
        self.driver.write_tun(write);
    }

    fn cancel_tun(&mut self, write: Box<TunWrite>) {
        self.driver.cancel_tun(write);
    }

    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        self.driver.set_sockets(sockets)
    }
}

fn both_ways<B: Backend>() {
    let options = UdpOptions { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, ..Default::default() };
    let sockets = UdpSockets::bind(&options).unwrap();
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, sockets.port()));
    let mut links = Links::of(1);
    let mut driver = Tapped {
        driver: B::make(DriverConfig::new().unwrap()).unwrap(),
        arena: Arena::with_capacity(64, BUFFER_BYTES).unwrap(),
        inside: VecDeque::with_capacity(64),
    };
    driver.set_sockets(Some(sockets)).unwrap();
    let mut core = Core::new(driver, links.ports.remove(0), links.channels.remove(0));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(gateway).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut client = client(11, socket.local_addr().unwrap());
    core.command(peer(&client));
    send(&socket, &client.send(&udp4(INSIDE, BEYOND, b"hello"), now()));
    while !client.ready(now()) || core.shard.counters_mut().to_exit_packets == 0 {
        core.turn();
        let mut datagram = [0; 2_048];
        while let Ok(len) = socket.recv(&mut datagram) {
            send(&socket, &client.receive(&datagram[..len], now()));
        }
    }
    let counted = |core: &mut Core<Tapped<B>>| {
        let counters = core.shard.counters_mut();
        (counters.to_exit_packets, counters.to_client_packets)
    };
    let before = counted(&mut core);
    begin(&links.spans);
    for _ in 0..ROUNDS {
        let datagrams = sealed(&mut client);
        send(&socket, &datagrams[..PACKETS / 2]);
        for _ in 0..PACKETS / 2 {
            core.shard.driver_mut().inject(&udp4(BEYOND, INSIDE, &PAYLOAD));
        }
        // What came is collected, carried, and what it became leaves with the next turn.
        shown(|| {
            for _ in 0..2 {
                core.shard.driver_mut().turn(Wait::No).unwrap();
                core.carry();
            }
            core.shard.driver_mut().turn(Wait::No).unwrap();
        });
        let mut datagram = [0; 2_048];
        while socket.recv(&mut datagram).is_ok() {}
    }
    let (to_exit, to_client) = counted(&mut core);
    let half = (ROUNDS * PACKETS / 2) as u64;
    assert_eq!((to_exit - before.0, to_client - before.1), (half, half));
}

/// Sends datagrams of one length together.
fn send(socket: &UdpSocket, datagrams: &[Vec<u8>]) {
    let Some(first) = datagrams.first() else { return };
    let segment = first.len() as u16;
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let bytes = datagrams.concat();
    let vectors = [io::IoSlice::new(&bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &vectors, &control, MsgFlags::empty(), None).unwrap();
}
