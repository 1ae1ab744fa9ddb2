//! Round trips of one byte: through an otherwise idle gateway, beside a paced stream of the same
//! client, and beside the paced datagrams of another peer.
//!
//! The loads are paced so that neither the gateway nor the client is full: what is measured is how
//! long a small packet waits behind large ones, not a queue that has no end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::datagrams::{Initiator, SINK_PORT, START_LIMIT, port_of};
use super::path::Path;
use super::{Beside, Busy, Settings, own_tool, to_float};
use crate::iperf::{self, Amount, Direction, Run, Server};
use crate::process::Process;
use crate::programs::Program;
use crate::report::Figure;
use crate::rr::Transport;
use crate::sink::Sink;
use crate::topology::{Family, Line, Pinning, Place, Site};
use crate::wait::{wait_for, wait_until};
use crate::wg::{KeyPair, Peer};

const PORT: u16 = 9_001;
const NETPERF_PORT: u16 = 12_865;

/// Half of what the slowest peer carries through one client.
pub(super) const STREAM_BITS_PER_S: u64 = 400_000_000;

/// Datagrams of 1,360 bytes per second, in trains of 16: 0.54 Gbit/s.
const FLOOD: &str = "--mix 1360x16 --per-s 50000";

/// Seconds that a load runs beyond what it is beside.
pub(super) const LEAD_S: u32 = 3;

pub(super) fn measure(
    server: Program,
    settings: &Settings,
    transport: Transport,
    beside: Beside,
) -> Result<Vec<Figure>> {
    let path = Path::open(server, settings)?;
    let (line, ends) = (path.line(), Pinning::MEASURE.ends);
    let at = SocketAddr::new(Place::Destination.address(settings.inside), PORT);
    let _answers =
        own_tool(&format!("rr-serve {at}"))?.within(line.dst.name()).on_cpus(ends).spawn()?;
    let udp = if transport == Transport::Udp { "--udp" } else { "" };
    let ask = |seconds: u32| {
        let asked = own_tool(&format!("rr {at} {udp} --seconds {seconds}"))?
            .within(line.cli.name())
            .on_cpus(ends);
        asked.output(Duration::from_secs(u64::from(seconds) + 20))
    };
    wait_until("the answering end", Duration::from_secs(10), || ask(0).ok())?;
    let (answer, told) = match beside {
        Beside::Nothing => alone(&path, settings, transport, ask)?,
        Beside::Stream => with_stream(path.wireguard()?, settings, ask)?,
        Beside::Flood => with_flood(path.wireguard()?, settings, ask)?,
    };
    let trips: Value = serde_json::from_str(&answer)?;
    let number = |name: &str| trips[name].as_f64().with_context(|| format!("rr told no {name}"));
    let mut figures = vec![
        Figure::lower("p50 µs", number("p50_us")?),
        Figure::lower("p90 µs", number("p90_us")?),
        Figure::lower("p99 µs", number("p99_us")?),
        Figure::told("p99.9 µs", number("p999_us")?),
        Figure::told("round trips", number("count")?),
    ];
    figures.extend(told);
    Ok(figures)
}

/// Nothing else goes on: what that costs the gateway is told too.
fn alone(
    path: &Path,
    settings: &Settings,
    transport: Transport,
    ask: impl Fn(u32) -> Result<String>,
) -> Result<(String, Vec<Figure>)> {
    let gateway = Busy::since_now(path.server_pid());
    let answer = ask(settings.measured_s)?;
    let mut told = vec![Figure::told("core used", gateway.used().cores())];
    told.extend(netperf(path.line(), settings, transport)?);
    Ok((answer, told))
}

/// The same by netperf, where it is installed: a second opinion on our own tool.
fn netperf(line: &Line, settings: &Settings, transport: Transport) -> Result<Vec<Figure>> {
    if crate::programs::find_in_path(&["netperf"]).is_none() {
        return Ok(Vec::new());
    }
    let at = Place::Destination.address(settings.inside);
    let ends = Pinning::MEASURE.ends;
    let words = format!("-D -L {at} -p {NETPERF_PORT}");
    let server = line.dst.launch("netserver").words(&words).on_cpus(ends);
    let _server = server.spawn()?;
    let test = match transport {
        Transport::Tcp => "TCP_RR",
        Transport::Udp => "UDP_RR",
    };
    let seconds = settings.measured_s;
    let words = format!(
        "-H {at} -p {NETPERF_PORT} -t {test} -l {seconds} -P 0 -- -r 1,1 -o p50_latency,p99_latency"
    );
    let client = line.cli.launch("netperf").words(&words).on_cpus(ends);
    let limit = Duration::from_secs(u64::from(seconds) + 20);
    let told = wait_until("netserver", START_LIMIT, || client.output(limit).ok())?;
    let (p50, p99) = read_netperf(&told).with_context(|| format!("netperf said {told:?}"))?;
    Ok(vec![Figure::told("netperf p50 µs", p50), Figure::told("netperf p99 µs", p99)])
}

/// Reads the two numbers of the last line, "211,336".
fn read_netperf(text: &str) -> Option<(f64, f64)> {
    let (p50, p99) = text.lines().rfind(|line| !line.trim().is_empty())?.split_once(',')?;
    Some((p50.trim().parse().ok()?, p99.trim().parse().ok()?))
}

fn with_stream(
    site: &Site,
    settings: &Settings,
    ask: impl Fn(u32) -> Result<String>,
) -> Result<(String, Vec<Figure>)> {
    let ends = site.plan.pinning.ends;
    let to = Place::Destination.address(settings.inside);
    let server = Server::start(&site.line.dst, to, 5_201, ends)?;
    let measured_s = settings.measured_s + LEAD_S;
    let run = Run {
        streams: 1,
        direction: Direction::Up,
        amount: Amount::Seconds { omitted_s: 0, measured_s },
        rate_limit: Some(STREAM_BITS_PER_S),
    };
    let mut stream = server.client(&site.line.cli, run, ends).spawn()?;
    let before = site.gateway.tunnel.peers()?;
    let received = |peers: &[crate::wg::PeerStatus]| peers.iter().map(|peer| peer.rx_bytes).sum();
    let before: u64 = received(&before);
    wait_for("the stream to begin", START_LIMIT, || {
        site.gateway.tunnel.peers().is_ok_and(|now| received(&now) > before + 10_000_000)
    })?;
    let answer = ask(settings.measured_s)?;
    ended_well(&mut stream)?;
    let carried = iperf::read(&stream.output())?;
    let told = vec![
        Figure::told("stream Gbit/s", carried.bits_per_second / 1e9),
        Figure::lower("stream retransmits", to_float(carried.retransmits)),
    ];
    Ok((answer, told))
}

fn with_flood(
    site: &Site,
    settings: &Settings,
    ask: impl Fn(u32) -> Result<String>,
) -> Result<(String, Vec<Figure>)> {
    let other = KeyPair::generate()?;
    let inside: IpAddr = match settings.inside {
        Family::V4 => Ipv4Addr::new(10, 91, 9, 3).into(),
        Family::V6 => Ipv6Addr::new(0xfd91, 9, 0, 0, 0, 0, 0, 3).into(),
    };
    let peer = Peer {
        public: other.public.clone(),
        allowed_ips: vec![inside.to_string()],
        ..Peer::default()
    };
    let words = format!("peer {} allowed-ips {}", peer.public, peer.allowed_ips.join(","));
    site.gateway.tunnel.set(&words)?;

    let to = SocketAddr::new(Place::Destination.address(settings.inside), SINK_PORT);
    let sink = Sink::bind(&site.line.dst, to)?;
    let from = SocketAddr::new(inside, SINK_PORT);
    let initiator = Initiator { private: &other.private, from, to };
    let seconds = settings.measured_s + LEAD_S;
    let options = format!("{FLOOD} --seconds {seconds}");
    let mut flood = initiator.start(&site.line, &site.gateway, settings, &options)?;
    let _port = port_of(&mut flood)?;
    let begun = || sink.arrived().is_ok_and(|count| count > 1_000);
    wait_for("the flood to begin", START_LIMIT, begun)?;
    let before = sink.arrived()?;
    let start = std::time::Instant::now();
    let answer = ask(settings.measured_s)?;
    let per_s = to_float(sink.arrived()? - before) / start.elapsed().as_secs_f64();
    ended_well(&mut flood)?;
    Ok((answer, vec![Figure::told("flood kpps", per_s / 1e3)]))
}

fn ended_well(load: &mut Process) -> Result<()> {
    let ended = load.wait(START_LIMIT)?;
    ensure!(ended.success(), "The load failed: {}{}", load.errors(), load.output());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_netperf_holds_both_percentiles() {
        assert_eq!(read_netperf("noise\n211,336\n\n"), Some((211.0, 336.0)));
        assert_eq!(read_netperf("establish control: are you sure?"), None);
    }
}
