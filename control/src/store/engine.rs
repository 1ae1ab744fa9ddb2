//! The least that an engine must offer: statements with parameters, in a transaction.
//!
//! Everything above is written once, in the dialect that SQLite and PostgreSQL share: `BIGINT`,
//! `TEXT` and blobs, parameters as `$1`, `ON CONFLICT`, `RETURNING`, sums cast back to `BIGINT`.
//! The trait is synchronous: a connection belongs to one thread and does one thing at a time. This
//! module must not know a record.

use std::time::{Duration, Instant};

use super::error::StoreError;

/// A parameter, or a column of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Any number, moments and truth values included.
    Int(i64),
    /// Text, without the character NUL, which PostgreSQL cannot keep.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// A row, column by column.
pub type Row = Vec<Value>;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sees one state of the store, and changes nothing.
    Read,
    /// Is the only writer of the store from here to its end.
    Write,
}

/// Which text of a migration is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A file of one gateway.
    Sqlite,
    /// A server of a fleet.
    Postgres,
}

/// A connection to a store.
pub trait Engine {
    /// What it speaks.
    fn dialect(&self) -> Dialect;

    /// Begins a transaction, and waits for others no longer than until `deadline`, which holds for
    /// all its statements.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Unavailable`] and the like; nothing has begun then.
    fn begin(&mut self, mode: Mode, deadline: Instant) -> Result<(), StoreError>;

    /// Keeps what the transaction did.
    ///
    /// # Errors
    /// Whatever keeps it from being kept; the transaction is over.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Forgets what the transaction did. That this fails means that the connection is gone, and the
    /// transaction with it.
    fn rollback(&mut self);

    /// Runs a statement that returns nothing, and says how many rows it changed.
    ///
    /// # Errors
    /// As the statement has it.
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError>;

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// As the statement has it.
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Runs several statements without parameters.
    ///
    /// # Errors
    /// That of the first one that fails.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Removes what the engine still holds of what was erased, as far as it can be asked to. The
    /// erasure itself is kept already, so this has no error.
    fn forget(&mut self);

    /// Whether the connection is of further use.
    fn is_alive(&self) -> bool;
}

/// How long an engine may wait so that its answer, which says what was in the way, still comes
/// before `deadline`, when all that is known is that there was none.
pub(crate) fn patience(deadline: Instant) -> Duration {
    /// For the way of the answer, also on a machine that does other things.
    const MARGIN_MAX: Duration = Duration::from_millis(250);
    let left = deadline.saturating_duration_since(Instant::now());
    left - (left / 5).min(MARGIN_MAX)
}
