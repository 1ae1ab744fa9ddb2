//! What the gateway says about itself: counters of all cores, per core and summed, and the live
//! sessions.
//!
//! Cores publish words into pages; [`snapshot`] reads them whole and knows what they mean from the
//! layout alone, so a counter that a core adds appears here by itself. [`text`], [`json`] and
//! [`openmetrics`] are three ways to write a snapshot, [`sessions`] writes peers. [`query`] is the
//! command language of the stats socket, [`serve`] speaks it, and [`client`] asks. Nothing here
//! changes anything but `reload`, which is handed on.

mod about;
pub mod cardinality;
pub mod client;
pub mod exposition;
pub mod families;
pub mod history;
pub mod json;
pub mod latency;
pub mod openmetrics;
pub mod query;
pub mod recent;
pub mod serve;
pub mod service;
pub mod sessions;
pub mod signals;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod strict;
pub mod text;

use std::path::PathBuf;

/// Folder of the stats sockets, one per interface.
pub const FOLDER: &str = "/run/ringway";

/// Where the stats socket of an interface is unless the operator says otherwise.
#[must_use]
pub fn socket_path(interface: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{interface}.stats"))
}
