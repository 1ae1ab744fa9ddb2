//! Sessions that live, as far as the log of connections is concerned: an entry when one ends is
//! written by whoever knows of it, which is this table when the gateway was killed. This module
//! must not know whether they may be kept: in no-log mode nobody puts any here.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::records::{DeviceId, OpenSession, UserId};
use super::{Columns, Db};

const OPEN: &str = "SELECT device_id, user_id, session, since, seen, endpoint, up_bytes, \
    down_bytes FROM open_sessions";

impl Db<'_> {
    /// Those of a gateway, by device.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open_sessions(&mut self, gateway: &str) -> Result<Vec<OpenSession>, StoreError> {
        let sql = format!("{OPEN} WHERE gateway = $1 ORDER BY device_id");
        let rows = self.query("open_sessions", &sql, &[gateway.into()])?;
        rows.into_iter().map(read).collect()
    }

    /// Those of a user, on any gateway.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open_sessions_of(&mut self, user: UserId) -> Result<Vec<OpenSession>, StoreError> {
        let sql = format!("{OPEN} WHERE user_id = $1 ORDER BY gateway, device_id");
        let rows = self.query("open_sessions", &sql, &[user.into()])?;
        rows.into_iter().map(read).collect()
    }

    /// Keeps them, each in place of what was kept of its device on this gateway; a device must not
    /// come twice. Those of erased users are dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_open_sessions(
        &mut self,
        gateway: &str,
        sessions: &[OpenSession],
    ) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let erased = self.erased_users()?;
        let kept = sessions.iter().filter(|session| !erased.contains(&session.user));
        let row = |session: &OpenSession| {
            vec![
                Value::from(gateway),
                session.device.into(),
                session.user.into(),
                session.session.into(),
                session.since.into(),
                session.seen.into(),
                session.endpoint.as_ref().into(),
                session.up_bytes.into(),
                session.down_bytes.into(),
            ]
        };
        let rows: Vec<Vec<Value>> = kept.map(row).collect();
        self.insert_rows(
            "INSERT INTO open_sessions (gateway, device_id, user_id, session, since, seen, \
             endpoint, up_bytes, down_bytes)",
            &rows,
            "ON CONFLICT (gateway, device_id) DO UPDATE SET user_id = excluded.user_id, \
             session = excluded.session, since = excluded.since, seen = excluded.seen, \
             endpoint = excluded.endpoint, up_bytes = excluded.up_bytes, \
             down_bytes = excluded.down_bytes",
        )
    }

    /// Forgets those of some devices on a gateway, which have ended.
    ///
    /// # Errors
    /// Those of the store.
    pub fn close_open_sessions(
        &mut self,
        gateway: &str,
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        for device in devices {
            let sql = "DELETE FROM open_sessions WHERE gateway = $1 AND device_id = $2";
            self.execute(sql, &[gateway.into(), (*device).into()])?;
        }
        Ok(())
    }

    /// Forgets all of a gateway: it may not keep any.
    ///
    /// # Errors
    /// Those of the store.
    pub fn forget_open_sessions(&mut self, gateway: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM open_sessions WHERE gateway = $1", &[gateway.into()])?;
        Ok(())
    }
}

fn read(mut row: Columns) -> Result<OpenSession, StoreError> {
    Ok(OpenSession {
        device: row.parsed()?,
        user: row.parsed()?,
        session: row.count()?,
        since: row.time()?,
        seen: row.time()?,
        endpoint: row.maybe_text()?,
        up_bytes: row.count()?,
        down_bytes: row.count()?,
    })
}
