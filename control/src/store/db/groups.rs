//! Groups of users. This module must not know what a group is good for.

use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{Page, Rows};
use super::super::records::{Group, GroupId};
use super::columns::json;
use super::list::List;
use super::{Columns, Db, taken};

const GROUP: &str = "SELECT id, name, policy_id, rate, created_at, version FROM groups";

impl Db<'_> {
    /// Adds a group.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`, [`StoreError::Missing`] policy, and those of the
    /// store.
    pub fn insert_group(&mut self, group: &Group) -> Result<(), StoreError> {
        self.must_have("group", ("policies", "policy"), group.policy)?;
        let sql = "INSERT INTO groups (id, name, policy_id, rate, created_at, version) \
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let values = [
            group.id.into(),
            (&group.name).into(),
            group.policy.into(),
            json(&group.rate)?,
            group.created_at.into(),
            group.version.into(),
        ];
        taken(self.execute(sql, &values), &[("name", &group.name), ("id", &group.id)])?;
        self.changed("group", group.id)
    }

    /// Changes a group, if nobody else did since `group` was read, and returns it with its new
    /// version.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] on `name`,
    /// [`StoreError::Missing`] policy, and those of the store.
    pub fn update_group(&mut self, group: &Group) -> Result<Group, StoreError> {
        self.must_have("group", ("policies", "policy"), group.policy)?;
        let sql = "UPDATE groups SET name = $3, policy_id = $4, rate = $5, version = version + 1 \
                   WHERE id = $1 AND version = $2";
        let values = [
            group.id.into(),
            group.version.into(),
            (&group.name).into(),
            group.policy.into(),
            json(&group.rate)?,
        ];
        let rows = taken(self.execute(sql, &values), &[("name", &group.name)])?;
        self.updated("group", "groups", group.id.into(), rows)?;
        self.changed("group", group.id)?;
        self.group(group.id)
    }

    /// A group.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn group(&mut self, id: GroupId) -> Result<Group, StoreError> {
        match self.first("groups", &format!("{GROUP} WHERE id = $1"), &[id.into()])? {
            Some(mut row) => read(&mut row),
            None => Err(StoreError::not_found("group", id)),
        }
    }

    /// The group with this name.
    ///
    /// # Errors
    /// Those of the store.
    pub fn group_by_name(&mut self, name: &str) -> Result<Option<Group>, StoreError> {
        let row = self.first("groups", &format!("{GROUP} WHERE name = $1"), &[name.into()])?;
        row.map(|mut row| read(&mut row)).transpose()
    }

    /// Those of the groups with these names that exist, in no order.
    ///
    /// # Errors
    /// Those of the store.
    pub fn groups_named(&mut self, names: &[String]) -> Result<Vec<Group>, StoreError> {
        let Some(last) = names.last() else { return Ok(Vec::new()) };
        // The last one again and again, so that there are few statements to prepare.
        let count = names.len().next_power_of_two();
        let places: Vec<String> = (1..=count).map(|at| format!("${at}")).collect();
        let sql = format!("{GROUP} WHERE name IN ({})", places.join(", "));
        let all = names.iter().chain(std::iter::repeat(last)).take(count);
        let values: Vec<Value> = all.map(Value::from).collect();
        let rows = self.query("groups", &sql, &values)?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }

    /// Groups, by name.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a page that cannot be, and those of the store.
    pub fn groups(&mut self, page: &Page) -> Result<Rows<Group>, StoreError> {
        let list = List::by_text("groups", GROUP.to_owned(), "name");
        self.page(list, page, read, |group| group.name.clone())
    }

    /// Removes a group that has no users.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NotFound`], and those of the store.
    pub fn remove_group(&mut self, id: GroupId) -> Result<(), StoreError> {
        let users = "SELECT name FROM users WHERE group_id = $1 ORDER BY name LIMIT 4";
        self.must_be_free("group", &id.to_string(), &[("user", users)])?;
        if self.execute("DELETE FROM groups WHERE id = $1", &[Value::from(id)])? == 0 {
            return Err(StoreError::not_found("group", id));
        }
        self.changed("group", id)
    }
}

fn read(row: &mut Columns) -> Result<Group, StoreError> {
    Ok(Group {
        id: row.parsed()?,
        name: row.text()?,
        policy: row.maybe_parsed()?,
        rate: row.json()?,
        created_at: row.time()?,
        version: row.count()?,
    })
}
