//! Looks at the gateway for `top`, through its API.
//!
//! Status is what there must be; of the rest, what cannot be read (a token that may not, a gateway
//! without it) is noted and the others are shown.

use std::time::Instant;

use serde_json::Value;

use super::metrics;
use super::model::{Reading, Session};
use crate::cli::client::{Client, path};
use crate::cli::service::now;
use crate::cli::show::word;
use crate::failure::Failure;

/// Sessions that are read: pages of the API. More would take longer than the pause between looks.
const SESSION_PAGES_MAX: usize = 10;
/// Quotas are summed by the store, so they are looked at once in so many looks.
const QUOTA_EVERY: u32 = 15;

/// Looks at the gateway.
pub(super) struct Fetcher {
    client: Client,
    start: Instant,
    looks: u32,
    used_up: Vec<(String, String)>,
}

impl Fetcher {
    /// Nothing is sent yet.
    pub(super) fn new(client: Client) -> Self {
        Self { client, start: Instant::now(), looks: 0, used_up: Vec::new() }
    }

    /// Looks at everything.
    pub(super) fn look(&mut self) -> Result<Reading, Failure> {
        let status = self.client.get_json(&path(&["status"]))?;
        let mut notes = Vec::new();
        let metrics = match self.client.get(&path(&["metrics"]), &[]) {
            Ok(answer) => metrics::read(&answer.text),
            Err(failure) => {
                notes.push(format!("metrics: {}", failure.message));
                metrics::Metrics::default()
            }
        };
        // Counters and their time belong together.
        let at_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let health = self.health(&mut notes);
        let sessions = self.sessions(&mut notes);
        if self.looks.is_multiple_of(QUOTA_EVERY) {
            self.look_at_quotas(&mut notes);
        }
        self.looks = self.looks.wrapping_add(1);
        let used_up = self.used_up.clone();
        let now = now();
        Ok(Reading { at_ms, now, status, health, sessions, metrics, used_up, notes })
    }

    fn health(&self, notes: &mut Vec<String>) -> Vec<Value> {
        let read = self.client.get_any(&path(&["health"])).and_then(|(_, answer)| answer.json());
        match read {
            Ok(health) => health["parts"].as_array().cloned().unwrap_or_default(),
            Err(failure) => {
                notes.push(format!("health: {}", failure.message));
                Vec::new()
            }
        }
    }

    fn sessions(&self, notes: &mut Vec<String>) -> Vec<Session> {
        let mut sessions = Vec::new();
        let mut after = None;
        for _ in 0..SESSION_PAGES_MAX {
            let query = [("limit", Some("1000".to_owned())), ("after", after.take())];
            let page = self.client.get(&path(&["sessions"]), &query);
            let page = match page.and_then(|answer| answer.json()) {
                Ok(page) => page,
                Err(failure) => {
                    notes.push(format!("sessions: {}", failure.message));
                    return sessions;
                }
            };
            sessions.extend(page["items"].as_array().into_iter().flatten().map(Session::of));
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return sessions;
            }
        }
        notes.push(format!("sessions: only the first {} are looked at", sessions.len()));
        sessions
    }

    /// Of the first thousand users: whoever has more looks at `ringway quota list --exceeded`.
    fn look_at_quotas(&mut self, notes: &mut Vec<String>) {
        let query = [("limit", Some("1000".to_owned()))];
        let page = self.client.get(&path(&["quotas"]), &query).and_then(|answer| answer.json());
        match page {
            Ok(page) => {
                let rows = page["items"].as_array().into_iter().flatten();
                let over = rows.filter(|row| row["standing"]["exceeded"] == Value::Bool(true));
                self.used_up =
                    over.map(|row| (word(row, "/name"), word(row, "/standing/action"))).collect();
            }
            Err(failure) => notes.push(format!("quotas: {}", failure.message)),
        }
    }
}
