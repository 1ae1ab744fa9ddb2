//! Packet rates: a gateway that is offered more than it can decrypt, and one that encrypts single
//! packets.
//!
//! Delivered datagrams are counted by the drop counter of a socket that nobody reads. The window is
//! opened after the warm-up and both counters, packets and processor time, are read at its two
//! ends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Regime, Settings, Used, own_tool, to_float};
use crate::process::Process;
use crate::programs::Program;
use crate::report::Figure;
use crate::sink::{Sink, drops_of_port};
use crate::topology::{GATEWAY_PORT, Gateway, Line, Pinning, Place};
use crate::wait::wait_until;

pub(super) const SINK_PORT: u16 = 9_000;
pub(super) const START_LIMIT: Duration = Duration::from_secs(25);

/// Trains of the mix, so long that each size is merged as far as the ratio allows, and so short
/// that the sizes take turns every few packets.
const IMIX_MERGED: &str = "64x56,576x32,1360x8";
const IMIX_SINGLE: &str = "64x14,576x8,1360x2";
const IMIX_MEAN_BYTES: f64 = (64.0 * 7.0 + 576.0 * 4.0 + 1_360.0) / 12.0;

pub(super) fn flood(
    server: Program,
    settings: &Settings,
    size: usize,
    regime: Regime,
    checksum: bool,
) -> Result<Vec<Figure>> {
    let no_checksum = if checksum { "" } else { "--no-checksum" };
    let options = format!("--mix {size}x64 {no_checksum}");
    decrypt(server, settings, &options, to_float(size as u64), regime)
}

pub(super) fn imix(server: Program, settings: &Settings, regime: Regime) -> Result<Vec<Figure>> {
    let mix = match regime {
        Regime::Merged => IMIX_MERGED,
        Regime::Single => IMIX_SINGLE,
    };
    decrypt(server, settings, &format!("--mix {mix}"), IMIX_MEAN_BYTES, regime)
}

fn decrypt(
    server: Program,
    settings: &Settings,
    options: &str,
    mean_bytes: f64,
    regime: Regime,
) -> Result<Vec<Figure>> {
    let line = Line::new(1500)?;
    if regime == Regime::Single {
        // The generator's kernel splits its trains before the wire: the gateway sees single
        // datagrams, and the generator does not spend a system call on each, so that it can
        // saturate the gateway.
        line.cli.exec("ethtool -K out tx-udp-segmentation off")?;
    }
    let gateway = line.serve(&settings.plan(server))?;
    let to = SocketAddr::new(Place::Destination.address(settings.inside), SINK_PORT);
    let sink = Sink::bind(&line.dst, to)?;

    let seconds = settings.whole_s();
    let from = SocketAddr::new(Place::ClientInside.address(settings.inside), SINK_PORT);
    let own = Initiator { private: &gateway.client_keys.private, from, to };
    let mut generator =
        own.start(&line, &gateway, settings, &format!("{options} --seconds {seconds}"))?;
    let _port = port_of(&mut generator)?;

    let (arrived, used) = settings.window(gateway.tunnel.pid(), || sink.arrived())?;
    let ended = generator.wait(START_LIMIT)?;
    ensure!(ended.success(), "The generator failed: {}", generator.errors());
    let offered = word_after(&generator.output(), "sent").unwrap_or(0);
    Ok(rates(arrived, mean_bytes, used, to_float(offered) / f64::from(seconds)))
}

pub(super) fn encrypt(server: Program, settings: &Settings, size: usize) -> Result<Vec<Figure>> {
    let plan = settings.plan(server);
    let line = Line::new(1500)?;
    // As for single floods: one send is many packets, but each is a read of the TUN.
    line.dst.exec("ethtool -K far tx-udp-segmentation off")?;
    let gateway = line.serve(&plan)?;
    // Shakes hands and then only counts: what the gateway sends to its port is dropped there
    // unread.
    let to = SocketAddr::new(Place::Destination.address(settings.inside), SINK_PORT);
    let client = SocketAddr::new(Place::ClientInside.address(settings.inside), SINK_PORT);
    let own = Initiator { private: &gateway.client_keys.private, from: client, to };
    let mut counter = own.start(&line, &gateway, settings, "--seconds 0")?;
    let port = port_of(&mut counter)?;

    let seconds = settings.whole_s();
    let mut sender =
        own_tool(&format!("blast {client} --size {size} --batch 32 --seconds {seconds}"))?
            .within(line.dst.name())
            .on_cpus(plan.pinning.ends)
            .spawn()?;
    let arrived = || drops_of_port(&line.cli, port);
    let (arrived, used) = settings.window(gateway.tunnel.pid(), arrived)?;
    sender.wait(START_LIMIT)?;
    let offered = word_after(&sender.output(), "sent").unwrap_or(0);
    let offered_per_s = to_float(offered) / f64::from(seconds);
    Ok(rates(arrived, to_float(size as u64), used, offered_per_s))
}

/// A generator's key, and where its packets come from and go to inside.
pub(super) struct Initiator<'a> {
    pub(super) private: &'a str,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl Initiator<'_> {
    pub(super) fn start(
        &self,
        line: &Line,
        gateway: &Gateway,
        settings: &Settings,
        options: &str,
    ) -> Result<Process> {
        let at = SocketAddr::new(Place::GatewayOutside.address(settings.outside), GATEWAY_PORT);
        let Self { private, from, to } = self;
        own_tool(&format!("flood --to {at} --from-inner {from} --to-inner {to} {options}"))?
            .args(["--gateway", &gateway.keys.public])
            .env("WG_PRIVATE_KEY", private)
            .within(line.cli.name())
            .on_cpus(Pinning::MEASURE.ends)
            .spawn()
    }
}

/// Waits for the handshake and returns the generator's UDP port.
pub(super) fn port_of(generator: &mut Process) -> Result<u16> {
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

/// The figures of all packet rates.
pub(super) fn rates(arrived: u64, bytes: f64, used: Used, offered_per_s: f64) -> Vec<Figure> {
    let per_s = to_float(arrived) / used.wall_s;
    vec![
        Figure::higher("kpps", per_s / 1e3),
        Figure::told("Gbit/s", per_s * bytes * 8.0 / 1e9),
        Figure::lower("µs/packet", used.cpu_s * 1e6 / to_float(arrived)),
        Figure::told("core used", used.cores()),
        Figure::told("offered kpps", offered_per_s / 1e3),
    ]
}
