//! What a shard needs from the world.
//!
//! Offloads are in the vocabulary: a received buffer has a stride (GRO), a train has a segment size
//! (GSO), a TUN packet has a virtio header. The shard never sees a system call. Output is reserve,
//! fill, commit: what is dropped without being committed is undone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ptr::NonNull;
use std::time::Duration;

use ringway_alloc::{Buf, Hold};

use crate::listen::UdpSockets;

/// Bytes of the virtio header in front of every TUN packet, both ways.
pub const VNET_HEADER_BYTES: usize = 10;

/// Bytes a TUN write can hold of its own: the virtio header and the headers of a packet, or a whole
/// ICMPv6 error (1,280).
pub const TUN_HEAD_BYTES: usize = 1344;

/// Pieces a TUN write can refer to: a full run of datagrams and one more.
pub const TUN_PIECES_MAX: usize = 65;

/// Explicit congestion notification bits of the outer header (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ecn(pub u8);

/// The local half of a path: the address a datagram came to and the interface it came in by. A
/// reply leaves from that address; by that interface only if the address is link-local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// Destination address of the datagram.
    pub address: IpAddr,
    /// Interface index, 0 if unknown.
    pub interface: u32,
}

/// One receive completion of a UDP socket: one datagram, or several of equal length that arrived
/// together.
#[derive(Debug)]
pub struct Outside {
    /// The bytes; datagrams begin at `start`.
    pub buf: Buf,
    /// Offset of the first datagram in `buf`.
    pub start: usize,
    /// Bytes of all datagrams together.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter. Equal to `len` for a single
    /// datagram.
    pub stride: usize,
    /// Who sent them.
    pub from: SocketAddr,
    /// Where they came to.
    pub to: Option<Local>,
    /// Congestion bits of the outer header.
    pub ecn: Ecn,
}

/// One packet (or super-packet) read from the TUN, virtio header included.
#[derive(Debug)]
pub struct Inside {
    /// The bytes; the virtio header begins at `start`, the IP header [`VNET_HEADER_BYTES`] later.
    pub buf: Buf,
    /// Offset of the virtio header.
    pub start: usize,
    /// Bytes of virtio header and packet together.
    pub len: usize,
}

/// What the world handed to the shard.
#[derive(Debug)]
pub enum Received {
    /// Datagrams from a UDP socket.
    Outside(Outside),
    /// A packet from the TUN.
    Inside(Inside),
}

/// Datagrams of equal size for one destination, sent with one operation (UDP_SEGMENT).
#[derive(Debug)]
pub struct Train {
    /// The bytes, beginning at offset 0. The driver keeps the buffer until the kernel is done with
    /// it.
    pub buf: Buf,
    /// Bytes of all datagrams together, at most 65,507.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment_bytes: usize,
    /// Where to.
    pub to: SocketAddr,
    /// Where from, if a packet of the peer told us; the kernel chooses otherwise.
    pub from: Option<Local>,
    /// Congestion bits of the outer header.
    pub ecn: Ecn,
    /// Differentiated services code point of the outer header, 0 to 63.
    pub dscp: u8,
}

/// A part of a received buffer that a TUN write refers to.
#[derive(Debug)]
pub struct Piece {
    /// Keeps the buffer alive until the write is done; `None` where the piece before it already
    /// does.
    pub hold: Option<Hold>,
    /// Number of the buffer in its arena.
    pub buffer: u32,
    /// First byte in the buffer.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

/// A write to the TUN under construction: own head bytes, then pieces of received buffers, in
/// order. It is one packet or one super-packet and leaves with one vectored write. Boxes circulate
/// between driver and shard: nothing is allocated.
#[derive(Debug)]
pub struct TunWrite {
    head: [u8; TUN_HEAD_BYTES],
    head_len: usize,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
    /// Address of the buffer that the last piece is in. Not its number: a core has several arenas.
    held: Option<NonNull<u8>>,
}

/// The write cannot take another piece; commit it and start the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl TunWrite {
    /// An empty write. Only drivers make these, at start.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self {
            head: [0; TUN_HEAD_BYTES],
            head_len: 0,
            pieces: Vec::with_capacity(TUN_PIECES_MAX),
            pieces_bytes: 0,
            held: None,
        })
    }

    /// The write's own bytes so far.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// The write's own bytes so far, to be patched before the commit.
    #[must_use]
    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.head[..self.head_len]
    }

    /// Appends own bytes. Only before the first piece.
    ///
    /// # Errors
    /// [`Full`] if the head has no room, or a piece was attached already.
    pub fn push_head(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.head_len + bytes.len();
        if end > TUN_HEAD_BYTES || !self.pieces.is_empty() {
            return Err(Full);
        }
        self.head[self.head_len..end].copy_from_slice(bytes);
        self.head_len = end;
        Ok(())
    }

    /// Appends `len` bytes of `buf` from `start`, by reference.
    ///
    /// # Errors
    /// [`Full`] if all pieces are used.
    ///
    /// # Panics
    /// If the range is not inside the buffer.
    pub fn attach(&mut self, buf: &Buf, start: usize, len: usize) -> Result<(), Full> {
        assert!(start <= buf.len());
        assert!(len <= buf.len() - start);
        if self.pieces.len() == TUN_PIECES_MAX {
            return Err(Full);
        }
        let base = NonNull::from(&buf[0]);
        let held = self.held.replace(base) == Some(base);
        self.pieces.push(Piece {
            hold: (!held).then(|| buf.hold()),
            buffer: buf.index(),
            start: start as u32,
            len: len as u32,
        });
        self.pieces_bytes += len;
        Ok(())
    }

    /// The attached pieces, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of head and pieces together, virtio header included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head_len + self.pieces_bytes
    }

    /// Whether nothing was put in yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of all buffers and bytes; for drivers, when the write is done.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.pieces_bytes = 0;
        self.held = None;
        self.head_len = 0;
    }
}

/// How long [`Driver::turn`] may wait when nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: there is still work to do.
    No,
    /// At most this long: a timer is due then.
    AtMost(Duration),
    /// Until something happens.
    Forever,
}

/// What a shard needs from the world.
///
/// One turn is: [`Driver::turn`] (submit what was committed, wait, collect completions), then
/// [`Driver::next`] until it is empty or the budget is spent, with reserves and commits in between.
/// Committed work leaves at the next `turn`.
pub trait Driver {
    /// Submits what was committed, waits as told if nothing has completed, and collects
    /// completions. Completions that free resources are processed here, before the shard sees those
    /// that need them.
    ///
    /// # Errors
    /// Only what makes going on impossible (the ring itself is broken). Failed operations are
    /// counted instead.
    fn turn(&mut self, wait: Wait) -> io::Result<()>;

    /// The next thing received, in order of arrival per socket.
    fn next(&mut self) -> Option<Received>;

    /// Reserves a transmit buffer of [`BUFFER_BYTES`](ringway_alloc::Arena::buffer_bytes); `None`
    /// when all are in flight.
    fn reserve_train(&mut self) -> Option<Buf>;

    /// Commits a train. Refused sends are counted by the driver.
    fn send(&mut self, train: Train);

    /// Trains to `to` do not arrive though single datagrams do, and nobody refused them: they go as
    /// single datagrams for a while. A driver that has no trains of the kernel's need not listen.
    fn suspect(&mut self, to: IpAddr) {
        let _ = to;
    }

    /// Reserves an empty TUN write; `None` when all are in flight.
    fn reserve_tun(&mut self) -> Option<Box<TunWrite>>;

    /// Commits a TUN write. Writes leave in the order of their commits.
    fn write_tun(&mut self, write: Box<TunWrite>);

    /// Gives an unused reservation back.
    fn cancel_tun(&mut self, write: Box<TunWrite>);

    /// Wipes what it no longer needs of those it received from and sent to. Called ten times a
    /// second, if at all; not on the packet path.
    fn forget(&mut self) {}

    /// Nobody is reached at `to` any more: what was learned of the way there is wiped.
    fn forget_path(&mut self, to: IpAddr) {
        let _ = to;
    }

    /// Stops receiving from sockets and TUN, or goes on. What came before is still handed out; what
    /// comes meanwhile waits in the kernel. Sends and writes go on, and new sockets are not
    /// received from.
    ///
    /// # Errors
    /// If the kernel does not let go in time, or the driver cannot do it.
    fn set_receiving(&mut self, on: bool) -> io::Result<()> {
        let _ = on;
        Err(io::Error::new(io::ErrorKind::Unsupported, "This driver cannot stop receiving"))
    }

    /// Receives and sends through these sockets from now on (`None`: through none), and returns the
    /// old ones, which nothing uses any more. Datagrams that were received before are still handed
    /// out. To open the same port again, set `None` first and drop what comes back.
    ///
    /// # Errors
    /// If the kernel refuses the new sockets or does not let go of the old ones.
    fn set_sockets(&mut self, sockets: Option<UdpSockets>) -> io::Result<Option<UdpSockets>>;
}
