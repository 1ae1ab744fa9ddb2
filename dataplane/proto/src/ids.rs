//! Identifiers. An index, a count and a size are never the same type.

/// A core (shard) of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub u16);

/// A peer in the slab of its shard: slot and generation, so that an id which outlived its peer
/// finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId {
    /// Slot in the slab.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// The 32-bit number we chose for a keypair or a handshake; found in packets sent to us (whitepaper
/// section 5.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverIndex(pub u32);

/// What limits and meters some peers of any core. Chosen by control, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u32);
