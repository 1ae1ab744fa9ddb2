//! The service for people, on the control thread: the store's records become peers and limits, and
//! what the cores report becomes records.
//!
//! [`Service`] joins the pure [`Projection`] with the desk, the store, the events and the clocks.
//! Nothing here holds traffic up: the store is asked on threads of its own, and what it does not
//! take now waits in `outbox`, bounded. Other threads reach the service through its [`door`]. It
//! must not know HTTP, and not how sign-ins are judged.

mod apply;
pub mod door;
mod drain;
mod follow;
pub mod live;
mod log;
mod measure;
mod notes;
mod outbox;
mod sweep;
#[cfg(test)]
mod tests;
mod translate;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ringway_alloc::forget;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};
use tokio::task::{JoinSet, spawn_local};
use tracing::{error, warn};

pub use drain::{Drain, DrainError};
pub use notes::Tally;
pub use outbox::Outbox;

use self::follow::Rules;
use self::measure::Measure;
use self::translate::Volumes;
use crate::access::clock::Clocks;
use crate::access::{Moment, Projection};
use crate::events::{Hub, Kind};
use crate::gateway::desk::Desk;
use crate::store::records::{Rate, Timestamp};
use crate::store::{Store, StoreError};

/// How often time, use and notes are looked at. Access that is taken away is gone after this and
/// what the store and the cores take; it must be well below a second.
const TICK: Duration = Duration::from_millis(100);

/// What the service is made of.
pub struct Parts {
    /// The plane and the cores.
    pub desk: Rc<Desk>,
    /// The records.
    pub store: Store,
    /// Who wants to hear what happens.
    pub hub: Hub,
    /// Name of this gateway among those that share the store.
    pub name: String,
    /// What may change while it runs.
    pub settings: Settings,
}

/// What may change while the service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What all clients of the store share.
    pub rate: Rate,
}

/// While this is held the store is told neither what happened nor what was used, but still whose
/// access has ended.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held, not looked at")] [OwnedMutexGuard<()>; 2]);

/// The service.
pub struct Service {
    desk: Rc<Desk>,
    store: Store,
    hub: Hub,
    name: String,
    settings: Cell<Settings>,
    projection: RefCell<Projection>,
    clocks: RefCell<Clocks>,
    started: Instant,
    rules: RefCell<Rules>,
    volumes: RefCell<Volumes>,
    measure: RefCell<Measure>,
    outbox: RefCell<Outbox>,
    drain: RefCell<Drain>,
    tally: RefCell<Tally>,
    /// Held by whoever tells the store what was used: two would tell it twice.
    flushing: Arc<Mutex<()>>,
    /// The same for everything else that waits. Who holds both had this one first.
    telling: Arc<Mutex<()>>,
    /// Held by whoever tells the store of ends of access.
    ending: Mutex<()>,
    /// Held by whoever looks at all peers: of two, one would end what only the other has seen.
    sweeping: Mutex<()>,
    /// Rung when there are steps for the plane.
    steps: Notify,
    /// Rung when the outbox has something that cannot wait.
    urgent: Notify,
    /// Rung, also by other threads, when the store has changed.
    changed: Arc<Notify>,
    /// Whether what the store has is known.
    loaded: Cell<bool>,
    /// The gateway ends: no session begins any more.
    stopped: Cell<bool>,
}

impl Service {
    /// A service that knows nobody yet.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let Parts { desk, store, hub, name, settings } = parts;
        Rc::new(Self {
            desk,
            store,
            hub,
            name,
            settings: Cell::new(settings),
            projection: RefCell::default(),
            clocks: RefCell::new(Clocks::new(wall_clock())),
            started: Instant::now(),
            rules: RefCell::default(),
            volumes: RefCell::default(),
            measure: RefCell::default(),
            outbox: RefCell::default(),
            drain: RefCell::default(),
            tally: RefCell::default(),
            flushing: Arc::default(),
            telling: Arc::default(),
            ending: Mutex::default(),
            sweeping: Mutex::default(),
            steps: Notify::new(),
            urgent: Notify::new(),
            changed: Arc::new(Notify::new()),
            loaded: Cell::new(false),
            stopped: Cell::new(false),
        })
    }

    /// Serves until dropped. What the store has is loaded first; while it does not answer, peers
    /// that another process left go on, and nobody else comes in.
    pub async fn run(self: Rc<Self>, calls: door::Calls) {
        let mut tasks = JoinSet::new();
        tasks.spawn_local(Rc::clone(&self).answer(calls));
        tasks.spawn_local(Rc::clone(&self).follow_store());
        tasks.spawn_local(Rc::clone(&self).apply_steps());
        tasks.spawn_local(Rc::clone(&self).keep_time());
        tasks.spawn_local(Rc::clone(&self).sweep_peers());
        tasks.spawn_local(Rc::clone(&self).hear_exhaustion());
        tasks.spawn_local(Rc::clone(&self).empty_outbox());
        while let Some(ended) = tasks.join_next().await {
            // None of them ends by itself.
            if let Err(failure) = ended {
                error!("A task of the service ended: {failure}");
            }
        }
    }

    /// Rings for whoever changes the store, from any thread.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Takes other settings from now on.
    pub fn set(&self, settings: Settings) {
        self.settings.set(settings);
        self.projection.borrow_mut().set_gateway_rate(settings.rate);
        self.steps.notify_one();
    }

    /// Ends all sessions and enters what was counted and what happened, as far as the store takes
    /// it in time. For the end of a process: what is left of what was counted is in the counter
    /// pages, and what is left of sessions in the store; the next one enters both.
    pub async fn settle(&self) {
        let now = self.now();
        self.count_everybody(now);
        // What ended by itself since the last tick.
        self.take_notes(now);
        self.end_sessions(now);
        self.flush_outbox().await;
    }

    /// Tells the store what happened and what was used, and then no more until what is returned is
    /// dropped; what is under way is waited for. Whoever gives up waiting changes nothing: what
    /// began to be told is told to the end.
    pub async fn hold(self: &Rc<Self>) -> Hold {
        let now = self.now();
        self.take_usage(now);
        self.take_notes(now);
        if self.loaded.get() {
            let service = Rc::clone(self);
            // A task of its own: cut off in between it would lose what it was about to tell.
            let told = spawn_local(async move {
                let _telling = service.telling.lock().await;
                service.flush_told().await
            });
            if let Err(failure) = told.await {
                error!("What was used was not told before a hand-over: {failure}");
            }
        }
        let telling = Arc::clone(&self.telling).lock_owned().await;
        Hold([telling, Arc::clone(&self.flushing).lock_owned().await])
    }

    /// What is known of people and their sessions.
    pub fn with_projection<T>(&self, look: impl FnOnce(&Projection) -> T) -> T {
        look(&self.projection.borrow())
    }

    /// The desk.
    #[must_use]
    pub const fn desk(&self) -> &Rc<Desk> {
        &self.desk
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether what the store has is known.
    #[must_use]
    pub const fn is_loaded(&self) -> bool {
        self.loaded.get()
    }

    /// What waits for the store.
    pub fn with_outbox<T>(&self, look: impl FnOnce(&Outbox) -> T) -> T {
        look(&self.outbox.borrow())
    }

    /// When this process began to serve: one and the same moment, however often it is asked for.
    pub(crate) fn begun(&self) -> Timestamp {
        self.clocks.borrow().begun()
    }

    /// This moment. A calendar that was set is noticed here.
    pub(crate) fn now(&self) -> Moment {
        let (now, step) = self.clocks.borrow_mut().at(wall_clock(), self.started.elapsed());
        if let Some(ms) = step {
            warn!("The clock was set by {} ms: dates follow it, sessions do not", ms);
            let detail = serde_json::json!({ "step_ms": ms });
            self.hub.publish(now.wall, Kind::Warning, "clock", detail);
            self.projection.borrow_mut().calendar_was_set(now);
        }
        now
    }

    async fn keep_time(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.now();
            self.take_usage(now);
            self.projection.borrow_mut().tick(now);
            self.drain_is_over(now);
            self.take_notes(now);
            forget::scrub_stack();
        }
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A failure of the store, for people: what it means here.
fn store_failed(what: &str, failure: &StoreError) {
    warn!("{what}: {failure}; traffic goes on, and this is tried again");
}
