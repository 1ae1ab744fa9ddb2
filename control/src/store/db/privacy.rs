//! What is kept of a person: shown to them, or erased.
//!
//! Erasing removes every record of the user, usage and connections included. Audit entries that
//! name the user, its devices or its tokens lose their content and stay in the chain
//! (`store/audit.rs`). The identifier alone is remembered, a random number that stands for nobody
//! any more, so that late usage does not bring the user back. This module must not know who may ask
//! for this.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::super::audit::{ERASED, Stored};
use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{ConnectionFilter, Page, Rows};
use super::super::records::{AuditEntry, ConnectionEntry, Timestamp, User, UserId};
use super::Db;

impl Db<'_> {
    /// Everything that is kept of a user, without secrets.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn export_user(&mut self, id: UserId) -> Result<Json, StoreError> {
        let user = self.user(id)?;
        let group = user.group.map(|group| self.group(group)).transpose()?;
        let devices = self.devices_of(id)?;
        let mut leases = Vec::new();
        for device in &devices {
            leases.extend(self.lease_of(device.id)?);
        }
        let tokens = whole(|page| self.tokens(Some(id), page))?;
        let enrolments = whole(|page| self.enrolments(Some(id), page))?;
        let usage = self.usage_of(id, i32::MIN, i32::MAX)?;
        let filter = ConnectionFilter { user: Some(id), ..ConnectionFilter::default() };
        let connections: Vec<ConnectionEntry> = whole(|page| self.connections(&filter, page))?;
        let bans = self.bans(Timestamp(i64::MIN))?;
        let subject = format!("user:{}", user.name);
        let bans: Vec<_> = bans.into_iter().filter(|ban| ban.subject == subject).collect();
        let names = self.names_of(&user)?;
        let audit = self.audit_about(&names)?;
        Ok(json!({
            "user": user,
            "group": group.map(|group| group.name),
            "devices": devices,
            "leases": leases,
            "tokens": tokens,
            "enrolments": enrolments,
            "usage": usage,
            "connections": connections,
            "bans": bans,
            "audit": audit,
        }))
    }

    /// Erases everything that is kept of a user, and notes in the audit log that `actor` did so.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn erase_user(&mut self, id: UserId, at: Timestamp, actor: &str) -> Result<(), StoreError> {
        let user = self.user(id)?;
        let names = self.names_of(&user)?;
        let whose = [Value::from(id)];
        self.remove_user(id)?;
        self.execute("DELETE FROM usage WHERE user_id = $1", &whose)?;
        self.execute("DELETE FROM connections WHERE user_id = $1", &whose)?;
        self.remove_ban(&format!("user:{}", user.name))?;
        let erased = "INSERT INTO erased (user_id, at) VALUES ($1, $2)";
        self.execute(erased, &[id.into(), at.into()])?;
        let mut sequences = Vec::new();
        self.each_audit(|entry| {
            sequences.extend(is_about(entry, &names).then_some(entry.sequence));
            Ok(true)
        })?;
        let detail = self.erase_audit(&sequences)?;
        // Whoever erases themselves must not leave their name behind in doing so.
        let actor = if names.contains(actor) { "user:erased" } else { actor };
        self.append_audit(at, actor, ERASED, "user", &detail)?;
        self.erases = true;
        Ok(())
    }

    /// What stands for a user in the audit log.
    fn names_of(&mut self, user: &User) -> Result<BTreeSet<String>, StoreError> {
        let mut names = BTreeSet::from([
            user.name.clone(),
            format!("user:{}", user.name),
            user.id.to_string(),
            format!("user:{}", user.id),
        ]);
        for device in self.devices_of(user.id)? {
            names.insert(device.id.to_string());
            names.insert(crate::keys::show_public(&device.public_key));
        }
        for token in whole(|page| self.tokens(Some(user.id), page))? {
            names.insert(token.id.to_string());
            names.insert(format!("token:{}", token.id));
        }
        for enrolment in whole(|page| self.enrolments(Some(user.id), page))? {
            names.insert(enrolment.id.to_string());
        }
        Ok(names)
    }

    fn audit_about(&mut self, names: &BTreeSet<String>) -> Result<Vec<AuditEntry>, StoreError> {
        let mut sequences = Vec::new();
        self.each_audit(|entry| {
            sequences.extend(is_about(entry, names).then_some(entry.sequence));
            Ok(true)
        })?;
        let mut entries = Vec::new();
        for sequence in sequences {
            let page = Page { after: Some((sequence - 1).to_string()), limit: 1 };
            entries.extend(self.audit(&Default::default(), &page)?.items);
        }
        Ok(entries)
    }
}

/// All pages of a list.
fn whole<T>(
    mut read: impl FnMut(&Page) -> Result<Rows<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let (mut items, mut page) = (Vec::new(), Page::first());
    loop {
        let rows = read(&page)?;
        items.extend(rows.items);
        if rows.next.is_none() {
            return Ok(items);
        }
        page.after = rows.next;
    }
}

/// Whether an entry names one of `names`, as a whole text anywhere in it.
fn is_about(entry: &Stored, names: &BTreeSet<String>) -> bool {
    let Some(content) = &entry.content else { return false };
    if entry.action == ERASED {
        return false;
    }
    let detail = serde_json::from_str(&content.detail).unwrap_or(Json::Null);
    names.contains(&content.actor) || names.contains(&content.object) || mentions(&detail, names)
}

fn mentions(detail: &Json, names: &BTreeSet<String>) -> bool {
    match detail {
        Json::String(text) => names.contains(text),
        Json::Array(items) => items.iter().any(|item| mentions(item, names)),
        Json::Object(fields) => {
            fields.iter().any(|(name, value)| names.contains(name) || mentions(value, names))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}
