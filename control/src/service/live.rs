//! The running gateway as the API sees it: what the control thread knows, in the API's words.
//!
//! Every question is a call through the door. Answers are bounded: a list is a page. This module
//! must not know how requests come or how answers are written.

mod reports;
mod sessions;

use std::rc::Rc;
use std::time::Duration;

use ringway_dataplane::command::Refusal;
use serde_json::json;

use super::Service;
use super::door::{Closed, Door};
use super::drain::{Drain, DrainError};
use crate::access::sessions::Session;
use crate::api::doors::{Board, DoorView};
use crate::api::live::{
    DrainSession, DrainView, HealthPart, HealthView, Live, LiveError, LivePage, NodeView, Reply,
    Report, ReportFormat, ReportSpan, SessionFilter, SessionView, StatusView,
};
use crate::api::paged::Paged;
use crate::gateway::desk::DeskError;
use crate::store::records::Timestamp;

/// Sessions of a drain that are listed.
const LISTED_MAX: usize = 1_000;

/// How long the cores may take to answer when their health is asked for.
const PULSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the local exit is called.
const LOCAL: &str = "local";

/// What of the configuration the API shows.
#[derive(Clone, Debug)]
pub struct About {
    /// Most sessions at the same time.
    pub max_clients: u64,
    /// Addresses that inner traffic leaves with, if known.
    pub exit_addresses: Vec<String>,
}

/// The running gateway, for other threads.
pub struct LiveGateway {
    door: Door,
    about: About,
    board: Board,
}

impl LiveGateway {
    /// A gateway behind this door, whose API has these.
    #[must_use]
    pub const fn new(door: Door, about: About, board: Board) -> Self {
        Self { door, about, board }
    }

    /// Carries a question to the control thread.
    fn ask<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Rc<Service>) -> F + Send + 'static,
    ) -> Reply<T>
    where
        F: Future<Output = Result<T, LiveError>> + 'static,
    {
        let door = self.door.clone();
        Box::pin(async move { door.call(work).await? })
    }
}

impl From<Closed> for LiveError {
    fn from(closed: Closed) -> Self {
        Self::Unavailable(closed.to_string())
    }
}

impl From<DeskError> for LiveError {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Refused(Refusal::UnknownPeer) => Self::NotFound("session".to_owned()),
            DeskError::Stopping => Self::Unavailable(error.to_string()),
            DeskError::Port(_) | DeskError::Refused(_) | DeskError::Usage(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<DrainError> for LiveError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Deadline => Self::Invalid("/deadline".to_owned(), error.to_string()),
            DrainError::Stopping => Self::Unavailable(error.to_string()),
        }
    }
}

impl Live for LiveGateway {
    fn status(&self) -> Reply<StatusView> {
        let (max_clients, api) = (self.about.max_clients, self.board.view());
        self.ask(move |service| async move { Ok(status(&service, max_clients, api)) })
    }

    fn health(&self) -> Reply<HealthView> {
        let (door, trouble) = (self.door.clone(), self.board.trouble());
        Box::pin(async move {
            let answered =
                door.call(|service| async move { health(&service, trouble).await }).await;
            Ok(answered.unwrap_or_else(|closed| HealthView {
                healthy: false,
                parts: vec![part("control", false, Some(closed.to_string()))],
            }))
        })
    }

    fn metrics(&self) -> Reply<String> {
        self.ask(|service| async move { Ok(service.desk().metrics()) })
    }

    fn sessions(&self, filter: SessionFilter, page: LivePage) -> Reply<Paged<SessionView>> {
        self.ask(move |service| async move { sessions::list(&service, &filter, &page) })
    }

    fn end_session(&self, id: u64, reason: Option<String>, actor: String) -> Reply<()> {
        self.ask(move |service| async move { service.kill(id, reason, actor).await })
    }

    fn nodes(&self) -> Reply<Vec<NodeView>> {
        let about = self.about.clone();
        self.ask(move |service| async move { Ok(vec![local(&service, &about)]) })
    }

    fn enable_node(&self, id: String, enabled: bool, _actor: String) -> Reply<NodeView> {
        Box::pin(async move {
            if id != LOCAL {
                return Err(LiveError::NotFound(format!("node {id}")));
            }
            let why = if enabled {
                "The local exit is in service already"
            } else {
                "The local exit is the only one: to take no new sessions, start a drain"
            };
            Err(LiveError::Conflict(why.to_owned()))
        })
    }

    fn usage_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report> {
        self.ask(move |service| reports::usage(service, span, format))
    }

    fn performance_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report> {
        self.ask(move |service| async move { reports::performance(&service, span, format) })
    }

    fn start_drain(&self, deadline: Timestamp, actor: String) -> Reply<DrainView> {
        self.ask(move |service| async move {
            let drain = service.start_drain(deadline).await?;
            let detail = json!({ "deadline": deadline.to_string() });
            service.note_action(actor, "drain.start", LOCAL, detail).await;
            Ok(drain_view(&service, drain))
        })
    }

    fn stop_drain(&self, actor: String) -> Reply<DrainView> {
        self.ask(move |service| async move {
            let drain = service.stop_drain().await?;
            service.note_action(actor, "drain.stop", LOCAL, json!({})).await;
            Ok(drain_view(&service, drain))
        })
    }

    fn drain(&self) -> Reply<DrainView> {
        self.ask(|service| async move { Ok(drain_view(&service, service.drain())) })
    }
}

fn status(service: &Service, max_clients: u64, api: Vec<DoorView>) -> StatusView {
    let snapshot = service.desk().snapshot();
    let total = snapshot.total();
    let count = |name: &str| snapshot.number(&total, name);
    let about = &snapshot.about;
    let draining = service.drain().since.is_some();
    StatusView {
        version: about.version.to_owned(),
        interface: about.interface.clone(),
        state: if draining { "draining" } else { "running" }.to_owned(),
        started_at: service.begun(),
        uptime_s: about.uptime_s,
        public_key: about.public_key.clone().unwrap_or_default(),
        listen_port: about.listen_port,
        cores: snapshot.cores.len() as u32,
        sessions: count("sessions"),
        peers: about.peers_configured,
        max_clients,
        bytes_received: count("to_exit_bytes"),
        bytes_sent: count("to_client_bytes"),
        api,
    }
}

async fn health(service: &Service, trouble: Option<String>) -> HealthView {
    let pulse = tokio::time::timeout(PULSE_TIMEOUT, service.desk().cores_answer()).await;
    let cores = pulse == Ok(true);
    let store = service.store().health();
    let (loaded, stuck) = (service.is_loaded(), service.with_outbox(super::Outbox::len));
    let store_why = || match store.last_error {
        Some(why) => why,
        None if !loaded => "what it has is not known yet".to_owned(),
        None => format!("{stuck} entries wait for it"),
    };
    let store_up = store.is_up && loaded;
    let parts = vec![
        part("control", true, None),
        part("cores", cores, Some("a core does not answer".to_owned())),
        part("store", store_up, (!store_up).then(store_why)),
        part("api", trouble.is_none(), trouble),
    ];
    // Traffic is carried without a store, and with closed doors of the API.
    HealthView { healthy: cores, parts }
}

fn part(name: &str, healthy: bool, why: Option<String>) -> HealthPart {
    HealthPart { name: name.to_owned(), healthy, why: why.filter(|_| !healthy) }
}

fn local(service: &Service, about: &About) -> NodeView {
    let sessions = service.with_projection(|projection| projection.sessions().len());
    let draining = service.drain().since.is_some();
    NodeView {
        id: LOCAL.to_owned(),
        kind: LOCAL.to_owned(),
        status: if draining { "draining" } else { "healthy" }.to_owned(),
        sessions: sessions as u64,
        load: (sessions as f64 / about.max_clients.max(1) as f64).min(1.0),
        addresses: about.exit_addresses.clone(),
        last_seen: Some(service.now().wall),
    }
}

fn drain_view(service: &Service, drain: Drain) -> DrainView {
    let user = |session: &Session| match session.owner {
        Some((user, _)) => service.name_of(user, None),
        None => service.name_of_session(session),
    };
    let row = |session: &Session| DrainSession {
        id: session.id,
        user: user(session),
        why: sessions::state(session, false, service.now()).1.to_owned(),
    };
    let (left, listed) = service.with_projection(|projection| {
        let listed: Vec<Session> =
            projection.sessions().after(None).take(LISTED_MAX).cloned().collect();
        (projection.sessions().len() as u64, listed)
    });
    DrainView {
        draining: drain.since.is_some(),
        started_at: drain.since,
        deadline: drain.deadline,
        left,
        sessions: listed.iter().map(row).collect(),
    }
}
