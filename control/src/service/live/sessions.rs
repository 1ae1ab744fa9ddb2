//! Sessions in the API's words: which match, a page of them, and the end of one.

use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;
use serde_json::json;

use crate::access::people::Out;
use crate::access::sessions::{Session, State};
use crate::access::{Moment, Projection};
use crate::api::live::{LiveError, LivePage, SessionFilter, SessionState, SessionView};
use crate::api::paged::Paged;
use crate::keys;
use crate::service::Service;
use crate::uapi::write::canonical;

/// A session from which nothing came for so long is called idle, in milliseconds: longer than
/// clients usually keep their NAT open with packets that say nothing.
const IDLE_MS: i64 = 60_000;

/// Sessions that are looked at for one page; a filter that matches few goes on with the next page.
const LOOKED_AT_MAX: usize = 100_000;

/// A page of the sessions that match.
pub(super) fn list(
    service: &Service,
    filter: &SessionFilter,
    page: &LivePage,
) -> Result<Paged<SessionView>, LiveError> {
    let after = match &page.after {
        Some(text) => Some(text.parse().map_err(|_| {
            LiveError::Invalid("?after".to_owned(), format!("{text} is no place in the list"))
        })?),
        None => None,
    };
    let source = match &filter.source {
        Some(text) => Some(prefix(text)?),
        None => None,
    };
    let now = service.now();
    let draining = service.drain().since.is_some();
    let limit = page.limit as usize;
    service.with_projection(|projection| {
        let mut items = Vec::new();
        let mut last = None;
        for session in projection.sessions().after(after).take(LOOKED_AT_MAX) {
            if items.len() == limit {
                return Ok(Paged { items, next: last });
            }
            last = Some(session.id.to_string());
            let view = view(service, projection, session, draining, now);
            if matches(filter, source, session, &view) {
                items.push(view);
            }
        }
        let more = projection.sessions().len() > LOOKED_AT_MAX;
        Ok(Paged { items, next: last.filter(|_| more) })
    })
}

/// An address or a prefix.
fn prefix(text: &str) -> Result<IpNet, LiveError> {
    let host = text.parse::<IpAddr>().map(IpNet::host);
    host.ok().or_else(|| text.parse().ok()).ok_or_else(|| {
        let why = format!("{text} is neither an address nor a prefix");
        LiveError::Invalid("?source".to_owned(), why)
    })
}

fn matches(
    filter: &SessionFilter,
    source: Option<IpNet>,
    session: &Session,
    view: &SessionView,
) -> bool {
    let user = filter.user.as_ref().is_none_or(|wanted| {
        view.user == *wanted || view.user_id.is_some_and(|id| id.to_string() == *wanted)
    });
    let device = filter.device.as_ref().is_none_or(|wanted| {
        view.device.as_ref() == Some(wanted)
            || view.public_key.as_ref() == Some(wanted)
            || view.device_id.is_some_and(|id| id.to_string() == *wanted)
    });
    let state = filter.state.is_none_or(|wanted| view.status == wanted);
    let from = session.seen.endpoint.map(|endpoint| endpoint.ip().to_canonical());
    let source = source.is_none_or(|net| from.is_some_and(|from| net.contains(from)));
    user && device && state && source
}

/// What a session is doing, and the word for it.
pub(super) fn state(
    session: &Session,
    draining: bool,
    now: Moment,
) -> (SessionState, &'static str) {
    if draining {
        return (SessionState::Draining, "draining");
    }
    match session.state {
        State::Disconnected => (SessionState::Ending, "ending"),
        State::Connecting | State::LinkUp => (SessionState::Connecting, "connecting"),
        State::Online if now.wall.since(session.last_activity) > IDLE_MS => {
            (SessionState::Idle, "idle")
        }
        State::Online => (SessionState::Active, "active"),
    }
}

fn view(
    service: &Service,
    projection: &Projection,
    session: &Session,
    draining: bool,
    now: Moment,
) -> SessionView {
    let key = keys::show_public(&session.public);
    let person = session.owner.and_then(|(user, _)| projection.person(user));
    let client = session
        .owner
        .zip(person)
        .and_then(|((_, device), person)| person.clients.iter().find(|client| client.id == device));
    let tunnel = match client {
        Some(client) => client.addresses.iter().map(ToString::to_string).collect(),
        None => service.desk().with_plane(|plane| {
            let peer = plane.peer(&session.public);
            peer.map(|peer| peer.allowed_ips.iter().map(ToString::to_string).collect())
                .unwrap_or_default()
        }),
    };
    // It is needed to carry the session, and gone with it.
    let privacy = service.desk().privacy();
    let endpoint = session.seen.endpoint.and_then(|at| privacy.show(at)).map(canonical);
    let bits = |bytes: u64| bytes.saturating_mul(8);
    SessionView {
        id: session.id,
        user: person.map_or_else(|| key.clone(), |person| person.name.clone()),
        client_ip: endpoint.map(|endpoint| endpoint.ip()),
        exit_node: super::LOCAL.to_owned(),
        connected_at: session.since,
        last_activity: session.last_activity,
        bytes_sent: session.moved.down_bytes,
        bytes_received: session.moved.up_bytes,
        status: state(session, draining, now).0,
        tunnel,
        user_id: session.owner.map(|(user, _)| user),
        device_id: session.owner.map(|(_, device)| device),
        device: client.map(|client| client.name.clone()),
        public_key: Some(key),
        endpoint,
        state_since: session.state_since,
        protocol: "wireguard".to_owned(),
        core: session.seen.core,
        // Of a session that was taken over it is known within a second.
        path_mtu: Some(session.seen.path_mtu).filter(|mtu| *mtu > 0),
        rate_up_bps: bits(session.speed.0),
        rate_down_bps: bits(session.speed.1),
    }
}

impl Service {
    /// Ends a session: a device of a user needs another sign-in, a peer of the file another
    /// handshake.
    pub(super) async fn kill(
        &self,
        id: u64,
        reason: Option<String>,
        actor: String,
    ) -> Result<(), LiveError> {
        let session = self.with_projection(|known| known.sessions().by_id(id).cloned());
        let Some(session) = session else {
            return Err(LiveError::NotFound(format!("session {id}")));
        };
        let name = self.name_of_session(&session);
        match session.owner {
            Some((_, device)) => {
                self.end_access(device, Out::Killed);
            }
            None => self.desk().configure(self.peer_again(&session.public)).await?,
        }
        let detail = json!({ "session": id, "reason": reason });
        self.note_action(actor, "session.kill", &name, detail).await;
        Ok(())
    }
}
