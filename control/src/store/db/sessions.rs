//! Sessions that live, and what of them the connection log has.
//!
//! A beginning is kept together with its entry in the log, and an end takes it away together with
//! its own: whatever is told again, because no answer came, is in the log once. What is left of a
//! gateway that was killed are the sessions whose end nobody told. This module must not know who
//! closes them, nor whether they may be kept: in no-log mode nobody calls it but to forget.

use std::collections::{BTreeMap, BTreeSet};

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{OpenSessions, SessionNote};
use super::super::records::{ConnectionEntry, OpenSession, Timestamp, UserId};
use super::{Columns, Db};

const OPEN: &str = "SELECT session, user_id, device_id, since, endpoint, up_bytes, down_bytes \
    FROM open_sessions";

impl Db<'_> {
    /// Takes what happened to sessions of `gateway` into the log, in this order: beginnings that
    /// are newer than all before, and ends of sessions that it knows. Those that live were noted
    /// to do so at `noted_at`. Entries of erased users are dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn log_sessions(
        &mut self,
        gateway: &str,
        notes: &[SessionNote],
        noted_at: Timestamp,
    ) -> Result<(), StoreError> {
        if notes.is_empty() {
            return Ok(());
        }
        let ended = notes.iter().filter_map(|note| match note {
            SessionNote::Ended { session, .. } => Some(*session),
            SessionNote::Begun { .. } => None,
        });
        let known = self.close_sessions(gateway, &ended.collect::<Vec<_>>())?;
        let mut last = self.last_session(gateway)?;
        let mut fresh: BTreeMap<u64, &OpenSession> = BTreeMap::new();
        let mut entries: Vec<ConnectionEntry> = Vec::new();
        for note in notes {
            match note {
                SessionNote::Begun { open, entry } if open.session > last => {
                    last = open.session;
                    fresh.insert(open.session, open);
                    entries.push(entry.clone());
                }
                SessionNote::Begun { .. } => {}
                SessionNote::Ended { session, entry, is_alone } => {
                    let begun = fresh.remove(session).is_some();
                    if begun || *is_alone || known.contains(session) {
                        entries.push(entry.clone());
                    }
                }
            }
        }
        self.put_sessions(gateway, fresh.into_values())?;
        self.append_connections(&entries)?;
        self.note_gateway(gateway, noted_at, last)
    }

    /// Notes that the sessions of `gateway` whose beginnings it told live at `at`, and what some of
    /// them have moved.
    ///
    /// # Errors
    /// Those of the store.
    pub fn note_sessions(
        &mut self,
        gateway: &str,
        at: Timestamp,
        changed: &[OpenSession],
    ) -> Result<(), StoreError> {
        let last = self.last_session(gateway)?;
        self.put_sessions(gateway, changed.iter().filter(|one| one.session <= last))?;
        self.note_gateway(gateway, at, last)
    }

    /// Sessions of `gateway` of which no end is known.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open_sessions(&mut self, gateway: &str) -> Result<OpenSessions, StoreError> {
        let sql = "SELECT noted_at, last_session FROM gateways WHERE name = $1";
        let (noted_at, last_session) = match self.first("gateways", sql, &[gateway.into()])? {
            Some(mut row) => (Some(row.time()?), row.count()?),
            None => (None, 0),
        };
        let sql = format!("{OPEN} WHERE gateway = $1 ORDER BY session");
        let rows = self.query("open_sessions", &sql, &[gateway.into()])?;
        let sessions = rows.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(OpenSessions { noted_at, last_session, sessions })
    }

    /// Forgets the sessions of `gateway` that live.
    ///
    /// # Errors
    /// Those of the store.
    pub fn forget_sessions(&mut self, gateway: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM open_sessions WHERE gateway = $1";
        self.execute(sql, &[gateway.into()])?;
        Ok(())
    }

    /// Sessions of a user that live, of all gateways.
    pub(super) fn open_sessions_of(
        &mut self,
        user: UserId,
    ) -> Result<Vec<OpenSession>, StoreError> {
        let sql = format!("{OPEN} WHERE user_id = $1 ORDER BY session");
        let rows = self.query("open_sessions", &sql, &[user.into()])?;
        rows.into_iter().map(read).collect()
    }

    /// Takes away those of these sessions that are known, and says which.
    fn close_sessions(
        &mut self,
        gateway: &str,
        sessions: &[u64],
    ) -> Result<BTreeSet<u64>, StoreError> {
        /// Sessions of a statement.
        const SESSIONS: usize = 64;
        let mut known = BTreeSet::new();
        let mut rest = sessions;
        while !rest.is_empty() {
            // Two statements to prepare, whatever their number.
            let (now, later) = rest.split_at(if rest.len() >= SESSIONS { SESSIONS } else { 1 });
            let places: Vec<String> = (2..=now.len() + 1).map(|at| format!("${at}")).collect();
            let which = format!("WHERE gateway = $1 AND session IN ({})", places.join(", "));
            let mut values = vec![Value::from(gateway)];
            values.extend(now.iter().map(|session| Value::from(*session)));
            let sql = format!("SELECT session FROM open_sessions {which}");
            for mut row in self.query("open_sessions", &sql, &values)? {
                known.insert(row.count()?);
            }
            self.execute(&format!("DELETE FROM open_sessions {which}"), &values)?;
            rest = later;
        }
        Ok(known)
    }

    fn put_sessions<'s>(
        &mut self,
        gateway: &str,
        sessions: impl Iterator<Item = &'s OpenSession>,
    ) -> Result<(), StoreError> {
        let sessions: Vec<&OpenSession> = sessions.collect();
        if sessions.is_empty() {
            return Ok(());
        }
        let erased = self.erased_users()?;
        // A statement may not touch a row twice.
        let latest: BTreeMap<u64, &OpenSession> = sessions
            .into_iter()
            .filter(|one| !erased.contains(&one.user))
            .map(|one| (one.session, one))
            .collect();
        let row = |one: &OpenSession| {
            vec![
                Value::from(gateway),
                one.session.into(),
                one.user.into(),
                one.device.into(),
                one.since.into(),
                one.endpoint.as_ref().into(),
                one.up_bytes.into(),
                one.down_bytes.into(),
            ]
        };
        let rows: Vec<Vec<Value>> = latest.into_values().map(row).collect();
        self.insert_rows(
            "INSERT INTO open_sessions (gateway, session, user_id, device_id, since, endpoint, \
             up_bytes, down_bytes)",
            &rows,
            "ON CONFLICT (gateway, session) DO UPDATE SET endpoint = excluded.endpoint, \
             up_bytes = excluded.up_bytes, down_bytes = excluded.down_bytes",
        )
    }

    fn last_session(&mut self, gateway: &str) -> Result<u64, StoreError> {
        let sql = "SELECT last_session FROM gateways WHERE name = $1";
        self.first("gateways", sql, &[gateway.into()])?.map_or(Ok(0), |mut row| row.count())
    }

    fn note_gateway(
        &mut self,
        gateway: &str,
        noted_at: Timestamp,
        last_session: u64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO gateways (name, noted_at, last_session) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET noted_at = excluded.noted_at, \
                   last_session = excluded.last_session";
        self.execute(sql, &[gateway.into(), noted_at.into(), last_session.into()])?;
        Ok(())
    }
}

fn read(mut row: Columns) -> Result<OpenSession, StoreError> {
    Ok(OpenSession {
        session: row.count()?,
        user: row.parsed()?,
        device: row.parsed()?,
        since: row.time()?,
        endpoint: row.maybe_text()?,
        up_bytes: row.count()?,
        down_bytes: row.count()?,
    })
}
