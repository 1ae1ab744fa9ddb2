//! The running gateway: what is opened, started, watched and undone, in this order.
//!
//! [`run`] opens the TUN, the sockets clients of control talk to, and a worker per core; then it
//! serves until it is told to stop or the interface goes away, and takes everything down in
//! reverse. What differs between `ringway run` and `ringway wg` is behind [`Role`]. [`desk`] is
//! where all tasks of the control thread meet, [`ports`] owns the UDP port, [`tun_map`] the
//! kernel's map of prefixes, [`requests`] what it is asked for while
//! it runs, [`start`] makes the parts.
//!
//! One thread, tokio's current-thread runtime: no task of control can race another.

pub mod desk;
#[cfg(test)]
pub(crate) mod fake_cores;
pub mod parts;
pub mod ports;
pub(crate) mod requests;
pub mod start;
pub mod tun_map;
pub(crate) mod without;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::worker::SpinMode;
use ringway_flow::Policy;
use ringway_ring::{PoolSizes, UdpOptions, ZeroCopyMode};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tracing::{debug, error, info, warn};

use self::desk::{Desk, DeskError};
use self::requests::{Endings, Next, hand_over, pass_on};
use self::start::Started;
use crate::config::{DriverChoice, FastPaths};
use crate::failure::{Failure, Status};
use crate::logs::privacy::Privacy;
use crate::people::{self, People};
use crate::plane::{Operation, Plane};
use crate::upgrade::{self, Endpoints, Legacy};
use crate::watch::{LinkEvent, watch};
use crate::{manager, stats};

/// How long cores may take to let go of what is in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the gateway is made of. Everything in it has been checked.
#[derive(Debug)]
pub struct Setup {
    /// Name of the interface.
    pub interface: String,
    /// The workers.
    pub workers: WorkerSetup,
    /// How to open the UDP sockets; the port may be changed later by clients.
    pub udp: UdpOptions,
    /// Rules for inner packets; the MTU in it is set on the interface.
    pub policy: Policy,
    /// `auto`, `always` or `never`.
    pub session_heaps: &'static str,
    /// Buffers per core.
    pub pools: PoolSizes,
    /// Socket for counters and commands.
    pub stats_socket: PathBuf,
    /// Folder of the counter pages; in memory only if absent.
    pub pages: Option<PathBuf>,
    /// Socket of the WireGuard configuration protocol.
    pub uapi: UapiSocket,
}

/// What the workers are like. Start-up flags and file have been weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSetup {
    /// One entry per worker, at least one.
    pub placements: Vec<Placement>,
    /// How packets are moved.
    pub driver: DriverChoice,
    /// Whether the kernel is asked to bring packets to their owners.
    pub steering: bool,
    /// How long a worker looks for work before it sleeps.
    pub spin: SpinMode,
    /// Whether workers give up what they do not need.
    pub sandbox: bool,
    /// Whether sends may be zero copy.
    pub zero_copy: ZeroCopyMode,
    /// Fast paths that are left out.
    pub without: FastPaths,
}

/// The socket of the WireGuard configuration protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UapiSocket {
    /// Where.
    pub path: PathBuf,
    /// Whether clients may change anything. If so the gateway is theirs: it does not start without
    /// the socket and ends with it.
    pub writable: bool,
}

/// Where a worker lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// CPU it is bound to.
    pub cpu: Option<u32>,
    /// Node of its memory.
    pub node: Option<u32>,
}

/// What a gateway does besides moving packets.
pub trait Role {
    /// Steps to begin with.
    fn first(&mut self) -> Vec<Operation>;

    /// Prepares the host once the interface is there: addresses, exit, link up.
    ///
    /// # Errors
    /// What is missing; the gateway ends with it.
    fn raise(&mut self, interface: &str) -> Result<(), Failure>;

    /// Reads the configuration again. Returns the steps and a sentence about them.
    ///
    /// # Errors
    /// Why nothing changes.
    fn reload(&mut self) -> Result<(Vec<Operation>, String), String>;

    /// The steps of the last reload took effect, or did not.
    fn reloaded(&mut self, done: bool);

    /// Puts the host back as it was. Called once, also after a failed [`Role::raise`].
    fn lower(&mut self);

    /// What may be kept and shown of clients.
    fn privacy(&self) -> Privacy {
        Privacy::default()
    }

    /// Sets in the policy what may change while the gateway runs.
    fn adjust(&self, _policy: &mut Policy) {}

    /// What the half of control that is for people is made of, as of the last reload, also while it
    /// is being applied; none without records.
    fn people(&self) -> Option<people::Plan> {
        None
    }

    /// What another process needs to play this role.
    ///
    /// # Errors
    /// When there are no descriptors left.
    fn legacy(&self) -> io::Result<Legacy>;

    /// Another process plays the role now: the host stays as it is.
    fn release(&mut self);

    /// This process plays the role now, with the host as it is. `journal` is the lock of the
    /// journal, if there is one, `plane` knows the peers, `endpoints` where the file of the process
    /// before expects them.
    fn inherit(&mut self, journal: Option<OwnedFd>, plane: &Plane, endpoints: &Endpoints);
}

/// Runs a gateway until it is told to stop. `ready` is called when clients can reach it.
///
/// # Errors
/// What could not be started, or what ended it. Everything is undone by then.
pub fn run(setup: Setup, role: &mut dyn Role, ready: impl FnOnce()) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Status::Unsupported, format!("Cannot start: {error}")))?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        let started = start::start(setup, None).await?;
        let begun = begin(&started, role).await;
        spawn_local(feed_watchdog(Rc::clone(&started.desk)));
        live(started, role, begun, ready).await
    });
    // A thread that hangs must not hold the end up; the process is about to go.
    runtime.shutdown_background();
    outcome
}

/// Serves until the end, and leaves. What had `begun` may have failed.
///
/// # Errors
/// As [`run`].
pub async fn live(
    started: Started,
    role: &mut dyn Role,
    begun: Result<Signals, Failure>,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let outcome = match begun {
        Ok(signals) => serve(&started, role, signals, ready).await,
        Err(failure) => Err(failure),
    };
    let handed_over = outcome.as_ref().is_ok_and(|end| *end == End::HandedOver);
    if handed_over {
        started.own_names(false);
        role.release();
    } else {
        role.lower();
        manager::tell(&[NotifyState::Stopping]);
    }
    let stopped = stop(started).await;
    outcome.map(drop).and(stopped)
}

/// Why a gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to, or has nothing to serve any more.
    Stopped,
    /// Another process is the gateway.
    HandedOver,
}

/// Configures the gateway and the host.
async fn begin(started: &Started, role: &mut dyn Role) -> Result<Signals, Failure> {
    let desk = &started.desk;
    // Cores begin without sockets and are told so: they start no handshake until there are some.
    desk.set_link(false).await?;
    desk.configure(role.first()).await?;
    role.raise(&started.interface)?;
    if !started.is_configured_by_clients() {
        // Nobody can choose another port later: one that is taken is a failed start.
        desk.set_link(true).await?;
    }
    Signals::listen()
}

/// What a process is told by signals. From the moment this is there they are kept until somebody
/// looks; before, they end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: on_signal(SignalKind::terminate())?,
            interrupt: on_signal(SignalKind::interrupt())?,
            hang_up: on_signal(SignalKind::hangup())?,
        })
    }
}

async fn serve(
    started: &Started,
    role: &mut dyn Role,
    signals: Signals,
    ready: impl FnOnce(),
) -> Result<End, Failure> {
    let desk = &started.desk;
    desk.keep_private(role.privacy());
    let gone = follow_link(started)?;
    let mut listeners = JoinSet::new();
    let (reload_requests, mut reloads) = mpsc::channel(4);
    let stats = Rc::clone(&started.stats);
    let served = stats::serve::serve(stats, Rc::clone(desk), reload_requests.clone());
    listeners.spawn_local(served);
    if let Some(uapi) = &started.uapi {
        let access = started.access;
        listeners.spawn_local(crate::uapi::serve::serve(Rc::clone(uapi), Rc::clone(desk), access));
    }
    let people = role.people().map(|plan| {
        let people = People::new(plan, Rc::clone(desk), reload_requests);
        listeners.spawn_local(Rc::clone(&people).run());
        people
    });
    let people = people.as_deref();
    let (upgrade_requests, mut upgrades) = mpsc::channel(1);
    listeners.spawn_local(desk::keep_reading(Rc::clone(desk)));
    listeners.spawn_local(upgrade::listen(Rc::clone(&started.upgrade), upgrade_requests));
    let Signals { terminate, interrupt, mut hang_up } = signals;
    let mut endings = Endings { terminate, interrupt, gone };
    ready();
    manager::tell(&[NotifyState::Ready, NotifyState::Status("Serving")]);
    loop {
        tokio::select! {
            why = endings.next(started) => break info!("{why}"),
            _ = hang_up.recv() => {
                let ended = requests::hang_up(desk, role, people, endings.next(started));
                if let Some(why) = ended.await {
                    break info!("{why}");
                }
            }
            Some(request) = reloads.recv() => {
                let ends = endings.next(started);
                let (outcome, ended) = requests::reload(desk, role, people, ends).await;
                if let Some(why) = ended {
                    // Not refused: who comes next may have read the file.
                    break info!("{why}");
                }
                // The client may have gone.
                let _ = request.send(outcome);
            }
            Some(request) = upgrades.recv() => {
                match hand_over(request, started, role, people, &mut endings).await? {
                    Next::GoOn => {}
                    Next::End(why) => break info!("{why}"),
                    Next::Heir(heir, held) => {
                        // Nobody is accepted here from now on: what listens is dropped.
                        spawn_local(pass_on(endings, hang_up, heir, held));
                        return Ok(End::HandedOver);
                    }
                }
            }
        }
    }
    if let Some(people) = people {
        people.settle().await;
    }
    // Whoever asks while the host is put back is answered.
    listeners.detach_all();
    Ok(End::Stopped)
}

/// Applies what follows from the interface's state. The receiver hears when it is gone.
fn follow_link(started: &Started) -> Result<mpsc::Receiver<()>, Failure> {
    let view = started.take_view()?;
    let (gone, heard) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(16);
    tokio::spawn(watch(view, sender));
    // Apart, because its end must be heard also while what came before it waits for its turn. As
    // many as an administrator makes in that time.
    let (follow, mut followed) = mpsc::unbounded_channel();
    spawn_local(async move {
        while let Some(event) = events.recv().await {
            debug!("Interface: {event:?}");
            // Whoever hears may have ended with the gateway.
            if event == LinkEvent::Gone {
                let _ = gone.send(()).await;
                return;
            }
            let _ = follow.send(event);
        }
    });
    let desk = Rc::clone(&started.desk);
    spawn_local(async move {
        while let Some(event) = followed.recv().await {
            let outcome = match event {
                LinkEvent::Up(up) => desk.set_link(up).await,
                LinkEvent::Mtu(bytes) => {
                    desk.set_mtu(u16::try_from(bytes).unwrap_or(u16::MAX)).await
                }
                LinkEvent::Gone => return,
            };
            match outcome {
                Ok(()) => {}
                Err(DeskError::Stopping) => return,
                Err(error) => error!("Following the interface: {error}"),
            }
        }
    });
    Ok(heard)
}

pub(crate) async fn stop(started: Started) -> Result<(), Failure> {
    started.desk.stop();
    if tokio::time::timeout(STOP_TIMEOUT, started.all_cores_ended()).await.is_err() {
        warn!("A core did not end within {} s and is left behind", STOP_TIMEOUT.as_secs());
    }
    match started.desk.take_failure() {
        Some(error) => Err(Failure::new(Status::Crashed, format!("A core stopped: {error}"))),
        None => Ok(()),
    }
}

/// Feeds the manager's watchdog as long as every core answers.
pub(crate) async fn feed_watchdog(desk: Rc<Desk>) {
    let Some(limit) = manager::current().watchdog() else { return };
    loop {
        if desk.cores_answer().await {
            manager::tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(limit / 3).await;
    }
}

fn on_signal(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Status::Unsupported, format!("Cannot take signals: {error}")))
}
