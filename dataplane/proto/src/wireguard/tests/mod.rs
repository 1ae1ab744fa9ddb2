//! Two tunnels that talk to each other under a clock that the test turns, and what they must do.

#![allow(clippy::unwrap_used, reason = "tests")]

mod data;
mod export;
mod handshake;
mod hostile;
mod link;
mod pair;
mod session;
mod timers;
mod vectors;
