//! Who may be worked on at the same time: places, and the share that one guest may have of them.
//!
//! Whoever has no credentials must not be able to keep those out who have some, and no caller the
//! others; root on the Unix socket has places that nobody else can take, because it is who ends an
//! attack. This module must not know requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Places of one kind.
#[derive(Debug)]
pub(super) struct Places<K: Ord>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K: Ord> {
    all: usize,
    each: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    by_guest: BTreeMap<K, usize>,
    all: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<K: Ord> {
    of: Arc<Shared<K>>,
    guest: K,
}

impl<K: Ord + Clone> Places<K> {
    /// `all` places, of which one guest may have `each`.
    pub(super) fn new(all: usize, each: usize) -> Self {
        let taken = Mutex::new(Taken { by_guest: BTreeMap::new(), all: 0 });
        Self(Arc::new(Shared { all, each, taken }))
    }

    /// A place for `guest`; none if it has its share, or all are taken.
    pub(super) fn take(&self, guest: K) -> Option<Place<K>> {
        self.take_of(guest, self.0.each)
    }

    /// A place for `guest` that is many, such as a proxy: it may have all of them.
    pub(super) fn take_unshared(&self, guest: K) -> Option<Place<K>> {
        self.take_of(guest, self.0.all)
    }

    fn take_of(&self, guest: K, most: usize) -> Option<Place<K>> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_guest.get(&guest).copied().unwrap_or(0);
        if taken.all >= self.0.all || own >= most {
            return None;
        }
        taken.all += 1;
        taken.by_guest.insert(guest.clone(), own + 1);
        Some(Place { of: Arc::clone(&self.0), guest })
    }

    /// How many are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.all - self.0.taken.lock().unwrap().all
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        // Counting cannot be left half-made.
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_guest.get(&self.guest).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.by_guest.remove(&self.guest);
        } else if let Some(own) = taken.by_guest.get_mut(&self.guest) {
            *own = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_has_more_than_its_share_and_all_places_come_back(
            steps in prop::collection::vec((0u8..5, any::<bool>()), 0..200),
        ) {
            let places = Places::new(7, 3);
            let mut held: Vec<Place<u8>> = Vec::new();
            for (guest, comes) in steps {
                let own = held.iter().filter(|place| place.guest == guest).count();
                if comes {
                    let place = places.take(guest);
                    prop_assert_eq!(place.is_some(), own < 3 && held.len() < 7);
                    held.extend(place);
                } else if let Some(at) = held.iter().position(|place| place.guest == guest) {
                    held.swap_remove(at);
                }
                prop_assert_eq!(places.free(), 7 - held.len());
            }
            held.clear();
            prop_assert_eq!(places.free(), 7);
            prop_assert!(places.0.taken.lock().unwrap().by_guest.is_empty());
        }
    }

    #[test]
    fn a_guest_that_is_many_may_have_all() {
        let places = Places::new(5, 2);
        let held: Vec<_> = std::iter::from_fn(|| places.take_unshared('p')).collect();
        assert_eq!((held.len(), places.take('q').is_none()), (5, true));
    }
}
