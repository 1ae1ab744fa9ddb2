//! Configurations that were in force, of each gateway by itself. This module must not know what
//! they say.

use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::ConfigVersion;
use super::list::List;
use super::{Columns, Db, taken};

const COLUMNS: &str = "SELECT version, at, actor, body, hash FROM configs";

/// The gateway of versions from before gateways were told apart.
const NOBODY: &str = "";

impl Db<'_> {
    /// Adds a version of `gateway`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `version`, and those of the store.
    pub fn append_config(
        &mut self,
        gateway: &str,
        config: &ConfigVersion,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO configs (gateway, version, at, actor, body, hash) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            gateway.into(),
            config.version.into(),
            config.at.into(),
            (&config.actor).into(),
            (&config.text).into(),
            (&config.hash).into(),
        ];
        taken(self.execute(sql, &values), &[("version", &config.version)])?;
        Ok(())
    }

    /// A version of `gateway`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn config_version(
        &mut self,
        gateway: &str,
        version: u64,
    ) -> Result<ConfigVersion, StoreError> {
        let sql = format!("{COLUMNS} WHERE gateway = $1 AND version = $2");
        match self.first("configs", &sql, &[gateway.into(), version.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("configuration", version)),
        }
    }

    /// All versions of `gateway`, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn config_versions(
        &mut self,
        gateway: &str,
        page: &Page,
    ) -> Result<Rows<ConfigVersion>, StoreError> {
        let mut list = List::by_number("configs", COLUMNS.to_owned(), "version");
        list.filter.and("gateway =", Some(gateway));
        list.is_reversed = true;
        self.page(list, page, read, |config| config.version.to_string())
    }

    /// Gives `gateway`, which has no versions yet, those from before gateways were told apart, with
    /// their texts as `shown` gives them. Their hashes could be guessed from, and go.
    ///
    /// # Errors
    /// Those of the store.
    pub fn take_over_configs(
        &mut self,
        gateway: &str,
        shown: impl Fn(&str) -> String,
    ) -> Result<(), StoreError> {
        let one = Page { after: None, limit: 1 };
        while let Some(config) = self.config_versions(NOBODY, &one)?.items.pop() {
            let sql = "UPDATE configs SET gateway = $1, body = $2, hash = $3 \
                       WHERE gateway = $4 AND version = $5";
            let values = [
                gateway.into(),
                shown(&config.text).into(),
                "".into(),
                NOBODY.into(),
                config.version.into(),
            ];
            self.execute(sql, &values)?;
        }
        Ok(())
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
