//! What the live projection needs to know of devices, in one query. This module must not know what
//! a projection is.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::AccessRow;
use super::super::records::{DeviceId, UserId};
use super::devices::{DEVICE, read_device, read_secrets};
use super::leases::{LEASE, read_lease};
use super::users::{USER, read_user};
use super::{Columns, Db};

impl Db<'_> {
    /// The next `limit` devices after one, by identifier, each with its user, secrets and lease.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load_access(
        &mut self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<AccessRow>, StoreError> {
        let after = after.map(|device| device.to_string()).unwrap_or_default();
        self.access("d.id > $1 ORDER BY d.id LIMIT $2", &[after.into(), limit.into()])
    }

    /// The devices of a user, by identifier.
    ///
    /// # Errors
    /// Those of the store; an unknown user has none.
    pub fn access_of_user(&mut self, user: UserId) -> Result<Vec<AccessRow>, StoreError> {
        self.access("d.user_id = $1 ORDER BY d.id", &[user.into()])
    }

    /// One device.
    ///
    /// # Errors
    /// Those of the store; an unknown device is none.
    pub fn access_of_device(&mut self, device: DeviceId) -> Result<Option<AccessRow>, StoreError> {
        Ok(self.access("d.id = $1", &[device.into()])?.pop())
    }

    fn access(&mut self, which: &str, values: &[Value]) -> Result<Vec<AccessRow>, StoreError> {
        let sql = format!(
            "SELECT {USER}, g.policy_id, {DEVICE}, d.preshared, {LEASE} FROM devices d \
             JOIN users u ON u.id = d.user_id LEFT JOIN groups g ON g.id = u.group_id \
             LEFT JOIN leases l ON l.device_id = d.id WHERE {which}"
        );
        self.query("devices", &sql, values)?.into_iter().map(read).collect()
    }
}

fn read(mut row: Columns) -> Result<AccessRow, StoreError> {
    Ok(AccessRow {
        user: read_user(&mut row)?,
        group_policy: row.maybe_parsed()?,
        device: read_device(&mut row)?,
        secrets: read_secrets(&mut row)?,
        lease: if row.is_null() { None } else { Some(read_lease(&mut row)?) },
    })
}
