//! Where everything on the control thread meets: plane, channels, sockets, and who waits for what.
//!
//! Requests of any kind become changes of the plane here, the plane's commands go into the
//! channels, and answers wake whoever waits. Borrows never last over an await, so a client that is
//! slow or dead holds nothing. The desk must not know how requests are written.

mod accounts;
mod hand_over;
mod seen;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use ringway_dataplane::command::{Command, Envelope, PeerPage, Refusal, Report};
use ringway_flow::Policy;
use ringway_link::page::PageReader;
use ringway_link::spsc::{Receiver, Sender};
use ringway_link::usage::UsageReader;
use ringway_link::wake::{Sleeper, Waker};
use ringway_proto::CoreId;
use ringway_ring::listen::ListenError;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

pub use accounts::{AccountState, Exhaustion};

pub(crate) use self::seen::keep_reading;

use super::ports::{Opened, Ports};
use super::tun_map::TunMap;
use crate::failure::{Failure, Status};
use crate::plane::{Answer, Operation, Plane, Request, Ticket};
use crate::ready::Ready;
use crate::stats::query::Place;
use crate::stats::sessions::base64;
use crate::stats::snapshot::{About, Part, Snapshot};

/// Peers read with one command. Copying one takes a core well below a microsecond, so a page holds
/// packets back for less than 0.1 ms.
pub const PEERS_PER_PAGE: usize = 128;

/// Steps of a request that are applied before other tasks have their turn: well below a
/// millisecond of work.
const STEPS_PER_TURN: usize = 512;

/// Reports taken from one core before other tasks have their turn.
const REPORTS_PER_TURN: usize = 128;

/// Commands that may wait for cores while a request goes on. Bounds the memory of a request that
/// makes a hundred thousand peers.
const COMMANDS_WAITING_MAX: usize = 8192;

/// Control's ends of the channels to one core, without the reports.
#[derive(Debug)]
pub struct CoreLine {
    /// Commands to the core.
    pub commands: Sender<Envelope>,
    /// Wakes the core after a push.
    pub wake: Waker,
    /// Its counters.
    pub page: PageReader,
    /// What accounts used on it.
    pub usage: UsageReader,
}

/// Why a request did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The port or the mark.
    #[error(transparent)]
    Port(#[from] ListenError),
    /// A core refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no room to count what an account uses.
    #[error("No room in the run directory to count what accounts use: {0}")]
    Usage(#[source] io::Error),
    /// The gateway is on its way out.
    #[error("The gateway is stopping")]
    Stopping,
}

impl From<DeskError> for Failure {
    fn from(error: DeskError) -> Self {
        let status = match &error {
            DeskError::Port(ListenError::Busy { .. }) => Status::PortBusy,
            DeskError::Port(ListenError::NotOurs { .. }) => Status::Config,
            DeskError::Port(_) => Status::Unsupported,
            DeskError::Refused(_) => Status::Refused,
            DeskError::Usage(_) => Status::State,
            DeskError::Stopping => Status::Crashed,
        };
        Self::new(status, error.to_string())
    }
}

/// Shared by all tasks of the control thread.
#[derive(Debug)]
pub struct Desk {
    inner: RefCell<Inner>,
    /// Held by the request that is being applied: two never mix.
    turn: Mutex<()>,
    /// Rung when a core answered or ended.
    progress: Notify,
    /// What is remembered of how things went.
    seen: RefCell<seen::Seen>,
}

#[derive(Debug)]
struct Inner {
    plane: Plane,
    lines: Vec<CoreLine>,
    ports: Ports,
    tun_map: TunMap,
    policy: Policy,
    /// Whether the interface is up; the gateway is, once it has sockets too.
    link_up: bool,
    /// Who waits for which page.
    pages: BTreeMap<u64, oneshot::Sender<Box<PeerPage>>>,
    /// Who waits for what a core says of its state.
    asked: BTreeMap<u64, oneshot::Sender<hand_over::Spent>>,
    /// Who hears which volumes are used up.
    exhaustion: Option<mpsc::UnboundedSender<Exhaustion>>,
    /// Accounts whose use there is room to count.
    usage_slots: u32,
    about: About,
    started: Instant,
    stopping: bool,
    told_to_stop: bool,
    /// What ended the gateway, if it was not asked to.
    failed: Option<io::Error>,
}

impl Desk {
    /// A desk for these cores. `about` needs the interface and the version only.
    #[must_use]
    pub fn new(
        lines: Vec<CoreLine>,
        ports: Ports,
        tun_map: TunMap,
        policy: Policy,
        about: About,
    ) -> Rc<Self> {
        let inner = Inner {
            plane: Plane::new(lines.len() as u16),
            lines,
            ports,
            tun_map,
            policy,
            link_up: false,
            pages: BTreeMap::new(),
            asked: BTreeMap::new(),
            exhaustion: None,
            usage_slots: 0,
            about,
            started: Instant::now(),
            stopping: false,
            told_to_stop: false,
            failed: None,
        };
        Rc::new(Self {
            inner: RefCell::new(inner),
            turn: Mutex::new(()),
            progress: Notify::new(),
            seen: RefCell::default(),
        })
    }

    /// Applies the steps and returns when every core has done its part. However many they are,
    /// whoever else needs the control thread gets it after each piece.
    ///
    /// # Errors
    /// [`DeskError`]. A port that is taken or a mark that is not allowed change nothing.
    pub async fn configure(&self, operations: Vec<Operation>) -> Result<(), DeskError> {
        let _turn = self.turn.lock().await;
        let (sockets, mut request) = self.inner.borrow_mut().begin(&operations)?;
        let mut operations = operations.into_iter();
        loop {
            {
                let inner = &mut *self.inner.borrow_mut();
                inner.plane.go_on(&mut request, operations.by_ref().take(STEPS_PER_TURN));
            }
            self.pump();
            if operations.len() == 0 {
                break;
            }
            self.room_for_more().await?;
        }
        let ticket = self.inner.borrow_mut().end(sockets, request);
        self.pump();
        self.finished(ticket).await
    }

    /// Lets the other tasks have their turn; and while cores are far behind, waits for them.
    async fn room_for_more(&self) -> Result<(), DeskError> {
        tokio::task::yield_now().await;
        loop {
            let progress = self.progress.notified();
            {
                let inner = self.inner.borrow();
                if inner.stopping {
                    return Err(DeskError::Stopping);
                }
                if inner.plane.pending() < COMMANDS_WAITING_MAX {
                    return Ok(());
                }
            }
            progress.await;
        }
    }

    /// The interface went up or down: sockets and keepalives start or end with it.
    ///
    /// # Errors
    /// [`DeskError::Port`]: the gateway stays down then.
    pub async fn set_link(&self, up: bool) -> Result<(), DeskError> {
        // While another process is given the sockets, none are opened or closed.
        let _turn = self.turn.lock().await;
        let ticket = self.inner.borrow_mut().set_link(up)?;
        self.pump();
        self.finished(ticket).await
    }

    /// The largest inner packet changed.
    ///
    /// # Errors
    /// [`DeskError::Stopping`].
    pub async fn set_mtu(&self, bytes: u16) -> Result<(), DeskError> {
        let _turn = self.turn.lock().await;
        let ticket = {
            let mut inner = self.inner.borrow_mut();
            if inner.stopping {
                return Err(DeskError::Stopping);
            }
            inner.about.inner_mtu = bytes;
            inner.policy.inner_mtu = bytes;
            inner.tell_policy()
        };
        self.pump();
        self.finished(ticket).await
    }

    /// Changes the rules for inner packets and for new sessions.
    ///
    /// # Errors
    /// [`DeskError::Stopping`].
    pub async fn change_policy(&self, change: impl FnOnce(&mut Policy)) -> Result<(), DeskError> {
        let _turn = self.turn.lock().await;
        let ticket = {
            let mut inner = self.inner.borrow_mut();
            if inner.stopping {
                return Err(DeskError::Stopping);
            }
            change(&mut inner.policy);
            inner.tell_policy()
        };
        self.pump();
        self.finished(ticket).await
    }

    /// Reads the state of some peers, and says where to go on.
    ///
    /// # Errors
    /// [`DeskError::Stopping`], also for a core that there is not.
    pub async fn read_peers(
        &self,
        from: Place,
        rows: usize,
    ) -> Result<(Box<PeerPage>, Option<Place>), DeskError> {
        let answer = {
            let mut inner = self.inner.borrow_mut();
            if inner.stopping || usize::from(from.core) >= inner.lines.len() {
                return Err(DeskError::Stopping);
            }
            let peers = Vec::with_capacity(rows.min(PEERS_PER_PAGE));
            let page = Box::new(PeerPage { cursor: Some(from.slot), peers });
            let sequence = inner.plane.read(from.core(), page);
            let (sender, answer) = oneshot::channel();
            inner.pages.insert(sequence, sender);
            answer
        };
        self.pump();
        let mut page = answer.await.map_err(|_| DeskError::Stopping)?;
        self.redact(&mut page);
        let cores = self.inner.borrow().lines.len();
        let next_core = || {
            let core = from.core + 1;
            (usize::from(core) < cores).then_some(Place { core, slot: 0 })
        };
        let next = match page.cursor {
            Some(slot) => Some(Place { core: from.core, slot }),
            None => next_core(),
        };
        Ok((page, next))
    }

    /// Whether every core answers: one page of no peers each.
    pub async fn cores_answer(&self) -> bool {
        let cores = self.inner.borrow().lines.len() as u16;
        for core in 0..cores {
            if self.read_peers(Place { core, slot: 0 }, 0).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Looks at the plane. `look` must not come back to the desk.
    pub fn with_plane<T>(&self, look: impl FnOnce(&Plane) -> T) -> T {
        look(&self.inner.borrow().plane)
    }

    /// Port and mark, as clients of the configuration socket see them.
    #[must_use]
    pub fn port_and_mark(&self) -> (u16, u32) {
        let inner = self.inner.borrow();
        (inner.ports.port(), inner.ports.mark())
    }

    /// Changes control's own counters.
    pub fn count(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.inner.borrow_mut().about);
    }

    /// All counters now. A core that never published counts as zeros.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.borrow();
        let mut about = inner.about.clone();
        about.uptime_s = inner.started.elapsed().as_secs();
        about.public_key = inner.plane.public().map(base64);
        about.listen_port = if inner.ports.is_open() { inner.ports.port() } else { 0 };
        about.up = inner.plane.is_up();
        about.peers_configured = inner.plane.peers().len() as u64;
        about.commands_pending = inner.plane.pending() as u64;
        inner.describe_steering(&mut about);
        about.heap_bytes = ringway_alloc::guard::live_bytes() as u64;
        about.mapped_bytes = ringway_numa::region::mapped_bytes() as u64;
        about.resident_bytes = ringway_numa::memory::resident_bytes();
        let cores = inner.lines.iter().map(|line| {
            let mut words = vec![0; line.page.words()];
            // A core that never published has a page of zeros.
            let _never_torn = line.page.read(&mut words);
            words
        });
        let layout = ringway_dataplane::worker::page_layout();
        Snapshot { layout, cores: cores.collect(), about }
    }

    /// Tells all cores to stop. Their threads end soon after.
    pub fn stop(&self) {
        {
            let mut inner = self.inner.borrow_mut();
            inner.stopping = true;
            // Also when a core has ended by itself: the others do not know.
            if std::mem::replace(&mut inner.told_to_stop, true) {
                return;
            }
            inner.plane.stop();
        }
        self.pump();
    }

    /// A core ended. Whoever waits for it is told.
    pub fn core_ended(&self, result: io::Result<()>) {
        {
            let mut inner = self.inner.borrow_mut();
            if let Err(error) = result {
                inner.failed.get_or_insert(error);
            } else if !inner.stopping {
                let why = || io::Error::other("A core ended without being asked");
                inner.failed.get_or_insert_with(why);
            }
            inner.stopping = true;
            inner.pages.clear();
            inner.asked.clear();
        }
        self.progress.notify_waiters();
    }

    /// What ended the gateway, if it was not asked to.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.inner.borrow_mut().failed.take()
    }

    /// Takes a core's reports as they come, until its thread has ended (`over`) and the last is
    /// taken.
    ///
    /// # Errors
    /// When the event loop is gone.
    pub async fn serve_reports(
        self: Rc<Self>,
        core: CoreId,
        mut reports: Receiver<Report>,
        ready: Ready<Sleeper>,
        over: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        let served = tokio::select! {
            // Whichever way the sender went, the thread is gone.
            _ = over => Ok(()),
            served = self.follow_reports(core, &mut reports, &ready) => served,
        };
        while self.take_reports(core, &mut reports) {}
        served
    }

    async fn follow_reports(
        &self,
        core: CoreId,
        reports: &mut Receiver<Report>,
        ready: &Ready<Sleeper>,
    ) -> io::Result<()> {
        loop {
            if self.take_reports(core, reports) {
                tokio::task::yield_now().await;
                continue;
            }
            ready.get().prepare();
            if reports.is_empty() {
                ready
                    .readable(|sleeper| {
                        sleeper.drain();
                    })
                    .await?;
            }
            ready.get().awake();
        }
    }

    /// Takes some reports; `false` if there were none.
    fn take_reports(&self, core: CoreId, reports: &mut Receiver<Report>) -> bool {
        let mut any = false;
        for report in std::iter::from_fn(|| reports.pop()).take(REPORTS_PER_TURN) {
            self.take_report(core, report);
            any = true;
        }
        if any {
            // An answer means that there is room for the next command.
            self.pump();
            self.progress.notify_waiters();
        }
        any
    }

    fn take_report(&self, core: CoreId, report: Report) {
        let mut inner = self.inner.borrow_mut();
        match inner.plane.report(core, report) {
            Answer::Noted => {}
            Answer::Page { sequence, page } => {
                if let Some(waiting) = inner.pages.remove(&sequence) {
                    // The client may have gone meanwhile.
                    let _ = waiting.send(page);
                }
            }
            Answer::State { sequence, outcome, spent } => {
                if let Some(waiting) = inner.asked.remove(&sequence) {
                    // The upgrade may have been given up meanwhile.
                    let _ = waiting.send((outcome, spent));
                }
            }
            Answer::Exhausted { account, number } => inner.tell_exhausted(account, number),
            Answer::Stopped { error } => {
                if let Some(error) = error {
                    inner.failed.get_or_insert(error);
                }
            }
        }
    }

    /// Moves waiting commands into the channels, as far as there is room.
    fn pump(&self) {
        let Inner { plane, lines, tun_map, .. } = &mut *self.inner.borrow_mut();
        tun_map.apply(&plane.take_steered());
        for (core, line) in lines.iter_mut().enumerate() {
            if line.commands.push_batch(plane.outgoing(CoreId(core as u16))) > 0 {
                line.wake.wake();
            }
        }
    }

    async fn finished(&self, ticket: Ticket) -> Result<(), DeskError> {
        loop {
            let progress = self.progress.notified();
            {
                let inner = self.inner.borrow();
                if let Some(outcome) = inner.plane.outcome(ticket) {
                    return outcome.map_err(DeskError::from);
                }
                if inner.stopping {
                    return Err(DeskError::Stopping);
                }
            }
            progress.await;
        }
    }
}

impl Inner {
    fn tell_policy(&mut self) -> Ticket {
        let policy = self.policy.clone();
        self.plane.broadcast(|_| Command::SetPolicy(Box::new(policy.clone())))
    }

    fn begin(&mut self, operations: &[Operation]) -> Result<(Option<Ticket>, Request), DeskError> {
        if self.stopping {
            return Err(DeskError::Stopping);
        }
        self.reserve_usage(operations)?;
        let opened = self.change_ports(operations)?;
        let sockets = opened.map(|opened| self.give_sockets(opened));
        Ok((sockets, self.plane.begin_request()))
    }

    fn end(&mut self, sockets: Option<Ticket>, request: Request) -> Ticket {
        let changes = self.plane.finish(request);
        // A free port brings a gateway up whose own port was taken when the interface came up.
        let link = self.plane.set_link(self.link_up && self.ports.is_open());
        sockets.map_or(changes, |sockets| sockets.until(changes)).until(link)
    }

    /// Port and mark, both or neither.
    fn change_ports(&mut self, operations: &[Operation]) -> Result<Option<Opened>, ListenError> {
        let (mut port, mut mark) = (None, None);
        for operation in operations {
            if let Operation::ListenPort(asked) = operation {
                port = Some(*asked);
            }
            if let Operation::Fwmark(asked) = operation {
                mark = Some(*asked);
            }
        }
        let mark_before = self.ports.mark();
        if let Some(mark) = mark {
            self.ports.set_mark(mark)?;
        }
        let Some(port) = port else { return Ok(None) };
        let port_before = self.ports.port();
        let changed = if self.link_up && !self.ports.is_open() {
            self.ports.change(port).and_then(|_| self.ports.open()).map(Some)
        } else {
            self.ports.change(port)
        };
        if changed.is_err() {
            // Setting what was set before needs no more rights than setting the new one did.
            let _ = self.ports.set_mark(mark_before);
            if !self.ports.is_open() {
                let _ = self.ports.change(port_before);
            }
        }
        changed
    }

    fn set_link(&mut self, up: bool) -> Result<Ticket, DeskError> {
        if self.stopping {
            return Err(DeskError::Stopping);
        }
        self.link_up = up;
        let sockets = if up && !self.ports.is_open() {
            let opened = self.ports.open()?;
            self.give_sockets(opened)
        } else if !up {
            self.ports.close();
            self.plane.broadcast(|_| Command::ReplaceSockets(None))
        } else {
            self.plane.apply([])
        };
        Ok(sockets.until(self.plane.set_link(up)))
    }

    fn describe_steering(&self, about: &mut About) {
        let (ports, tun) = (&self.ports, &self.tun_map);
        about.datagrams_steered = ports.is_steered().into();
        about.packets_steered = tun.is_active().into();
        about.prefixes_unsteered = tun.missing() as u64;
        about.steering_refusals = tun.refusals();
        let part = |name, steered: bool, absence: &str| {
            let state = if steered { "steered" } else { "spread" };
            let why = if steered { "the kernel brings them to their worker" } else { absence };
            Part { name, state, why: why.to_owned() }
        };
        let closed = if ports.is_open() { tun.absence() } else { "there are no sockets" };
        let refused = ports.refusal().unwrap_or(closed);
        about.parts.push(part("datagrams", ports.is_steered(), refused));
        about.parts.push(part("packets", tun.is_active(), tun.absence()));
    }

    fn give_sockets(&mut self, opened: Opened) -> Ticket {
        let mut opened = opened.into_iter();
        self.plane.broadcast(|_| Command::ReplaceSockets(opened.next()))
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
