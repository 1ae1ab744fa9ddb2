//! Making the parts of a gateway: TUN queues, sockets of control, channels, workers.
//!
//! What was made goes away by being dropped, so a failure half-way leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use ringway_dataplane::crossing::MeshPort;
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::steering::steering;
use ringway_dataplane::worker::{
    self, ControlLink, PAGE_WORDS, WorkerConfig, WorkerHandle, WorkerLink,
};
use ringway_link::page::PageWriter;
use ringway_proto::CoreId;
use ringway_proto::crypto::Random;
use ringway_ring::steer::TunSteering;
use ringway_ring::{
    Choice, DriverChoice, DriverKind, Features, Sandbox, TunError, TunOptions, TunQueue, TunView,
};
use rtnetlink::LinkUnspec;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tracing::{info, warn};

use super::desk::{CoreLine, Desk};
use super::ports::Ports;
use super::tun_map::{PREFIXES_MAX, TunMap};
use super::{Setup, UapiSocket};
use crate::config;
use crate::failure::{Failure, Status};
use crate::listen::{ListenError, Listener, listen};
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
pub async fn start(setup: Setup) -> Result<Started, Failure> {
    let cores = setup.workers.placements.len() as u16;
    let queues = open_tun(&setup.interface, cores)?;
    let interface = queues[0].name().to_owned();
    let view = TunView::of(&queues[0]).map_err(|error| cannot("watch the interface", &error))?;
    set_mtu(queues[0].index(), setup.policy.inner_mtu).await?;
    let (uapi, access) = open_uapi(&setup.uapi)?;
    let stats = Rc::new(open_socket(&setup.stats_socket)?);
    let features = Features::probe();
    let driver = ringway_ring::choose(driver_choice(setup.workers.driver), &features);
    info!("Driver {driver}");
    let common = Common { index_secret: index_secret(), features, driver: driver.kind };
    let layout = IndexLayout::new(cores, common.index_secret);
    let rules = setup.workers.steering.then(|| steering(cores, layout));
    let tun_map = steer_tun(&queues[0], cores, setup.workers.steering);

    let links: Vec<_> = (0..cores)
        .map(|core| worker::link(open_page(setup.pages.as_deref(), CoreId(core))))
        .collect::<io::Result<_>>()
        .map_err(|error| cannot("make channels", &error))?;
    let wakers: Vec<_> = links.iter().map(|(control, _)| control.wake.clone()).collect();
    let mesh = worker::mesh(&wakers);
    let (mut lines, mut reports, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for ((queue, (control, link)), port) in queues.into_iter().zip(links).zip(mesh) {
        let core = CoreId(port.core());
        let ControlLink { commands, reports: from_core, wake, reports_ready, page } = control;
        lines.push(CoreLine { commands, wake, page });
        let ready = Ready::new(reports_ready).map_err(|error| cannot("make channels", &error))?;
        reports.push((core, from_core, ready));
        let config = worker_config(&setup, &common, queue, link, port)?;
        let thread = worker::spawn(config)
            .map_err(|error| Failure::new(Status::Unsupported, error.to_string()))?;
        threads.push(thread);
    }
    let driver_part = Part { name: "driver", state: driver.kind.word(), why: driver.why.clone() };
    let about = About {
        interface: interface.clone(),
        version: env!("CARGO_PKG_VERSION"),
        inner_mtu: setup.policy.inner_mtu,
        workers_sandboxed: threads.iter().filter(|thread| is_complete(thread)).count() as u64,
        parts: vec![driver_part, sandbox_part(threads.iter().map(WorkerHandle::sandbox))],
        ..About::default()
    };
    let ports = Ports::new(setup.udp, cores, rules);
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
    Ok(Started { interface, desk, stats, uapi, access, driver, view, ends })
}

const fn driver_choice(wanted: config::DriverChoice) -> DriverChoice {
    match wanted {
        config::DriverChoice::Auto => DriverChoice::Auto,
        config::DriverChoice::Uring => DriverChoice::Uring,
        config::DriverChoice::Epoll => DriverChoice::Epoll,
    }
}

/// The map that steers packets of the TUN, where it is wanted and the kernel has it.
fn steer_tun(queue: &TunQueue, cores: u16, wanted: bool) -> TunMap {
    if cores == 1 {
        return TunMap::absent("there is one worker".to_owned());
    }
    if !wanted {
        return TunMap::absent("steering is off".to_owned());
    }
    match TunSteering::attach(queue, cores, PREFIXES_MAX) {
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
}

fn worker_config(
    setup: &Setup,
    common: &Common,
    tun: TunQueue,
    link: WorkerLink,
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
        frozen: false,
        policy: Box::new(setup.policy.clone()),
        heaps: heaps.map_err(|error| Failure::new(Status::Config, format!("{error}")))?,
        link,
        mesh,
        spin_us: setup.workers.spin_us.into(),
        pools: setup.pools,
        features: common.features.clone(),
        driver: common.driver,
        zero_copy: setup.zero_copy,
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

/// A gateway that nobody can configure otherwise does not start without its socket; for others it
/// is a convenience (`wg show`) that the rights of the process may not allow.
fn open_uapi(socket: &UapiSocket) -> Result<(Option<Rc<Listener>>, Access), Failure> {
    if socket.writable {
        return Ok((Some(Rc::new(open_socket(&socket.path)?)), Access::ReadAndWrite));
    }
    match listen(&socket.path) {
        Ok(listener) => Ok((Some(Rc::new(listener)), Access::ReadOnly)),
        Err(error) => {
            info!("`wg show` will not find this gateway: {error}");
            Ok((None, Access::ReadOnly))
        }
    }
}

fn open_tun(name: &str, cores: u16) -> Result<Vec<TunQueue>, Failure> {
    let options = TunOptions { multi_queue: cores > 1, ..TunOptions::named(name) };
    let first = TunQueue::open(&options).map_err(tun_failure)?;
    let mut queues = vec![first];
    for _ in 1..cores {
        queues.push(queues[0].another().map_err(tun_failure)?);
    }
    Ok(queues)
}

fn tun_failure(error: TunError) -> Failure {
    let status = if matches!(error, TunError::Busy { .. } | TunError::Different { .. }) {
        Status::InterfaceExists
    } else if matches!(error, TunError::Name { .. }) {
        Status::Usage
    } else {
        Status::Unsupported
    };
    Failure::new(status, error.to_string())
}

fn open_socket(path: &Path) -> Result<Listener, Failure> {
    listen(path).map_err(|error| {
        let status = match error {
            ListenError::InUse { .. } => Status::InterfaceExists,
            ListenError::System { .. } => Status::State,
        };
        Failure::new(status, error.to_string())
    })
}

/// A page that outlives the process, or one in memory where that cannot be had: counters are worth
/// less than packets.
fn open_page(folder: Option<&Path>, core: CoreId) -> PageWriter {
    let Some(folder) = folder else { return PageWriter::new(PAGE_WORDS) };
    let path = folder.join(format!("core-{}.page", core.0));
    let mapped = PageWriter::map_file(&path, PAGE_WORDS).or_else(|_| {
        // Of another version, most likely: the new one begins at zero.
        let _ = std::fs::remove_file(&path);
        PageWriter::map_file(&path, PAGE_WORDS)
    });
    mapped.unwrap_or_else(|error| {
        warn!("{error}; counters are kept in memory only");
        PageWriter::new(PAGE_WORDS)
    })
}

async fn set_mtu(index: u32, bytes: u16) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Status::Unsupported, format!("Cannot set the interface's MTU: {error}"))
    };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let message = LinkUnspec::new_with_index(index).mtu(bytes.into()).build();
    let done = handle.link().set(message).execute().await;
    connection.abort();
    done.map_err(|error| failed(&error))
}

fn index_secret() -> u32 {
    let mut bytes = [0; 4];
    crate::keys::SystemRandom.fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(Status::Unsupported, format!("Cannot {what}: {error}"))
}
