//! One-time invitations, found by the hash of their secret. This module must not know the secret.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::{DeviceId, Enrolment, EnrolmentId, Timestamp, UserId};
use super::list::List;
use super::{Columns, Db, taken};

const ENROLMENT: &str =
    "SELECT id, user_id, device_name, expires_at, used_by, created_at FROM enrolments";

impl Db<'_> {
    /// Adds an invitation whose secret has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `secret` or `id`, [`StoreError::Missing`] user, and those of the
    /// store.
    pub fn insert_enrolment(
        &mut self,
        enrolment: &Enrolment,
        secret_hash: &[u8; 32],
    ) -> Result<(), StoreError> {
        self.must_have("enrolment", ("users", "user"), Some(enrolment.user))?;
        let sql = "INSERT INTO enrolments (id, user_id, device_name, expires_at, used_by, \
                   created_at, secret_hash) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = [
            enrolment.id.into(),
            enrolment.user.into(),
            (&enrolment.device_name).into(),
            enrolment.expires_at.into(),
            enrolment.used_by.into(),
            enrolment.created_at.into(),
            secret_hash.into(),
        ];
        taken(self.execute(sql, &values), &[("id", &enrolment.id)])?;
        Ok(())
    }

    /// An invitation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn enrolment(&mut self, id: EnrolmentId) -> Result<Enrolment, StoreError> {
        match self.first("enrolments", &format!("{ENROLMENT} WHERE id = $1"), &[id.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("enrolment", id)),
        }
    }

    /// The invitation whose secret has this SHA-256. It may be used up or have expired.
    ///
    /// # Errors
    /// Those of the store.
    pub fn enrolment_by_hash(
        &mut self,
        secret_hash: &[u8; 32],
    ) -> Result<Option<Enrolment>, StoreError> {
        let sql = format!("{ENROLMENT} WHERE secret_hash = $1");
        let row = self.first("enrolments", &sql, &[secret_hash.into()])?;
        row.map(|mut row| read(&mut row)).transpose()
    }

    /// Uses an invitation up: true if it was not used before and has not expired at `now`. Of many
    /// that try, one succeeds.
    ///
    /// # Errors
    /// Those of the store; an unknown invitation is false.
    pub fn use_enrolment(
        &mut self,
        id: EnrolmentId,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE enrolments SET used_by = $2 WHERE id = $1 AND used_by IS NULL \
                   AND expires_at > $3";
        Ok(self.execute(sql, &[id.into(), device.into(), now.into()])? > 0)
    }

    /// Invitations, of a user or of all, by identifier.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn enrolments(
        &mut self,
        user: Option<UserId>,
        page: &Page,
    ) -> Result<Rows<Enrolment>, StoreError> {
        let mut list = List::by_text("enrolments", ENROLMENT.to_owned(), "id");
        list.filter.and("user_id =", user);
        self.page(list, page, read, |enrolment| enrolment.id.to_string())
    }

    /// How many invitations of a user could still be used at `now`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn count_open_enrolments(
        &mut self,
        user: UserId,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let sql = "SELECT COUNT(*) FROM enrolments WHERE user_id = $1 AND used_by IS NULL \
                   AND expires_at > $2";
        let row = self.first("enrolments", sql, &[user.into(), now.into()])?;
        row.map_or(Ok(0), |mut row| row.count())
    }

    /// Removes an invitation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn remove_enrolment(&mut self, id: EnrolmentId) -> Result<(), StoreError> {
        if self.execute("DELETE FROM enrolments WHERE id = $1", &[Value::from(id)])? == 0 {
            return Err(StoreError::not_found("enrolment", id));
        }
        Ok(())
    }

    /// Removes invitations that expired before a moment, and says how many.
    ///
    /// # Errors
    /// Those of the store.
    pub fn purge_enrolments(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.execute("DELETE FROM enrolments WHERE expires_at < $1", &[before.into()])
    }
}

fn read(row: &mut Columns) -> Result<Enrolment, StoreError> {
    Ok(Enrolment {
        id: row.parsed()?,
        user: row.parsed()?,
        device_name: row.text()?,
        expires_at: row.time()?,
        used_by: row.maybe_parsed()?,
        created_at: row.time()?,
    })
}
