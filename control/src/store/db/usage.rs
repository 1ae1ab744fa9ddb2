//! Bytes of devices by day, and how much of each counter page has been entered.
//!
//! Usage and marks are written in one transaction. After a crash the marks say where entering
//! stopped, so nothing counts twice and nothing is lost. This module must not know quotas.

use std::collections::{BTreeMap, BTreeSet};

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::UsageMark;
use super::super::records::{DeviceId, Usage, UserId};
use super::columns::bits;
use super::{Columns, Db};

/// Most that one entry may add to each counter, in bytes and packets: a day at 100 Gbit/s many
/// times over, and small enough that no sum overflows.
const ENTRY_MAX: u64 = 1 << 53;

impl Db<'_> {
    /// Adds usage to what is there, and replaces marks, together. Usage of erased users is dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn add_usage(&mut self, usage: &[Usage], marks: &[UsageMark]) -> Result<(), StoreError> {
        let erased = if usage.is_empty() { BTreeSet::new() } else { self.erased_users()? };
        // One row for each device and day: a statement may not touch a row twice.
        let mut sums: BTreeMap<(DeviceId, i32), (UserId, [u64; 4])> = BTreeMap::new();
        for entry in usage.iter().filter(|entry| !erased.contains(&entry.user)) {
            let (_, sum) = sums.entry((entry.device, entry.day)).or_insert((entry.user, [0; 4]));
            let counters = [entry.up_bytes, entry.down_bytes, entry.up_packets, entry.down_packets];
            for (sum, counter) in sum.iter_mut().zip(counters) {
                *sum = sum.saturating_add(counter).min(ENTRY_MAX);
            }
        }
        let row = |(key, value): (&(DeviceId, i32), &(UserId, [u64; 4]))| {
            let mut row = vec![Value::from(value.0), key.0.into(), key.1.into()];
            row.extend(value.1.map(Value::from));
            row
        };
        let rows: Vec<Vec<Value>> = sums.iter().map(row).collect();
        self.insert_rows(
            "INSERT INTO usage (user_id, device_id, day, up_bytes, down_bytes, up_packets, \
             down_packets)",
            &rows,
            "ON CONFLICT (device_id, day) DO UPDATE SET \
             up_bytes = usage.up_bytes + excluded.up_bytes, \
             down_bytes = usage.down_bytes + excluded.down_bytes, \
             up_packets = usage.up_packets + excluded.up_packets, \
             down_packets = usage.down_packets + excluded.down_packets",
        )?;
        self.put_usage_marks(marks)
    }

    /// The marks of a page, by epoch and slot.
    ///
    /// # Errors
    /// Those of the store.
    pub fn usage_marks(&mut self, page: &str) -> Result<Vec<UsageMark>, StoreError> {
        let sql = "SELECT page, epoch, slot, tag, seen0, seen1, seen2, seen3 FROM usage_marks \
                   WHERE page = $1 ORDER BY epoch, slot";
        let rows = self.query("usage_marks", sql, &[page.into()])?;
        rows.into_iter().map(read_mark).collect()
    }

    /// Forgets the marks of one life of a page, once the page is gone.
    ///
    /// # Errors
    /// Those of the store.
    pub fn drop_usage_marks(&mut self, page: &str, epoch: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM usage_marks WHERE page = $1 AND epoch = $2";
        self.execute(sql, &[page.into(), bits(epoch)])?;
        Ok(())
    }

    /// What a user used from one day to another, both included, by day and device.
    ///
    /// # Errors
    /// Those of the store.
    pub fn usage_of(
        &mut self,
        user: UserId,
        from_day: i32,
        to_day: i32,
    ) -> Result<Vec<Usage>, StoreError> {
        let sql = "SELECT user_id, device_id, day, up_bytes, down_bytes, up_packets, down_packets \
                   FROM usage WHERE user_id = $1 AND day >= $2 AND day <= $3 \
                   ORDER BY day, device_id";
        let rows = self.query("usage", sql, &[user.into(), from_day.into(), to_day.into()])?;
        rows.into_iter().map(read_usage).collect()
    }

    /// Bytes of a user from a day on, both directions together.
    ///
    /// # Errors
    /// Those of the store.
    pub fn usage_sum(&mut self, user: UserId, from_day: i32) -> Result<u64, StoreError> {
        let sql = "SELECT CAST(COALESCE(SUM(up_bytes + down_bytes), 0) AS BIGINT) FROM usage \
                   WHERE user_id = $1 AND day >= $2";
        let row = self.first("usage", sql, &[user.into(), from_day.into()])?;
        row.map_or(Ok(0), |mut row| row.count())
    }

    /// Bytes of each user from a day on, both directions together, by user.
    ///
    /// # Errors
    /// Those of the store.
    pub fn usage_sums(&mut self, from_day: i32) -> Result<Vec<(UserId, u64)>, StoreError> {
        let sql = "SELECT user_id, CAST(SUM(up_bytes + down_bytes) AS BIGINT) FROM usage \
                   WHERE day >= $1 GROUP BY user_id ORDER BY user_id";
        let rows = self.query("usage", sql, &[from_day.into()])?;
        rows.into_iter().map(|mut row| Ok((row.parsed()?, row.count()?))).collect()
    }

    /// Who used most from one day to another, both included: user, bytes up and bytes down.
    ///
    /// # Errors
    /// Those of the store.
    pub fn usage_report(
        &mut self,
        from_day: i32,
        to_day: i32,
        limit: u32,
    ) -> Result<Vec<(UserId, u64, u64)>, StoreError> {
        let sql = "SELECT user_id, CAST(SUM(up_bytes) AS BIGINT), CAST(SUM(down_bytes) AS BIGINT) \
                   FROM usage WHERE day >= $1 AND day <= $2 GROUP BY user_id \
                   ORDER BY SUM(up_bytes + down_bytes) DESC, user_id LIMIT $3";
        let rows = self.query("usage", sql, &[from_day.into(), to_day.into(), limit.into()])?;
        rows.into_iter().map(|mut row| Ok((row.parsed()?, row.count()?, row.count()?))).collect()
    }

    fn put_usage_marks(&mut self, marks: &[UsageMark]) -> Result<(), StoreError> {
        // The last mark of a slot holds.
        let mut latest: BTreeMap<(&str, u64, u32), &UsageMark> = BTreeMap::new();
        for mark in marks {
            latest.insert((&mark.page, mark.epoch, mark.slot), mark);
        }
        let row = |mark: &UsageMark| {
            let mut row =
                vec![Value::from(&mark.page), bits(mark.epoch), mark.slot.into(), bits(mark.tag)];
            row.extend(mark.seen.map(bits));
            row
        };
        let rows: Vec<Vec<Value>> = latest.into_values().map(row).collect();
        self.insert_rows(
            "INSERT INTO usage_marks (page, epoch, slot, tag, seen0, seen1, seen2, seen3)",
            &rows,
            "ON CONFLICT (page, epoch, slot) DO UPDATE SET tag = excluded.tag, \
             seen0 = excluded.seen0, seen1 = excluded.seen1, seen2 = excluded.seen2, \
             seen3 = excluded.seen3",
        )
    }

    pub(super) fn erased_users(&mut self) -> Result<BTreeSet<UserId>, StoreError> {
        let rows = self.query("erased", "SELECT user_id FROM erased", &[])?;
        rows.into_iter().map(|mut row| row.parsed()).collect()
    }
}

fn read_mark(mut row: Columns) -> Result<UsageMark, StoreError> {
    Ok(UsageMark {
        page: row.text()?,
        epoch: row.bits()?,
        slot: row.small()?,
        tag: row.bits()?,
        seen: [row.bits()?, row.bits()?, row.bits()?, row.bits()?],
    })
}

fn read_usage(mut row: Columns) -> Result<Usage, StoreError> {
    Ok(Usage {
        user: row.parsed()?,
        device: row.parsed()?,
        day: row.small()?,
        up_bytes: row.count()?,
        down_bytes: row.count()?,
        up_packets: row.count()?,
        down_packets: row.count()?,
    })
}
