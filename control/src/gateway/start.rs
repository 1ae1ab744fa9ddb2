//! Making the parts of a gateway: TUN queues, sockets of control, channels, workers.
//!
//! What was made goes away by being dropped, so a failure half-way leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use ringway_dataplane::crossing::MeshPort;
use ringway_dataplane::worker::{
    self, ControlLink, PAGE_WORDS, WorkerConfig, WorkerHandle, WorkerLink,
};
use ringway_link::page::PageWriter;
use ringway_proto::CoreId;
use ringway_proto::crypto::Random;
use ringway_ring::{Features, TunError, TunOptions, TunQueue, TunView};
use rtnetlink::LinkUnspec;
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, spawn_local};
use tracing::{info, warn};

use super::Setup;
use super::desk::{CoreLine, Desk};
use super::ports::Ports;
use crate::failure::{Failure, Status};
use crate::listen::{ListenError, Listener, listen};
use crate::ready::Ready;
use crate::stats::snapshot::About;

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
    let cores = setup.placements.len() as u16;
    if cores != 1 {
        // Datagrams reach any of the cores that share a port, and only the owner knows a session.
        let message = format!(
            "{cores} workers would lose packets: nothing steers a datagram to the worker that owns \
             its session yet; use --workers 1"
        );
        return Err(Failure::new(Status::Unsupported, message));
    }
    let queues = open_tun(&setup.interface, cores)?;
    let interface = queues[0].name().to_owned();
    let view = TunView::of(&queues[0]).map_err(|error| cannot("watch the interface", &error))?;
    set_mtu(queues[0].index(), setup.policy.inner_mtu).await?;
    let uapi = setup.uapi_socket.as_deref().map(open_socket).transpose()?.map(Rc::new);
    let stats = Rc::new(open_socket(&setup.stats_socket)?);
    let features = Features::probe();
    let index_secret = index_secret();

    let mut lines = Vec::new();
    let mut reports = Vec::new();
    let mut handles = Vec::new();
    let links: Vec<_> = (0..cores)
        .map(|core| worker::link(open_page(setup.pages.as_deref(), CoreId(core))))
        .collect::<io::Result<_>>()
        .map_err(|error| cannot("make channels", &error))?;
    let wakers: Vec<_> = links.iter().map(|(control, _)| control.wake.clone()).collect();
    let mesh = worker::mesh(&wakers);
    for ((queue, (control, link)), port) in queues.into_iter().zip(links).zip(mesh) {
        let core = CoreId(port.core());
        let ControlLink { commands, reports: from_core, wake, reports_ready, page } = control;
        lines.push(CoreLine { commands, wake, page });
        let ready = Ready::new(reports_ready).map_err(|error| cannot("make channels", &error))?;
        reports.push((core, from_core, ready));
        let config = worker_config(&setup, queue, link, port, index_secret, features.clone())?;
        let handle = worker::spawn(config)
            .map_err(|error| Failure::new(Status::Unsupported, error.to_string()))?;
        handles.push(handle);
    }
    let about = About {
        interface: interface.clone(),
        version: env!("CARGO_PKG_VERSION"),
        inner_mtu: setup.policy.inner_mtu,
        ..About::default()
    };
    let desk = Desk::new(lines, Ports::new(setup.udp, cores), setup.policy, about);
    for (core, from_core, ready) in reports {
        spawn_local(Rc::clone(&desk).serve_reports(core, from_core, ready));
    }
    let ends = watch_threads(handles, &desk);
    info!("Interface {interface}, {cores} core(s)");
    Ok(Started { interface, desk, stats, uapi, view: RefCell::new(Some(view)), ends })
}

fn worker_config(
    setup: &Setup,
    tun: TunQueue,
    link: WorkerLink,
    mesh: MeshPort,
    index_secret: u32,
    features: Features,
) -> Result<WorkerConfig, Failure> {
    let core = CoreId(mesh.core());
    let placement = setup.placements[usize::from(core.0)];
    let heaps = setup.session_heaps.parse();
    Ok(WorkerConfig {
        core,
        cores: setup.placements.len() as u16,
        index_secret,
        cpu: placement.cpu,
        node: placement.node,
        tun,
        sockets: None,
        policy: Box::new(setup.policy.clone()),
        heaps: heaps.map_err(|error| Failure::new(Status::Config, format!("{error}")))?,
        link,
        mesh,
        spin_us: 0,
        pools: setup.pools,
        features,
        zero_copy: setup.zero_copy,
    })
}

/// Waits for each thread's end on a thread of its own, so that a panic is noticed too.
fn watch_threads(handles: Vec<WorkerHandle>, desk: &Rc<Desk>) -> Rc<Ends> {
    let total = handles.len();
    let ends = Rc::new(Ends { running: Cell::new(total), total, changed: Notify::new() });
    for handle in handles {
        let (desk, ends) = (Rc::clone(desk), Rc::clone(&ends));
        let ended = spawn_blocking(move || handle.join());
        spawn_local(async move {
            let result = ended.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            desk.core_ended(result);
            ends.running.set(ends.running.get() - 1);
            ends.changed.notify_waiters();
        });
    }
    ends
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
