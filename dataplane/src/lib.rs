//! One core: the shard and the two directions.
//!
//! Read [`shard::Shard::turn`] first: it is the whole loop. A datagram of a client walks
//! [`classify`] → [`to_exit`] (by way of `opening` if it came alone) → [`transmit::inside`]; a
//! packet for a client walks [`to_client`] → [`transmit::outside`]. Handshakes wait in
//! [`handshake`] and are done after data; [`timers`] wakes tunnels; [`presence`] notes where peers
//! are; `fairness` is for a core that has too much to do; [`accounts`] limit and meter what peers
//! carry; what belongs to another core leaves by
//! [`crossing`]; [`apply`] takes control's [`command`]s, and `walk` goes on with those about many
//! peers; [`counters`] become a [`page`] in housekeeping. [`worker`] is the thread around it: the
//! only place that reads a clock; [`spin`] tells it when to sleep.
//!
//! A session belongs to exactly one core, so nothing here is locked, shared or `Send` but the
//! worker's start values.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod apply;
pub mod classify;
pub mod command;
pub mod counters;
pub mod crossing;
pub mod handshake;
pub mod index_table;
pub mod owner;
pub mod page;
pub mod path;
pub mod peers;
pub mod presence;
pub mod routes;
pub mod shard;
pub mod spin;
pub mod staging;
pub mod state;
pub mod steering;
pub mod timers;
pub mod to_client;
pub mod to_exit;
pub mod transmit;
pub mod worker;

mod fairness;
mod opening;
mod walk;

pub use command::{
    Command, Envelope, PeerChange, PeerPage, PeerStatus, Refusal, Report, SessionState,
};
pub use shard::Shard;
