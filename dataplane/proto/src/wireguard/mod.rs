//! WireGuard, both roles, as sans-IO state machines (whitepaper of 2020-06-01; section numbers
//! below refer to it).
//!
//! The walk of a datagram: [`messages::classify`] → for an initiation or a response
//! [`cookie::CookieChecker`], under load also [`limiter::HandshakeLimiter`] →
//! [`noise::OpenedInitiation`] (any core) → [`tunnel::Tunnel`] (the owner only). Data goes straight
//! to [`tunnel::Tunnel::open_run`]. What a tunnel wants to say comes from
//! [`tunnel::Tunnel::poll_transmit`]; when it wants to be woken, from
//! [`tunnel::Tunnel::poll_timeout`].
//!
//! Nothing here knows addresses of peers (except as input of the cookie), sockets, allowed IPs, or
//! reads a clock.

pub mod admission;
pub mod cookie;
pub mod export;
pub mod identity;
pub mod limiter;
pub mod load;
pub mod messages;
pub mod noise;
pub mod tunnel;

mod batch;
mod data;
mod handshake;
mod keypair;
mod replay;
mod steering;
mod timers;

#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmissionLimits, HalfOpen};
pub use batch::{open_batch, seal_batch};
pub use cookie::CookieChecker;
pub use data::{Datagram, Outcome, Plain, RunSummary, SendState};
pub use export::TunnelState;
pub use handshake::{INITIATION_INTERVAL_MIN, Outgoing, OutgoingKind};
pub use identity::Identity;
pub use keypair::{REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};
pub use limiter::{HandshakeLimiter, Source};
pub use load::{CROWDED_FROM, LoadGauge, UNDER_LOAD_FOR, UNDER_LOAD_FROM, WASTED_MIN};
pub use messages::{Message, classify};
pub use noise::{OpenedInitiation, Tai64n};
pub use replay::ReplayWindow;
pub use steering::{STEERING, Steered};
pub use timers::{
    KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_AFTER, REJECT_AFTER_TIME, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_JITTER, REKEY_ON_RECEIVE_AFTER, REKEY_TIMEOUT, RETRIES_MAX,
    ZERO_KEYS_AFTER,
};
pub use tunnel::{Cx, Indices, PeerConfig, TimeoutEvents, Tunnel, TunnelStats};
