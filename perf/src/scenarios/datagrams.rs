//! Packet rates: a gateway that is offered more than it can decrypt, and one that encrypts single
//! packets.
//!
//! Delivered datagrams are counted by the drop counter of a socket that nobody reads. The window is
//! opened after the warm-up and both counters, packets and processor time, are read at its two
//! ends.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Busy, Settings, Used, own_tool, to_float};
use crate::process::Process;
use crate::programs::Program;
use crate::report::Figure;
use crate::sink::{Sink, drops_of_port};
use crate::topology::{GATEWAY_PORT, Gateway, Line, Place};
use crate::wait::wait_until;

const SINK_PORT: u16 = 9_000;
const START_LIMIT: Duration = Duration::from_secs(25);

/// Seconds the generators run beyond the window, for starting and stopping.
const MARGIN_S: u32 = 2;

pub(super) fn decrypt(
    server: Program,
    settings: &Settings,
    size: usize,
    merged: bool,
    checksum: bool,
) -> Result<Vec<Figure>> {
    let plan = settings.plan(server);
    let line = Line::new(1500)?;
    if !merged {
        // The generator's kernel splits its trains before the wire: the gateway sees single
        // datagrams, and the generator does not spend a system call on each, so that it can
        // saturate the gateway.
        line.cli.exec("ethtool -K out tx-udp-segmentation off")?;
    }
    let gateway = line.serve(&plan)?;
    let to = SocketAddr::new(Place::Destination.address(settings.inside), SINK_PORT);
    let sink = Sink::bind(&line.dst, to)?;

    let seconds = settings.omitted_s + settings.measured_s + MARGIN_S;
    let no_checksum = if checksum { "" } else { "--no-checksum" };
    let options = format!("--size {size} {no_checksum} --seconds {seconds}");
    let mut generator = start_generator(&line, &gateway, settings, to, &options)?;
    let _port = port_of(&mut generator)?;

    let (arrived, used) = window(settings, gateway.tunnel.pid(), || sink.arrived())?;
    let ended = generator.wait(START_LIMIT)?;
    ensure!(ended.success(), "The generator failed: {}", generator.errors());
    let offered = word_after(&generator.output(), "sent").unwrap_or(0);
    let offered_per_s = to_float(offered) / f64::from(seconds);
    Ok(rates(arrived, size, used, Some(offered_per_s)))
}

pub(super) fn encrypt(server: Program, settings: &Settings, size: usize) -> Result<Vec<Figure>> {
    let plan = settings.plan(server);
    let line = Line::new(1500)?;
    let gateway = line.serve(&plan)?;
    // Shakes hands and then only counts: what the gateway sends to its port is dropped there
    // unread.
    let to = SocketAddr::new(Place::Destination.address(settings.inside), SINK_PORT);
    let mut counter = start_generator(&line, &gateway, settings, to, "--seconds 0")?;
    let port = port_of(&mut counter)?;

    let client = SocketAddr::new(Place::ClientInside.address(settings.inside), SINK_PORT);
    let seconds = settings.omitted_s + settings.measured_s + MARGIN_S;
    let mut sender = own_tool(&format!("blast {client} --size {size} --seconds {seconds}"))?
        .within(line.dst.name())
        .on_cpus(plan.pinning.ends)
        .spawn()?;
    let arrived = || drops_of_port(&line.cli, port);
    let (arrived, used) = window(settings, gateway.tunnel.pid(), arrived)?;
    sender.wait(START_LIMIT)?;
    let offered = word_after(&sender.output(), "sent").unwrap_or(0);
    Ok(rates(arrived, size, used, Some(to_float(offered) / f64::from(seconds))))
}

fn start_generator(
    line: &Line,
    gateway: &Gateway,
    settings: &Settings,
    to: SocketAddr,
    options: &str,
) -> Result<Process> {
    let outside = SocketAddr::new(Place::GatewayOutside.address(settings.outside), GATEWAY_PORT);
    let from = SocketAddr::new(Place::ClientInside.address(settings.inside), SINK_PORT);
    let ends = crate::topology::Pinning::MEASURE.ends;
    own_tool(&format!("flood --to {outside} --from-inner {from} --to-inner {to} {options}"))?
        .args(["--gateway", &gateway.keys.public])
        .env("WG_PRIVATE_KEY", &gateway.client_keys.private)
        .within(line.cli.name())
        .on_cpus(ends)
        .spawn()
}

/// Waits for the handshake and returns the generator's UDP port.
fn port_of(generator: &mut Process) -> Result<u16> {
    let port = wait_until("the generator's handshake", START_LIMIT, || {
        if generator.ended().is_some() {
            return Some(None);
        }
        word_after(&generator.output(), "port").map(Some)
    })?;
    let port = port.with_context(|| format!("The generator ended: {}", generator.errors()))?;
    Ok(u16::try_from(port)?)
}

fn word_after(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

/// Counts over the measured window: arrivals and what the gateway used.
fn window(
    settings: &Settings,
    gateway: u32,
    arrived: impl Fn() -> Result<u64>,
) -> Result<(u64, Used)> {
    thread::sleep(Duration::from_secs(settings.omitted_s.into()));
    let (before, busy) = (arrived()?, Busy::since_now(gateway));
    thread::sleep(Duration::from_secs(settings.measured_s.into()));
    let (after, used) = (arrived()?, busy.used());
    ensure!(after > before, "Nothing arrived");
    Ok((after - before, used))
}

fn rates(arrived: u64, size: usize, used: Used, offered_per_s: Option<f64>) -> Vec<Figure> {
    let per_s = to_float(arrived) / used.wall_s;
    let mut figures = vec![
        Figure::higher("kpps", per_s / 1e3),
        Figure::told("Gbit/s", per_s * to_float(size as u64) * 8.0 / 1e9),
        Figure::lower("µs/packet", used.cpu_s * 1e6 / to_float(arrived)),
        Figure::told("core used", used.cores()),
    ];
    figures.extend(offered_per_s.map(|offered| Figure::told("offered kpps", offered / 1e3)));
    figures
}
