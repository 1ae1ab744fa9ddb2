//! The prefixes of one peer, in their order.
//!
//! Nearly every peer has one or two, and a tree takes memory for eleven with the first. So a few
//! are kept in a list without slack; many, of which a peer may have a hundred thousand, in a tree.
//! This file must not know peers.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};

use ringway_proto::allowed_ips::IpNet;

/// Prefixes in a list at most: as many as one step of a tree looks through.
const FEW_MAX: usize = 11;

/// A set of prefixes.
#[derive(Clone, Debug, Default)]
pub struct Nets(Kept);

#[derive(Clone, Debug)]
enum Kept {
    /// Ascending.
    Few(Box<[IpNet]>),
    #[expect(clippy::box_collection, reason = "two words for each peer instead of three")]
    Many(Box<BTreeSet<IpNet>>),
}

const _: () = assert!(size_of::<Nets>() == 2 * size_of::<usize>());

impl Default for Kept {
    fn default() -> Self {
        Self::Few(Box::default())
    }
}

impl Nets {
    /// Puts a prefix in; `false` if it was there.
    pub fn insert(&mut self, net: IpNet) -> bool {
        match &mut self.0 {
            Kept::Few(list) => match list.binary_search(&net) {
                Ok(_) => false,
                Err(_) if list.len() == FEW_MAX => {
                    self.0 = Kept::Many(Box::new(list.iter().copied().chain([net]).collect()));
                    true
                }
                Err(at) => {
                    let (before, after) = list.split_at(at);
                    *list = [before, &[net], after].concat().into_boxed_slice();
                    true
                }
            },
            Kept::Many(tree) => tree.insert(net),
        }
    }

    /// Takes a prefix out; `false` if it was not there.
    pub fn remove(&mut self, net: &IpNet) -> bool {
        match &mut self.0 {
            Kept::Few(list) => {
                let Ok(at) = list.binary_search(net) else { return false };
                *list = [&list[..at], &list[at + 1..]].concat().into_boxed_slice();
                true
            }
            Kept::Many(tree) => {
                let removed = tree.remove(net);
                // Well below the limit, so that one prefix that comes and goes costs little.
                if tree.len() <= FEW_MAX / 2 {
                    self.0 = Kept::Few(tree.iter().copied().collect());
                }
                removed
            }
        }
    }

    /// Whether the prefix is there.
    #[must_use]
    pub fn contains(&self, net: &IpNet) -> bool {
        match &self.0 {
            Kept::Few(list) => list.binary_search(net).is_ok(),
            Kept::Many(tree) => tree.contains(net),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Few(list) => list.len(),
            Kept::Many(tree) => tree.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.range(Bound::Unbounded)
    }

    /// Those from `from` on, ascending.
    pub fn range(&self, from: Bound<IpNet>) -> impl Iterator<Item = &IpNet> {
        let range = (from, Bound::Unbounded);
        let (few, many) = match &self.0 {
            Kept::Few(list) => (&list[..], None),
            Kept::Many(tree) => (&[][..], Some(tree.range(range))),
        };
        few.iter().filter(move |net| range.contains(*net)).chain(many.into_iter().flatten())
    }
}

impl FromIterator<IpNet> for Nets {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let mut all = Self::default();
        nets.into_iter().for_each(|net| {
            all.insert(net);
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_and_many_are_the_same_set_as_a_tree(
            steps in proptest::collection::vec((any::<bool>(), 0..40_u8), 1..200),
        ) {
            let mut nets = Nets::default();
            let mut tree = BTreeSet::new();
            for (insert, number) in steps {
                let net = IpNet::host([10, 0, 0, number].into());
                if insert {
                    prop_assert_eq!(nets.insert(net), tree.insert(net));
                } else {
                    prop_assert_eq!(nets.remove(&net), tree.remove(&net));
                }
                prop_assert_eq!(nets.contains(&net), insert);
                prop_assert!(nets.iter().eq(&tree));
                prop_assert_eq!((nets.len(), nets.is_empty()), (tree.len(), tree.is_empty()));
                let after = Bound::Excluded(net);
                prop_assert!(nets.range(after).eq(tree.range((after, Bound::Unbounded))));
            }
        }
    }
}
