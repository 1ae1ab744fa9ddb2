//! Where an inner address leads: to a peer of this core, or to the core that has the peer.
//!
//! One table answers both questions, so a look-up costs the same with one core and with many. A
//! peer of this core is authority for its prefixes: they change with the peer. What is said of
//! other cores comes from control, and gives way to a peer of our own that is given the prefix.

use ringway_proto::allowed_ips::AllowedIps;
use ringway_proto::{CoreId, PeerId};
use ringway_ring::Driver;

use crate::command::RouteChange;
use crate::shard::Shard;

/// Who takes what is sent to an inner address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// A peer of this core.
    Peer(PeerId),
    /// A peer of that core.
    Core(CoreId),
}

/// The allowed prefixes of all peers of all cores.
pub(crate) type Routes = AllowedIps<Route>;

impl<D: Driver> Shard<D> {
    /// Notes which other cores serve some prefixes.
    pub(crate) fn put_routes(&mut self, changes: &[RouteChange]) {
        for change in changes {
            if let Some(core) = change.core.filter(|core| *core != self.core) {
                self.allowed_ips.insert(change.net, Route::Core(core));
            } else if let Some(route @ Route::Core(_)) = self.allowed_ips.owner(change.net) {
                self.allowed_ips.remove(change.net, route);
            }
        }
    }
}
