//! The buffers of one core, counted by who may hold them.

use std::io;

use ringway_alloc::Arena;

/// Bytes of every buffer: what the kernel writes in front of a datagram
/// ([`OUTSIDE_START`](crate::udp::OUTSIDE_START)), the largest datagram or packet (65,535 bytes and
/// a virtio header), rounded up to cache lines. Not a power of two on purpose: the first lines of
/// all buffers would compete for the same cache sets.
pub const BUFFER_BYTES: usize = 65_792;

/// How many buffers of each kind a core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSizes {
    /// Receive buffers of the UDP sockets.
    pub outside: u32,
    /// Receive buffers of the UDP sockets of the bank of initiations.
    pub initiations: u32,
    /// Receive buffers of the TUN.
    pub inside: u32,
    /// Transmit buffers.
    pub trains: u32,
    /// TUN writes.
    pub tun_writes: u32,
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self {
            outside: OUTSIDE_BUFFERS,
            initiations: INITIATION_BUFFERS,
            inside: INSIDE_BUFFERS,
            trains: TRAIN_BUFFERS,
            tun_writes: TUN_WRITES,
        }
    }
}

/// Receive buffers of the UDP sockets: 256, of which a quiet core touches a page or two each.
const OUTSIDE_BUFFERS: u32 = 64 // lent to the kernel: two sockets, 32 datagrams each per poll round
    + 64 // completed and waiting for the shard: one more round that came in while it worked
    + 64 // waiting on an overloaded core, because their session has had its share
    + 64; // waiting to be opened together, then referred to by TUN writes of this turn, which end
// at the next submission

/// Receive buffers of the bank of initiations: few, because what waits longer does so in the
/// sockets' own buffers, and a flood is to be dropped there.
const INITIATION_BUFFERS: u32 = 8 // lent to the kernel: two sockets, a few datagrams each
    + 8; // completed and waiting for the shard

/// Receive buffers of the TUN.
const INSIDE_BUFFERS: u32 = 64 // lent to the kernel: one poll round of single packets, twice
    + 64 // waiting on an overloaded core, because their session has had its share
    + 64; // completed and waiting for the shard

/// Transmit buffers.
const TRAIN_BUFFERS: u32 = 128 // trains of one turn: 64 packets read, each overflowing one train
    + 64 // answers of one turn: handshakes, cookies, keepalives, rekeys
    + 64; // in flight while a socket's queue is full

/// TUN writes.
const TUN_WRITES: u32 = 128 // one turn of datagrams that cannot be coalesced
    + 64; // in flight: writes end inline, so this is only the previous turn's rest

/// The arenas of one core.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Receive buffers of the UDP sockets.
    pub outside: Arena,
    /// Receive buffers of the bank of initiations.
    pub initiations: Arena,
    /// Receive buffers of the TUN.
    pub inside: Arena,
    /// Transmit buffers.
    pub trains: Arena,
    /// How many TUN writes circulate.
    pub tun_writes: u32,
}

impl Pools {
    /// Maps the arenas. For memory on a chosen node, build the fields from regions on it instead;
    /// buffers must have [`BUFFER_BYTES`].
    ///
    /// # Errors
    /// What mapping says, usually out of memory.
    pub fn new(sizes: PoolSizes) -> io::Result<Self> {
        Ok(Self {
            outside: Arena::with_capacity(sizes.outside, BUFFER_BYTES)?,
            initiations: Arena::with_capacity(sizes.initiations, BUFFER_BYTES)?,
            inside: Arena::with_capacity(sizes.inside, BUFFER_BYTES)?,
            trains: Arena::with_capacity(sizes.trains, BUFFER_BYTES)?,
            tun_writes: sizes.tun_writes,
        })
    }
}
