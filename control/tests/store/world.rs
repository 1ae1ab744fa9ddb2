//! What a test has: a store of its own, and ways around it to what it keeps.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use ringway_control::store::{Db, Store, StoreError, StoreOptions, StoreUrl};
use tokio::runtime::{Builder, Runtime};

use crate::server::{Server, fresh, scratch};

/// A store and its surroundings.
pub(crate) struct World {
    runtime: Runtime,
    /// Where it is.
    pub(crate) url: StoreUrl,
    text: String,
    store: std::sync::OnceLock<Store>,
}

/// What is awaited in tests; long enough for a machine that does other things.
pub(crate) fn options() -> StoreOptions {
    StoreOptions { deadline: Duration::from_secs(30), durable: false, ..StoreOptions::default() }
}

impl World {
    /// With SQLite.
    pub(crate) fn sqlite() -> Self {
        let path = scratch().join(fresh("store")).with_extension("db");
        Self::at(&format!("sqlite:{}", path.display()))
    }

    /// With the shared PostgreSQL server.
    pub(crate) fn postgres() -> Self {
        Self::at(&Server::shared().database())
    }

    /// With whatever is there.
    pub(crate) fn at(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let text = url.to_owned();
        let url = StoreUrl::parse(url).unwrap();
        Self { runtime, url, text, store: std::sync::OnceLock::new() }
    }

    /// Waits for something.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Opens the store once more, as another gateway would.
    pub(crate) fn open(&self) -> Result<Store, StoreError> {
        self.wait(Store::open(&self.url, &options()))
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        self.store.get_or_init(|| self.open().unwrap())
    }

    /// Closes the store, and waits until its threads have ended.
    pub(crate) fn close(mut self) {
        if let Some(store) = self.store.take() {
            self.wait(store.close());
        }
    }

    /// Writes, and says how that went.
    pub(crate) fn try_write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait(self.store().write(work))
    }

    /// Writes.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.try_write(work).unwrap()
    }

    /// Reads.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Db<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.wait(self.store().read(work)).unwrap()
    }

    /// Where the store is, as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The file of an SQLite store.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.text.strip_prefix("sqlite:").map(PathBuf::from)
    }

    /// Runs statements behind the store's back.
    pub(crate) fn raw(&self, sql: &str) {
        match self.file() {
            Some(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                connection.execute_batch(sql).unwrap();
            }
            None => {
                let mut client = postgres::Client::connect(&self.text, postgres::NoTls).unwrap();
                client.batch_execute(sql).unwrap();
            }
        }
    }

    /// A number behind the store's back.
    pub(crate) fn raw_number(&self, sql: &str) -> i64 {
        match self.file() {
            Some(path) => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            None => {
                let mut client = postgres::Client::connect(&self.text, postgres::NoTls).unwrap();
                client.query_one(sql, &[]).unwrap().get(0)
            }
        }
    }
}
