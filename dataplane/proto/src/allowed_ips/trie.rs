//! Shorter prefixes: a binary trie in which a node stands for a whole common prefix.
//!
//! Nodes lie in one array and refer to each other by index. A node either has a value, or exactly
//! two children (the root always may have none). Bits are the high ones of 128, for both families.

use super::net::mask;

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node<V> {
    bits: u128,
    children: [u32; 2],
    value: Option<(u32, V)>,
    prefix: u8,
}

#[derive(Debug)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
}

impl<V: Copy> Trie<V> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NONE }
    }

    /// The owner of the longest prefix of `bits`.
    #[inline]
    pub(super) fn lookup(&self, bits: u128) -> Option<V> {
        let mut best = None;
        let mut next = self.root;
        while let Some(node) = self.nodes.get(next as usize) {
            if !node.holds(bits) {
                break;
            }
            if let Some((_, owner)) = node.value {
                best = Some(owner);
            }
            next = node.children[side(bits, node.prefix)];
        }
        best
    }

    /// The record and the owner of exactly this prefix.
    pub(super) fn get(&self, bits: u128, prefix: u8) -> Option<(u32, V)> {
        let mut next = self.root;
        while let Some(node) = self.nodes.get(next as usize) {
            if node.prefix >= prefix || !node.holds(bits) {
                return if node.is(bits, prefix) { node.value } else { None };
            }
            next = node.children[side(bits, node.prefix)];
        }
        None
    }

    pub(super) fn insert(&mut self, bits: u128, prefix: u8, value: (u32, V)) {
        let mut parent = None;
        let mut next = self.root;
        while let Some(node) = self.nodes.get(next as usize) {
            if node.prefix >= prefix || !node.holds(bits) {
                break;
            }
            parent = Some(next);
            next = node.children[side(bits, node.prefix)];
        }
        if self.nodes.get(next as usize).is_some_and(|node| node.is(bits, prefix)) {
            self.nodes[next as usize].value = Some(value);
            return;
        }
        let mut fresh = self.add(Node { bits, children: [NONE; 2], value: Some(value), prefix });
        if let Some(&node) = self.nodes.get(next as usize) {
            let common = ((node.bits ^ bits).leading_zeros() as u8).min(prefix).min(node.prefix);
            if common == prefix {
                self.nodes[fresh as usize].children[side(node.bits, prefix)] = next;
            } else {
                // Neither holds the other: a node without a value joins them.
                let mut children = [fresh; 2];
                children[side(node.bits, common)] = next;
                let bits = bits & mask(common);
                fresh = self.add(Node { bits, children, value: None, prefix: common });
            }
        }
        self.hang(parent, bits, fresh);
    }

    pub(super) fn remove(&mut self, bits: u128, prefix: u8) {
        let (mut above, mut parent) = (None, None);
        let mut next = self.root;
        while let Some(node) = self.nodes.get(next as usize) {
            if node.prefix >= prefix || !node.holds(bits) {
                break;
            }
            (above, parent) = (parent, Some(next));
            next = node.children[side(bits, node.prefix)];
        }
        if !self.nodes.get(next as usize).is_some_and(|node| node.is(bits, prefix)) {
            return;
        }
        self.nodes[next as usize].value = None;
        self.collapse(next, parent, bits);
        if let Some(parent) = parent {
            self.collapse(parent, above, bits);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<V>>() + self.free.capacity() * size_of::<u32>()
    }

    /// Takes a node out if it has no reason to be: no value and fewer than two children.
    fn collapse(&mut self, index: u32, parent: Option<u32>, bits: u128) {
        let node = self.nodes[index as usize];
        let (None, [only, NONE] | [NONE, only]) = (node.value, node.children) else {
            return;
        };
        self.hang(parent, bits, only);
        self.free.push(index);
    }

    /// Makes `child` the child of `parent` on the side of `bits`, or the root.
    fn hang(&mut self, parent: Option<u32>, bits: u128, child: u32) {
        match parent {
            Some(parent) => {
                let node = &mut self.nodes[parent as usize];
                node.children[side(bits, node.prefix)] = child;
            }
            None => self.root = child,
        }
    }

    fn add(&mut self, node: Node<V>) -> u32 {
        if let Some(index) = self.free.pop() {
            self.nodes[index as usize] = node;
            return index;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 prefixes fit in memory")
    }
}

impl<V> Node<V> {
    #[inline]
    fn holds(&self, bits: u128) -> bool {
        (self.bits ^ bits) & mask(self.prefix) == 0
    }

    fn is(&self, bits: u128, prefix: u8) -> bool {
        self.prefix == prefix && self.bits == bits
    }
}

/// Which child of a node of `prefix` bits leads to `bits`. No node is as long as an address, so
/// there is a next bit.
#[inline]
fn side(bits: u128, prefix: u8) -> usize {
    (bits >> (127 - u32::from(prefix)) & 1) as usize
}
