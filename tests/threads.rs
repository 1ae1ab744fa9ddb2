//! Two shards on two threads with real drivers and real sockets, which nothing steers: half of all
//! there is arrives at the wrong core, cores sleep and are woken, and nothing is lost or overtaken.
//!
//! ```text
//!  clients ──UDP, loopback──► core 0 ◄──mesh──► core 1
//!                               ▲ packets "from the TUN" ▲ checked when written "to the TUN"
//! ```

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use ringway_alloc::heap::{HeapPolicy, ShardHeap};
use ringway_alloc::{Arena, Buf};
use ringway_dataplane::command::{AccountChange, Exhausted, RouteChange, Volume, VolumeChange};
use ringway_dataplane::counters::Counters;
use ringway_dataplane::crossing::{Crossing, MeshPort, STRAY_BUFFERS};
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::owner::owner_of;
use ringway_dataplane::shard::ShardConfig;
use ringway_dataplane::worker::mesh;
use ringway_dataplane::{Command, Envelope, PeerChange, Shard};
use ringway_flow::Policy;
use ringway_flow::qos::Rate;
use ringway_link::spsc;
use ringway_link::usage::UsageWriter;
use ringway_link::wake::{self, Sleeper, Waker};
use ringway_proto::crypto::Random;
use ringway_proto::offload::{Segments, VnetHeader};
use ringway_proto::{AccountId, CoreId, DropReason, Instant, Now};
use ringway_ring::driver::VNET_HEADER_BYTES;
use ringway_ring::{
    BUFFER_BYTES, Backend, Driver, DriverConfig, EpollDriver, Features, Inside, PoolSizes, Pools,
    Received, Train, TunWrite, UdpGroup, UdpOptions, UdpSockets, UringDriver, Wait, ZeroCopyMode,
    clock,
};
use ringway_tests::client::Client;
use ringway_tests::gateway::{Gateway, change_of, identity_of};
use ringway_tests::packets::udp4;

const SEED: u64 = 7;
const CORES: u16 = 2;
const CLIENTS: u8 = 16;
const ROUNDS: u32 = 400;
/// Packets of one client in one round, each way.
const PACKETS: u32 = 4;
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn inside(client: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, client + 2)
}

fn now() -> Now {
    Now { mono: Instant::from_nanos(clock::boot_ns()), wall: clock::wall() }
}

/// A payload that says whose packet it is and which.
fn payload(client: u8, number: u32) -> Vec<u8> {
    let mut payload = vec![client; 60 + usize::from(client) * 8];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Client and number of a packet.
fn read(packet: &[u8]) -> (u8, u32) {
    (packet[28 + 4], u32::from_be_bytes(*packet[28..].first_chunk().unwrap()))
}

struct KernelRandom;

impl Random for KernelRandom {
    fn fill(&mut self, out: &mut [u8]) {
        clock::random(out);
    }
}

/// A driver whose TUN is the test.
#[expect(clippy::vec_box, reason = "boxes are what circulates between driver and shard")]
struct Tapped<B> {
    driver: B,
    /// What the TUN hands over.
    inside: spsc::Receiver<Vec<u8>>,
    arena: Arena,
    /// What is written to the TUN in this turn.
    writes: Vec<Box<TunWrite>>,
    /// The number of each client's last packet.
    last: BTreeMap<u8, u32>,
    /// Packets written by all cores.
    written: Arc<AtomicU64>,
}

impl<B: Backend> Tapped<B> {
    fn check(&mut self, write: &TunWrite) {
        let mut bytes = write.head().to_vec();
        let mut held: &[u8] = &[];
        for piece in write.pieces() {
            if let Some(hold) = &piece.hold {
                held = hold.bytes().unwrap();
            }
            bytes.extend_from_slice(&held[piece.start as usize..][..piece.len as usize]);
        }
        let (header, packet) = VnetHeader::parse(&bytes).unwrap();
        let segments = Segments::new(&header, packet).unwrap();
        let mut room = vec![0; BUFFER_BYTES];
        for at in 0..segments.count() {
            segments.write(at, &mut room);
            let (client, number) = read(&room);
            let last = self.last.insert(client, number);
            assert!(last < Some(number), "{number} of {client} after {last:?}");
        }
        self.written.fetch_add(segments.count() as u64, Ordering::Relaxed);
    }
}

impl<B: Backend> Driver for Tapped<B> {
    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        for write in std::mem::take(&mut self.writes) {
            self.check(&write);
            // There is no TUN: it goes back to where it came from.
            self.driver.write_tun(write);
        }
        let wait = if self.inside.is_empty() { wait } else { Wait::No };
        self.driver.turn(wait)
    }

    fn next(&mut self) -> Option<Received> {
        if let Some(received) = self.driver.next() {
            return Some(received);
        }
        let mut buf = self.arena.take()?;
        let packet = self.inside.pop()?;
        let len = VNET_HEADER_BYTES + packet.len();
        buf[..VNET_HEADER_BYTES].fill(0);
        buf[VNET_HEADER_BYTES..len].copy_from_slice(&packet);
        Some(Received::Inside(Inside { buf, start: 0, len }))
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
        self.writes.push(write);
    }

    fn cancel_tun(&mut self, write: Box<TunWrite>) {
        self.driver.cancel_tun(write);
    }

    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>> {
        self.driver.set_sockets(sockets)
    }
}

/// What a core is started with.
struct Start {
    port: MeshPort,
    sockets: UdpSockets,
    sleeper: Sleeper,
    commands: spsc::Receiver<Envelope>,
    reports: spsc::Sender<ringway_dataplane::Report>,
    inside: spsc::Receiver<Vec<u8>>,
    written: Arc<AtomicU64>,
}

/// The loop of a worker. Returns what the core has counted.
fn work<B: Backend>(start: Start) -> Counters {
    let driver = B::make(DriverConfig {
        pools: Pools::new(PoolSizes::default()).unwrap(),
        features: Features::probe(),
        zero_copy: ZeroCopyMode::default(),
        waker: Some(start.sleeper.as_fd().try_clone_to_owned().unwrap()),
    });
    let mut driver = Tapped {
        driver: driver.unwrap(),
        inside: start.inside,
        arena: Arena::with_capacity(64, BUFFER_BYTES).unwrap(),
        writes: Vec::new(),
        last: BTreeMap::new(),
        written: start.written,
    };
    driver.set_sockets(Some(start.sockets)).unwrap();
    let strays = Arena::with_capacity(STRAY_BUFFERS, BUFFER_BYTES).unwrap();
    let config = ShardConfig {
        core: CoreId(start.port.core()),
        layout: IndexLayout::new(CORES, 0x5eed_5eed),
        policy: Box::new(Policy::default()),
        heap: ShardHeap::new(HeapPolicy::Auto),
        random: Box::new(KernelRandom),
        index_random: Box::new(KernelRandom),
        commands: start.commands,
        reports: start.reports,
        crossing: Crossing::new(start.port, Some(strays)),
        usage: UsageWriter::in_memory(16).unwrap(),
    };
    let mut shard = Shard::new(config, driver, now());
    loop {
        let turn = shard.turn(now());
        if turn.stop {
            break;
        }
        let mut wait = turn.wait;
        if wait != Wait::No {
            start.sleeper.prepare();
            if shard.has_commands() || shard.has_arrivals() {
                wait = Wait::No;
            }
        }
        shard.driver_mut().turn(wait).unwrap();
        start.sleeper.awake();
    }
    shard.driver_mut().driver.shutdown().unwrap();
    shard.counters_mut().clone()
}

/// One client with a socket of its own.
struct Guest {
    number: u8,
    client: Client,
    socket: UdpSocket,
    received: u32,
}

impl Guest {
    fn new(number: u8, gateway: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(gateway).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = socket.local_addr().unwrap();
        let seed = 50 + u64::from(number);
        let client = Client::new(seed, Gateway::public_of(SEED), address, [0; 32]);
        Self { number, client, socket, received: 0 }
    }

    fn send(&mut self, number: u32) {
        let packet = udp4(inside(self.number), BEYOND, &payload(self.number, number));
        let out = self.client.send(&packet, now());
        self.put(&out);
    }

    fn put(&self, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            self.socket.send(datagram).unwrap();
        }
    }

    /// Waits for the next datagram.
    fn get(&mut self) {
        let mut datagram = [0; 2048];
        let len = self.socket.recv(&mut datagram).expect("the gateway answers");
        let out = self.client.receive(&datagram[..len], now());
        self.put(&out);
        for packet in std::mem::take(&mut self.client.received) {
            assert_eq!(read(&packet), (self.number, self.received), "in order, and all");
            self.received += 1;
        }
    }
}

/// What a core is told before it starts.
fn configure(core: u16, commands: &mut spsc::Sender<Envelope>, guests: &[Guest]) {
    let identity = Command::SetIdentity(Some(Box::new(identity_of(SEED))));
    // All are in one account, which may use more than they do.
    let volume = Volume { number: 1, bytes: 1 << 40, then: Exhausted::Drop };
    let account = Command::PutAccount(Box::new(AccountChange {
        id: AccountId(0),
        owner: 1,
        parent: None,
        rates: [Some(Rate::of(1_000_000_000)); 2],
        volume: VolumeChange::Begin(volume),
    }));
    let peers = guests.iter().map(|guest| {
        let net = format!("{}/32", inside(guest.number));
        let public = guest.client.public();
        let owner = owner_of(&public, CORES);
        if owner == CoreId(core) {
            let account = Some(Some(AccountId(0)));
            Command::PutPeer(Box::new(PeerChange { account, ..change_of(public, &[&net]) }))
        } else {
            let change = RouteChange { net: net.parse().unwrap(), core: Some(owner) };
            Command::PutRoutes(Box::new(vec![change]))
        }
    });
    for (sequence, command) in (0..).zip([identity, account].into_iter().chain(peers)) {
        commands.push(Envelope { sequence, command }).unwrap();
    }
}

fn stop(commands: &mut spsc::Sender<Envelope>, waker: &Waker) {
    commands.push(Envelope { sequence: 1_000, command: Command::Stop }).unwrap();
    waker.wake();
}

/// Everybody sends both ways, all the time.
fn exchange(guests: &mut [Guest], taps: &mut [spsc::Sender<Vec<u8>>], wakers: &[Waker]) {
    for guest in &mut *guests {
        guest.send(0);
        while !guest.client.ready(now()) {
            guest.get();
        }
    }
    for round in 0..ROUNDS {
        for guest in &mut *guests {
            for packet in 0..PACKETS {
                let number = round * PACKETS + packet;
                guest.send(1 + number);
                // Always by the same core, which for half of them is the wrong one.
                let core = usize::from(guest.number % 2);
                let packet = udp4(BEYOND, inside(guest.number), &payload(guest.number, number));
                taps[core].push(packet).unwrap();
                wakers[core].wake();
            }
        }
        for guest in &mut *guests {
            while guest.received < (round + 1) * PACKETS {
                guest.get();
            }
        }
    }
}

fn nothing_is_lost_or_overtaken_with<B: Backend>() {
    let options = UdpOptions { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, ..Default::default() };
    let group = UdpGroup::open(&options, CORES, None).unwrap();
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, group.sockets[0].port()));
    let mut guests: Vec<_> = (0..CLIENTS).map(|number| Guest::new(number, gateway)).collect();
    let (wakers, sleepers): (Vec<_>, Vec<_>) = (0..CORES).map(|_| wake::pair().unwrap()).unzip();
    let written = Arc::new(AtomicU64::new(0));
    let (mut taps, mut lines, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut starts = Vec::new();
    for ((port, sockets), sleeper) in mesh(&wakers).into_iter().zip(group.sockets).zip(sleepers) {
        let (mut to_core, commands) = spsc::channel(64);
        let (reports, from_core) = spsc::channel(64);
        let (tap, inside) = spsc::channel(1024);
        configure(port.core(), &mut to_core, &guests);
        taps.push(tap);
        lines.push(to_core);
        answers.push(from_core);
        let written = Arc::clone(&written);
        starts.push(Start { port, sockets, sleeper, commands, reports, inside, written });
    }
    let expected = u64::from(CLIENTS) * u64::from(1 + ROUNDS * PACKETS);
    let counters: Vec<Counters> = std::thread::scope(|threads| {
        let workers: Vec<_> =
            starts.into_iter().map(|start| threads.spawn(|| work::<B>(start))).collect();
        let begin = Clock::now();
        exchange(&mut guests, &mut taps, &wakers);
        // Cores that were not woken would notice only when a timer fires.
        assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
        while written.load(Ordering::Relaxed) < expected {
            assert!(begin.elapsed() < PATIENCE, "{written:?} of {expected} packets were written");
            std::thread::yield_now();
        }
        lines.iter_mut().zip(&wakers).for_each(|(line, waker)| stop(line, waker));
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    assert_eq!(written.load(Ordering::Relaxed), expected);
    assert_eq!(sum(|c| c.to_exit_packets), expected);
    assert_eq!(sum(|c| c.to_client_packets), u64::from(CLIENTS) * u64::from(ROUNDS * PACKETS));
    assert_eq!(sum(|c| c.crossed_out_datagrams), sum(|c| c.crossed_in_datagrams));
    assert_eq!(sum(|c| c.crossed_out_packets), sum(|c| c.crossed_in_packets));
    assert_eq!(sum(|c| c.crossed_out_handshakes), sum(|c| c.crossed_in_handshakes));
    assert!(sum(|c| c.crossed_in_credits) > 0, "one of the cores is far from home");
    assert!(sum(|c| c.crossed_in_datagrams) > 0 && sum(|c| c.crossed_in_packets) > 0);
    for reason in DropReason::ALL {
        let drops: u64 = counters.iter().map(|c| c.drops[*reason as usize]).sum();
        assert_eq!(drops, 0, "{reason:?}");
    }
    let crossed = sum(|c| c.crossed_in_datagrams + c.crossed_in_packets);
    eprintln!("{crossed} crossings of {} packets", 2 * expected);
}

#[test]
fn nothing_is_lost_or_overtaken_on_the_ring() {
    nothing_is_lost_or_overtaken_with::<UringDriver>();
}

#[test]
fn nothing_is_lost_or_overtaken_without_a_ring() {
    nothing_is_lost_or_overtaken_with::<EpollDriver>();
}
