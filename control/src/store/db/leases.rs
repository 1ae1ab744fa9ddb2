//! Leases of inner addresses. An address is given once in the whole gateway; who chooses one does
//! so in the write that inserts it, and is then alone. This module must not know how one is chosen.

use super::super::error::StoreError;
use super::super::query::{Addresses, Page, Rows};
use super::super::records::{DeviceId, Lease, PoolId};
use super::list::List;
use super::{Columns, Db, taken};

/// Columns of a lease, of a table called `l`.
pub(super) const LEASE: &str =
    "l.device_id, l.pool_id, l.address4, l.address6, l.is_static, l.created_at";

impl Db<'_> {
    /// The lease of a device.
    ///
    /// # Errors
    /// Those of the store.
    pub fn lease_of(&mut self, device: DeviceId) -> Result<Option<Lease>, StoreError> {
        let sql = format!("SELECT {LEASE} FROM leases l WHERE l.device_id = $1");
        let row = self.first("leases", &sql, &[device.into()])?;
        row.map(|mut row| read_lease(&mut row)).transpose()
    }

    /// Gives addresses to a device.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `address4`, `address6` or `device`, [`StoreError::Missing`]
    /// device or pool, and those of the store.
    pub fn insert_lease(&mut self, lease: &Lease) -> Result<(), StoreError> {
        self.must_have("lease", ("devices", "device"), Some(lease.device))?;
        self.must_have("lease", ("pools", "pool"), Some(lease.pool))?;
        let sql = "INSERT INTO leases (device_id, pool_id, address4, address6, is_static, \
                   created_at) VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            lease.device.into(),
            lease.pool.into(),
            lease.address4.into(),
            lease.address6.into(),
            lease.is_static.into(),
            lease.created_at.into(),
        ];
        let address4 = lease.address4.map(|address| address.to_string()).unwrap_or_default();
        let address6 = lease.address6.map(|address| address.to_string()).unwrap_or_default();
        let values_of: [(&'static str, &dyn std::fmt::Display); 3] =
            [("address4", &address4), ("address6", &address6), ("device", &lease.device)];
        taken(self.execute(sql, &values), &values_of)?;
        self.changed("lease", lease.device)
    }

    /// Takes the addresses of a device back; whether it had some.
    ///
    /// # Errors
    /// Those of the store.
    pub fn remove_lease(&mut self, device: DeviceId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM leases WHERE device_id = $1";
        if self.execute(sql, &[device.into()])? == 0 {
            return Ok(false);
        }
        self.changed("lease", device)?;
        Ok(true)
    }

    /// Leases of a pool, by device.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn leases(&mut self, pool: PoolId, page: &Page) -> Result<Rows<Lease>, StoreError> {
        let select = format!("SELECT {LEASE} FROM leases l");
        let mut list = List::by_text("leases", select, "l.device_id");
        list.filter.and("l.pool_id =", Some(pool));
        self.page(list, page, read_lease, |lease| lease.device.to_string())
    }

    /// All addresses of a pool that are given, in the order of devices.
    ///
    /// # Errors
    /// Those of the store.
    pub fn leased(&mut self, pool: PoolId) -> Result<Vec<Addresses>, StoreError> {
        let sql = "SELECT address4, address6 FROM leases WHERE pool_id = $1 ORDER BY device_id";
        let rows = self.query("leases", sql, &[pool.into()])?;
        let read = |mut row: Columns| Ok((row.maybe_parsed()?, row.maybe_parsed()?));
        rows.into_iter().map(read).collect()
    }
}

/// Reads [`LEASE`].
pub(super) fn read_lease(row: &mut Columns) -> Result<Lease, StoreError> {
    Ok(Lease {
        device: row.parsed()?,
        pool: row.parsed()?,
        address4: row.maybe_parsed()?,
        address6: row.maybe_parsed()?,
        is_static: row.truth()?,
        created_at: row.time()?,
    })
}
