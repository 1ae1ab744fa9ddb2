//! Configurations that were in force. This module must not know what they say.

use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::ConfigVersion;
use super::list::List;
use super::{Columns, Db, taken};

const COLUMNS: &str = "SELECT version, at, actor, body, hash FROM configs";

impl Db<'_> {
    /// Adds a version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `version`, and those of the store.
    pub fn append_config(&mut self, config: &ConfigVersion) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO configs (version, at, actor, body, hash) VALUES ($1, $2, $3, $4, $5)";
        let values = [
            config.version.into(),
            config.at.into(),
            (&config.actor).into(),
            (&config.text).into(),
            (&config.hash).into(),
        ];
        taken(self.execute(sql, &values), &[("version", &config.version)])?;
        Ok(())
    }

    /// A version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn config_version(&mut self, version: u64) -> Result<ConfigVersion, StoreError> {
        let sql = format!("{COLUMNS} WHERE version = $1");
        match self.first("configs", &sql, &[version.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("configuration", version)),
        }
    }

    /// All versions, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn config_versions(&mut self, page: &Page) -> Result<Rows<ConfigVersion>, StoreError> {
        let mut list = List::by_number("configs", COLUMNS.to_owned(), "version");
        list.is_reversed = true;
        self.page(list, page, read, |config| config.version.to_string())
    }
}

fn read(row: &mut Columns) -> Result<ConfigVersion, StoreError> {
    Ok(ConfigVersion {
        version: row.count()?,
        at: row.time()?,
        actor: row.text()?,
        text: row.text()?,
        hash: row.text()?,
    })
}
