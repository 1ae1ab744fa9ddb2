//! Client certificates that gave devices the access that they have. A certificate is called what
//! its authority calls it: issuer and serial number. This module must not know what a certificate
//! is, or who revokes one.

use super::super::error::StoreError;
use super::super::query::AccessCertificate;
use super::super::records::{DeviceId, Timestamp};
use super::{Columns, Db};

impl Db<'_> {
    /// Notes by which certificate, as issuer and serial number, a device has its access; none if by
    /// none.
    ///
    /// # Errors
    /// Those of the store; also for an unknown device.
    pub fn set_access_certificate(
        &mut self,
        device: DeviceId,
        certificate: Option<(&[u8], &[u8])>,
    ) -> Result<(), StoreError> {
        let Some((issuer, serial)) = certificate else {
            let sql = "DELETE FROM access_certificates WHERE device_id = $1";
            return self.execute(sql, &[device.into()]).map(drop);
        };
        let sql = "INSERT INTO access_certificates (device_id, issuer, serial) \
                   VALUES ($1, $2, $3) ON CONFLICT (device_id) DO UPDATE SET \
                   issuer = excluded.issuer, serial = excluded.serial";
        let values = [device.into(), issuer.to_vec().into(), serial.to_vec().into()];
        self.execute(sql, &values).map(drop)
    }

    /// The next `limit` devices after one, by identifier, that have access by a certificate at
    /// `now`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn access_certificates(
        &mut self,
        after: Option<DeviceId>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<AccessCertificate>, StoreError> {
        let after = after.map(|device| device.to_string()).unwrap_or_default();
        let sql = "SELECT d.id, d.access_from, c.issuer, c.serial FROM access_certificates c \
                   JOIN devices d ON d.id = c.device_id WHERE d.id > $1 \
                   AND d.access_from IS NOT NULL \
                   AND (d.access_until IS NULL OR d.access_until > $2) ORDER BY d.id LIMIT $3";
        let rows = self.query("devices", sql, &[after.into(), now.into(), limit.into()])?;
        rows.into_iter().map(read).collect()
    }
}

fn read(mut row: Columns) -> Result<AccessCertificate, StoreError> {
    Ok(AccessCertificate {
        device: row.parsed()?,
        from: row.time()?,
        issuer: row.blob()?,
        serial: row.blob()?,
    })
}
