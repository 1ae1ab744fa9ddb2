//! A transaction of the store, and typed operations in it, a file per subject.
//!
//! Records are written and read here and nowhere else, in the dialect that both engines share. A
//! look-up by identifier fails with [`StoreError::NotFound`]; one by name, key or hash returns
//! none. An engine's error spoils the transaction on both engines alike, as PostgreSQL has it:
//! nothing more can be done in it, and it is undone even if the caller ignores the error.
//! [`Db::attempt`] fences in what may fail. This room must not know which engine it talks to, nor
//! threads and queues.

mod access;
mod audit;
mod bans;
mod certificates;
mod changes;
mod columns;
mod configs;
mod connections;
mod devices;
mod enrolments;
mod groups;
mod leases;
mod list;
mod policies;
mod pools;
mod privacy;
mod sessions;
mod settings;
mod tokens;
mod traces;
mod usage;
mod users;

use std::time::Instant;

use super::engine::{Engine, Mode, Row, Value};
use super::error::StoreError;
use columns::Columns;
pub(crate) use policies::first as first_policy;
pub use privacy::Erased;

/// A transaction of the store.
pub struct Db<'a> {
    engine: &'a mut dyn Engine,
    mode: Mode,
    deadline: Instant,
    /// The error that spoiled the transaction.
    spoiled: Option<StoreError>,
    /// Attempts around what runs now.
    depth: u32,
    /// The last revision that this transaction gave out, once it gave one.
    revision: Option<i64>,
    /// Something was erased, so nothing of it should stay behind.
    erases: bool,
}

impl<'a> Db<'a> {
    /// A view on the transaction that `engine` has begun.
    pub(crate) const fn new(engine: &'a mut dyn Engine, mode: Mode, deadline: Instant) -> Self {
        Self { engine, mode, deadline, spoiled: None, depth: 0, revision: None, erases: false }
    }

    /// Writes what was put off until the end. The transaction may be kept if this succeeds.
    pub(crate) fn finish(&mut self) -> Result<(), StoreError> {
        if let Some(error) = self.spoiled.take() {
            return Err(error);
        }
        self.flush_revision()
    }

    /// Whether the engine should be asked to forget, once the transaction is kept.
    pub(crate) const fn erases(&self) -> bool {
        self.erases
    }

    /// Runs `work`; if it fails, what it did is undone and the transaction goes on.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let name = format!("attempt{}", self.depth);
        let revision = self.revision;
        self.batch(&format!("SAVEPOINT {name}"))?;
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        // An error that `work` has swallowed counts too.
        let done = self.spoiled.clone().map_or(done, Err);
        let end = if done.is_ok() {
            format!("RELEASE SAVEPOINT {name}")
        } else {
            format!("ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
        };
        self.spoiled = None;
        self.batch(&end)?;
        // One that `work` wrote back is undone with the rest.
        self.revision = self.revision.or(revision);
        done
    }

    /// Runs a statement that changes something, and says how many rows it changed.
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        self.may_write()?;
        self.may_go_on(parameters)?;
        let done = self.engine.execute(sql, parameters);
        self.note(done)
    }

    /// Rows of a query, whose columns are of `table`.
    fn query(
        &mut self,
        table: &'static str,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Vec<Columns>, StoreError> {
        self.may_go_on(parameters)?;
        let rows: Result<Vec<Row>, StoreError> = self.engine.query(sql, parameters);
        let rows = self.note(rows)?;
        Ok(rows.into_iter().map(|row| Columns::new(table, row)).collect())
    }

    /// The first row of a query, if there is one.
    fn first(
        &mut self,
        table: &'static str,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Option<Columns>, StoreError> {
        Ok(self.query(table, sql, parameters)?.into_iter().next())
    }

    /// Inserts rows of equal length, many per statement. `head` ends before `VALUES`, `tail`
    /// follows the rows.
    fn insert_rows(
        &mut self,
        head: &str,
        rows: &[Vec<Value>],
        tail: &str,
    ) -> Result<(), StoreError> {
        /// Rows of a statement: few enough that 10 columns stay far below either engine's limit on
        /// parameters, many enough that the way to a server counts little.
        const ROWS: usize = 64;
        let mut rest = rows;
        while !rest.is_empty() {
            // Whole chunks and single rows: two statements to prepare, whatever the number of rows.
            let (now, later) = rest.split_at(if rest.len() >= ROWS { ROWS } else { 1 });
            let columns = now.first().map_or(0, Vec::len);
            let places = |row: usize| {
                let places: Vec<String> =
                    (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
                format!("({})", places.join(", "))
            };
            let values: Vec<String> = (0..now.len()).map(places).collect();
            let sql = format!("{head} VALUES {} {tail}", values.join(", "));
            self.execute(&sql, &now.concat())?;
            rest = later;
        }
        Ok(())
    }

    /// Whether `table` has a row with this identifier.
    fn has(&mut self, table: &'static str, id: impl Into<Value>) -> Result<bool, StoreError> {
        let sql = format!("SELECT 1 FROM {table} WHERE id = $1");
        Ok(self.first(table, &sql, &[id.into()])?.is_some())
    }

    /// Refuses to refer to what does not exist.
    fn must_have(
        &mut self,
        kind: &'static str,
        target: (&'static str, &'static str),
        id: Option<impl Into<Value>>,
    ) -> Result<(), StoreError> {
        let Some(id) = id else { return Ok(()) };
        if self.has(target.0, id)? {
            return Ok(());
        }
        Err(StoreError::Missing { kind, target: target.1 })
    }

    /// Refuses to remove what others refer to: `users` are queries for their names, each with what
    /// they are.
    fn must_be_free(
        &mut self,
        kind: &'static str,
        id: &str,
        users: &[(&'static str, &str)],
    ) -> Result<(), StoreError> {
        /// Names in an error.
        const SHOWN: usize = 3;
        let mut by = Vec::new();
        for (what, sql) in users {
            let rows = self.query(kind, sql, &[Value::from(id)])?;
            let count = rows.len();
            let names: Result<Vec<String>, StoreError> =
                rows.into_iter().take(SHOWN).map(|mut row| row.text()).collect();
            let names = names?.join(", ");
            match count {
                0 => {}
                1..=SHOWN => by.push(format!("{what} {names}")),
                _ => by.push(format!("{what} {names} and more")),
            }
        }
        if by.is_empty() {
            return Ok(());
        }
        Err(StoreError::InUse { kind, id: id.to_owned(), by: by.join("; ") })
    }

    /// What an update that changed `rows` rows means for record `id` of `table`.
    fn updated(
        &mut self,
        kind: &'static str,
        table: &'static str,
        id: Value,
        rows: u64,
    ) -> Result<(), StoreError> {
        if rows > 0 {
            return Ok(());
        }
        let shown = if let Value::Text(text) = &id { text.clone() } else { String::new() };
        if self.has(table, id)? {
            return Err(StoreError::Stale { kind });
        }
        Err(StoreError::NotFound { kind, id: shown })
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.may_go_on(&[])?;
        let done = self.engine.batch(sql);
        self.note(done)
    }

    fn may_write(&self) -> Result<(), StoreError> {
        match self.mode {
            Mode::Write => Ok(()),
            Mode::Read => Err(StoreError::invalid("a reader must not write")),
        }
    }

    fn may_go_on(&self, parameters: &[Value]) -> Result<(), StoreError> {
        if let Some(error) = &self.spoiled {
            return Err(error.clone());
        }
        if Instant::now() >= self.deadline {
            let why = "the work took longer than it may; nothing of it was kept".to_owned();
            return Err(StoreError::Timeout { why });
        }
        let has_nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
        if parameters.iter().any(has_nul) {
            return Err(StoreError::invalid("a text contains the character NUL"));
        }
        Ok(())
    }

    fn note<T>(&mut self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &done {
            self.spoiled = Some(error.clone());
        }
        done
    }
}

/// Puts into a conflict what was taken: `values` are fields with what was to be written.
fn taken<T>(
    done: Result<T, StoreError>,
    values: &[(&'static str, &dyn std::fmt::Display)],
) -> Result<T, StoreError> {
    done.map_err(|error| {
        let StoreError::Conflict { kind, field, .. } = error else { return error };
        let value = values.iter().find(|(name, _)| *name == field);
        let value = value.map(|(_, value)| value.to_string()).unwrap_or_default();
        StoreError::Conflict { kind, field, value }
    })
}
