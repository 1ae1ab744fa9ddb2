//! The audit log in the store. What is hashed and how is in `store/audit.rs`. This module must not
//! know what the actions mean.

use ringway_proto::crypto::Random as _;

use super::super::audit::{AuditBroken, AuditHead, Content, Stored, Walk, erasure, hex};
use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{AuditFilter, Page, Rows};
use super::super::records::{AuditEntry, Timestamp};
use super::list::List;
use super::{Columns, Db};
use crate::keys::SystemRandom;

const AUDIT: &str = "SELECT sequence, at, action, salt, actor, object, detail, digest, hash \
    FROM audit";

impl Db<'_> {
    /// Adds an entry to the chain. `detail` must hold no secret.
    ///
    /// # Errors
    /// Those of the store.
    pub fn append_audit(
        &mut self,
        at: Timestamp,
        actor: &str,
        action: &str,
        object: &str,
        detail: &serde_json::Value,
    ) -> Result<AuditEntry, StoreError> {
        let (last, before) = self.last_audit()?;
        let mut salt = [0; 16];
        SystemRandom.fill(&mut salt);
        let (actor, object, detail) = (actor.to_owned(), object.to_owned(), detail.to_string());
        let content = Content { salt, actor, object, detail };
        let entry = Stored::after(&before, last + 1, at, action, content);
        let (salt, actor, object, detail) = match &entry.content {
            Some(content) => (&content.salt, &content.actor, &content.object, &content.detail),
            None => return Err(StoreError::invalid("an audit entry without content")),
        };
        let sql = "INSERT INTO audit (sequence, at, action, salt, actor, object, detail, digest, \
                   hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let values = [
            entry.sequence.into(),
            entry.at.into(),
            (&entry.action).into(),
            salt.into(),
            actor.into(),
            object.into(),
            detail.into(),
            (&entry.digest).into(),
            (&entry.hash).into(),
        ];
        self.execute(sql, &values)?;
        self.set_counter("audit", entry.sequence.cast_signed())?;
        Ok(entry.entry())
    }

    /// Entries, in the order of the chain.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn audit(
        &mut self,
        filter: &AuditFilter,
        page: &Page,
    ) -> Result<Rows<AuditEntry>, StoreError> {
        let mut list = List::by_number("audit", AUDIT.to_owned(), "sequence");
        list.is_reversed = filter.newest_first;
        list.filter
            .and("actor =", filter.actor.as_ref())
            .and("action =", filter.action.as_ref())
            .and("object =", filter.object.as_ref())
            .and("at >=", filter.from)
            .and("at <", filter.until);
        let read = |row: &mut Columns| read(row).map(Stored::entry);
        self.page(list, page, read, |entry| entry.sequence.to_string())
    }

    /// Where the log stands. Kept elsewhere, it proves later that nothing was cut off.
    ///
    /// # Errors
    /// Those of the store.
    pub fn audit_head(&mut self) -> Result<AuditHead, StoreError> {
        let (sequence, hash) = self.last_audit()?;
        Ok(AuditHead { sequence, hash: hex(&hash) })
    }

    /// Walks along the whole chain and says how many entries hold. What was cut off at the end by
    /// somebody who also wrote the counter is not found: see [`Self::verify_audit_since`].
    ///
    /// # Errors
    /// Those of the store; a broken chain is the inner error.
    pub fn verify_audit(&mut self) -> Result<Result<u64, AuditBroken>, StoreError> {
        self.walk_audit(None)
    }

    /// As [`Self::verify_audit`], and the chain must still go through `head`.
    ///
    /// # Errors
    /// As [`Self::verify_audit`].
    pub fn verify_audit_since(
        &mut self,
        head: &AuditHead,
    ) -> Result<Result<u64, AuditBroken>, StoreError> {
        self.walk_audit(Some(head))
    }

    fn walk_audit(
        &mut self,
        head: Option<&AuditHead>,
    ) -> Result<Result<u64, AuditBroken>, StoreError> {
        let mut walk = Walk::new(head);
        let mut broken = None;
        self.each_audit(|entry| {
            broken = walk.step(entry).err();
            Ok(broken.is_none())
        })?;
        if let Some(broken) = broken {
            return Ok(Err(broken));
        }
        let counted = self.counter("audit")?;
        Ok(walk.end(counted.cast_unsigned()))
    }

    /// Shows every stored entry to `look`, until it says false.
    pub(super) fn each_audit(
        &mut self,
        mut look: impl FnMut(&Stored) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let sql = format!("{AUDIT} WHERE sequence > $1 ORDER BY sequence LIMIT 1000");
        let mut after = i64::MIN;
        loop {
            let rows = self.query("audit", &sql, &[Value::Int(after)])?;
            if rows.is_empty() {
                return Ok(());
            }
            for mut row in rows {
                let entry = read(&mut row)?;
                after = entry.sequence.cast_signed();
                if !look(&entry)? {
                    return Ok(());
                }
            }
        }
    }

    /// Removes the content of entries, which ascend, and returns what is to be noted of that.
    pub(super) fn erase_audit(
        &mut self,
        sequences: &[u64],
    ) -> Result<serde_json::Value, StoreError> {
        let sql = "UPDATE audit SET salt = NULL, actor = NULL, object = NULL, detail = NULL \
                   WHERE sequence = $1";
        for sequence in sequences {
            self.execute(sql, &[Value::from(*sequence)])?;
        }
        Ok(erasure(sequences))
    }

    fn last_audit(&mut self) -> Result<(u64, [u8; 32]), StoreError> {
        let sql = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
        let row = self.first("audit", sql, &[])?;
        row.map_or(Ok((0, [0; 32])), |mut row| Ok((row.count()?, row.bytes()?)))
    }
}

/// A sequence below 1 and a hash of another length are what somebody else wrote: the walk finds it.
fn read(row: &mut Columns) -> Result<Stored, StoreError> {
    let (sequence, at, action) = (row.int()?.cast_unsigned(), row.time()?, row.text()?);
    let salt = row.maybe_blob()?.and_then(|salt| salt.try_into().ok());
    let parts = (salt, row.maybe_text()?, row.maybe_text()?, row.maybe_text()?);
    let content = match parts {
        (Some(salt), Some(actor), Some(object), Some(detail)) => {
            Some(Content { salt, actor, object, detail })
        }
        // In part is not how this program erases: without content, it needs an explanation too.
        _ => None,
    };
    let mut hash = || -> Result<[u8; 32], StoreError> {
        Ok(row.maybe_blob()?.unwrap_or_default().try_into().unwrap_or_default())
    };
    Ok(Stored { sequence, at, action, content, digest: hash()?, hash: hash()? })
}
