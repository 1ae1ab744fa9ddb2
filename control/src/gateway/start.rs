//! Making the parts of a gateway: TUN queues, sockets of control, channels, workers.
//!
//! What was made goes away by being dropped, so a failure half-way leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringway_dataplane::command::Report;
use ringway_dataplane::crossing::MeshPort;
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::steering::steering;
use ringway_dataplane::worker::{self, ControlLink, WorkerConfig, WorkerHandle, WorkerLink};
use ringway_link::spsc::Receiver;
use ringway_link::usage::UsageWriter;
use ringway_link::wake::Sleeper;
use ringway_proto::CoreId;
use ringway_ring::steer::TunSteering;
use ringway_ring::{
    Choice, DriverKind, Features, Sandbox, TunOffloads, TunQueue, TunView, UdpSockets,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tracing::{info, warn};

use super::Setup;
use super::desk::{CoreLine, Desk, DeskError};
use super::parts::{self, Pages, Parts, Taken, cannot};
use super::ports::Ports;
use super::tun_map::{PREFIXES_MAX, TunMap};
use super::without;
use crate::failure::{Failure, Status};
use crate::listen::Listener;
use crate::ready::Ready;
use crate::stats::snapshot::{About, Part};
use crate::uapi::serve::Access;

/// Everything that runs.
#[derive(Debug)]
pub struct Started {
    /// Name the interface really got.
    pub interface: String,
    /// Where the tasks meet.
    pub desk: Rc<Desk>,
    /// Socket for counters.
    pub stats: Rc<Listener>,
    /// Socket of the configuration protocol.
    pub uapi: Option<Rc<Listener>>,
    /// What its clients may do.
    pub access: Access,
    /// Which driver moves packets, and why.
    pub driver: Choice,
    /// Socket where another process asks for the gateway.
    pub upgrade: Rc<Listener>,
    /// Second descriptors of the queues, in the order of the cores.
    pub queues: Vec<OwnedFd>,
    /// Masks the owner in receiver indices.
    pub index_secret: u32,
    /// What the interface is asked for.
    offloads: TunOffloads,
    pages: Pages,
    view: RefCell<Option<TunView>>,
    ends: Rc<Ends>,
}

/// How many cores still run.
#[derive(Debug, Default)]
struct Ends {
    running: Cell<usize>,
    total: usize,
    changed: Notify,
}

impl Started {
    /// The view of the TUN, once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_view(&self) -> Result<TunView, Failure> {
        let view = self.view.borrow_mut().take();
        view.ok_or_else(|| Failure::new(Status::Crashed, "The interface is watched already"))
    }

    /// Whether the sockets and the counter pages are this process's, to be found by their names and
    /// removed in the end, or another one's. Whoever has them also steers the interface.
    pub fn own_names(&self, owned: bool) {
        let uapi = self.uapi.as_ref();
        for listener in [&self.stats, &self.upgrade].into_iter().chain(uapi) {
            listener.own(owned);
        }
        if owned {
            self.pages.name();
            self.steer();
        }
    }

    /// Steers the interface by what this process knows, whoever steered it before.
    pub fn steer(&self) {
        let queue = self.queues[0].try_clone().map_err(|error| error.to_string());
        let queue = queue.and_then(|queue| {
            TunQueue::adopt(queue, self.offloads).map_err(|error| error.to_string())
        });
        match queue {
            Ok(queue) => self.desk.steer(&queue),
            Err(error) => warn!("Steering stays as it is: {error}"),
        }
    }

    /// Gives interface and sockets the offloads that this process wants: another one, which had
    /// them too and did not become the gateway, may have wanted others.
    pub fn restore_offloads(&self) {
        let queue = self.queues[0].try_clone().map_err(|error| error.to_string());
        let adopt = |queue| TunQueue::adopt(queue, self.offloads).map_err(|e| e.to_string());
        if let Err(error) = queue.and_then(adopt) {
            warn!("Offloads stay as they are: {error}");
        }
        self.desk.with_ports(Ports::restore_merging);
    }

    /// Whether clients of the configuration protocol say what the gateway does.
    #[must_use]
    pub fn is_configured_by_clients(&self) -> bool {
        self.access == Access::ReadAndWrite
    }

    /// Returns when a core has ended.
    pub async fn core_ended(&self) {
        self.until(|running| running < self.ends.total).await;
    }

    /// Returns when all cores have ended.
    pub async fn all_cores_ended(&self) {
        self.until(|running| running == 0).await;
    }

    async fn until(&self, done: impl Fn(usize) -> bool) {
        loop {
            let changed = self.ends.changed.notified();
            if done(self.ends.running.get()) {
                return;
            }
            changed.await;
        }
    }
}

/// Makes and starts everything. Cores run when this returns; nothing is configured yet.
///
/// # Errors
/// What is missing or in the way, with the fix.
pub async fn start(setup: Setup, taken: Option<Taken>) -> Result<Started, Failure> {
    let cores = setup.workers.placements.len() as u16;
    let frozen = taken.is_some();
    let parts = match taken {
        Some(taken) => Parts::of(taken, &setup)?,
        None => Parts::new(&setup, cores).await?,
    };
    let Parts { queues, sockets, stats, uapi, access, upgrade, index_secret } = parts;
    let interface = queues[0].name().to_owned();
    let view = TunView::of(&queues[0]).map_err(|error| cannot("watch the interface", &error))?;
    let seconds = parts::second_descriptors(&queues)?;
    let without = setup.workers.without;
    let mut features = Features::probe();
    without::hide(&mut features, without);
    let driver = ringway_ring::choose(setup.workers.driver.into(), &features);
    info!("Driver {driver}");
    let offloads = queues[0].offloads();
    info!("Fast paths left out: {without}; offloads of the interface: {offloads}; {features}");
    let fast_paths = without::part(without, &features);
    let common = Common { index_secret, features, driver: driver.kind, frozen };
    let layout = IndexLayout::new(cores, common.index_secret);
    let rules = setup.workers.steering.then(|| steering(cores, layout));
    let tun_map = steer_tun(&queues[0], cores, setup.workers.steering, frozen);

    let mut ports = Ports::new(setup.udp.clone(), cores, rules);
    ports.adopt(&sockets).map_err(DeskError::from)?;
    let Running { lines, reports, threads, pages } =
        start_workers(&setup, &common, queues, sockets)?;
    let about = About {
        interface: interface.clone(),
        version: env!("CARGO_PKG_VERSION"),
        inner_mtu: setup.policy.inner_mtu,
        workers_sandboxed: threads.iter().filter(|thread| is_complete(thread)).count() as u64,
        parts: vec![
            Part { name: "driver", state: driver.kind.word(), why: driver.why.clone() },
            sandbox_part(threads.iter().map(WorkerHandle::sandbox)),
            fast_paths,
        ],
        ..About::default()
    };
    let desk = Desk::new(lines, ports, tun_map, setup.policy, about);
    let total = threads.len();
    let ends = Rc::new(Ends { running: Cell::new(total), total, changed: Notify::new() });
    for (thread, (core, from_core, ready)) in threads.into_iter().zip(reports) {
        let (over, ended) = oneshot::channel();
        let served = spawn_local(Rc::clone(&desk).serve_reports(core, from_core, ready, ended));
        watch_thread(thread, over, served, &desk, &ends);
    }
    info!("Interface {interface}, {cores} core(s)");
    let view = RefCell::new(Some(view));
    let queues = seconds;
    Ok(Started {
        interface,
        desk,
        stats,
        uapi,
        access,
        driver,
        upgrade,
        queues,
        index_secret,
        offloads: without::offloads(without),
        pages,
        view,
        ends,
    })
}

/// The workers, and control's ends of what joins it to them.
struct Running {
    lines: Vec<CoreLine>,
    reports: Vec<(CoreId, Receiver<Report>, Ready<Sleeper>)>,
    threads: Vec<WorkerHandle>,
    pages: Pages,
}

fn start_workers(
    setup: &Setup,
    common: &Common,
    queues: Vec<TunQueue>,
    sockets: Vec<UdpSockets>,
) -> Result<Running, Failure> {
    let mut pages = Pages::new(setup.pages.clone(), common.frozen);
    let links: Vec<_> = (0..queues.len() as u16)
        .map(|core| worker::link(pages.open(CoreId(core))))
        .collect::<io::Result<_>>()
        .map_err(|error| cannot("make channels", &error))?;
    let wakers: Vec<_> = links.iter().map(|(control, _)| control.wake.clone()).collect();
    let mesh = worker::mesh(&wakers);
    let mut sockets = sockets.into_iter().map(Box::new);
    let (mut lines, mut reports, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for ((queue, (control, link)), port) in queues.into_iter().zip(links).zip(mesh) {
        let core = CoreId(port.core());
        let ControlLink { commands, reports: from_core, wake, reports_ready, page } = control;
        let usage = pages.usage(core).map_err(|error| cannot("count what is used", &error))?;
        lines.push(CoreLine { commands, wake, page, usage: usage.reader() });
        let ready = Ready::new(reports_ready).map_err(|error| cannot("make channels", &error))?;
        reports.push((core, from_core, ready));
        let mut config = worker_config(setup, common, queue, link, usage, port)?;
        config.sockets = sockets.next();
        let thread = worker::spawn(config)
            .map_err(|error| Failure::new(Status::Unsupported, error.to_string()))?;
        threads.push(thread);
    }
    Ok(Running { lines, reports, threads, pages })
}

/// The map that steers packets of the TUN, where it is wanted and the kernel has it.
/// While the interface is another process's, it is only made: [`Started::own_names`] attaches it.
fn steer_tun(queue: &TunQueue, cores: u16, wanted: bool, frozen: bool) -> TunMap {
    if cores == 1 {
        return TunMap::absent("there is one worker".to_owned());
    }
    if !wanted {
        return TunMap::absent("steering is off".to_owned());
    }
    let attach = || TunSteering::attach(queue, cores, PREFIXES_MAX);
    let made = if frozen { TunSteering::new(cores, PREFIXES_MAX) } else { attach() };
    match made {
        Ok(steering) => TunMap::new(Box::new(steering)),
        Err(error) => {
            warn!("{error}");
            TunMap::absent(error.to_string().replace('\n', " "))
        }
    }
}

fn is_complete(thread: &WorkerHandle) -> bool {
    thread.sandbox().is_some_and(Sandbox::is_complete)
}

/// How the sandboxes stand. They are made alike, so what one lacks they all lack.
fn sandbox_part<'a>(mut sandboxes: impl Iterator<Item = Option<&'a Sandbox>>) -> Part {
    let part = |state, why| Part { name: "sandbox", state, why };
    let Some(sandbox) = sandboxes.next().flatten() else {
        return part("off", "it was not wanted".to_owned());
    };
    info!("Sandbox {sandbox}");
    for (part, gap) in sandbox.gaps() {
        warn!("Workers do without {part}: {gap}");
    }
    let state = if sandbox.is_complete() { "complete" } else { "partial" };
    part(state, sandbox.to_string())
}

/// What all workers get alike.
struct Common {
    index_secret: u32,
    features: Features,
    driver: DriverKind,
    frozen: bool,
}

fn worker_config(
    setup: &Setup,
    common: &Common,
    tun: TunQueue,
    link: WorkerLink,
    usage: UsageWriter,
    mesh: MeshPort,
) -> Result<WorkerConfig, Failure> {
    let core = CoreId(mesh.core());
    let placement = setup.workers.placements[usize::from(core.0)];
    let heaps = setup.session_heaps.parse();
    Ok(WorkerConfig {
        core,
        cores: mesh.cores(),
        index_secret: common.index_secret,
        cpu: placement.cpu,
        node: placement.node,
        tun,
        sockets: None,
        frozen: common.frozen,
        policy: Box::new(setup.policy.clone()),
        heaps: heaps.map_err(|error| Failure::new(Status::Config, format!("{error}")))?,
        link,
        usage,
        mesh,
        spin: setup.workers.spin,
        pools: setup.pools,
        pages: without::pages(setup.workers.without),
        features: common.features.clone(),
        driver: common.driver,
        zero_copy: setup.workers.zero_copy,
        sandbox: setup.workers.sandbox,
    })
}

/// Waits for a worker's end on a thread of its own, so that a panic is noticed too. What the worker
/// reported last is read before its end is told: it says more than the end itself.
fn watch_thread(
    thread: WorkerHandle,
    over: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
    desk: &Rc<Desk>,
    ends: &Rc<Ends>,
) {
    let (desk, ends) = (Rc::clone(desk), Rc::clone(ends));
    let ended = spawn_blocking(move || thread.join());
    spawn_local(async move {
        let result = ended.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        // Fails only if the task has ended by itself, which comes to the same.
        let _ = over.send(());
        let _ = served.await;
        desk.core_ended(result);
        ends.running.set(ends.running.get() - 1);
        ends.changed.notify_waiters();
    });
}
