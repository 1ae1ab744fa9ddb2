//! The simulated world: shards in one process, a seeded clock and network, clients that speak the
//! real protocol, and a model that says what should have arrived.
//!
//! Nothing here sleeps, and the same seed gives the same run.

pub mod client;
pub mod cluster;
pub mod driver;
pub mod gateway;
pub mod guest;
pub mod ledger;
pub mod model;
pub mod network;
pub mod packets;
pub mod pair;
pub mod scan;
pub mod scenario;
pub mod simulation;
