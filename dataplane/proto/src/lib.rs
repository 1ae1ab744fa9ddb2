//! What bytes mean.
//!
//! Checked views of packets, the WireGuard protocol as a sans-IO state machine, segmentation and
//! coalescing of super-packets, and the one door to the cryptographic crates. Time and randomness
//! are arguments, so the same code runs on a core, in the simulated world and under a fuzzer.
//!
//! This crate must not know sockets, rings, threads, clocks or configuration.

#![forbid(unsafe_code)]

pub mod allowed_ips;
pub mod crypto;
pub mod drop_reason;
pub mod ids;
pub mod ip;
pub mod limits;
pub mod offload;
pub mod record;
pub mod time;
pub mod wireguard;

pub use drop_reason::DropReason;
pub use ids::{AccountId, CoreId, PeerId, ReceiverIndex};
pub use time::{Instant, Now, Stamp};
