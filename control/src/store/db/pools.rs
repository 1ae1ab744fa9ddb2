//! Pools of inner addresses. This module must not know how an address is chosen.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::{Pool, PoolId};
use super::columns::maybe_json;
use super::list::List;
use super::{Columns, Db, taken};

const POOL: &str = "SELECT id, name, net4, net6, range4, is_random, created_at, version FROM pools";

impl Db<'_> {
    /// Adds a pool.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`, and those of the store.
    pub fn insert_pool(&mut self, pool: &Pool) -> Result<(), StoreError> {
        let sql = "INSERT INTO pools (id, name, net4, net6, range4, is_random, created_at, version) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let mut values = vec![Value::from(pool.id)];
        values.extend(fields(pool)?);
        values.extend([pool.created_at.into(), pool.version.into()]);
        taken(self.execute(sql, &values), &[("name", &pool.name), ("id", &pool.id)])?;
        self.changed("pool", pool.id)
    }

    /// Changes a pool, if nobody else did since `pool` was read, and returns it with its new
    /// version. Leases stay as they are.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] on `name`, and
    /// those of the store.
    pub fn update_pool(&mut self, pool: &Pool) -> Result<Pool, StoreError> {
        let sql = "UPDATE pools SET name = $3, net4 = $4, net6 = $5, range4 = $6, is_random = $7, \
                   version = version + 1 WHERE id = $1 AND version = $2";
        let mut values = vec![Value::from(pool.id), pool.version.into()];
        values.extend(fields(pool)?);
        let rows = taken(self.execute(sql, &values), &[("name", &pool.name)])?;
        self.updated("pool", "pools", pool.id.into(), rows)?;
        self.changed("pool", pool.id)?;
        self.pool(pool.id)
    }

    /// A pool.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn pool(&mut self, id: PoolId) -> Result<Pool, StoreError> {
        match self.first("pools", &format!("{POOL} WHERE id = $1"), &[id.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("pool", id)),
        }
    }

    /// The pool with this name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn pool_by_name(&mut self, name: &str) -> Result<Option<Pool>, StoreError> {
        let row = self.first("pools", &format!("{POOL} WHERE name = $1"), &[name.into()])?;
        row.map(|mut row| read(&mut row)).transpose()
    }

    /// Pools, by name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn pools(&mut self, page: &Page) -> Result<Rows<Pool>, StoreError> {
        let list = List::by_text("pools", POOL.to_owned(), "name");
        self.page(list, page, read, |pool| pool.name.clone())
    }

    /// Removes a pool that no policy names and no device has an address of.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NotFound`], and those of the store.
    pub fn remove_pool(&mut self, id: PoolId) -> Result<(), StoreError> {
        let policies = "SELECT name FROM policies WHERE pool_id = $1 ORDER BY name LIMIT 4";
        let devices = "SELECT d.name FROM leases l JOIN devices d ON d.id = l.device_id \
                       WHERE l.pool_id = $1 ORDER BY d.id LIMIT 4";
        let by = [("policy", policies), ("device", devices)];
        self.must_be_free("pool", &id.to_string(), &by)?;
        if self.execute("DELETE FROM pools WHERE id = $1", &[Value::from(id)])? == 0 {
            return Err(StoreError::not_found("pool", id));
        }
        self.changed("pool", id)
    }
}

fn fields(pool: &Pool) -> Result<[Value; 5], StoreError> {
    Ok([
        (&pool.name).into(),
        pool.net4.as_ref().into(),
        pool.net6.as_ref().into(),
        maybe_json(pool.range4.as_ref())?,
        pool.random.into(),
    ])
}

fn read(row: &mut Columns) -> Result<Pool, StoreError> {
    Ok(Pool {
        id: row.parsed()?,
        name: row.text()?,
        net4: row.maybe_text()?,
        net6: row.maybe_text()?,
        range4: row.maybe_json()?,
        random: row.truth()?,
        created_at: row.time()?,
        version: row.count()?,
    })
}
