//! A saturated gateway whose load is spread over more and more sessions, one datagram of each in
//! turn: whether a packet costs the same however many there are.
//!
//! Beside `sessions-N`, which is paced and where waking up costs most, the gateway always finds
//! more to do here. That takes a sender that is faster: what it sends lies ready in memory as
//! frames, sealed beforehand.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::crowd::{Crowd, FAR, SEED};
use super::datagrams::rates;
use super::{Busy, Settings, Used, to_float};
use crate::fleet::{Fleet, Roster, carrier_bytes, pin_this_thread};
use crate::frames::{FrameSocket, Frames};
use crate::inner;
use crate::programs::Program;
use crate::report::Figure;
use crate::sink::{Sink, drops_of_port};

/// Frames of a round and their bytes at most: some tenths of a second of what a gateway takes.
const ROUND_FRAMES: usize = 600_000;
const ROUND_BYTES: usize = 400 << 20;

/// The first part of a round, one in so many, fills the gateway's queue and does not count.
const LEAD_PART: usize = 6;

/// Frames that are repeated when there are fewer sessions, so that system calls are full.
const REPEATED_FRAMES: u32 = 64;

/// Inner port of the clients.
const PORT: u16 = 7_000;

/// What rounds counted.
#[derive(Default)]
struct Sum {
    sent: u64,
    arrived: u64,
    cpu_s: f64,
    wall_s: f64,
}

pub(super) fn decrypt(
    server: Program,
    settings: &Settings,
    count: u32,
    size: usize,
) -> Result<Vec<Figure>> {
    let crowd = Crowd::start(server, settings)?;
    let (mut fleet, _) = crowd.connected(Roster::new(SEED, count))?;
    let sink = Sink::bind(&crowd.line.dst, SocketAddr::V4(FAR))?;
    let line = &crowd.line;
    let socket = FrameSocket::open(&line.cli, "out", (&line.gw, "out"))?;
    let packet_bytes = carrier_bytes(size);
    let frames = ROUND_FRAMES.min(ROUND_BYTES / packet_bytes) / if settings.quick { 4 } else { 1 };
    let mut frames = socket.frames(frames, packet_bytes)?;

    let mut next = fleet.seal_volley(&mut frames, 0, size, FAR)?;
    // Only warms up.
    round(&crowd, &socket, &frames, &sink)?;
    let mut sum = Sum::default();
    while sum.wall_s < f64::from(settings.measured_s) {
        // Keepalives, and whatever else came.
        fleet.hold(Duration::from_millis(1))?;
        next = fleet.seal_volley(&mut frames, next, size, FAR)?;
        sum.add(&round(&crowd, &socket, &frames, &sink)?);
    }
    figures(&sum, size)
}

/// Sends all frames as fast as they go and counts while the gateway is full.
fn round(crowd: &Crowd, socket: &FrameSocket, frames: &Frames, sink: &Sink<'_>) -> Result<Sum> {
    let lead = frames.count() / LEAD_PART;
    socket.send(frames, (0, lead), || false)?;
    let (before, busy) = (sink.arrived()?, Busy::since_now(crowd.pid()));
    let sent = socket.send(frames, (lead, frames.count() - lead), || false)?;
    let (after, used) = (sink.arrived()?, busy.used());
    let Used { cpu_s, wall_s } = used;
    Ok(Sum { sent, arrived: after - before, cpu_s, wall_s })
}

pub(super) fn encrypt(
    server: Program,
    settings: &Settings,
    count: u32,
    size: usize,
) -> Result<Vec<Figure>> {
    let crowd = Crowd::start(server, settings)?;
    let (mut fleet, _) = crowd.connected(Roster::new(SEED, count))?;
    let ports = fleet.only_count()?;
    let line = &crowd.line;
    let socket = FrameSocket::open(&line.dst, "far", (&line.gw, "far"))?;
    let frames = addressed(&socket, &fleet, size)?;
    let arrived = || ports.iter().map(|port| drops_of_port(&line.cli, *port)).sum::<Result<u64>>();
    let stop = AtomicBool::new(false);
    let (counted, (sent, wall_s)) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pin_this_thread(Some(0))?;
            let (start, mut sent) = (Instant::now(), 0);
            let stopped = || stop.load(Ordering::Relaxed);
            while !stopped() {
                sent += socket.send(&frames, (0, frames.count()), stopped)?;
            }
            Ok::<_, anyhow::Error>((sent, start.elapsed().as_secs_f64()))
        });
        let counted = settings.window(crowd.pid(), arrived);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().map_err(|_| anyhow!("The sender panicked"))??;
        Ok::<_, anyhow::Error>((counted?, sent))
    })?;
    let (arrived, used) = counted;
    Ok(rates(arrived, to_float(size as u64), used, to_float(sent) / wall_s))
}

/// A packet for each of the clients.
fn addressed(socket: &FrameSocket, fleet: &Fleet, size: usize) -> Result<Frames> {
    let count = fleet.roster().count;
    let turns = REPEATED_FRAMES.div_ceil(count);
    let mut frames = socket.frames((count * turns) as usize, size)?;
    for (packet, turn) in frames.packets().zip(0..) {
        let to = SocketAddrV4::new(fleet.roster().inner(turn % count), PORT);
        packet.copy_from_slice(&inner::udp_packet(FAR.into(), to.into(), size, true)?);
    }
    Ok(frames)
}

fn figures(sum: &Sum, size: usize) -> Result<Vec<Figure>> {
    ensure!(sum.arrived > 0, "Nothing arrived");
    let used = Used { cpu_s: sum.cpu_s, wall_s: sum.wall_s };
    Ok(rates(sum.arrived, to_float(size as u64), used, to_float(sum.sent) / sum.wall_s))
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.cpu_s += other.cpu_s;
        self.wall_s += other.wall_s;
    }
}
