//! The store as everybody else holds it: a queue, threads of its own, and a deadline per request.
//!
//! One thread writes and a few read, each with a connection. Whoever asks waits for the answer or
//! for the deadline, never longer. A request that was given up is not carried out: before a change
//! is kept, its thread looks whether anybody still waits. On a thread that hangs in the kernel or
//! waits for a server that stands still, others behind it in the queue time out as well; it goes on
//! by itself once that is over. This module must not know SQL.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::backup;
use super::db::Db;
use super::engine::Mode;
use super::error::StoreError;
use super::health::{Health, Record};
use super::link::Link;
use super::queue::{Queue, Refused};
use super::url::{Place, StoreUrl};

/// How the store is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Longest time that a request may take, waiting included.
    pub deadline: Duration,
    /// Most requests that wait, of those that read and of those that write.
    pub queue: usize,
    /// Connections that read, beside the one that writes; at least 1.
    pub readers: usize,
    /// SQLite: a change is on the disk before it counts as kept (default).
    pub durable: bool,
    /// SQLite: most bytes of the file; none for no limit.
    pub bytes_max: Option<u64>,
    /// SQLite: look at everything at start, not only at the structure.
    pub full_check: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            queue: 1024,
            readers: 2,
            durable: true,
            bytes_max: None,
            full_check: false,
        }
    }
}

/// The store. Clones are the same store; it closes when the last one is dropped and what was asked
/// before is done.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.url)
    }
}

/// Closes the queues with the last [`Store`].
struct Shared {
    url: StoreUrl,
    options: StoreOptions,
    desk: Arc<Desk>,
}

/// What the threads share with those who ask.
struct Desk {
    /// As many as threads run.
    running: watch::Sender<usize>,
    reads: Queue<Job>,
    writes: Queue<Job>,
    record: Record,
}

/// A request.
struct Job {
    asked: Instant,
    deadline: Instant,
    run: Run,
}

/// Does a request, and says how it ended; none if nobody waited for that any more, and whoever gave
/// up has counted it.
type Run = Box<dyn FnOnce(&mut Link, Instant) -> Option<Result<(), StoreError>> + Send>;

/// How far a request is. Both sides change it in one step, so that they never disagree about
/// whether a change may still be kept.
struct Stage(AtomicU8);

const WAITING: u8 = 0;
const WORKING: u8 = 1;
const KEEPING: u8 = 2;
const GIVEN_UP: u8 = 3;

impl Stage {
    /// Goes on to `next`, unless the request was given up.
    fn advance(&self, next: u8) -> bool {
        let go_on = |stage| (stage != GIVEN_UP).then_some(next);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, go_on).is_ok()
    }
}

/// Whoever asked; a request is given up with it.
struct Ticket(Arc<Stage>);

impl Ticket {
    /// Gives up, and says how far it was.
    fn give_up(&self) -> u8 {
        self.0.0.swap(GIVEN_UP, Ordering::AcqRel)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Store {
    /// Opens the store, brings it up to date and checks it.
    ///
    /// # Errors
    /// Why it cannot be used; nothing runs then.
    pub async fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Self, StoreError> {
        let desk = Arc::new(Desk {
            running: watch::Sender::new(0),
            reads: Queue::new(options.queue),
            writes: Queue::new(options.queue),
            record: Record::new(url.engine()),
        });
        let shared = Shared { url: url.clone(), options: options.clone(), desk };
        shared.start("store-w".to_owned(), Mode::Write, false)?;
        let store = Self { shared: Arc::new(shared) };
        // Connects, checks and migrates.
        store.write(|_| Ok(())).await?;
        for reader in 0..options.readers.max(1) {
            store.shared.start(format!("store-{reader}"), Mode::Read, true)?;
        }
        Ok(store)
    }

    /// Runs `work` on one state of the store; whatever it writes is refused.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Mode::Read, self.shared.options.deadline, work).await
    }

    /// Runs `work` as one transaction: all of it is kept, or nothing. It may run more than once, if
    /// others were in the way.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Mode::Write, self.shared.options.deadline, work).await
    }

    /// As [`Self::read`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Mode::Read, deadline, work).await
    }

    /// As [`Self::write`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Mode::Write, deadline, work).await
    }

    /// Longest time that a request without a deadline of its own may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.options.deadline
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Health {
        let desk = &self.shared.desk;
        desk.record.health(desk.reads.len() + desk.writes.len())
    }

    /// Writes a copy of the running SQLite store to `path`, as it is at one moment, and checks it;
    /// with `overwrite` in place of what is there. Nobody waits meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] on PostgreSQL, which has `pg_dump`, and if something is there; and
    /// those of the files.
    pub async fn backup(&self, path: &Path, overwrite: bool) -> Result<(), StoreError> {
        let file = match self.shared.url.place() {
            Place::File(file) => file.clone(),
            Place::Server(..) => {
                let why = "a PostgreSQL store is backed up on its server, with pg_dump".to_owned();
                return Err(StoreError::Invalid { why });
            }
        };
        let path = path.to_owned();
        let copied =
            tokio::task::spawn_blocking(move || backup::backup(&file, &path, overwrite)).await;
        copied.unwrap_or_else(|_| Err(StoreError::unavailable("the backup was cut short")))
    }

    /// Closes the store once what was asked before is done, for all its clones, and waits for that
    /// no longer than a request may take.
    pub async fn close(self) {
        let mut running = self.shared.desk.running.subscribe();
        self.shared.close();
        let ended = running.wait_for(|count| *count == 0);
        // Whether it has ended or hangs: there is nothing more to wait for.
        let _ = tokio::time::timeout(self.shared.options.deadline, ended).await;
    }

    async fn ask<T: Send + 'static>(
        &self,
        mode: Mode,
        patience: Duration,
        mut work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let ticket = Ticket(Arc::new(Stage(AtomicU8::new(WAITING))));
        let stage = Arc::clone(&ticket.0);
        let run = Box::new(move |link: &mut Link, deadline: Instant| {
            if !stage.advance(WORKING) {
                return None;
            }
            let done = link.transact(deadline, &mut work, &|| stage.advance(KEEPING));
            let outcome = done.as_ref().map(|_| ()).map_err(StoreError::clone);
            answer.send(done).is_ok().then_some(outcome)
        });
        let desk = &self.shared.desk;
        let asked = Instant::now();
        let job = Job { asked, deadline: asked + patience, run };
        let queue = if mode == Mode::Write { &desk.writes } else { &desk.reads };
        let error = match queue.push(job) {
            Ok(()) => match tokio::time::timeout(patience, wait).await {
                Ok(Ok(done)) => return done,
                Ok(Err(_)) => StoreError::unavailable("its thread was cut short at this request"),
                Err(_) => given_up(patience, ticket.give_up(), mode),
            },
            Err(Refused::Full(limit)) => {
                StoreError::Busy { why: format!("{limit} requests wait for it already") }
            }
            Err(Refused::Closed) => StoreError::unavailable("it was closed"),
        };
        desk.record.note(asked.elapsed(), Some(&error));
        Err(error)
    }
}

impl Shared {
    fn start(&self, name: String, mode: Mode, was_open: bool) -> Result<(), StoreError> {
        let link = (self.url.clone(), self.options.clone());
        let desk = Arc::clone(&self.desk);
        let run = move || {
            let (url, options) = link;
            let fresh = |was_open| Link::new(url.clone(), options.clone(), mode, was_open);
            let mut link = fresh(was_open);
            let queue = if mode == Mode::Write { &desk.writes } else { &desk.reads };
            while let Some(job) = queue.pop() {
                let Job { asked, deadline, run } = job;
                // Work is the caller's code: what is wrong in it must not end the thread.
                match catch_unwind(AssertUnwindSafe(|| run(&mut link, deadline))) {
                    Ok(Some(done)) => desk.record.note(asked.elapsed(), done.as_ref().err()),
                    Ok(None) => {}
                    Err(_) => link = fresh(true),
                }
            }
            // The connection first: who waits for the end wants the file.
            drop(link);
            desk.running.send_modify(|count| *count -= 1);
        };
        self.desk.running.send_modify(|count| *count += 1);
        let started = thread::Builder::new().name(name).spawn(run);
        started.map(drop).map_err(|error| {
            self.desk.running.send_modify(|count| *count -= 1);
            let why = format!("no thread for it could be started: {error}");
            StoreError::Unavailable { why }
        })
    }

    fn close(&self) {
        self.desk.reads.close();
        self.desk.writes.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

fn given_up(patience: Duration, stage: u8, mode: Mode) -> StoreError {
    let limit = patience.as_millis();
    let how_far = match (stage, mode) {
        (WAITING, _) => "others before this request were not done; nothing was changed",
        (KEEPING, Mode::Write) => {
            "it was just keeping the change; whether it was kept is not known, so look first"
        }
        _ => "it was at work on this request; nothing was changed",
    };
    StoreError::Timeout { why: format!("no answer for {limit} ms: {how_far}") }
}
