//! The sockets of a fleet: one raw socket that sends from any address, and a few UDP sockets that
//! receive for all of them.
//!
//! A raw socket takes whole IP packets, so thousands of sources need one descriptor and one system
//! call per batch. GSO trains have to go through a UDP socket, with their source as control data;
//! the namespace holds the whole range of sources as local addresses ([`super::Grounds`]).

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag,
    SockProtocol, SockType, SockaddrIn, recvmsg, sendmmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;

/// Packets per system call.
const BATCH_MAX: usize = 64;

/// Bytes of the longest single datagram with its headers: a full Ethernet frame.
const SLOT_BYTES: usize = 1_500;

/// Bytes of IP and UDP headers.
pub(super) const HEADERS_BYTES: usize = 28;

/// What may wait in a socket while the fleet computes.
const BUFFER_BYTES: usize = 64 << 20;

pub(super) struct Wire {
    raw: OwnedFd,
    to: SocketAddrV4,
    sockets: Vec<UdpSocket>,
    /// Next socket to be read.
    turn: usize,
    slots: Vec<[u8; SLOT_BYTES]>,
    lens: Vec<usize>,
    spare: Option<Vec<u8>>,
    broken: Option<Errno>,
}

/// What arrived with one call: one datagram, or several that the kernel merged.
pub(super) struct Batch {
    bytes: Vec<u8>,
    len: usize,
    segment_bytes: usize,
}

impl Wire {
    /// Opens the sockets in the namespace of the calling thread; `ports` of them receive.
    pub(super) fn open(to: SocketAddrV4, ports: u32) -> Result<Self> {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
            .context("Sources of all kinds need a raw socket (CAP_NET_RAW)")?;
        setsockopt(&raw, sockopt::SndBufForce, &BUFFER_BYTES).context("Enlarging a buffer")?;
        let sockets = (0..ports.max(1)).map(|_| receiver()).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            raw,
            to,
            sockets,
            turn: 0,
            slots: vec![[0; SLOT_BYTES]; BATCH_MAX],
            lens: Vec::with_capacity(BATCH_MAX),
            spare: None,
            broken: None,
        })
    }

    /// The UDP port of a receiving socket.
    pub(super) fn port(&self, socket: usize) -> u16 {
        self.sockets[socket].local_addr().map_or(0, |address| address.port())
    }

    /// Where everything goes.
    pub(super) const fn to(&self) -> SocketAddrV4 {
        self.to
    }

    /// Makes the sockets so small, and trains so unwelcome, that each datagram that arrives unread
    /// is a drop of its own; returns their ports.
    pub(super) fn deafen(&mut self) -> Result<Vec<u16>> {
        for socket in &self.sockets {
            setsockopt(socket, sockopt::UdpGroSegment, &false)?;
            setsockopt(socket, sockopt::RcvBuf, &0).context("Shrinking a buffer")?;
        }
        Ok((0..self.sockets.len()).map(|socket| self.port(socket)).collect())
    }

    /// Queues one datagram.
    pub(super) fn push(&mut self, from: SocketAddrV4, payload: &[u8], tos: u8) {
        if self.lens.len() == BATCH_MAX {
            self.send_queued();
        }
        let slot = &mut self.slots[self.lens.len()];
        let len = HEADERS_BYTES + payload.len();
        let Some(room) = slot.get_mut(HEADERS_BYTES..len) else {
            self.broken = Some(Errno::EMSGSIZE);
            return;
        };
        room.copy_from_slice(payload);
        write_headers(slot, from, self.to, tos, payload.len());
        self.lens.push(len);
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.send_queued();
        self.broken.take().map_or(Ok(()), |error| Err(error).context("Sending"))
    }

    /// Sends datagrams of `segment_bytes` each (the last may be shorter) with one call.
    pub(super) fn train(
        &mut self,
        from: SocketAddrV4,
        bytes: &[u8],
        segment_bytes: usize,
    ) -> Result<()> {
        let socket = self
            .sockets
            .iter()
            .find(|socket| socket.local_addr().is_ok_and(|own| own.port() == from.port()))
            .context("A client sends from a port that is not ours")?;
        send_train(socket, *from.ip(), self.to, bytes, segment_bytes)
    }

    /// What waits in the sockets, one batch of one sender; `None` when all are empty.
    pub(super) fn receive(&mut self) -> Result<Option<Batch>> {
        let mut bytes = self.spare.take().unwrap_or_else(|| vec![0; 1 << 16]);
        for _ in 0..self.sockets.len() {
            let socket = &self.sockets[self.turn];
            match receive_from(socket, &mut bytes) {
                Ok((len, segment_bytes)) => {
                    return Ok(Some(Batch { bytes, len, segment_bytes }));
                }
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(error) => return Err(error).context("Receiving"),
            }
            self.turn = (self.turn + 1) % self.sockets.len();
        }
        self.spare = Some(bytes);
        Ok(None)
    }

    /// Gives back the memory of a batch.
    pub(super) fn recycle(&mut self, batch: Batch) {
        self.spare = Some(batch.bytes);
    }

    /// Sleeps until something arrives, but no longer than `nap`.
    pub(super) fn wait(&self, nap: Duration) -> Result<()> {
        let mut fds: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, Some(TimeSpec::from_duration(nap)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("Waiting for datagrams"),
        }
    }

    fn send_queued(&mut self) {
        let count = self.lens.len();
        if count == 0 {
            return;
        }
        let slices: Vec<[IoSlice<'_>; 1]> = self
            .slots
            .iter()
            .zip(&self.lens)
            .map(|(slot, len)| [IoSlice::new(&slot[..*len])])
            .collect();
        let addresses = vec![Some(SockaddrIn::from(SocketAddrV4::new(*self.to.ip(), 0))); count];
        // Made anew: it holds pointers, which would bind the wire to its thread.
        let mut headers = MultiHeaders::preallocate(count, None);
        let mut sent = 0;
        while sent < count {
            let left = &slices[sent..];
            let fd = self.raw.as_raw_fd();
            let empty = MsgFlags::empty();
            match sendmmsg(fd, &mut headers, left, &addresses[sent..], [], empty) {
                Ok(results) => sent += results.count().max(1),
                // A full queue: the datagram is lost, as on any wire.
                Err(Errno::ENOBUFS | Errno::EAGAIN) => sent += 1,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        drop(slices);
        self.lens.clear();
    }
}

impl Batch {
    /// The datagrams in it.
    pub(super) fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes[..self.len].chunks_mut(self.segment_bytes.max(1))
    }
}

/// Sends a train from a UDP socket, out of any local address. A lost one is lost.
pub(super) fn send_train(
    socket: &UdpSocket,
    from: Ipv4Addr,
    to: SocketAddrV4,
    bytes: &[u8],
    segment_bytes: usize,
) -> Result<()> {
    let segment = u16::try_from(segment_bytes)?;
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let control =
        [ControlMessage::Ipv4PacketInfo(&source), ControlMessage::UdpGsoSegments(&segment)];
    let control = if bytes.len() > segment_bytes { &control[..] } else { &control[..1] };
    let to = SockaddrIn::from(to);
    let payload = [IoSlice::new(bytes)];
    match sendmsg(socket.as_raw_fd(), &payload, control, MsgFlags::empty(), Some(&to)) {
        Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("Sending a train from {from}")),
    }
}

/// Receives one batch: its length and that of its segments.
pub(super) fn receive_from(socket: &UdpSocket, bytes: &mut [u8]) -> nix::Result<(usize, usize)> {
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(bytes)];
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let segment = received.cmsgs()?.find_map(segment_bytes);
    Ok((received.bytes, segment.unwrap_or(received.bytes)))
}

/// The length of the segments that the kernel merged, if this is what it says.
pub(super) fn segment_bytes(message: ControlMessageOwned) -> Option<usize> {
    let ControlMessageOwned::UdpGroSegments(bytes) = message else { return None };
    usize::try_from(bytes).ok()
}

/// A roomy UDP socket that takes merged datagrams, on any port of any local address.
fn receiver() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("Enlarging a buffer")?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).context("Enlarging a buffer")?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true).context("The kernel knows no UDP_GRO")?;
    Ok(socket)
}

/// IPv4 and UDP headers; the kernel fills in identification and header checksum, and a UDP checksum
/// of zero means that there is none.
pub(super) fn write_headers(
    packet: &mut [u8],
    from: SocketAddrV4,
    to: SocketAddrV4,
    tos: u8,
    payload_bytes: usize,
) {
    let udp_bytes = (payload_bytes + 8) as u16;
    packet[..12].copy_from_slice(&[0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[2..4].copy_from_slice(&(udp_bytes + 20).to_be_bytes());
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..26].copy_from_slice(&udp_bytes.to_be_bytes());
    packet[26..28].fill(0);
}
