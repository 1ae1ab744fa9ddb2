//! Devices, their access and when they were last seen. Access and the last sight change without a
//! new version: they are not what an administrator edits. This module must not know how a key is
//! used.

use std::collections::BTreeMap;

use ringway_proto::crypto::{PresharedKey, PublicKey};

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{DeviceFilter, Page, Rows};
use super::super::records::{Device, DeviceId, DeviceSecrets, KeyOrigin, Timestamp, UserId};
use super::list::List;
use super::{Columns, Db, taken};

/// Columns of a device, of a table called `d`.
pub(super) const DEVICE: &str = "d.id, d.user_id, d.name, d.public_key, d.key_origin, d.enabled, \
    d.access_from, d.access_until, d.last_seen, d.created_at, d.version";

impl Db<'_> {
    /// Adds a device.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`, `public_key` or `id`, [`StoreError::Missing`] user, and
    /// those of the store.
    pub fn insert_device(
        &mut self,
        device: &Device,
        secrets: &DeviceSecrets,
    ) -> Result<(), StoreError> {
        self.must_have("device", ("users", "user"), Some(device.user))?;
        let sql = "INSERT INTO devices (id, user_id, name, public_key, key_origin, enabled, \
                   access_from, access_until, last_seen, created_at, version, preshared) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let values = [
            device.id.into(),
            device.user.into(),
            (&device.name).into(),
            (&device.public_key.0).into(),
            device.key_origin.word().into(),
            device.enabled.into(),
            device.access_from.into(),
            device.access_until.into(),
            device.last_seen.into(),
            device.created_at.into(),
            device.version.into(),
            preshared(secrets),
        ];
        conflict(self.execute(sql, &values), device)?;
        self.changed("device", device.id)
    }

    /// Changes name, key and whether it is enabled, if nobody else did since `device` was read, and
    /// returns it with its new version. Its user, access and secrets stay.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] on `name` or
    /// `public_key`, and those of the store.
    pub fn update_device(&mut self, device: &Device) -> Result<Device, StoreError> {
        let sql = "UPDATE devices SET name = $3, public_key = $4, key_origin = $5, enabled = $6, \
                   version = version + 1 WHERE id = $1 AND version = $2";
        let values = [
            device.id.into(),
            device.version.into(),
            (&device.name).into(),
            (&device.public_key.0).into(),
            device.key_origin.word().into(),
            device.enabled.into(),
        ];
        let rows = conflict(self.execute(sql, &values), device)?;
        self.updated("device", "devices", device.id.into(), rows)?;
        self.changed("device", device.id)?;
        self.device(device.id)
    }

    /// A device.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn device(&mut self, id: DeviceId) -> Result<Device, StoreError> {
        let sql = format!("SELECT {DEVICE} FROM devices d WHERE d.id = $1");
        match self.first("devices", &sql, &[id.into()])? {
            Some(mut row) => read_device(&mut row),
            None => Err(StoreError::not_found("device", id)),
        }
    }

    /// The device with this key.
    ///
    /// # Errors
    /// Those of the store.
    pub fn device_by_key(&mut self, key: &PublicKey) -> Result<Option<Device>, StoreError> {
        let sql = format!("SELECT {DEVICE} FROM devices d WHERE d.public_key = $1");
        let row = self.first("devices", &sql, &[(&key.0).into()])?;
        row.map(|mut row| read_device(&mut row)).transpose()
    }

    /// What is secret about a device.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn device_secrets(&mut self, id: DeviceId) -> Result<DeviceSecrets, StoreError> {
        let sql = "SELECT preshared FROM devices WHERE id = $1";
        match self.first("devices", sql, &[id.into()])? {
            Some(mut row) => read_secrets(&mut row),
            None => Err(StoreError::not_found("device", id)),
        }
    }

    /// Replaces what is secret about a device. Its version stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn set_device_secrets(
        &mut self,
        id: DeviceId,
        secrets: &DeviceSecrets,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE devices SET preshared = $2 WHERE id = $1";
        self.change_device(id, sql, &[id.into(), preshared(secrets)])
    }

    /// All devices of a user, by name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn devices_of(&mut self, user: UserId) -> Result<Vec<Device>, StoreError> {
        let sql = format!("SELECT {DEVICE} FROM devices d WHERE d.user_id = $1 ORDER BY d.name");
        let rows = self.query("devices", &sql, &[user.into()])?;
        rows.into_iter().map(|mut row| read_device(&mut row)).collect()
    }

    /// Devices, by identifier, that is in the order in which they were made.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn devices(
        &mut self,
        filter: &DeviceFilter,
        page: &Page,
    ) -> Result<Rows<Device>, StoreError> {
        let select = format!("SELECT {DEVICE} FROM devices d");
        let mut list = List::by_text("devices", select, "d.id");
        list.filter
            .and("d.user_id =", filter.user)
            .and("d.enabled =", filter.enabled)
            .and_contains("d.name", filter.name_contains.as_ref());
        self.page(list, page, read_device, |device| device.id.to_string())
    }

    /// Removes a device and its lease.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn remove_device(&mut self, id: DeviceId) -> Result<(), StoreError> {
        self.remove_lease(id)?;
        self.change_device(id, "DELETE FROM devices WHERE id = $1", &[Value::from(id)])
    }

    /// Gives access, or takes it (both none). Its version stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn set_access(
        &mut self,
        id: DeviceId,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE devices SET access_from = $2, access_until = $3 WHERE id = $1";
        self.change_device(id, sql, &[id.into(), from.into(), until.into()])
    }

    /// Notes when devices were last seen. This is no change that anybody follows; unknown devices
    /// are passed over, and an earlier moment does not replace a later one.
    ///
    /// # Errors
    /// Those of the store.
    pub fn touch_devices(&mut self, seen: &[(DeviceId, Timestamp)]) -> Result<(), StoreError> {
        /// Devices of a statement.
        const DEVICES: usize = 64;
        // To the minute, many devices share a moment.
        let mut by_moment: BTreeMap<Timestamp, Vec<DeviceId>> = BTreeMap::new();
        for (device, at) in seen {
            by_moment.entry(*at).or_default().push(*device);
        }
        for (at, devices) in by_moment {
            let mut rest = devices.as_slice();
            while !rest.is_empty() {
                let count = if rest.len() >= DEVICES { DEVICES } else { 1 };
                let (now, later) = rest.split_at(count);
                let places: Vec<String> = (2..=count + 1).map(|at| format!("${at}")).collect();
                let sql = format!(
                    "UPDATE devices SET last_seen = $1 WHERE id IN ({}) \
                     AND (last_seen IS NULL OR last_seen < $1)",
                    places.join(", ")
                );
                let mut values = vec![Value::from(at)];
                values.extend(now.iter().map(|device| Value::from(*device)));
                self.execute(&sql, &values)?;
                rest = later;
            }
        }
        Ok(())
    }

    fn change_device(
        &mut self,
        id: DeviceId,
        sql: &str,
        values: &[Value],
    ) -> Result<(), StoreError> {
        if self.execute(sql, values)? == 0 {
            return Err(StoreError::not_found("device", id));
        }
        self.changed("device", id)
    }
}

/// Reads [`DEVICE`].
pub(super) fn read_device(row: &mut Columns) -> Result<Device, StoreError> {
    Ok(Device {
        id: row.parsed()?,
        user: row.parsed()?,
        name: row.text()?,
        public_key: PublicKey(row.bytes()?),
        key_origin: row.word(KeyOrigin::from_word)?,
        enabled: row.truth()?,
        access_from: row.maybe_time()?,
        access_until: row.maybe_time()?,
        last_seen: row.maybe_time()?,
        created_at: row.time()?,
        version: row.count()?,
    })
}

/// Reads the column `preshared`.
pub(super) fn read_secrets(row: &mut Columns) -> Result<DeviceSecrets, StoreError> {
    let preshared = match row.maybe_blob()? {
        Some(bytes) => bytes.try_into().map_err(|_| row.damaged("32 bytes"))?,
        None => [0; 32],
    };
    Ok(DeviceSecrets { preshared: PresharedKey(preshared) })
}

fn preshared(secrets: &DeviceSecrets) -> Value {
    secrets.preshared.is_set().then(|| secrets.preshared.0.to_vec()).into()
}

fn conflict(done: Result<u64, StoreError>, device: &Device) -> Result<u64, StoreError> {
    let key = crate::keys::show_public(&device.public_key);
    taken(done, &[("name", &device.name), ("public_key", &key), ("id", &device.id)])
}
