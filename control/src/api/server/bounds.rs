//! How many connections there may be, and of whom. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// The bounds of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections by TCP in all. Each costs at most 100 KiB of buffers.
    pub connections: usize,
    /// Connections of one address (IPv4) or one /64 (IPv6). A browser opens six.
    pub per_source: usize,
    /// How long the head of a request, or the next one on the same connection, may take. Also for
    /// the handshake of TLS.
    pub head: Duration,
    /// How long a client may take nothing of an answer.
    pub stall: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            per_source: 32,
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            // A cookie, a token and what browsers say about themselves: 2 KiB.
            head_bytes: 16 << 10,
            headers: 64,
        }
    }
}

/// Who has how many connections.
#[derive(Debug)]
pub(super) struct Census<K> {
    by_source: BTreeMap<K, usize>,
    all: usize,
}

impl<K> Default for Census<K> {
    fn default() -> Self {
        Self { by_source: BTreeMap::new(), all: 0 }
    }
}

impl<K: Ord + Copy> Census<K> {
    /// Counts one more; false if there is no room for it.
    pub(super) fn enter(&mut self, source: K, bounds: &Bounds) -> bool {
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        if self.all >= bounds.connections || own >= bounds.per_source {
            return false;
        }
        self.all += 1;
        self.by_source.insert(source, own + 1);
        true
    }

    /// Counts one less.
    pub(super) fn leave(&mut self, source: K) {
        if let Some(own) = self.by_source.get_mut(&source) {
            self.all -= 1;
            *own -= 1;
            if *own == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_has_more_than_allowed_and_all_places_come_back(
            steps in prop::collection::vec((0u8..6, any::<bool>()), 0..300),
        ) {
            let bounds = Bounds { connections: 10, per_source: 3, ..Bounds::default() };
            let mut census = Census::default();
            let mut has = [0usize; 6];
            for (source, comes) in steps {
                let own = usize::from(source);
                if comes {
                    let room = has[own] < 3 && has.iter().sum::<usize>() < 10;
                    prop_assert_eq!(census.enter(source, &bounds), room);
                    has[own] += usize::from(room);
                } else if has[own] > 0 {
                    census.leave(source);
                    has[own] -= 1;
                }
                prop_assert_eq!(census.all, has.iter().sum::<usize>());
            }
            for (source, count) in has.iter().enumerate() {
                for _ in 0..*count {
                    census.leave(source as u8);
                }
            }
            prop_assert_eq!(census.all, 0);
            prop_assert!(census.by_source.is_empty());
        }
    }
}
