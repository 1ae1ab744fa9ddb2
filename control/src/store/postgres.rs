//! PostgreSQL: the store of a fleet, on a server.
//!
//! Writers of the whole fleet take one advisory lock for their transaction, so that only one runs
//! at a time, and each statement sees all that was kept before. That costs little: records change a
//! few times a second, and usage comes in large batches. The server ends statements and idle
//! transactions of a gateway that has died, and with them the lock. This module must not know a
//! record.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, NoTls, Statement};

use super::constraints::conflict;
use super::engine::{Dialect, Engine, Mode, Row, Value, patience};
use super::error::StoreError;
use super::tls::Tls;

/// The advisory lock of writers, "ringway" as a number; such locks belong to one database.
const WRITERS: i64 = 0x0072_696e_6777_6179;
/// Statements that stay prepared; lists with filters are many, but not that many.
const PREPARED_MAX: usize = 256;
/// A connection over which nothing comes back for so long is given up.
const SILENCE: Duration = Duration::from_secs(15);

/// A connection to a server.
pub(crate) struct Postgres {
    client: Client,
    /// The server, for errors.
    place: String,
    prepared: BTreeMap<String, Statement>,
}

impl Postgres {
    /// Connects to a server, called `place` in errors.
    pub(crate) fn connect(
        config: &Config,
        tls: Option<&Tls>,
        place: &str,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut config = config.clone();
        config.connect_timeout(left.max(Duration::from_millis(1)));
        config.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 3).keepalives_retries(3);
        config.tcp_user_timeout(SILENCE);
        if config.get_application_name().is_none() {
            config.application_name("ringway");
        }
        let connected = match tls {
            None => config.connect(NoTls),
            Some(tls) => config.connect(tls.connector()?),
        };
        let mut client = connected.map_err(|error| translate(&error, place))?;
        // A gateway that stands still in a transaction must not hold up the fleet for long.
        let idle = left.as_millis().max(1000);
        client
            .batch_execute(&format!("SET idle_in_transaction_session_timeout = {idle}"))
            .map_err(|error| translate(&error, place))?;
        Ok(Self { client, place: place.to_owned(), prepared: BTreeMap::new() })
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Engine for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn begin(&mut self, mode: Mode, deadline: Instant) -> Result<(), StoreError> {
        // 0 would be no limit.
        let limit = patience(deadline).as_millis().max(1);
        // A lock that does not come is told as such only if that is found first.
        let lock_limit = (limit - limit / 10).max(1);
        let limits =
            format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {lock_limit}");
        let sql = match mode {
            Mode::Read => {
                format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {limits}")
            }
            Mode::Write => format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {limits}; \
                 SELECT pg_advisory_xact_lock({WRITERS})"
            ),
        };
        let begun = self.batch(&sql);
        if begun.is_err() {
            self.rollback();
        }
        begun
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let done = self.batch("COMMIT");
        match done {
            Err(StoreError::Unavailable { why }) => Err(StoreError::Unavailable {
                why: format!("{why}; whether the change was kept is not known, so look first"),
            }),
            other => other,
        }
    }

    fn rollback(&mut self) {
        // If this fails, so has the connection, and the server undoes the transaction.
        let _ = self.client.batch_execute("ROLLBACK");
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, StoreError> {
        let run = |engine: &mut Self| {
            let statement = engine.prepare(sql)?;
            engine.client.execute(&statement, &references(parameters))
        };
        run(self).map_err(|error| translate(&error, &self.place))
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, StoreError> {
        let run = |engine: &mut Self| {
            let statement = engine.prepare(sql)?;
            let rows = engine.client.query(&statement, &references(parameters))?;
            rows.iter().map(owned).collect::<Result<Vec<Row>, _>>()
        };
        run(self).map_err(|error| translate(&error, &self.place))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(|error| translate(&error, &self.place))
    }

    fn forget(&mut self) {
        // Old versions of rows go with the server's own cleaning, which waits for no request.
    }

    fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql_checked(kind, out),
            Self::Text(text) => text.to_sql_checked(kind, out),
            Self::Blob(bytes) => bytes.to_sql_checked(kind, out),
        }
    }

    /// What a value cannot be is found when it is written.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn references(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn owned(row: &postgres::Row) -> Result<Row, postgres::Error> {
    let column = |index: usize| {
        let kind = row.columns().get(index).map(postgres::Column::type_);
        let value = if kind == Some(&Type::INT8) {
            row.try_get::<_, Option<i64>>(index)?.map(Value::Int)
        } else if kind == Some(&Type::INT4) {
            row.try_get::<_, Option<i32>>(index)?.map(|number| Value::Int(number.into()))
        } else if kind == Some(&Type::BOOL) {
            row.try_get::<_, Option<bool>>(index)?.map(|truth| Value::Int(truth.into()))
        } else if kind == Some(&Type::BYTEA) {
            row.try_get::<_, Option<Vec<u8>>>(index)?.map(Value::Blob)
        } else {
            row.try_get::<_, Option<String>>(index)?.map(Value::Text)
        };
        Ok(value.unwrap_or(Value::Null))
    };
    (0..row.len()).map(column).collect()
}

/// What to do when there is no connection for this cause.
fn hint(cause: &str) -> &'static str {
    if cause.contains("does not support TLS") {
        "turn on ssl in its postgresql.conf"
    } else if cause.contains("certificate") {
        "name its authority with sslrootcert, and the server as its certificate does; if it asks \
         for a certificate of ours, sslcert and sslkey say which"
    } else {
        "is the server running and reachable?"
    }
}

/// What an error of the server at `place`, or of the way to it, means.
fn translate(error: &postgres::Error, place: &str) -> StoreError {
    let Some(failure) = error.as_db_error() else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        // A value of the wrong kind is a mistake here, not one of the connection.
        return if cause.contains("cannot convert") {
            StoreError::Invalid { why: format!("{error}{cause}") }
        } else {
            StoreError::Unavailable { why: format!("{place}: {error}{cause}; {}", hint(&cause)) }
        };
    };
    let text = failure.message();
    let code = failure.code();
    let unavailable =
        |what: &str| StoreError::Unavailable { why: format!("{place}: {text}{what}") };
    if *code == SqlState::UNIQUE_VIOLATION {
        return conflict(failure.constraint().unwrap_or(text));
    }
    if *code == SqlState::FOREIGN_KEY_VIOLATION {
        return StoreError::Invalid {
            why: "a record refers to one that does not exist, or is still referred to".to_owned(),
        };
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return unavailable("; the server is a standby: name the one that takes writes");
    }
    match code.code() {
        "57014" | "25P03" => {
            StoreError::Timeout { why: format!("{place}: {text}; nothing was changed") }
        }
        "55P03" => StoreError::Busy {
            why: format!("another gateway writes to {place}, or a session holds its lock: {text}"),
        },
        "40001" | "40P01" => StoreError::Collision { tries: 1 },
        "53100" => StoreError::Full {
            why: format!("{place}: {text}; nothing was changed. Make room on the server's disk"),
        },
        "XX001" | "XX002" => StoreError::Corrupt {
            why: format!("{place}: {text}; restore the last backup on the server"),
        },
        "3D000" => unavailable("; make it with createdb"),
        "42501" => unavailable("; grant the user all rights on the database and its schema"),
        other => match other.get(..2) {
            Some("28") => unavailable("; look at user and password in the address of the store"),
            Some("08" | "53" | "57" | "58") => unavailable(""),
            Some(_) | None => StoreError::Invalid { why: format!("{place}: {text} ({other})") },
        },
    }
}
