//! Client certificates that gave devices the access that they have, with those of the authorities
//! above them. A certificate is called what its authority calls it: issuer and serial number. This
//! module must not know what a certificate is, or who revokes one.

use std::collections::BTreeMap;

use super::super::error::StoreError;
use super::super::query::AccessCertificate;
use super::super::records::{DeviceId, Timestamp};
use super::{Columns, Db};

impl Db<'_> {
    /// Notes by which certificates, as issuer and serial number, a device has its access: its own,
    /// then those above it; none if by none.
    ///
    /// # Errors
    /// Those of the store; also for an unknown device.
    pub fn set_access_certificates(
        &mut self,
        device: DeviceId,
        certificates: &[(&[u8], &[u8])],
    ) -> Result<(), StoreError> {
        // With it go those above.
        self.execute("DELETE FROM access_certificates WHERE device_id = $1", &[device.into()])?;
        let Some(((issuer, serial), above)) = certificates.split_first() else { return Ok(()) };
        let sql = "INSERT INTO access_certificates (device_id, issuer, serial) VALUES ($1, $2, $3)";
        self.execute(sql, &[device.into(), issuer.to_vec().into(), serial.to_vec().into()])?;
        for (place, (issuer, serial)) in (1_u32..).zip(above) {
            let sql = "INSERT INTO access_authorities (device_id, place, issuer, serial) \
                       VALUES ($1, $2, $3, $4)";
            let (issuer, serial) = (issuer.to_vec(), serial.to_vec());
            self.execute(sql, &[device.into(), place.into(), issuer.into(), serial.into()])?;
        }
        Ok(())
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
        let values = [after.as_str().into(), now.into(), limit.into()];
        let rows = self.query("devices", sql, &values)?;
        let mut all = rows.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = all.last().map(|one| one.device.to_string()) else { return Ok(all) };
        let sql = "SELECT device_id, issuer, serial FROM access_authorities \
                   WHERE device_id > $1 AND device_id <= $2 ORDER BY device_id, place";
        let mut above: BTreeMap<DeviceId, Vec<_>> = BTreeMap::new();
        for mut row in self.query("devices", sql, &[after.into(), last.into()])? {
            let device = row.parsed()?;
            above.entry(device).or_default().push((row.blob()?, row.blob()?));
        }
        for one in &mut all {
            one.above = above.remove(&one.device).unwrap_or_default();
        }
        Ok(all)
    }
}

fn read(mut row: Columns) -> Result<AccessCertificate, StoreError> {
    Ok(AccessCertificate {
        device: row.parsed()?,
        from: row.time()?,
        issuer: row.blob()?,
        serial: row.blob()?,
        above: Vec::new(),
    })
}
