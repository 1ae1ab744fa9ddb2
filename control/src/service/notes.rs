//! What happened, told to events, records and log.

use std::collections::BTreeMap;

use serde_json::json;
use tracing::{debug, info};

use super::Service;
use super::outbox::AccessEnd;
use crate::access::people::Out;
use crate::access::projection::Note;
use crate::access::sessions::Session;
use crate::access::{Moment, Stand};
use crate::events::Kind;
use crate::logs::connections::{self, Ending};
use crate::stats::service::LiveSession;
use crate::store::records::{DeviceId, UserId};

/// What a session that the gateway did not end died of, where the log says nothing.
const SILENT: &str = "silent";

/// Sessions since the start.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Those that began.
    pub started: u64,
    /// Those that ended, by reason.
    pub ended: BTreeMap<&'static str, u64>,
}

impl Service {
    /// Sessions since the start.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// What each session moved.
    #[must_use]
    pub fn live_sessions(&self) -> Vec<LiveSession> {
        self.with_projection(|known| {
            let sessions = known.sessions().after(None);
            let row = |session: &Session| LiveSession {
                id: session.id.to_string(),
                user: session.owner.and_then(|(user, _)| known.person(user)).map_or_else(
                    || crate::keys::show_public(&session.public),
                    |person| person.name.clone(),
                ),
                device: session
                    .owner
                    .and_then(|(user, device)| {
                        let clients = &known.person(user)?.clients;
                        clients.iter().find(|client| client.id == device)
                    })
                    .map_or_else(String::new, |client| client.name.clone()),
                received: session.moved.up_bytes,
                sent: session.moved.down_bytes,
            };
            sessions.map(row).collect()
        })
    }

    /// Tells what happened since this was last called.
    pub(super) fn take_notes(&self, now: Moment) {
        let notes = self.projection.borrow_mut().take_notes();
        for note in notes {
            match note {
                Note::In { user, device } => {
                    let subject = self.name_of(user, Some(device));
                    let detail = json!({ "user": user, "device": device });
                    self.hub.publish(now.wall, Kind::AccessGranted, subject, detail);
                }
                Note::Out { user, device, why, ends_access } => {
                    self.tell_out(user, device, why, ends_access, now);
                }
                Note::Connected(session) => self.tell_connected(&session, now),
                Note::Moved(session) => {
                    let subject = self.name_of_session(&session);
                    debug!(device = %subject, session = session.id, "A client has another address");
                    let endpoint = self.endpoint(&session);
                    let detail = json!({ "session": session.id, "endpoint": endpoint });
                    self.hub.publish(now.wall, Kind::SessionMoved, subject, detail);
                }
                Note::Disconnected(session, why) => {
                    let ending = why.map_or(Ending::Silent, Ending::Out);
                    self.tell_disconnected(&session, ending, now);
                }
                Note::QuotaReached { user, action } => {
                    let subject = self.name_of(user, None);
                    info!(user = %subject, action = action.word(), "A quota is used up");
                    let detail = json!({ "action": action.word() });
                    self.hub.publish(now.wall, Kind::QuotaReached, subject, detail);
                }
                Note::QuotaRenewed { user } => {
                    let subject = self.name_of(user, None);
                    self.hub.publish(now.wall, Kind::QuotaReset, subject, json!({}));
                }
            }
        }
        // Whatever was noted may have led to steps too.
        self.steps.notify_one();
    }

    fn tell_out(&self, user: UserId, device: DeviceId, why: Out, ends_access: bool, now: Moment) {
        let subject = self.name_of(user, Some(device));
        info!(device = %subject, reason = why.code(), "A device may not connect any more");
        let detail = json!({ "reason": why.code(), "user": user, "device": device });
        self.hub.publish(now.wall, Kind::AccessEnded, subject, detail);
        // That time is over everybody can see; what else ends an access only this gateway knows.
        if !ends_access || why == Out::SessionTimeout {
            return;
        }
        let from = self.with_projection(|projection| {
            let person = projection.person(user)?;
            person.clients.iter().find(|client| client.id == device)?.access_from
        });
        if let Some(from) = from {
            let end = AccessEnd { device, from, until: now.wall.max(from) };
            self.outbox.borrow_mut().end_access(end);
            self.urgent.notify_one();
        }
    }

    fn tell_connected(&self, session: &Session, now: Moment) {
        let subject = self.name_of_session(session);
        self.tally.borrow_mut().started += 1;
        debug!(device = %subject, session = session.id, "A client connected");
        let detail = json!({ "session": session.id, "endpoint": self.endpoint(session) });
        self.hub.publish(now.wall, Kind::SessionStarted, subject, detail);
        let entry = connections::connected(session, &self.desk.privacy());
        self.outbox.borrow_mut().connections(entry);
    }

    pub(super) fn tell_disconnected(&self, session: &Session, ending: Ending, now: Moment) {
        let subject = self.name_of_session(session);
        let reason = ending.code().unwrap_or(SILENT);
        *self.tally.borrow_mut().ended.entry(reason).or_default() += 1;
        debug!(device = %subject, session = session.id, reason, "A session ended");
        let detail = json!({
            "session": session.id,
            "reason": reason,
            "up_bytes": session.moved.up_bytes,
            "down_bytes": session.moved.down_bytes,
        });
        self.hub.publish(now.wall, Kind::SessionEnded, subject, detail);
        let privacy = self.desk.privacy();
        let entry = connections::disconnected(session, ending, now.wall, &privacy);
        self.outbox.borrow_mut().connections(entry);
        if let Some(((_, device), at)) = session.owner.zip(privacy.keep_seen(session.last_activity))
        {
            self.outbox.borrow_mut().seen(device, at);
        }
    }

    fn endpoint(&self, session: &Session) -> Option<String> {
        let endpoint = self.desk.privacy().keep(session.seen.endpoint?)?;
        Some(crate::uapi::write::canonical(endpoint).to_string())
    }

    /// Notes who did something that is no change of a record. A store that does not take it is no
    /// reason not to do it.
    pub(super) async fn note_action(
        &self,
        actor: String,
        action: &'static str,
        object: &str,
        detail: serde_json::Value,
    ) {
        let (at, object) = (self.now().wall, object.to_owned());
        info!(%actor, action, %object, "Done");
        let noted = self
            .store
            .write(move |db| db.append_audit(at, &actor, action, &object, &detail).map(drop));
        if let Err(failure) = noted.await {
            super::store_failed("What an operator did is not in the audit log", &failure);
        }
    }

    pub(super) fn name_of_session(&self, session: &Session) -> String {
        match session.owner {
            Some((user, device)) => self.name_of(user, Some(device)),
            None => crate::keys::show_public(&session.public),
        }
    }

    /// `USER` or `USER/DEVICE`, as people call them; the number of what has no name any more.
    pub(super) fn name_of(&self, user: UserId, device: Option<DeviceId>) -> String {
        self.with_projection(|projection| {
            let Some(person) = projection.person(user) else {
                return device.map_or_else(|| user.to_string(), |device| device.to_string());
            };
            let Some(device) = device else { return person.name.clone() };
            let client = person.clients.iter().find(|client| client.id == device);
            let name = client.map_or_else(|| device.to_string(), |client| client.name.clone());
            format!("{}/{name}", person.name)
        })
    }

    /// Ends the access of a device and so its session. Returns whether it had any.
    pub fn end_access(&self, device: DeviceId, why: Out) -> bool {
        let now = self.now();
        let ended = self.projection.borrow_mut().end_access(device, why, now);
        self.take_notes(now);
        ended
    }

    /// Whether a device may connect now.
    #[must_use]
    pub fn stand(&self, device: DeviceId) -> Option<Stand> {
        self.with_projection(|projection| projection.stand(device))
    }

    pub(super) async fn hear_exhaustion(self: std::rc::Rc<Self>) {
        use crate::access::chain::Subject;
        let mut heard = self.desk.hear_exhaustion();
        while let Some(exhaustion) = heard.recv().await {
            let now = self.now();
            let number = exhaustion.account.0;
            // It may be of a volume that was replaced since: a quota that was raised, say.
            if !self.volumes.borrow().is_current(number, exhaustion.number) {
                continue;
            }
            let subject = self.with_projection(|known| known.subject(number));
            if let Some(Subject::User(user)) = subject {
                self.projection.borrow_mut().quota_may_be_reached(user, true, now);
                self.take_notes(now);
            }
        }
        // The desk has another listener, or is gone: with it everything ends.
        std::future::pending::<()>().await;
    }
}
