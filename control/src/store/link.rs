//! One thread's connection to the store: made when it is needed, made anew when it is lost, and a
//! transaction on it.
//!
//! While the store cannot be reached, it is tried again after a pause that doubles up to
//! [`PAUSE_MAX`]; in between, requests fail at once with what was found. This module must not know
//! queues.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::db::Db;
use super::engine::{Engine, Mode};
use super::error::StoreError;
use super::handle::StoreOptions;
use super::migrations;
use super::postgres::Postgres;
use super::records::Timestamp;
use super::sqlite::{Sqlite, Use};
use super::url::{Place, StoreUrl};

/// First pause before another try to reach the store.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a write that collides with another is tried.
const TRIES: u32 = 5;

/// A connection that is there when it is needed.
pub(crate) struct Link {
    url: StoreUrl,
    options: StoreOptions,
    mode: Mode,
    engine: Option<Box<dyn Engine>>,
    /// Whether the store was there before: then its file is not made anew.
    was_open: bool,
    /// The last failure to connect: until when it holds, what it was, and the pause.
    failed: Option<(Instant, StoreError, Duration)>,
}

impl Link {
    /// A link that is not connected yet, and writes or only reads.
    pub(crate) const fn new(
        url: StoreUrl,
        options: StoreOptions,
        mode: Mode,
        was_open: bool,
    ) -> Self {
        Self { url, options, mode, engine: None, was_open, failed: None }
    }

    /// Runs `work` in a transaction. What it did is kept if it succeeds and `is_wanted` is still
    /// true at its end.
    pub(crate) fn transact<T>(
        &mut self,
        deadline: Instant,
        work: &mut dyn FnMut(&mut Db<'_>) -> Result<T, StoreError>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            let done = self.transact_once(deadline, work, is_wanted);
            if let Err(error) = &done {
                self.drop_if_lost(error);
            }
            match done {
                Err(StoreError::Collision { .. }) if tries < TRIES && Instant::now() < deadline => {
                    tries += 1;
                }
                Err(StoreError::Collision { .. }) => return Err(StoreError::Collision { tries }),
                other => return other,
            }
        }
    }

    fn transact_once<T>(
        &mut self,
        deadline: Instant,
        work: &mut dyn FnMut(&mut Db<'_>) -> Result<T, StoreError>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<T, StoreError> {
        let mode = self.mode;
        let engine = self.begin(deadline)?;
        let mut db = Db::new(engine, mode, deadline);
        let done = work(&mut db).and_then(|result| db.finish().map(|()| result));
        let erases = db.erases();
        match done {
            Ok(result) if mode == Mode::Write && is_wanted() => {
                engine.commit()?;
                if erases {
                    engine.forget();
                }
                Ok(result)
            }
            Ok(result) if mode == Mode::Read => {
                engine.rollback();
                Ok(result)
            }
            Ok(_) => {
                engine.rollback();
                let why = "nobody waits for the answer any more; nothing was changed".to_owned();
                Err(StoreError::Timeout { why })
            }
            Err(error) => {
                engine.rollback();
                Err(error)
            }
        }
    }

    /// An engine that has begun a transaction.
    fn begin(&mut self, deadline: Instant) -> Result<&mut dyn Engine, StoreError> {
        if self.engine.as_ref().is_some_and(|engine| !engine.is_alive()) {
            self.engine = None;
        }
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.connect(deadline)?,
        };
        let mut begun = engine.begin(self.mode, deadline);
        // That an idle connection was lost shows now. Nothing has been done yet, so once more.
        if matches!(begun, Err(StoreError::Unavailable { .. })) {
            drop(engine);
            engine = self.connect(deadline)?;
            begun = engine.begin(self.mode, deadline);
        }
        let engine = self.engine.insert(engine);
        begun?;
        Ok(engine.as_mut())
    }

    fn connect(&mut self, deadline: Instant) -> Result<Box<dyn Engine>, StoreError> {
        if let Some((until, error, _)) = &self.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        match self.connect_now(deadline) {
            Ok(engine) => {
                if self.failed.take().is_some() {
                    tracing::info!(store = %self.url, "the store can be reached again");
                }
                self.was_open = true;
                Ok(engine)
            }
            Err(error) => {
                let pause = match &self.failed {
                    Some((_, _, pause)) => (*pause * 2).min(PAUSE_MAX),
                    None => {
                        tracing::warn!(store = %self.url, %error, "the store cannot be used");
                        PAUSE_MIN
                    }
                };
                self.failed = Some((Instant::now() + pause, error.clone(), pause));
                Err(error)
            }
        }
    }

    fn connect_now(&self, deadline: Instant) -> Result<Box<dyn Engine>, StoreError> {
        let mut engine: Box<dyn Engine> = match self.url.place() {
            Place::File(path) => {
                let how = Use {
                    durable: self.options.durable,
                    bytes_max: self.options.bytes_max,
                    read_only: self.mode == Mode::Read,
                    may_make: !self.was_open,
                };
                let mut engine = Sqlite::open(path, how, deadline)?;
                if self.mode == Mode::Write {
                    engine.check(self.options.full_check)?;
                }
                Box::new(engine)
            }
            Place::Server(config, tls) => {
                let place = self.url.to_string();
                Box::new(Postgres::connect(config, tls.as_ref(), &place, deadline)?)
            }
        };
        if self.mode == Mode::Write {
            migrations::migrate(engine.as_mut(), now(), deadline)?;
        }
        Ok(engine)
    }

    /// A connection that failed like this is of no further use.
    fn drop_if_lost(&mut self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable { .. } | StoreError::Corrupt { .. }) {
            self.engine = None;
        }
    }
}

/// The present moment, for records that come with the store itself.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
