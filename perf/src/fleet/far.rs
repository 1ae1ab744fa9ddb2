//! The far end of a fleet's datagrams: a destination that judges each flow's order, sends back what
//! asks for it, and can send numbered datagrams by itself.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};

use super::grounds::{hurry_this_thread, pin_this_thread};
use super::wire::segment_bytes;
use crate::netns::Netns;
use crate::order::{OrderCheck, OrderReport};

/// Bytes of the inner IP and UDP headers.
pub(super) const HEADERS_BYTES: usize = 28;

/// What may wait while the far end computes.
const BUFFER_BYTES: usize = 64 << 20;

/// The head of a numbered datagram's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its number within the flow.
    pub number: u64,
    /// Which flow: the client's number.
    pub flow: u32,
    /// Whether the far end is to send it back.
    pub echo: bool,
    /// When it was sent, on the sender's clock; 0 where nobody measures.
    pub sent_ns: u64,
}

impl Mark {
    /// Bytes of a mark.
    pub const BYTES: usize = 24;

    /// As it stands in a payload.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.flow.to_be_bytes());
        bytes[15] = self.echo.into();
        bytes[16..].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes
    }

    /// Reads it; `None` from a payload that is too short.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = payload.first_chunk()?;
        Some(Self {
            number: u64::from_be_bytes(*bytes.first_chunk()?),
            flow: u32::from_be_bytes(*bytes[8..].first_chunk()?),
            echo: bytes[15] != 0,
            sent_ns: u64::from_be_bytes(*bytes[16..].first_chunk()?),
        })
    }
}

/// What a destination saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// All flows together.
    pub report: OrderReport,
    /// When the last datagram of each flow came.
    pub last: BTreeMap<u32, Clock>,
}

/// A destination with a thread of its own; it ends with its owner.
#[derive(Debug)]
pub struct FarEnd {
    at: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

impl FarEnd {
    /// Listens on `at` in `netns`, on a thread bound to `cpu` if one is given.
    ///
    /// # Errors
    /// When the address is taken or a buffer cannot be enlarged.
    pub fn start(netns: &Netns, at: SocketAddrV4, cpu: Option<usize>) -> Result<Self> {
        Self::spawn(netns, at, cpu, false)
    }

    /// As [`FarEnd::start`], but goes before everything ordinary on its CPU, so that what passes
    /// through it measures the gateway and not this end.
    ///
    /// # Errors
    /// As [`FarEnd::start`].
    pub fn start_in_a_hurry(netns: &Netns, at: SocketAddrV4, cpu: Option<usize>) -> Result<Self> {
        Self::spawn(netns, at, cpu, true)
    }

    fn spawn(netns: &Netns, at: SocketAddrV4, cpu: Option<usize>, hurry: bool) -> Result<Self> {
        let socket = open(netns, at)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("far".to_owned()).spawn(move || {
            pin_this_thread(cpu)?;
            if hurry {
                hurry_this_thread();
            }
            judge(&socket, &flag)
        })?;
        Ok(Self { at, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn at(&self) -> SocketAddrV4 {
        self.at
    }

    /// Ends it and returns what it saw of all flows together.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(self) -> Result<OrderReport> {
        Ok(self.finish()?.report)
    }

    /// As [`FarEnd::stop`], with more of what it saw.
    ///
    /// # Errors
    /// What ended it before.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("The far end runs until it is stopped")?;
        thread.join().map_err(|_| anyhow!("The far end panicked"))?
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends numbered datagrams of `payload_bytes` from `from` in `netns` to each of `to` in turn, in
/// runs of `batch`, as fast as it goes or at `per_s`, for `period`. Returns how many were sent.
///
/// # Errors
/// When the kernel refuses to send.
pub fn blast(
    netns: &Netns,
    from: SocketAddrV4,
    to: &[SocketAddrV4],
    (payload_bytes, batch): (usize, usize),
    per_s: Option<u64>,
    period: Duration,
) -> Result<u64> {
    let socket = open(netns, from)?;
    let payload_bytes = payload_bytes.max(Mark::BYTES);
    let mut train = vec![0; payload_bytes * batch.max(1)];
    let mut next = vec![0_u64; to.len()];
    let (start, mut sent) = (Clock::now(), 0);
    while start.elapsed() < period {
        for (flow, address) in to.iter().enumerate() {
            for datagram in train.chunks_exact_mut(payload_bytes) {
                let mark = Mark { number: next[flow], flow: flow as u32, echo: false, sent_ns: 0 };
                next[flow] += 1;
                datagram[..Mark::BYTES].copy_from_slice(&mark.bytes());
            }
            send(&socket, &train, payload_bytes, *address)?;
            sent += (train.len() / payload_bytes) as u64;
            if let Some(per_s) = per_s {
                let due = Duration::from_nanos(sent.saturating_mul(1_000_000_000) / per_s.max(1));
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
    }
    Ok(sent)
}

fn open(netns: &Netns, at: SocketAddrV4) -> Result<UdpSocket> {
    let socket = netns
        .inside(|| UdpSocket::bind(at))?
        .with_context(|| format!("Binding the far end to {at}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("Enlarging a buffer")?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true).context("The kernel knows no UDP_GRO")?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(socket)
}

fn judge(socket: &UdpSocket, stop: &AtomicBool) -> Result<Seen> {
    // HashMap: nothing depends on the order of its entries.
    let mut flows: HashMap<u32, (OrderCheck, Clock)> = HashMap::new();
    let mut bytes = vec![0; 1 << 16];
    let start = Clock::now();
    loop {
        let received = match receive(socket, &mut bytes) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                continue;
            }
            Err(error) => return Err(error).context("Receiving at the far end"),
        };
        let (len, segment_bytes, from) = received;
        let at = start.elapsed();
        let mut echo = false;
        for payload in bytes[..len].chunks(segment_bytes.max(1)) {
            let Some(mark) = Mark::read(payload) else { continue };
            let (check, last) =
                flows.entry(mark.flow).or_insert_with(|| (OrderCheck::default(), start));
            check.see(mark.number, at);
            *last = start + at;
            echo |= mark.echo;
        }
        if let (true, Some(SocketAddr::V4(from))) = (echo, from) {
            send(socket, &bytes[..len], segment_bytes, from)?;
        }
    }
    let mut seen = Seen::default();
    flows.values().for_each(|(check, _)| seen.report.add(&check.report()));
    seen.last = flows.into_iter().map(|(flow, (_, last))| (flow, last)).collect();
    Ok(seen)
}

fn receive(
    socket: &UdpSocket,
    bytes: &mut [u8],
) -> nix::Result<(usize, usize, Option<SocketAddr>)> {
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [std::io::IoSliceMut::new(bytes)];
    let received = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let from = received.address.map(|from| {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from_bits(from.ip().to_bits()), from.port()))
    });
    let segment = received.cmsgs()?.find_map(segment_bytes);
    Ok((received.bytes, segment.unwrap_or(received.bytes), from))
}

fn send(socket: &UdpSocket, bytes: &[u8], segment_bytes: usize, to: SocketAddrV4) -> Result<()> {
    let segment = u16::try_from(segment_bytes)?;
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if bytes.len() > segment_bytes { &control[..] } else { &[] };
    let payload = [std::io::IoSlice::new(bytes)];
    let to = SockaddrIn::from(to);
    match sendmsg(socket.as_raw_fd(), &payload, control, MsgFlags::empty(), Some(&to)) {
        Ok(_)
        | Err(
            Errno::ENOBUFS
            | Errno::EAGAIN
            | Errno::EINTR
            | Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH,
        ) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("Sending to {to}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_mark_survives_the_payload() {
        let mark = Mark { number: 1 << 40, flow: 77, echo: true, sent_ns: 5 };
        let mut payload = vec![0; 30];
        payload[..Mark::BYTES].copy_from_slice(&mark.bytes());
        assert_eq!(Mark::read(&payload), Some(mark));
        assert_eq!(Mark::read(&payload[..20]), None);
        assert_eq!(crate::order::read_number(&payload), Some(1 << 40));
    }
}
