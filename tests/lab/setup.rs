//! What the lab's tests share: which gateway, connected sites, traffic in the background, numbered
//! datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use ringway_perf::iperf::{Amount, Carried, Direction, Run, Server};
use ringway_perf::netns::Netns;
use ringway_perf::order::{self, OrderCheck, OrderReport};
use ringway_perf::programs::{Program, Tunnel};
use ringway_perf::sink::roomy_receiver;
use ringway_perf::topology::{Family, Line, Place, Plan, Site};
use ringway_perf::wait::wait_for;

/// Limit for things that take one handshake or less.
pub(crate) const SOON: Duration = Duration::from_secs(12);

/// Limit for things that need the timers of WireGuard: 15 s of silence, 5 s of repetition, and
/// slack.
pub(crate) const LATER: Duration = Duration::from_secs(40);

/// After this many seconds nothing repeats a handshake that has ended: 5 s, a third of a second
/// that is left to chance, and the fractions that are not told.
const REPEATED_WITHIN_S: u64 = 7;

/// The gateway under test.
pub(crate) fn gateway() -> Program {
    match std::env::var("LAB_GATEWAY") {
        Ok(name) => Program::named(&name).unwrap(),
        Err(_) => Program::Ringway,
    }
}

/// The stock client of tests that are about the gateway: the best one that is installed.
pub(crate) fn stock_client() -> Program {
    [Program::WireguardGoNew, Program::WireguardGo]
        .into_iter()
        .find(|program| program.find().is_some())
        .expect("wireguard-go is not installed; `tools/setup test` installs it")
}

/// The gateway under test with the stock client, a direct wire, IPv4 outside, tunnel MTU 1420;
/// traffic passes.
pub(crate) fn site() -> Site {
    connected(Plan::new(gateway(), stock_client()))
}

/// A site on a direct wire of 1500 bytes; traffic passes in both families.
pub(crate) fn connected(plan: Plan) -> Site {
    let site = Line::new(1500).unwrap().connect(plan).unwrap();
    for inside in Family::BOTH {
        site.await_traffic(inside).unwrap();
    }
    site
}

/// When the client of this end last shook hands, once that is over.
///
/// wireguard-go sets the alarm that repeats an initiation after it has sent it. If the machine is
/// busy the answer is there sooner, the alarm is set nevertheless, and five seconds later there is
/// a second handshake, which is nobody's fault. Who expects none waits for that time first.
pub(crate) fn settled(end: &Tunnel) -> u64 {
    let handshake = || end.peers().unwrap()[0].handshake_s;
    let now_s = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let is_over = || now_s() >= handshake() + REPEATED_WITHIN_S;
    wait_for("the handshake to be over", LATER, is_over).unwrap();
    handshake()
}

/// An iperf3 server at the destination. One per test and family.
pub(crate) fn iperf_server(site: &Site, inside: Family) -> Server {
    let port = match inside {
        Family::V4 => 5201,
        Family::V6 => 5202,
    };
    Server::start(&site.line.dst, Place::Destination.address(inside), port, None).unwrap()
}

/// Moves `megabytes` over one TCP stream.
pub(crate) fn transfer(
    site: &Site,
    server: &Server,
    direction: Direction,
    megabytes: u64,
) -> Result<Carried> {
    let amount = Amount::Bytes(megabytes << 20);
    server.run(&site.line.cli, Run { streams: 1, direction, amount, rate_limit: None }, None)
}

/// Transfers both ways in both families inside.
pub(crate) fn transfer_all(site: &Site, megabytes: u64) {
    for inside in Family::BOTH {
        let server = iperf_server(site, inside);
        for direction in [Direction::Up, Direction::Down] {
            let carried = transfer(site, &server, direction, megabytes);
            let carried = carried.unwrap_or_else(|e| panic!("{inside:?} {direction:?}: {e:#}"));
            assert!(carried.bits_per_second > 1e6, "{inside:?} {direction:?}: {carried:?}");
        }
    }
}

/// Numbered datagrams from one namespace to another while `work` runs, `rate` per second, until
/// `work` is done.
pub(crate) fn numbered_while<T: Send>(
    from: (&Netns, SocketAddr),
    to: (&Netns, SocketAddr),
    rate: u64,
    work: impl FnOnce() -> T + Send,
) -> (T, OrderReport, u64) {
    let receiver = roomy_receiver(to.0, to.1).unwrap();
    let sender = from.0.inside(|| UdpSocket::bind(from.1)).unwrap().unwrap();
    sender.connect(to.1).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let judge = scope.spawn(|| judge(&receiver, &done));
        let count = scope.spawn(|| send_numbered(&sender, rate, &done));
        // Also when the work fails: otherwise the other two would go on for ever.
        let over = OnDrop(|| done.store(true, Ordering::Release));
        let outcome = work();
        drop(over);
        (outcome, judge.join().unwrap(), count.join().unwrap())
    })
}

/// Calls its function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn send_numbered(socket: &UdpSocket, rate: u64, done: &AtomicBool) -> u64 {
    let (start, mut number) = (Instant::now(), 0);
    while !done.load(Ordering::Acquire) {
        let due = Duration::from_nanos(number * 1_000_000_000 / rate);
        thread::sleep(due.saturating_sub(start.elapsed()));
        // Sizes vary, so that merging by size cannot hide a mistake.
        let mut datagram = vec![0; 100 + usize::try_from(number % 7).unwrap() * 150];
        order::write_number(&mut datagram, number);
        // While a client moves, its kernel may have no route for a moment.
        let _ = socket.send(&datagram);
        number += 1;
    }
    number
}

/// Until the sender is done and half a second was silent.
fn judge(socket: &UdpSocket, done: &AtomicBool) -> OrderReport {
    let (start, mut check) = (Instant::now(), OrderCheck::default());
    let mut datagram = [0; 2_048];
    loop {
        match socket.recv(&mut datagram) {
            Ok(length) => {
                let number = order::read_number(&datagram[..length]).unwrap();
                check.see(number, start.elapsed());
            }
            Err(_) if done.load(Ordering::Acquire) => return check.report(),
            Err(_) => {}
        }
    }
}

/// The client's end of the tunnel and a port.
pub(crate) fn client_at(inside: Family, port: u16) -> SocketAddr {
    SocketAddr::new(Place::ClientInside.address(inside), port)
}

/// The destination and a port.
pub(crate) fn destination_at(inside: Family, port: u16) -> SocketAddr {
    SocketAddr::new(Place::Destination.address(inside), port)
}
