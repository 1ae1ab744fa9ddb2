//! The running gateway as the API sees it.
//!
//! The API has a thread of its own; [`Live`] is the door to the control thread, and whoever
//! implements it bounds what may wait there. The views are what the API shows: field names of the
//! session record and of the endpoints are a contract, others may be added. This module must not
//! know HTTP.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::doors::DoorView;
use super::paged::Paged;
use super::sign_in::Later;
use crate::store::ids::{DeviceId, Timestamp, UserId};

/// Why the running gateway did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// It does not exist (any more): "session 17".
    #[error("There is no {0}")]
    NotFound(String),
    /// It does not fit the present state, with the reason.
    #[error("{0}")]
    Conflict(String),
    /// The control thread does not answer, or has too much to do.
    #[error("The gateway does not answer now ({0}); try again")]
    Unavailable(String),
    /// A value cannot be used: JSON pointer or `?name`, and what is wrong.
    #[error("{1}")]
    Invalid(String, String),
    /// Something failed; for the log, not for clients.
    #[error("{0}")]
    Failed(String),
}

/// What a call to the running gateway gives back.
pub type Reply<T> = Later<Result<T, LiveError>>;

/// The running gateway.
pub trait Live: Send + Sync {
    /// Version, uptime, interface, cores, sessions, exits in a few numbers.
    fn status(&self) -> Reply<StatusView>;

    /// Whether traffic can be served, part by part.
    fn health(&self) -> Reply<HealthView>;

    /// All metrics as OpenMetrics text, with the end mark.
    fn metrics(&self) -> Reply<String>;

    /// Live sessions, in an order that stays while they live.
    fn sessions(&self, filter: SessionFilter, page: LivePage) -> Reply<Paged<SessionView>>;

    /// Ends a session. `reason` goes to the log and the event.
    fn end_session(&self, id: u64, reason: Option<String>, actor: String) -> Reply<()>;

    /// Exits: the local one, and later others.
    fn nodes(&self) -> Reply<Vec<NodeView>>;

    /// Takes an exit out of service (`false`) or back in (`true`). [`LiveError::Conflict`] if it is
    /// so already or is the last one.
    fn enable_node(&self, id: String, enabled: bool, actor: String) -> Reply<NodeView>;

    /// Usage in a time, by user.
    fn usage_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report>;

    /// Speed, latency and refusals in a time.
    fn performance_report(&self, span: ReportSpan, format: ReportFormat) -> Reply<Report>;

    /// Takes no new sessions from now on; those left at `deadline` end.
    fn start_drain(&self, deadline: Timestamp, actor: String) -> Reply<DrainView>;

    /// Takes new sessions again.
    fn stop_drain(&self, actor: String) -> Reply<DrainView>;

    /// Who is left, and why.
    fn drain(&self) -> Reply<DrainView>;
}

/// `GET /api/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Version of the program.
    pub version: String,
    /// The interface it serves.
    pub interface: String,
    /// `running` or `draining`.
    pub state: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Seconds since then.
    pub uptime_s: u64,
    /// The gateway's public key.
    pub public_key: String,
    /// UDP port of WireGuard.
    pub listen_port: u16,
    /// Cores that carry traffic.
    pub cores: u32,
    /// Live sessions.
    pub sessions: u64,
    /// Peers that may connect.
    pub peers: u64,
    /// Most sessions at the same time.
    pub max_clients: u64,
    /// Inner bytes from clients since the start.
    pub bytes_received: u64,
    /// Inner bytes to clients since the start.
    pub bytes_sent: u64,
    /// Where the API answers, and where it does not and why.
    #[serde(default)]
    pub api: Vec<DoorView>,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// Whether traffic can be served.
    pub healthy: bool,
    /// What was looked at.
    pub parts: Vec<HealthPart>,
}

/// One part of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthPart {
    /// `cores`, `control`, `store`, `api`, …
    pub name: String,
    /// Whether it does its work.
    pub healthy: bool,
    /// What is wrong, shown to callers with a role only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// A live session. The first ten fields are the session record of the contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// Its number, as `DELETE /api/v1/sessions/{id}` takes it.
    pub id: u64,
    /// Name of the user; of the peer, for one from the configuration file.
    pub user: String,
    /// Where the client is; absent in no-log mode.
    #[schema(value_type = Option<String>)]
    pub client_ip: Option<IpAddr>,
    /// Where its traffic leaves.
    pub exit_node: String,
    /// Since when.
    pub connected_at: Timestamp,
    /// When a packet last came or went.
    pub last_activity: Timestamp,
    /// Inner bytes to the client.
    pub bytes_sent: u64,
    /// Inner bytes from the client.
    pub bytes_received: u64,
    /// What it is doing.
    pub status: SessionState,
    /// Inner addresses of the client.
    pub tunnel: Vec<String>,
    /// The user's identifier, unless it is a peer from the configuration file.
    pub user_id: Option<UserId>,
    /// The device's identifier, likewise.
    pub device_id: Option<DeviceId>,
    /// Name of the device.
    pub device: Option<String>,
    /// The client's public key.
    pub public_key: Option<String>,
    /// Port of the client.
    #[schema(value_type = Option<String>)]
    pub endpoint: Option<SocketAddr>,
    /// Since when it is in this state.
    pub state_since: Timestamp,
    /// `wireguard`.
    pub protocol: String,
    /// The core that owns it.
    pub core: u16,
    /// Largest inner packet that fits the path, if it was measured.
    pub path_mtu: Option<u16>,
    /// Bits per second from the client, over the last seconds.
    pub rate_up_bps: u64,
    /// Bits per second to the client, over the last seconds.
    pub rate_down_bps: u64,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// The handshake is not complete.
    Connecting,
    /// Packets come and go.
    Active,
    /// None did for a while.
    Idle,
    /// It must be gone by the deadline of the drain.
    Draining,
    /// It is ending.
    Ending,
}

/// Which sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Of this user, by name or identifier.
    pub user: Option<String>,
    /// Of this device, by name, identifier or public key.
    pub device: Option<String>,
    /// In this state.
    pub state: Option<SessionState>,
    /// From this address or prefix.
    pub source: Option<String>,
}

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePage {
    /// `next` of the page before.
    pub after: Option<String>,
    /// 1 to 1000.
    pub limit: u32,
}

/// An exit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub id: String,
    /// `local`, later `wireguard`, `socks5`, ….
    pub kind: String,
    /// `healthy`, `unhealthy`, `disabled` or `draining`.
    pub status: String,
    /// Sessions that leave there.
    pub sessions: u64,
    /// 0 to 1.
    pub load: f64,
    /// Addresses it leaves with.
    pub addresses: Vec<String>,
    /// When it was last seen to work.
    pub last_seen: Option<Timestamp>,
}

/// A time that a report is about: from `from`, before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportSpan {
    /// First moment.
    pub from: Timestamp,
    /// First moment after it.
    pub to: Timestamp,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    /// For programs.
    #[default]
    Json,
    /// For spreadsheets.
    Csv,
    /// For people.
    Html,
}

/// A report as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the format that was asked for.
    pub body: String,
}

/// A drain: no new sessions, and the old ones leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainView {
    /// Whether it goes on.
    pub draining: bool,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When those that are left end.
    pub deadline: Option<Timestamp>,
    /// How many are left.
    pub left: u64,
    /// Some of those that are left, and why; at most 1000.
    pub sessions: Vec<DrainSession>,
}

/// A session that has not left yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainSession {
    /// Its number.
    pub id: u64,
    /// Name of its user.
    pub user: String,
    /// Why it is still there: `active`, `idle`, ….
    pub why: String,
}
