//! The new process: takes the gateway over from the running one, and serves.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "any other message is unexpected, also one that is new"
)]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::state::StatePage;
use ringway_proto::CoreId;
use ringway_ring::{TunQueue, UdpSockets, clock};
use rustix::thread::CapabilitySet;
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};
use tracing::warn;

use super::message::{Given, Item, Message, Offer, Part};
use super::wire::{Wire, WireError};
use super::{Endpoints, own_capabilities, own_name, socket_path};
use crate::config::Overrides;
use crate::failure::{Failure, Status};
use crate::gateway::parts::Taken;
use crate::gateway::requests::reload;
use crate::gateway::start::{Started, start};
use crate::gateway::without::offloads;
use crate::gateway::{self, Role, Setup, Signals};
use crate::manager::{self, Manager};
use crate::place::Places;
use crate::plane::Operation;
use crate::{daemon, run, stats};

/// How long the running process may take for a step: it may be busy with its clients.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// How far the clocks of both processes may be apart: they are the same clock on one machine.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(5);

/// What the command line said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Stay in the foreground.
    pub foreground: bool,
    /// Interface of the running gateway; its file says it otherwise.
    pub interface: Option<String>,
    /// Where configuration and state are, unless the running gateway is asked by its interface.
    pub places: Places,
    /// Start-up flags.
    pub flags: Overrides,
}

/// Takes over and serves until told to stop.
///
/// # Errors
/// Why the running gateway goes on instead, or what ended this one.
pub fn run(options: Options) -> Result<(), Failure> {
    let socket = match &options.interface {
        Some(interface) => socket_path(&stats::socket_path(interface)),
        None => socket_path(&options.places.load(&options.flags)?.stats.socket),
    };
    daemon::detached(options.foreground, |ready| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Status::Unsupported, format!("Cannot start: {error}")))?;
        let outcome = LocalSet::new().block_on(&runtime, take_over(&options, &socket, ready));
        // A thread that hangs must not hold the end up; the process is about to go.
        runtime.shutdown_background();
        outcome
    })
}

async fn take_over(
    options: &Options,
    socket: &Path,
    ready: &mut dyn FnMut(&[String]),
) -> Result<(), Failure> {
    let (mut wire, old) = connect(socket).await?;
    let offer = match wire.receive(STEP_TIMEOUT).await.map_err(failed)? {
        Message::Offer(offer) => offer,
        other => return Err(failed(other.unexpected("an offer"))),
    };
    let claim = claim(options, &offer);
    let (setup, mut role) = match claim {
        Ok(claim) => claim,
        Err(failure) => {
            // It goes on whether it hears this or not.
            let _ = wire.send(&Message::Refuse { why: failure.message.clone() }).await;
            return Err(failure);
        }
    };
    let mut heir = Heir::prepare(wire, &offer, setup).await?;
    match heir.inherit(&mut *role).await {
        Ok((summary, signals)) => {
            let Heir { started, .. } = heir;
            let reloaded = converge(&started, &offer, &mut *role).await;
            let lines: Vec<String> = std::iter::once(summary.line(&old)).chain(reloaded).collect();
            gateway::live(started, &mut *role, Ok(signals), || ready(&lines)).await
        }
        Err(error) => {
            let _ = heir.wire.send(&Message::Refuse { why: error.to_string() }).await;
            // Names and host are the running gateway's: nothing is undone here.
            let _ = gateway::stop(heir.started).await;
            Err(failed(error))
        }
    }
}

/// The running gateway goes on.
fn failed(error: impl std::fmt::Display) -> Failure {
    let message = format!("{error}; the running gateway goes on as before");
    Failure::new(Status::Refused, message)
}

/// Finds the running gateway and agrees on keys with it. Returns who it is.
async fn connect(socket: &Path) -> Result<(Wire, String), Failure> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        if matches!(error.kind(), NotFound | ConnectionRefused) {
            let message = format!(
                "No gateway that could be upgraded answers at {}: start it with \"ringway run\", \
                 or name its configuration with --config or its interface with --interface",
                socket.display()
            );
            return Failure::new(Status::NotRunning, message);
        }
        Failure::file("talk to the gateway at", socket, &error)
    })?;
    let peer =
        stream.peer_cred().map_err(|error| Failure::file("see who answers at", socket, &error))?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        let message = format!(
            "The running gateway belongs to user {}: run this command as that user",
            peer.uid()
        );
        return Err(Failure::new(Status::Refused, message));
    }
    let (wire, hello) = Wire::open(stream, true, &own_name()).await.map_err(failed)?;
    Ok((wire, hello.program))
}

/// What this process would be, if that agrees with what the running one is.
fn claim(options: &Options, offer: &Offer) -> Result<(Setup, Box<dyn Role>), Failure> {
    let apart = clock::boot_ns().abs_diff(offer.clock_ns);
    if Duration::from_nanos(apart) > CLOCKS_APART_MAX {
        return Err(Failure::new(Status::Refused, "The running gateway has another clock"));
    }
    offer.manager.accepts_this_process()?;
    refuse_fewer_privileges(offer.capabilities)?;
    let (setup, role) = match offer.part {
        Part::Run => {
            let places = match options.interface {
                Some(_) => Places {
                    state_dir: offer.state_dir.clone(),
                    config: offer.config.clone(),
                    config_given: true,
                },
                None => options.places.clone(),
            };
            run::claim(places, options.flags.clone(), offer)?
        }
        Part::Wg => daemon::claim(offer, &options.flags)?,
    };
    let cores = setup.workers.placements.len();
    if cores != usize::from(offer.cores) {
        let message = format!(
            "The running gateway has {} worker(s) and this one would have {cores}: sessions belong \
             to a worker by its number. Run \"ringway upgrade --workers {}\" (or write count = {0} \
             in [workers]), or stop the gateway and start it again",
            offer.cores, offer.cores
        );
        return Err(Failure::new(Status::Refused, message));
    }
    Ok((setup, role))
}

/// What the running gateway could do when it was started this one must be able to do too: open the
/// port again, mark packets, put the host back.
fn refuse_fewer_privileges(old: u64) -> Result<(), Failure> {
    let missing = CapabilitySet::from_bits_retain(old & !own_capabilities());
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "The running gateway has privileges that this process lacks ({missing:?}): start it as \
         the running one was started"
    );
    Err(Failure::new(Status::Refused, message))
}

/// The gateway to be: it stands ready and does nothing.
struct Heir {
    wire: Wire,
    started: Started,
    journal: Option<OwnedFd>,
    /// Of the running gateway.
    manager: Manager,
}

/// What was taken over.
struct Summary {
    given: Given,
    peers: usize,
    prefixes: usize,
    bytes: u64,
    waited: Duration,
}

impl Heir {
    /// Takes the descriptors and starts frozen workers.
    async fn prepare(mut wire: Wire, offer: &Offer, setup: Setup) -> Result<Self, Failure> {
        let prepared = async {
            wire.send(&Message::Accept).await.map_err(failed)?;
            let mut descriptors = Descriptors::default();
            descriptors.receive(&mut wire, offer.cores).await.map_err(failed)?;
            let journal = descriptors.journal.take();
            let taken = descriptors.into_taken(offer, &setup)?;
            Ok((start(setup, Some(taken)).await?, journal))
        };
        match prepared.await {
            Ok((started, journal)) => {
                let manager = offer.manager.clone();
                Ok(Self { wire, started, journal, manager })
            }
            Err(failure) => {
                let failure: Failure = failure;
                let _ = wire.send(&Message::Refuse { why: failure.message.clone() }).await;
                Err(failure)
            }
        }
    }

    /// Takes configuration and sessions, and carries packets from then on.
    async fn inherit(&mut self, role: &mut dyn Role) -> Result<(Summary, Signals), WireError> {
        let Self { wire, started, journal, manager: old_manager } = self;
        let desk = &started.desk;
        let refused = |error: gateway::desk::DeskError| WireError::Refused(error.to_string());
        let closed = desk.with_ports(|ports| !ports.is_open());
        if closed {
            // Cores without sockets are told so: they start no handshake until there are some.
            desk.set_link(false).await.map_err(refused)?;
        }
        let mut endpoints = Endpoints::new();
        loop {
            match wire.receive(STEP_TIMEOUT).await? {
                Message::Steps(mut steps) => {
                    set_endpoints_aside(&mut steps, &mut endpoints);
                    desk.configure(steps).await.map_err(refused)?;
                }
                Message::StepsEnd => break,
                other => return Err(other.unexpected("configuration")),
            }
        }
        wire.send(&Message::Prepared).await?;
        let (mut peers, mut sessions) = (0, 0);
        let given = loop {
            match wire.receive(STEP_TIMEOUT).await? {
                Message::Page { core, bytes } => {
                    let page = StatePage::filled(bytes);
                    let page = desk.import_page(CoreId(core), page).await.map_err(refused)?;
                    peers += u64::from(page.peers);
                    sessions += u64::from(page.sessions);
                }
                Message::Volumes(volumes) => {
                    desk.resume_volumes(&volumes).await.map_err(refused)?;
                }
                Message::PagesEnd(given) => break given,
                other => return Err(other.unexpected("sessions")),
            }
        };
        // Whoever tells this process to stop from here on is heard, sooner or later.
        let signals = Signals::listen().map_err(|failure| WireError::Refused(failure.message))?;
        wire.send(&Message::Ready { peers, sessions }).await?;
        match wire.receive(STEP_TIMEOUT).await? {
            Message::Commit => {}
            other => return Err(other.unexpected("go")),
        }
        desk.resume_cores(0).await.map_err(refused)?;
        let waited = clock::boot_ns().saturating_sub(given.paused_ns);
        // The other process may have gone meanwhile: then this one is the gateway all the same.
        if let Err(error) = wire.send(&Message::Running).await {
            warn!("{error}");
        }
        started.own_names(true);
        manager::inherit(old_manager);
        spawn_local(gateway::feed_watchdog(Rc::clone(desk)));
        desk.with_plane(|plane| role.inherit(journal.take(), plane, &endpoints));
        let (peers, prefixes) = desk.with_plane(|plane| {
            (plane.peers().len(), plane.peers().map(|(_, peer)| peer.allowed_ips.len()).sum())
        });
        let summary = Summary {
            given: Given { sessions, ..given },
            peers,
            prefixes,
            bytes: wire.moved(),
            waited: Duration::from_nanos(waited),
        };
        Ok((summary, signals))
    }
}

/// Takes out of the steps where a file expects peers: where they are comes with their sessions.
fn set_endpoints_aside(steps: &mut Vec<Operation>, endpoints: &mut Endpoints) {
    let mut named = None;
    steps.retain(|step| match step {
        Operation::Peer(public) => {
            named = Some(*public);
            true
        }
        Operation::Endpoint(endpoint) => {
            endpoints.extend(named.map(|public| (public, *endpoint)));
            false
        }
        _ => true,
    });
}

/// What changed in the file since the running gateway read it is done now.
async fn converge(started: &Started, offer: &Offer, role: &mut dyn Role) -> Option<String> {
    if offer.part == Part::Wg {
        return None;
    }
    Some(match reload(&started.desk, role, None, std::future::pending()).await.0 {
        Ok(done) => format!("Configuration: {done}"),
        Err(why) => format!("warning: the configuration was not taken: {why}"),
    })
}

impl Summary {
    fn line(&self, old: &str) -> String {
        let Given { sessions, handshakes_lost, packets_lost, .. } = self.given;
        format!(
            "Took over from {old}: {} peer(s), {sessions} live session(s), {} prefix(es), {} bytes \
             of state; packets waited for {:.1} ms; lost: {handshakes_lost} handshake(s) \
             under way, {packets_lost} packet(s) that waited for one",
            self.peers,
            self.prefixes,
            self.bytes,
            self.waited.as_secs_f64() * 1000.0,
        )
    }
}

/// Descriptors as they come.
#[derive(Default)]
struct Descriptors {
    queues: BTreeMap<u16, OwnedFd>,
    /// By core: IPv4 and IPv6 of the data bank, then of the bank of initiations.
    sockets: BTreeMap<u16, [Option<OwnedFd>; 4]>,
    stats: Option<OwnedFd>,
    uapi: Option<OwnedFd>,
    upgrade: Option<OwnedFd>,
    journal: Option<OwnedFd>,
}

impl Descriptors {
    /// Until an empty list says that these were all.
    async fn receive(&mut self, wire: &mut Wire, cores: u16) -> Result<(), WireError> {
        loop {
            let items = match wire.receive(STEP_TIMEOUT).await? {
                Message::Descriptors(items) if items.is_empty() => return self.check(cores),
                Message::Descriptors(items) => items,
                other => return Err(other.unexpected("descriptors")),
            };
            for item in items {
                let fd = wire.descriptor()?;
                match item {
                    Item::Tun(core) => _ = self.queues.insert(core, fd),
                    Item::Udp { core, v4, initiations } => {
                        let at = usize::from(!v4) + 2 * usize::from(initiations);
                        self.sockets.entry(core).or_default()[at] = Some(fd);
                    }
                    Item::Stats => self.stats = Some(fd),
                    Item::Uapi => self.uapi = Some(fd),
                    Item::Upgrade => self.upgrade = Some(fd),
                    Item::Journal => self.journal = Some(fd),
                }
            }
        }
    }

    /// Those of every core, and no others.
    fn check(&self, cores: u16) -> Result<(), WireError> {
        let all = |keys: Vec<u16>| keys.into_iter().eq(0..cores);
        let sockets = self.sockets.is_empty() || all(self.sockets.keys().copied().collect());
        let whole = all(self.queues.keys().copied().collect()) && sockets;
        if whole && self.stats.is_some() && self.upgrade.is_some() {
            Ok(())
        } else {
            Err(WireError::Garbled)
        }
    }

    fn into_taken(self, offer: &Offer, setup: &Setup) -> Result<Taken, Failure> {
        let offloads = offloads(setup.workers.without);
        let unusable =
            |what: &str, error: &dyn std::fmt::Display| failed(format!("{what}: {error}"));
        let queue =
            |fd| TunQueue::adopt(fd, offloads).map_err(|error| unusable("Interface", &error));
        let sockets = |[ipv4, ipv6, more_ipv4, more_ipv6]: [Option<OwnedFd>; 4]| {
            UdpSockets::adopt([ipv4, ipv6], [more_ipv4, more_ipv6], &setup.udp)
                .map_err(|error| unusable("Port", &error))
        };
        let missing = || failed("A descriptor is missing");
        Ok(Taken {
            queues: self.queues.into_values().map(queue).collect::<Result<_, _>>()?,
            sockets: self.sockets.into_values().map(sockets).collect::<Result<_, _>>()?,
            stats: self.stats.ok_or_else(missing)?,
            uapi: self.uapi,
            upgrade: self.upgrade.ok_or_else(missing)?,
            index_secret: offer.index_secret,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use ringway_proto::crypto::PublicKey;

    use super::*;

    #[test]
    fn whoever_has_fewer_privileges_is_refused() {
        assert!(refuse_fewer_privileges(own_capabilities()).is_ok());
        // No kernel knows this one, so nobody has it.
        let refused = refuse_fewer_privileges(own_capabilities() | 1 << 63);
        assert_eq!(refused.unwrap_err().status, Status::Refused);
    }

    #[test]
    fn endpoints_of_the_file_are_kept_and_not_applied() {
        let (one, two) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let at = Operation::Endpoint("[fe80::7%3]:9".parse().unwrap());
        // Nobody says where nobody is; if somebody does, it is not applied either.
        let mut steps = vec![at.clone(), Operation::Peer(one), Operation::Keepalive(5)];
        steps.extend([Operation::Peer(two), at, Operation::Keepalive(6)]);
        let mut bytes = Vec::new();
        Message::Steps(steps.clone()).write(&mut bytes);
        assert_eq!(Message::parse(&bytes).unwrap(), Message::Steps(steps.clone()));
        let mut endpoints = Endpoints::new();
        set_endpoints_aside(&mut steps, &mut endpoints);
        assert_eq!(endpoints, Endpoints::from([(two, "[fe80::7%3]:9".parse().unwrap())]));
        let left = [Operation::Peer(one), Operation::Keepalive(5)];
        let left = [&left[..], &[Operation::Peer(two), Operation::Keepalive(6)]].concat();
        assert_eq!(steps, left);
    }
}
