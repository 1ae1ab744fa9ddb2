//! Sessions that began and ended. This module must not know whether they may be kept: in no-log
//! mode nobody calls it.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{ConnectionFilter, Page, Rows};
use super::super::records::{ConnectionEntry, Timestamp};
use super::list::List;
use super::{Columns, Db};

const CONNECTION: &str = "SELECT sequence, at, user_id, device_id, event, endpoint, reason, \
    duration_s, up_bytes, down_bytes FROM connections";

impl Db<'_> {
    /// Adds entries in this order. Those of erased users are dropped.
    ///
    /// # Errors
    /// Those of the store.
    pub fn append_connections(&mut self, entries: &[ConnectionEntry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let erased = self.erased_users()?;
        let mut sequence = self.counter("connections")?;
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !erased.contains(&entry.user)) {
            sequence += 1;
            rows.push(vec![
                Value::Int(sequence),
                entry.at.into(),
                entry.user.into(),
                entry.device.into(),
                (&entry.event).into(),
                entry.endpoint.as_ref().into(),
                entry.reason.as_ref().into(),
                entry.duration_s.into(),
                entry.up_bytes.into(),
                entry.down_bytes.into(),
            ]);
        }
        self.insert_rows(
            "INSERT INTO connections (sequence, at, user_id, device_id, event, endpoint, reason, \
             duration_s, up_bytes, down_bytes)",
            &rows,
            "",
        )?;
        self.set_counter("connections", sequence)
    }

    /// Entries, in the order in which they were added.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn connections(
        &mut self,
        filter: &ConnectionFilter,
        page: &Page,
    ) -> Result<Rows<ConnectionEntry>, StoreError> {
        let mut list = List::by_number("connections", CONNECTION.to_owned(), "sequence");
        list.is_reversed = filter.newest_first;
        list.filter
            .and("user_id =", filter.user)
            .and("device_id =", filter.device)
            .and("event =", filter.event.as_ref())
            .and("at >=", filter.from)
            .and("at <", filter.until);
        let rows = self.page(list, page, read, |(sequence, _)| sequence.to_string())?;
        let items = rows.items.into_iter().map(|(_, entry)| entry).collect();
        Ok(Rows { items, next: rows.next })
    }

    /// Forgets entries from before a moment, and says how many.
    ///
    /// # Errors
    /// Those of the store.
    pub fn purge_connections(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.execute("DELETE FROM connections WHERE at < $1", &[before.into()])
    }
}

fn read(row: &mut Columns) -> Result<(i64, ConnectionEntry), StoreError> {
    let sequence = row.int()?;
    let entry = ConnectionEntry {
        at: row.time()?,
        user: row.parsed()?,
        device: row.parsed()?,
        event: row.text()?,
        endpoint: row.maybe_text()?,
        reason: row.maybe_text()?,
        duration_s: row.maybe_int()?.map(i64::cast_unsigned),
        up_bytes: row.count()?,
        down_bytes: row.count()?,
    };
    Ok((sequence, entry))
}
