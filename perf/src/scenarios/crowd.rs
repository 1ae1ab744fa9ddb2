//! Many clients: how fast they can connect, come and go, and what their number adds to the cost of
//! a packet and to memory.
//!
//! The clients are the fleet's, which speaks WireGuard to any server that has the configuration
//! socket; so peers stand here beside our gateway. Generator and far end share CPU 0.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use base64::Engine as _;
use ringway_proto::crypto::PublicKey;

use super::datagrams::{SINK_PORT, rates};
use super::{Busy, Settings, to_float};
use crate::cpu::resident_bytes_of;
use crate::fleet::{Fleet, Load, OUTER_PREFIX, Roster, Shaken, pin_this_thread};
use crate::programs::{Program, Tunnel};
use crate::report::Figure;
use crate::sink::Sink;
use crate::topology::{GATEWAY_PORT, Line};
use crate::uapi::{Uapi, hex};
use crate::wg::{Config, KeyPair};

pub(super) const SEED: u64 = 0x5eed;

/// Inner addresses of the fleet.
const INNER_PREFIX: &str = "10.0.0.0/10";

const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 91, 1, 1), GATEWAY_PORT);

/// Where numbered and counted datagrams go inside.
pub(super) const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 91, 2, 2), SINK_PORT);

/// Handshakes under way at a time: fewer than any server's threshold by queue length.
const AT_ONCE: u32 = 120;

/// Longest wait for everybody to have a session, cookies and their 5 s included.
const CONNECT_LIMIT: Duration = Duration::from_secs(90);

/// Two handshake messages of one client are at least 5 s apart, and a bit at random.
const AGAIN_AFTER: Duration = Duration::from_millis(5_500);

/// Bytes of the inner packets that are spread over sessions, and how many per second: so few that
/// every server and the fleet with its largest number of sessions can carry them. Then the cost of
/// a packet differs by the number of sessions only, not by how full the server is.
const SPREAD_BYTES: usize = 1_360;
const SPREAD_PER_S: u64 = 100_000;

/// A server with room for a fleet around it.
pub(super) struct Crowd {
    // Dropped before the namespaces.
    tunnel: Tunnel,
    public: PublicKey,
    uapi: Uapi,
    pub(super) line: Line,
}

impl Crowd {
    /// Starts `server` without peers and binds this thread to the processor of the ends.
    pub(super) fn start(server: Program, settings: &Settings) -> Result<Self> {
        let line = Line::new(1500)?;
        line.cli.ip(&format!("route add local {OUTER_PREFIX} dev lo"))?;
        line.gw.ip(&format!("route add {OUTER_PREFIX} via 10.91.1.2"))?;
        line.dst.ip(&format!("route add {INNER_PREFIX} via 10.91.2.1"))?;
        let tunnel = Tunnel::start(server, &line.gw, settings.plan(server).pinning.gateway)?;
        let keys = KeyPair::generate()?;
        let public = base64::prelude::BASE64_STANDARD.decode(&keys.public)?;
        let public = PublicKey(public.try_into().map_err(|_| anyhow!("wg printed no key"))?);
        let listen_port = Some(GATEWAY_PORT);
        tunnel.configure(&Config { private: keys.private, listen_port, ..Config::default() })?;
        let interface = tunnel.interface();
        line.gw.ip(&format!("link set {interface} mtu 1420 up"))?;
        line.gw.ip(&format!("route add {INNER_PREFIX} dev {interface}"))?;
        let uapi = Uapi::of(interface);
        pin_this_thread(Some(0))?;
        Ok(Self { tunnel, public, uapi, line })
    }

    pub(super) fn pid(&self) -> u32 {
        self.tunnel.pid()
    }

    fn rss(&self) -> f64 {
        to_float(resident_bytes_of(self.pid()))
    }

    /// Clients that the server does not know yet.
    fn strangers(&self, roster: Roster) -> Result<Fleet> {
        Fleet::enlist(roster, self.public, GATEWAY, &self.line.cli)
    }

    /// Clients that the server knows and has a session with.
    pub(super) fn connected(&self, roster: Roster) -> Result<(Fleet, Shaken)> {
        let mut fleet = self.strangers(roster)?;
        self.admit(&fleet)?;
        let shaken = connect(&mut fleet)?;
        Ok((fleet, shaken))
    }

    fn admit(&self, fleet: &Fleet) -> Result<()> {
        self.edit(fleet, |number| format!("allowed_ip={}/32\n", fleet.roster().inner(number)))
    }

    fn dismiss(&self, fleet: &Fleet) -> Result<()> {
        self.edit(fleet, |_| "remove=true\n".to_owned())
    }

    fn edit(&self, fleet: &Fleet, says: impl Fn(u32) -> String) -> Result<()> {
        let line =
            |number| format!("public_key={}\n{}", hex(&fleet.public(number).0), says(number));
        self.uapi.set(&(0..fleet.roster().count).map(line).collect::<String>())
    }
}

/// Connects everybody: a few at a time, or, where the server then asks for cookies, which cost a
/// client 5 s, all together.
fn connect(fleet: &mut Fleet) -> Result<Shaken> {
    let all = 0..fleet.roster().count;
    let patience = Duration::from_secs(3) + all.end * Duration::from_millis(1);
    let mut shaken = fleet.shake(all.clone(), AT_ONCE, patience)?;
    if shaken.failed > 0 {
        shaken = fleet.shake(all.clone(), all.end, CONNECT_LIMIT)?;
    }
    ensure!(fleet.live() == all.end, "{} of {} have a session", fleet.live(), all.end);
    // What confirms the last of the keys.
    fleet.hold(Duration::from_millis(200))?;
    Ok(shaken)
}

/// The handshakes of clients that have shaken hands before, so that those whom the server asks for
/// a cookie have one.
pub(super) fn handshakes(server: Program, settings: &Settings) -> Result<Vec<Figure>> {
    let clients = if settings.quick { 500 } else { 6_000 };
    let crowd = Crowd::start(server, settings)?;
    let (mut fleet, first) = crowd.connected(Roster::new(SEED, clients))?;
    fleet.hold(AGAIN_AFTER)?;
    let busy = Busy::since_now(crowd.pid());
    let shaken = fleet.shake(0..clients, AT_ONCE, CONNECT_LIMIT)?;
    let used = busy.used();
    ensure!(shaken.completed > 0, "No handshake was completed");
    let completed = f64::from(shaken.completed);
    Ok(vec![
        Figure::higher("per core and s", completed / used.cpu_s),
        Figure::lower("µs each", used.cpu_s * 1e6 / completed),
        Figure::told("per s", completed / used.wall_s),
        Figure::told("core used", used.cores()),
        Figure::told("p50 ms", shaken.percentile_ms(0.5)?),
        Figure::told("p99 ms", shaken.percentile_ms(0.99)?),
        Figure::told("failed", shaken.failed.into()),
        Figure::told("cookies before, now", to_float(first.cookies + shaken.cookies)),
    ])
}

pub(super) fn churn(server: Program, settings: &Settings) -> Result<Vec<Figure>> {
    let clients = if settings.quick { 50 } else { 200 };
    let crowd = Crowd::start(server, settings)?;
    let mut fleet = crowd.strangers(Roster::new(SEED, clients))?;
    // Once before it counts: what is made on first use is there then.
    come_and_go(&crowd, &mut fleet)?;
    let (rss, busy, start) = (crowd.rss(), Busy::since_now(crowd.pid()), Instant::now());
    let (mut cycles, mut completed, mut failed) = (0_u32, 0_u32, 0_u32);
    while cycles == 0 || start.elapsed() < Duration::from_secs(settings.measured_s.into()) {
        let shaken = come_and_go(&crowd, &mut fleet)?;
        (cycles, completed, failed) =
            (cycles + 1, completed + shaken.completed, failed + shaken.failed);
    }
    let used = busy.used();
    ensure!(completed > 0, "Nobody connected");
    let completed = f64::from(completed);
    Ok(vec![
        Figure::higher("per s", completed / used.wall_s),
        Figure::lower("µs each", used.cpu_s * 1e6 / completed),
        Figure::told("core used", used.cores()),
        Figure::told("failed", failed.into()),
        Figure::told("grown by kB", (crowd.rss() - rss) / 1e3),
    ])
}

/// All are configured, connect, and are removed.
fn come_and_go(crowd: &Crowd, fleet: &mut Fleet) -> Result<Shaken> {
    crowd.admit(fleet)?;
    let all = fleet.roster().count;
    // A client that was asked for a cookie tries again after 5 s.
    let shaken = fleet.shake(0..all, AT_ONCE, Duration::from_secs(6))?;
    crowd.dismiss(fleet)?;
    fleet.forget();
    Ok(shaken)
}

pub(super) fn sessions(server: Program, settings: &Settings, count: u32) -> Result<Vec<Figure>> {
    let crowd = Crowd::start(server, settings)?;
    let empty = crowd.rss();
    let per_source = if count > 1_000 { 32 } else { 1 };
    let roster = Roster { per_source, ..Roster::new(SEED, count) };
    let (mut fleet, _) = crowd.connected(roster)?;
    let live = crowd.rss();
    let sink = Sink::bind(&crowd.line.dst, SocketAddr::V4(FAR))?;
    let load = Load {
        clients: 0..count,
        to: FAR,
        size: SPREAD_BYTES,
        batch: 1,
        per_s: Some(SPREAD_PER_S),
        echo: false,
        period: settings.whole(),
    };
    let ((arrived, used), driven) = std::thread::scope(|scope| {
        let driving = scope.spawn(move || fleet.drive(&load));
        let counted = settings.window(crowd.pid(), || sink.arrived());
        let driven = driving.join().map_err(|_| anyhow!("The fleet panicked"))?;
        Ok::<_, anyhow::Error>((counted?, driven?))
    })?;
    let offered_per_s = to_float(driven.sent) / driven.wall.as_secs_f64();
    let mut figures = rates(arrived, to_float(SPREAD_BYTES as u64), used, offered_per_s);
    let each = (live - empty) / f64::from(count);
    if count >= 10_000 {
        // Among fewer, what a server touches on its first traffic would hide what they need.
        figures.push(Figure::lower("kB per session", each / 1e3));
    }
    figures.push(Figure::told("RSS MB", live / 1e6));
    figures.push(Figure::told("RSS loaded MB", crowd.rss() / 1e6));
    Ok(figures)
}
