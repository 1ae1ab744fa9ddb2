//! What parts of control say of themselves, beside what the cores count: plain numbers that
//! whoever runs those parts fills in.
//!
//! All of it is taken at one moment, with the snapshot of the cores. A part that does not run is
//! absent, and so are its families. Codes come from closed lists; names of people come from
//! outside. This module must not know how anything is written.

use super::latency::Latency;
use super::recent::Window;
use crate::access::sessions::State;
use crate::logs::writer::Counts;
use crate::store::ids::Timestamp;

/// A count for each code of a closed list.
pub type ByCode = Vec<(&'static str, u64)>;

/// Sessions and users with series of their own, at most: 10,000 cost a reader about 4 MB a scrape.
pub const SESSIONS_MAX: usize = 10_000;

/// A part of control that has something to say. Asked at every scrape, on the control thread, so it
/// must not wait for anything.
pub trait Source {
    /// Fills in what it knows.
    fn fill(&self, stats: &mut ServiceStats);
}

/// Everything beside the counters of the cores.
#[derive(Clone, Debug, Default)]
pub struct ServiceStats {
    /// When all of this was true.
    pub at: Option<Timestamp>,
    /// The last minute.
    pub window: Option<Window>,
    /// Who is connected.
    pub access: Option<Access>,
    /// Who signs in.
    pub sign_in: Option<SignIn>,
    /// Who uses the API.
    pub api: Option<Api>,
    /// How many doors of the API are in which state, by kind and state.
    pub doors: Vec<(&'static str, &'static str, u64)>,
    /// The records.
    pub store: Option<Store>,
    /// The log.
    pub logs: Counts,
    /// Where traffic leaves.
    pub nodes: Vec<Node>,
    /// Sessions that may have series of their own.
    pub live: Live,
}

/// Sessions, as access keeps them.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// By state, in the order of [`State::ALL`].
    pub by_state: [u64; State::ALL.len()],
    /// Users with a session.
    pub users: u64,
    /// Sessions that began, since the start.
    pub started: u64,
    /// Sessions that ended, by reason.
    pub ended: ByCode,
    /// Devices that may not connect now, by reason.
    pub kept_out: ByCode,
}

/// Sign-ins.
#[derive(Clone, Debug, Default)]
pub struct SignIn {
    /// Accepted, by method.
    pub accepted: ByCode,
    /// Refused, by reason.
    pub refused: ByCode,
    /// How long deciding took.
    pub latency: Latency,
    /// Waiting for their turn now.
    pub waiting: u64,
    /// Seconds until the first certificate or revocation list of each kind ends.
    pub certificate_ends_s: ByCode,
    /// What responders said about certificates; empty if nobody is asked.
    pub certificate_answers: ByCode,
    /// Sign-ins without a responder's word, if they are asked.
    pub certificates_unanswered: Option<u64>,
}

/// The API.
#[derive(Clone, Debug, Default)]
pub struct Api {
    /// Answers by status.
    pub answers: Vec<(u16, u64)>,
    /// Refusals by reason.
    pub refused: ByCode,
    /// How long answers took.
    pub latency: Latency,
}

/// The records.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// `sqlite` or `postgres`.
    pub engine: &'static str,
    /// Whether the last operation could be done.
    pub healthy: bool,
    /// Operations that wait now.
    pub waiting: u64,
    /// Operations done.
    pub done: u64,
    /// Operations that failed, by reason.
    pub failed: ByCode,
    /// How long operations took.
    pub latency: Latency,
}

/// An exit.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its load, 0 to 1; none is that of this gateway's cores.
    pub load: Option<f64>,
}

/// Sessions that live, and how many may be seen apart.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Sessions, and users, with series of their own; 0 for none, at most [`SESSIONS_MAX`].
    pub sessions_max: usize,
    /// All of them, or none if `sessions_max` is 0.
    pub sessions: Vec<LiveSession>,
}

/// What one session moved since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveSession {
    /// Its identifier.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// With which device.
    pub device: String,
    /// Inner bytes from the client.
    pub received: u64,
    /// Inner bytes to the client.
    pub sent: u64,
}
