//! What the kernel is told of prefixes and cores, so that a packet for a client is read by the core
//! that has the client.
//!
//! The map saves crossings and decides nothing: a prefix that it does not hold, because it is full
//! or because the kernel refused it, is served by handing over. So a refusal is counted and said
//! once, never an error, and tried again when a prefix goes.

use std::collections::BTreeMap;
use std::fmt;

use ringway_dataplane::command::RouteChange;
use ringway_proto::allowed_ips::IpNet;
use ringway_ring::TunQueue;
use ringway_ring::steer::{TunSteering, TunSteeringError};
use tracing::warn;

/// Prefixes of a family that the map may hold. The kernel allocates each as it comes; this bounds
/// what a mistake can make it hold, at about 100 bytes each.
pub const PREFIXES_MAX: u32 = 1 << 21;

/// Something that can be told where prefixes lead.
pub trait PrefixMap: fmt::Debug {
    /// Sends packets for the prefix to the core.
    ///
    /// # Errors
    /// Why not; nothing changed then.
    fn insert(&mut self, net: IpNet, core: u16) -> Result<(), TunSteeringError>;

    /// Forgets the prefix, which it may not know.
    ///
    /// # Errors
    /// Why not.
    fn remove(&mut self, net: IpNet) -> Result<(), TunSteeringError>;

    /// Steers the device of `queue` by this map, and by no other, from the next packet on.
    ///
    /// # Errors
    /// Why not.
    fn attach(&self, queue: &TunQueue) -> Result<(), TunSteeringError>;
}

impl PrefixMap for TunSteering {
    fn insert(&mut self, net: IpNet, core: u16) -> Result<(), TunSteeringError> {
        Self::insert(self, net.address(), net.prefix(), core)
    }

    fn remove(&mut self, net: IpNet) -> Result<(), TunSteeringError> {
        Self::remove(self, net.address(), net.prefix()).map(|_known| ())
    }

    fn attach(&self, queue: &TunQueue) -> Result<(), TunSteeringError> {
        self.attach_to(queue)
    }
}

/// The map, if there is one, and what it lacks.
#[derive(Debug)]
pub struct TunMap {
    map: Option<Box<dyn PrefixMap>>,
    /// Why there is none.
    absence: String,
    /// What the map should hold and does not.
    missing: BTreeMap<IpNet, u16>,
    refusals: u64,
}

impl TunMap {
    /// With this map, empty as yet.
    #[must_use]
    pub fn new(map: Box<dyn PrefixMap>) -> Self {
        Self { map: Some(map), absence: String::new(), missing: BTreeMap::new(), refusals: 0 }
    }

    /// Without one, and why.
    #[must_use]
    pub const fn absent(why: String) -> Self {
        Self { map: None, absence: why, missing: BTreeMap::new(), refusals: 0 }
    }

    /// Whether there is a map.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.map.is_some()
    }

    /// Why there is no map; empty if there is one.
    #[must_use]
    pub fn absence(&self) -> &str {
        &self.absence
    }

    /// Prefixes that are served by handing over because the map does not hold them.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// How often the kernel refused a change.
    #[must_use]
    pub const fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Steers by this map, which may have been filled before; without a map by none. Where the
    /// kernel refuses, what steered before goes on, and what it does not know is handed over.
    pub fn attach(&self, queue: &TunQueue) {
        let attached = match &self.map {
            Some(map) => map.attach(queue),
            None => TunSteering::detach(queue),
        };
        if let Err(error) = attached {
            warn!("{error}");
        }
    }

    /// Takes changes over.
    pub fn apply(&mut self, changes: &[RouteChange]) {
        let Some(map) = &mut self.map else { return };
        let complete = self.missing.is_empty();
        let mut refused = None;
        let mut freed = false;
        for change in changes {
            let done = match change.core {
                Some(core) => map.insert(change.net, core.0),
                None => map.remove(change.net),
            };
            match (done, change.core) {
                (Ok(()), core) => {
                    self.missing.remove(&change.net);
                    freed |= core.is_none();
                }
                (Err(error), core) => {
                    self.refusals += 1;
                    refused.get_or_insert(error);
                    // What could not be removed leads somewhere that hands over: no harm.
                    match core {
                        Some(core) => drop(self.missing.insert(change.net, core.0)),
                        None => drop(self.missing.remove(&change.net)),
                    }
                }
            }
        }
        if freed {
            self.try_again();
        }
        // Once for each time it became incomplete, not for each prefix.
        if let Some(error) = refused.filter(|_| complete) {
            warn!("{error}");
        }
    }

    /// There is room again, perhaps: until the first refusal.
    fn try_again(&mut self) {
        let Some(map) = &mut self.map else { return };
        while let Some((net, core)) = self.missing.pop_first() {
            if map.insert(net, core).is_err() {
                self.missing.insert(net, core);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use ringway_proto::CoreId;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A kernel with room for two prefixes.
    #[derive(Debug, Default)]
    struct Small(Rc<RefCell<BTreeMap<IpNet, u16>>>);

    impl PrefixMap for Small {
        fn insert(&mut self, net: IpNet, core: u16) -> Result<(), TunSteeringError> {
            let mut held = self.0.borrow_mut();
            if held.len() == 2 && !held.contains_key(&net) {
                let (address, len) = (net.address(), net.prefix());
                return Err(TunSteeringError::Full { address, len, prefixes_max: 2 });
            }
            held.insert(net, core);
            Ok(())
        }

        fn remove(&mut self, net: IpNet) -> Result<(), TunSteeringError> {
            self.0.borrow_mut().remove(&net);
            Ok(())
        }

        fn attach(&self, _queue: &TunQueue) -> Result<(), TunSteeringError> {
            Ok(())
        }
    }

    fn change(n: u8, core: Option<u16>) -> RouteChange {
        let net = format!("10.{n}.0.0/16").parse().unwrap();
        RouteChange { net, core: core.map(CoreId) }
    }

    #[test]
    fn what_the_kernel_has_no_room_for_is_counted_and_tried_again_when_there_is() {
        let held = Rc::default();
        let mut map = TunMap::new(Box::new(Small(Rc::clone(&held))));
        map.apply(&[change(1, Some(0)), change(2, Some(1)), change(3, Some(2))]);
        assert_eq!((map.missing(), map.refusals()), (1, 1));
        // A prefix that moves needs no room.
        map.apply(&[change(1, Some(3))]);
        assert_eq!((map.missing(), map.refusals()), (1, 1));
        // What goes while it is missing is not missed any more.
        map.apply(&[change(4, Some(0)), change(4, None)]);
        assert_eq!((map.missing(), map.refusals()), (1, 2));
        map.apply(&[change(2, None)]);
        assert_eq!(map.missing(), 0);
        let cores: Vec<u16> = held.borrow().values().copied().collect();
        assert_eq!(cores, [3, 2]);
    }

    #[test]
    fn without_a_map_nothing_is_missed() {
        let mut map = TunMap::absent("not wanted".into());
        map.apply(&[change(1, Some(0))]);
        assert!(!map.is_active() && map.absence() == "not wanted");
        assert_eq!((map.missing(), map.refusals()), (0, 0));
    }
}
