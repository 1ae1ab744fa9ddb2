//! The store as everybody else holds it: a queue, threads of its own, and a deadline per request.

use std::path::Path;
use std::time::Duration;

use super::db::Db;
use super::error::StoreError;
use super::url::StoreUrl;

/// How the store is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Longest time that a request may take, waiting included.
    pub deadline: Duration,
    /// Most requests that wait.
    pub queue: usize,
    /// Connections that read, beside the one that writes.
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

/// How the store does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `sqlite` or `postgresql`.
    pub engine: &'static str,
    /// Whether the last request that needed the store reached it.
    pub is_up: bool,
    /// Requests that wait now.
    pub queued: usize,
    /// Requests that were answered, with success or not.
    pub requests: u64,
    /// Requests that failed, by the order of [`StoreError::REASONS`].
    pub failures: [u64; StoreError::REASONS.len()],
    /// Requests by time from queue to answer: up to each of [`LATENCY_BOUNDS_US`], and above.
    pub latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of these times, in microseconds.
    pub latency_sum_us: u64,
    /// What went wrong with the store last, if anything did.
    pub last_error: Option<String>,
}

/// Upper bounds of [`Health::latency`], in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 8] =
    [500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// The store. Clones are the same store; it closes with the last one.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the store, brings it up to date and checks it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn open(_url: &StoreUrl, _options: &StoreOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// Runs `work` on one state of the store; whatever it writes is refused.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn read<T: Send + 'static>(
        &self,
        _work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        todo!()
    }

    /// Runs `work` as one transaction: all of it is kept, or nothing. It may run more than once, if
    /// others were in the way.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn write<T: Send + 'static>(
        &self,
        _work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        todo!()
    }

    /// As [`Self::read`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_within<T: Send + 'static>(
        &self,
        _deadline: Duration,
        _work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        todo!()
    }

    /// As [`Self::write`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_within<T: Send + 'static>(
        &self,
        _deadline: Duration,
        _work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        todo!()
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Health {
        todo!()
    }

    /// Writes a copy of a running SQLite store to `path`; with `overwrite` in place of what is there.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] on PostgreSQL, which has `pg_dump`, and if something is there.
    pub async fn backup(&self, _path: &Path, _overwrite: bool) -> Result<(), StoreError> {
        todo!()
    }

    /// Ends the work that waits, and closes the store.
    pub async fn close(self) {
        todo!()
    }
}
