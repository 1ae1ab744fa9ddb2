//! What is kept of a person: shown to them, or erased.
//!
//! Erasing removes every record of the user, usage and connections included. Audit entries that are
//! about the user, its devices or its tokens (`traces.rs`) lose their content and stay in the chain
//! (`store/audit.rs`). The identifier alone is remembered, a random number that stands for nobody
//! any more, so that late usage does not bring the user back. This module must not know who may ask
//! for this.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::super::audit::ERASED;
use super::super::engine::Value;
use super::super::error::StoreError;
use super::super::query::{ConnectionFilter, Page, Rows};
use super::super::records::{AuditEntry, ConnectionEntry, Timestamp, User, UserId};
use super::Db;
use super::traces::Traces;

/// Who did something and was erased.
const NOBODY: &str = "user:erased";

/// What stood for a user who is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Identifiers and keys of the user and of what was theirs, gone before or with them.
    pub ids: BTreeSet<String>,
    /// The names that the user had.
    pub names: BTreeSet<String>,
}

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
        let open_sessions = self.open_sessions_of(id)?;
        let bans = self.bans(Timestamp(i64::MIN))?;
        let subject = format!("user:{}", user.name);
        let bans: Vec<_> = bans.into_iter().filter(|ban| ban.subject == subject).collect();
        let traces = self.traces_of(&user)?;
        let audit = self.audit_about(&traces)?;
        Ok(json!({
            "user": user,
            "group": group.map(|group| group.name),
            "devices": devices,
            "leases": leases,
            "tokens": tokens,
            "enrolments": enrolments,
            "usage": usage,
            "connections": connections,
            "open_sessions": open_sessions,
            "bans": bans,
            "audit": audit,
        }))
    }

    /// Erases everything that is kept of a user, and notes in the audit log that `actor` did so.
    /// Returns what stood for the user, for whoever has it in memory.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and those of the store.
    pub fn erase_user(
        &mut self,
        id: UserId,
        at: Timestamp,
        actor: &str,
    ) -> Result<Erased, StoreError> {
        let user = self.user(id)?;
        let traces = self.traces_of(&user)?;
        let sequences = self.sequences_about(&traces)?;
        let whose = [Value::from(id)];
        self.remove_user(id)?;
        self.execute("DELETE FROM usage WHERE user_id = $1", &whose)?;
        self.execute("DELETE FROM connections WHERE user_id = $1", &whose)?;
        self.execute("DELETE FROM open_sessions WHERE user_id = $1", &whose)?;
        self.remove_ban(&format!("user:{}", user.name))?;
        let erased = "INSERT INTO erased (user_id, at) VALUES ($1, $2)";
        self.execute(erased, &[id.into(), at.into()])?;
        self.erase_author(&traces)?;
        let detail = self.erase_audit(&sequences)?;
        // Whoever erases themselves must not leave their name behind in doing so.
        let actor = if traces.is_now(actor) { NOBODY } else { actor };
        self.append_audit(at, actor, ERASED, "user", &detail)?;
        self.erases = true;
        let names = traces.names().iter().map(|held| held.name.clone()).collect();
        Ok(Erased { ids: traces.ids().clone(), names })
    }

    /// Takes the user's name from the configurations that they put in force.
    fn erase_author(&mut self, traces: &Traces) -> Result<(), StoreError> {
        for held in traces.names() {
            let sql = "UPDATE configs SET actor = $1 WHERE actor = $2 AND at >= $3 AND at <= $4";
            let actor = format!("user:{}", held.name);
            let values = [NOBODY.into(), actor.into(), held.from.1.into(), held.until.1.into()];
            self.execute(sql, &values)?;
        }
        for id in traces.ids() {
            let sql = "UPDATE configs SET actor = $1 WHERE actor = $2";
            self.execute(sql, &[NOBODY.into(), format!("token:{id}").into()])?;
        }
        Ok(())
    }

    /// What stands for a user in the audit log.
    fn traces_of(&mut self, user: &User) -> Result<Traces, StoreError> {
        let mut ids = Vec::new();
        for device in self.devices_of(user.id)? {
            ids.push(device.id.to_string());
            ids.push(crate::keys::show_public(&device.public_key));
        }
        let tokens = whole(|page| self.tokens(Some(user.id), page))?;
        ids.extend(tokens.iter().map(|token| token.id.to_string()));
        let enrolments = whole(|page| self.enrolments(Some(user.id), page))?;
        ids.extend(enrolments.iter().map(|enrolment| enrolment.id.to_string()));
        let mut traces = Traces::new(user, ids);
        self.each_audit(|entry| {
            traces.learn(entry);
            Ok(true)
        })?;
        traces.learned(&user.name);
        Ok(traces)
    }

    fn sequences_about(&mut self, traces: &Traces) -> Result<Vec<u64>, StoreError> {
        let mut sequences = Vec::new();
        self.each_audit(|entry| {
            sequences.extend(traces.is_about(entry).then_some(entry.sequence));
            Ok(true)
        })?;
        Ok(sequences)
    }

    fn audit_about(&mut self, traces: &Traces) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries = Vec::new();
        for sequence in self.sequences_about(traces)? {
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
