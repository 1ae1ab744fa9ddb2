//! `ringway run`: the gateway that a configuration file describes.
//!
//! Here the parts meet: the prepared places, the plan of CPUs, the local exit and the running
//! gateway. What the gateway asks of its role is answered from the file: the first peers, the
//! addresses of its interface, and what a reload changes.

mod setup;

use std::io::{self, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;

use ringway_flow::Policy;
use ringway_numa::plan::{Numa, Wishes, Workers as WorkerWish};
use ringway_numa::{Plan, Topology, pin};
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;
use ringway_ring::UdpOptions;
use tracing::{info, warn};

use crate::config::{
    Changes, Config, Interface, NumaChoice, Overrides, Peer, StoreChoice, WorkerCount, Workers,
    diff, sections_changed,
};
use crate::exit::{ExitPlan, LocalExit, links};
use crate::failure::{Failure, Status};
use crate::gateway::{self, Placement, Role, Setup, WorkerSetup};
use crate::keys::SystemRandom;
use crate::logs::privacy::Privacy;
use crate::place::{Places, Prepared};
use crate::plane::{Operation, Plane, Secret};
use crate::upgrade::message::{Offer, Part};
use crate::upgrade::{Endpoints, Legacy};
use crate::{harden, logs, people};
use setup::{log_settings, placements, setup, worker_setup};

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// What is missing, wrong or in the way. The host is as before then.
pub fn run(places: Places, overrides: Overrides) -> Result<(), Failure> {
    let prepared = places.prepare(overrides, &mut SystemRandom)?;
    say(&prepared.said);
    let config = prepared.config.clone();
    logs::init(&log_settings(&config, &prepared.places.state_dir))?;
    info!("Secrets in memory: {}", harden::apply(config.security));
    refuse_conflicts(&prepared)?;
    let plan = plan(&config.workers)?;
    if let Some(cpu) = plan.control_cpu {
        pin::pin_to(cpu).map_err(|error| Failure::new(Status::Config, error.to_string()))?;
    }
    let (exit, notes) = LocalExit::set_up(&ExitPlan::new(&config), &prepared.places.state_dir)?;
    say(&notes);
    let setup = setup(&config, &plan);
    let key = crate::keys::show_public(&prepared.private.public());
    let mut role = FromFile { prepared, running: config, next: None, exit: Some(exit) };
    let interface = &role.running.interface;
    let ready = format!(
        "Serving: interface {}, UDP port {}, public key {key}",
        interface.name, interface.listen_port
    );
    gateway::run(setup, &mut role, move || say(&[ready]))
}

/// A gateway as its file describes it.
struct FromFile {
    prepared: Prepared,
    /// What the gateway does now.
    running: Config,
    /// What it will do once the last reload took effect.
    next: Option<Config>,
    exit: Option<LocalExit>,
}

impl Role for FromFile {
    fn first(&mut self) -> Vec<Operation> {
        let private = Operation::PrivateKey(Secret::new(self.prepared.private.to_bytes()));
        let peers = self.running.peers.iter().flat_map(put);
        std::iter::once(private).chain(peers).collect()
    }

    fn raise(&mut self, interface: &str) -> Result<(), Failure> {
        let Interface { mtu, addresses, .. } = &self.running.interface;
        wait_for(links::configure(interface, *mtu, addresses))
    }

    fn reload(&mut self) -> Result<(Vec<Operation>, String), String> {
        // Whoever moved the file of the log away says so by a reload.
        logs::reopen();
        let next = self.prepared.reload().map_err(|failure| failure.message)?;
        let changes = diff(&self.running, &next).map_err(|error| error.to_string())?;
        let said = sentence(&sections_changed(&self.running, &next), &changes);
        for warning in next.show_warnings(&self.prepared.places.config.display().to_string()) {
            warn!("{warning}");
        }
        self.next = Some(next);
        Ok((operations(&changes), said))
    }

    fn reloaded(&mut self, done: bool) {
        match self.next.take() {
            Some(next) if done => self.running = next,
            Some(_) | None => {}
        }
    }

    fn adjust(&self, policy: &mut Policy) {
        let limits = &self.next.as_ref().unwrap_or(&self.running).limits;
        policy.admission = limits.admission;
        policy.handshakes_per_source = limits.handshakes_per_source;
    }

    fn privacy(&self) -> Privacy {
        people::privacy(&self.running)
    }

    fn people(&self) -> Option<people::Plan> {
        let config = self.next.as_ref().unwrap_or(&self.running);
        let places = &self.prepared.places;
        (config.store != StoreChoice::Off).then(|| people::Plan {
            config: config.clone(),
            gateway: self.prepared.private.public(),
            file: places.config.clone(),
            state_dir: places.state_dir.clone(),
            overrides: self.prepared.overrides.clone(),
            trial: self.prepared.trial.clone(),
        })
    }

    fn lower(&mut self) {
        let Some(exit) = self.exit.take() else { return };
        match exit.undo() {
            Ok(notes) => notes.iter().for_each(|note| info!("{note}")),
            Err(failure) => warn!("{failure}; the next start tries again"),
        }
    }

    fn legacy(&self) -> io::Result<Legacy> {
        let Places { config, state_dir, .. } = &self.prepared.places;
        Ok(Legacy {
            part: Part::Run,
            config: std::path::absolute(config)?,
            state_dir: std::path::absolute(state_dir)?,
            settings: settings(&self.running, &self.prepared.private.public()),
            journal: self.exit.as_ref().map(LocalExit::lock).transpose()?,
            endpoints: endpoints(&self.running.peers),
        })
    }

    fn release(&mut self) {
        if let Some(exit) = self.exit.take() {
            exit.release();
        }
    }

    fn inherit(&mut self, journal: Option<OwnedFd>, plane: &Plane, endpoints: &Endpoints) {
        let plan = ExitPlan::new(&self.running);
        let state_dir = &self.prepared.places.state_dir;
        let adopted = journal.map(|lock| LocalExit::adopt(&plan, state_dir, lock)).transpose();
        self.exit = adopted.unwrap_or_else(|failure| {
            warn!("{failure}: the host will not be put back");
            None
        });
        // What the next reload is compared with.
        self.running.peers = inherited(plane, endpoints);
    }
}

/// Peers as the process before had them, with the endpoints that its file gave them.
fn inherited(plane: &Plane, endpoints: &Endpoints) -> Vec<Peer> {
    // Those with an account are devices of the store, and its business.
    let of_file = plane.peers().filter(|(_, peer)| peer.account.is_none());
    let peers = of_file.map(|(public, peer)| Peer {
        name: String::new(),
        public: *public,
        preshared: peer.preshared.clone(),
        preshared_file: None,
        allowed_ips: peer.allowed_ips.iter().copied().collect(),
        endpoint: endpoints.get(public).copied(),
        keepalive_s: peer.keepalive_s,
        line: 0,
    });
    peers.collect()
}

fn endpoints(peers: &[Peer]) -> Endpoints {
    let with = peers.iter().filter_map(|peer| Some((peer.public, peer.endpoint?)));
    with.collect()
}

/// What the host was made to agree with, and so cannot be changed by an upgrade. The key stands for
/// its file.
fn settings(config: &Config, public: &PublicKey) -> Vec<(String, String)> {
    let carried = [
        ("interface", "name"),
        ("interface", "listen_port"),
        ("interface", "mtu"),
        ("interface", "pools"),
        ("interface", "addresses"),
        ("interface", "fwmark"),
        ("exit", "masquerade"),
        ("exit", "enable_forwarding"),
        ("stats", "socket"),
    ];
    let values = carried.into_iter().map(|(section, key)| {
        (format!("[{section}] {key}"), config.value_of(section, key).unwrap_or_default())
    });
    let key = ("[interface] private_key_file".to_owned(), crate::keys::show_public(public));
    values.chain([key]).collect()
}

/// The gateway of the file, to be taken over from the process that serves it.
///
/// # Errors
/// A file that is wrong, or that says what only a restart can do.
pub(crate) fn claim(
    places: Places,
    mut flags: Overrides,
    offer: &Offer,
) -> Result<(Setup, Box<dyn Role>), Failure> {
    if !places.load(&flags)?.origins.contains_key(&("workers", "count")) {
        // What nobody says is kept: sessions belong to workers by their numbers.
        flags.count = Some(WorkerCount::Exactly(offer.cores));
        flags.oversubscribe = true;
    }
    let prepared = places.prepare(flags, &mut SystemRandom)?;
    let config = prepared.config.clone();
    logs::init(&log_settings(&config, &prepared.places.state_dir))?;
    info!("Secrets in memory: {}", harden::apply(config.security));
    refuse_changes(&offer.settings, &settings(&config, &prepared.private.public()))?;
    let plan = plan(&config.workers)?;
    if let Some(cpu) = plan.control_cpu {
        pin::pin_to(cpu).map_err(|error| Failure::new(Status::Config, error.to_string()))?;
    }
    let mut setup = setup(&config, &plan);
    setup.udp = UdpOptions { port: offer.port, mark: offer.mark, ..setup.udp };
    let role = FromFile { prepared, running: config, next: None, exit: None };
    Ok((setup, Box::new(role)))
}

/// Settings that one of two versions does not know are not compared.
fn refuse_changes(old: &[(String, String)], new: &[(String, String)]) -> Result<(), Failure> {
    let differs = |(name, value): &&(String, String)| {
        old.iter().any(|(old_name, old_value)| old_name == name && old_value != value)
    };
    let names: Vec<&str> = new.iter().filter(differs).map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} cannot change while running, so the running gateway goes on as before: take it back, \
         or restart the gateway",
        names.join(", ")
    );
    Err(Failure::new(Status::Refused, message))
}

/// The steps that make a peer as it should be, from nothing.
fn put(peer: &Peer) -> Vec<Operation> {
    let mut steps = vec![Operation::Peer(peer.public), Operation::ReplaceAllowedIps];
    if peer.preshared.is_set() {
        steps.push(Operation::Preshared(peer.preshared.clone()));
    }
    steps.extend(peer.endpoint.map(Operation::Endpoint));
    if peer.keepalive_s > 0 {
        steps.push(Operation::Keepalive(peer.keepalive_s));
    }
    steps.extend(peer.allowed_ips.iter().copied().map(Operation::AllowedIp));
    steps
}

/// Removals first, then what is taken away, then what is given: a prefix or address that moves from
/// one peer to another ends with its new owner.
fn operations(changes: &Changes) -> Vec<Operation> {
    let mut steps = Vec::new();
    for public in &changes.removed {
        steps.extend([Operation::Peer(*public), Operation::UpdateOnly, Operation::Remove]);
    }
    for update in changes.changed.iter().filter(|update| !update.nets_removed.is_empty()) {
        steps.push(Operation::Peer(update.peer.public));
        steps.extend(update.nets_removed.iter().copied().map(Operation::RemoveAllowedIp));
    }
    for update in &changes.changed {
        let peer = &update.peer;
        steps.push(Operation::Peer(peer.public));
        if update.preshared {
            steps.push(Operation::Preshared(peer.preshared.clone()));
        }
        if update.endpoint {
            steps.extend(peer.endpoint.map(Operation::Endpoint));
        }
        if update.keepalive {
            steps.push(Operation::Keepalive(peer.keepalive_s));
        }
        steps.extend(update.nets_added.iter().copied().map(Operation::AllowedIp));
    }
    steps.extend(changes.added.iter().flat_map(put));
    steps
}

fn sentence(sections: &[&str], changes: &Changes) -> String {
    let peers = (!changes.is_empty()).then(|| {
        let (added, changed) = (changes.added.len(), changes.changed.len());
        format!("{added} peer(s) added, {changed} changed, {} removed", changes.removed.len())
    });
    let sections = (!sections.is_empty()).then(|| format!("{} changed", sections.join(", ")));
    let parts: Vec<String> = sections.into_iter().chain(peers).collect();
    if parts.is_empty() { "nothing to change".to_owned() } else { parts.join("; ") }
}

/// The workers of a bare interface. Without a flag that says where they run the scheduler decides,
/// as with other WireGuard daemons.
///
/// # Errors
/// Wishes that this machine cannot fulfil.
pub fn workers_by_flags(flags: &Overrides) -> Result<WorkerSetup, Failure> {
    let config = Config::parse("", "flags", Path::new("/"), flags)?;
    let Overrides { count, oversubscribe, cpus, numa, control_cpu, .. } = flags;
    let placed = *oversubscribe
        || count.is_some()
        || cpus.is_some()
        || numa.is_some()
        || control_cpu.is_some();
    let placements =
        if placed { placements(&plan(&config.workers)?) } else { vec![Placement::default()] };
    Ok(worker_setup(&config.workers, placements))
}

/// Who runs where, by the flags, the file and the machine.
///
/// # Errors
/// Wishes that this machine cannot fulfil.
pub fn plan(workers: &Workers) -> Result<Plan, Failure> {
    let topology =
        Topology::read().map_err(|error| Failure::new(Status::Unsupported, error.to_string()))?;
    let wishes = Wishes {
        workers: match workers.count {
            WorkerCount::Auto => WorkerWish::Auto,
            WorkerCount::Exactly(count) => {
                WorkerWish::Count(NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN))
            }
        },
        cpus: workers.cpus.clone(),
        numa: match &workers.numa {
            NumaChoice::Auto => Numa::Auto,
            NumaChoice::Off => Numa::Off,
            NumaChoice::Nodes(nodes) => Numa::Nodes(nodes.clone()),
        },
        control_cpu: workers.control_cpu,
        oversubscribe: workers.oversubscribe,
    };
    Plan::new(&topology, &wishes).map_err(|error| Failure::new(Status::Config, error.to_string()))
}

/// Tells the operator on standard output. If nobody listens any more, nobody needs it.
pub(crate) fn say(lines: &[String]) {
    let mut out = io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}

/// Waits for something asynchronous, on a thread of its own: the control thread may be inside its
/// runtime and could not wait for another.
pub(crate) fn wait_for<T: Send>(
    task: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| Failure::new(Status::Unsupported, format!("Cannot start: {error}")))?;
        runtime.block_on(task)
    };
    let waited = std::thread::scope(|scope| scope.spawn(wait).join());
    waited.unwrap_or_else(|_| Err(Failure::new(Status::Crashed, "A helper thread panicked")))
}

/// Refuses pools that would take over a network that the host is in.
fn refuse_conflicts(prepared: &Prepared) -> Result<(), Failure> {
    let interface = &prepared.config.interface;
    let pools: Vec<IpNet> = interface.pools().collect();
    let conflicts = wait_for(links::conflicts(&interface.name, &pools))?;
    let Some(first) = conflicts.first() else { return Ok(()) };
    let message = format!(
        "{}: {first}: write other pools in [interface], or remove that address",
        prepared.places.config.display()
    );
    Err(Failure::new(Status::Config, message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringway_dataplane::worker::SpinMode;
    use ringway_ring::ZeroCopyMode;

    use super::*;
    use crate::config::{DriverChoice, FastPaths, SandboxChoice, SpinChoice, SteeringChoice};

    const KEY_A: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    const KEY_B: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn config(peers: &[(&str, &str)]) -> Config {
        let peers =
            peers.iter().map(|(key, rest)| format!("[[peer]]\npublic_key = \"{key}\"\n{rest}\n"));
        let text: String = peers.collect();
        Config::parse(&text, "t", Path::new("/"), &Overrides::default()).unwrap()
    }

    #[test]
    fn a_prefix_that_moves_is_taken_before_it_is_given() {
        let net = "allowed_ips = [\"10.77.0.2/32\"]";
        let (before, after) =
            (config(&[(KEY_A, ""), (KEY_B, net)]), config(&[(KEY_A, net), (KEY_B, "")]));
        let steps = operations(&diff(&before, &after).unwrap());
        let at = |wanted: &Operation| steps.iter().position(|step| step == wanted).unwrap();
        let net = "10.77.0.2/32".parse().unwrap();
        assert!(at(&Operation::RemoveAllowedIp(net)) < at(&Operation::AllowedIp(net)));
    }

    #[test]
    fn a_live_session_of_an_untouched_peer_is_not_mentioned() {
        let (before, after) = (config(&[(KEY_A, "")]), config(&[(KEY_A, ""), (KEY_B, "")]));
        let steps = operations(&diff(&before, &after).unwrap());
        let untouched = before.peers[0].public;
        assert!(!steps.contains(&Operation::Peer(untouched)), "{steps:?}");
        assert!(steps.contains(&Operation::Peer(after.peers[1].public)));
    }

    #[test]
    fn a_removed_peer_is_never_made_by_its_removal() {
        let (before, after) = (config(&[(KEY_A, "")]), config(&[]));
        let public = before.peers[0].public;
        assert_eq!(
            operations(&diff(&before, &after).unwrap()),
            [Operation::Peer(public), Operation::UpdateOnly, Operation::Remove]
        );
    }

    #[test]
    fn a_hundred_thousand_peers_are_inherited_at_once_with_the_endpoints_of_the_old_file() {
        let public = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            PublicKey(key)
        };
        let endpoint = |number: u32| std::net::SocketAddr::from((number.to_be_bytes(), 7));
        let count = 100_000;
        let mut plane = Plane::new(1);
        plane.apply((0..count).map(|number| Operation::Peer(public(number))));
        let odd = (1..count).step_by(2);
        let endpoints: Endpoints = odd.map(|number| (public(number), endpoint(number))).collect();
        let begun = std::time::Instant::now();
        let peers = inherited(&plane, &endpoints);
        // A search through all for each takes minutes; this takes a tenth of a second.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(peers.len(), count as usize);
        for peer in &peers {
            let number = u32::from_le_bytes(*peer.public.0.first_chunk().unwrap());
            assert_eq!(peer.endpoint, (number % 2 == 1).then(|| endpoint(number)));
        }
        assert_eq!(super::endpoints(&peers), endpoints);
    }

    #[test]
    fn a_bare_interface_is_placed_only_where_flags_ask_for_it() {
        let unplaced = |flags| workers_by_flags(&flags).unwrap();
        let default = unplaced(Overrides::default());
        assert_eq!(default.placements, [Placement::default()]);
        assert!(default.steering && default.sandbox && default.spin == SpinMode::Auto);
        let flags = Overrides {
            driver: Some(DriverChoice::Epoll),
            steering: Some(SteeringChoice::Off),
            sandbox: Some(SandboxChoice::Off),
            spin_us: Some(SpinChoice::Micros(7)),
            ..Overrides::default()
        };
        let expected = WorkerSetup {
            placements: vec![Placement::default()],
            driver: DriverChoice::Epoll,
            steering: false,
            spin: SpinMode::Fixed(Duration::from_micros(7)),
            sandbox: false,
            zero_copy: ZeroCopyMode::Off,
            without: FastPaths::default(),
        };
        assert_eq!(unplaced(flags), expected);
        let flags = Overrides {
            count: Some(WorkerCount::Exactly(3)),
            oversubscribe: true,
            ..Overrides::default()
        };
        let placed = workers_by_flags(&flags).unwrap().placements;
        assert_eq!(placed.len(), 3);
        assert!(placed.iter().all(|placement| placement.cpu.is_some()));
        let flags = Overrides { cpus: Some([4000].into_iter().collect()), ..flags };
        assert_eq!(workers_by_flags(&flags).unwrap_err().status, Status::Config);
    }

    #[test]
    fn the_file_decides_port_mark_and_policy() {
        let text = "[interface]\nlisten_port = 7\nfwmark = 9\nmtu = 1400\n\
                    [exit]\nmss_clamp = false\n\
                    [stats]\nsocket = \"/proc/nowhere/a.stats\"\n";
        let config = Config::parse(text, "t", Path::new("/"), &Overrides::default()).unwrap();
        let plan = Plan { workers: Vec::new(), control_cpu: None };
        let setup = setup(&config, &plan);
        assert_eq!((setup.udp.port, setup.udp.mark), (7, 9));
        assert!(!setup.policy.clamp_mss);
        assert_eq!(setup.policy.inner_mtu, 1400);
        assert_eq!(setup.policy.address_v4, Some([10, 77, 0, 1].into()));
        assert_eq!(setup.pages, None, "a folder that cannot be made is no reason to fail");
    }

    #[test]
    fn a_reload_says_what_it_changed_beside_peers() {
        let parse = |text: &str| {
            Config::parse(text, "test", Path::new("/"), &Overrides::default()).unwrap()
        };
        let peer = "[[peer]]\nname = \"a\"\n\
                    public_key = \"HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=\"\n\
                    allowed_ips = [\"10.0.0.2/32\"]\n";
        let said = |before: &str, after: &str| {
            let (before, after) = (parse(before), parse(after));
            sentence(&sections_changed(&before, &after), &diff(&before, &after).unwrap())
        };
        let (slow, fast) = ("[limits]\nrate_up = \"5mbit\"\n", "[limits]\nrate_up = \"9mbit\"\n");
        assert_eq!(said(slow, slow), "nothing to change");
        assert_eq!(said(slow, fast), "[limits] changed");
        assert_eq!(
            said("", &format!("{slow}[clients]\ndns = [\"10.0.0.1\"]\n")),
            "[clients], [limits] changed"
        );
        assert_eq!(
            said(slow, &format!("{fast}{peer}")),
            "[limits] changed; 1 peer(s) added, 0 changed, 0 removed"
        );
        assert_eq!(said(peer, ""), "0 peer(s) added, 0 changed, 1 removed");
    }
}
