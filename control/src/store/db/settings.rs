//! Small things that have no table of their own: a name and bytes. This module must not know what
//! they mean.

use super::super::error::StoreError;
use super::Db;

impl Db<'_> {
    /// The bytes under `name`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn setting(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        let row = self.first("settings", sql, &[name.into()])?;
        row.map_or(Ok(None), |mut row| row.maybe_blob())
    }

    /// Puts bytes under `name`, in place of what was there.
    ///
    /// # Errors
    /// Those of the store.
    pub fn put_setting(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.execute(sql, &[name.into(), value.into()])?;
        Ok(())
    }

    /// Forgets what is under `name`, if anything is.
    ///
    /// # Errors
    /// Those of the store.
    pub fn remove_setting(&mut self, name: &str) -> Result<(), StoreError> {
        self.execute("DELETE FROM settings WHERE name = $1", &[name.into()])?;
        Ok(())
    }
}
