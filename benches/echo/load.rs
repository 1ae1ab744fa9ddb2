//! The load, and what it counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway_ring::{Driver, Ecn, Received, Train, UringDriver, Wait};

use super::server::Server;
use super::{Contender, Sample, Workload, udp};

const DATAGRAM_BYTES: usize = 64;
const IN_FLIGHT: usize = 64;

/// A datagram that is not back by now is lost, and the window is filled again.
const LOST_AFTER: Duration = Duration::from_millis(50);

/// Time before counting: connections open, buffers fill.
const WARM_UP: Duration = Duration::from_millis(200);

const RELAY_BUFFER_BYTES: usize = 256 << 10;

/// One round of `length`, on a server started for it.
///
/// # Errors
/// If the server does not come up, or goes.
pub fn round(contender: Contender, workload: Workload, length: Duration) -> anyhow::Result<Sample> {
    match workload {
        Workload::UdpSingle => {
            let server = Server::start(contender, workload, no_destination())?;
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((Ipv4Addr::LOCALHOST, server.port))?;
            socket.set_read_timeout(Some(LOST_AFTER))?;
            measure(&server, length, || window_single(&socket))
        }
        Workload::UdpMerged => {
            let server = Server::start(contender, workload, no_destination())?;
            let (mut driver, _) = udp::driver::<UringDriver>()?;
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
            measure(&server, length, || window_merged(&mut driver, to))
        }
        Workload::Relay(pairs) => relay(contender, workload, pairs, length),
    }
}

/// Repeats `window`, which returns how many operations it did, for as long as a round takes.
fn measure(
    server: &Server,
    length: Duration,
    mut window: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Sample> {
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        window()?;
    }
    let cpu_before = server.cpu_ns()?;
    let start = Instant::now();
    let mut operations = 0;
    while start.elapsed() < length {
        operations += window()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Sample { operations, seconds, cpu_ns: server.cpu_ns()? - cpu_before })
}

fn window_single(socket: &UdpSocket) -> anyhow::Result<u64> {
    let mut bytes = [0x5a; DATAGRAM_BYTES];
    for _ in 0..IN_FLIGHT {
        socket.send(&bytes)?;
    }
    let back = (0..IN_FLIGHT).take_while(|_| socket.recv(&mut bytes).is_ok()).count();
    Ok(back as u64)
}

fn window_merged(driver: &mut UringDriver, to: SocketAddr) -> anyhow::Result<u64> {
    if let Some(mut buf) = driver.reserve_train() {
        let len = IN_FLIGHT * DATAGRAM_BYTES;
        buf[..len].fill(0x5a);
        driver.send(Train {
            buf,
            len,
            segment_bytes: DATAGRAM_BYTES,
            to,
            from: None,
            ecn: Ecn::default(),
            dscp: 0,
        });
    }
    let mut back = 0;
    let sent = Instant::now();
    while back < IN_FLIGHT && sent.elapsed() < LOST_AFTER {
        driver.turn(Wait::AtMost(LOST_AFTER))?;
        while let Some(received) = driver.next() {
            let Received::Outside(datagrams) = received else { continue };
            back += datagrams.len / DATAGRAM_BYTES;
        }
    }
    Ok(back as u64)
}

/// Sources write, the server relays, sinks read and count.
fn relay(
    contender: Contender,
    workload: Workload,
    pairs: usize,
    length: Duration,
) -> anyhow::Result<Sample> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let server = Server::start(contender, workload, listener.local_addr()?)?;
    let relayed = AtomicU64::new(0);
    thread::scope(|threads| {
        for _ in 0..pairs {
            let source = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
            let (sink, _) = listener.accept()?;
            threads.spawn(|| write_until_refused(source));
            threads.spawn(|| read_until_closed(sink, &relayed));
        }
        thread::sleep(WARM_UP);
        let (cpu_before, bytes_before) = (server.cpu_ns()?, relayed.load(Ordering::Relaxed));
        let start = Instant::now();
        thread::sleep(length);
        let bytes = relayed.load(Ordering::Relaxed) - bytes_before;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_ns = server.cpu_ns()? - cpu_before;
        // The connections break with it, and the threads end.
        drop(server);
        Ok(Sample { operations: bytes >> 10, seconds, cpu_ns })
    })
}

fn write_until_refused(mut source: TcpStream) {
    let bytes = vec![0x5a; RELAY_BUFFER_BYTES];
    while source.write_all(&bytes).is_ok() {}
}

fn read_until_closed(mut sink: TcpStream, relayed: &AtomicU64) {
    let mut bytes = vec![0; RELAY_BUFFER_BYTES];
    while let Ok(len @ 1..) = sink.read(&mut bytes) {
        relayed.fetch_add(len as u64, Ordering::Relaxed);
    }
}

fn no_destination() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
