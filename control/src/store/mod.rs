//! Durable records: users, devices, leases, usage, audit, and who changed what.
//!
//! [`Store`] is the handle that everything else holds: it queues work for threads of its own, each
//! request with a deadline, so that nothing waits longer for a store that hangs. A piece of work
//! gets a [`Db`]: typed operations, by subject in `db/`, written once over the few verbs of
//! [`engine::Engine`], which SQLite (one gateway) and PostgreSQL (a fleet) offer. One write runs at
//! a time in the whole fleet: by SQLite's write lock, by an advisory lock on PostgreSQL. So both
//! engines mean the same, and what is checked in a write stays true until it is kept.
//! This room must not know HTTP, the plane or the packet path.

pub mod audit;
pub mod backup;
mod constraints;
pub mod db;
mod draft;
pub mod engine;
pub mod error;
pub mod handle;
mod health;
pub mod ids;
mod link;
mod migrations;
mod postgres;
pub mod query;
mod queue;
pub mod records;
mod sqlite;
mod sqlite_file;
mod tls;
pub mod url;

pub use db::{Db, Erased};
pub use error::StoreError;
pub use handle::{Store, StoreOptions};
pub use health::{Health, LATENCY_BOUNDS_US};
pub use query::{Page, Rows};
pub use url::StoreUrl;
