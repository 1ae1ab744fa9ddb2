//! A one-way TCP relay on a bare ring: the io-uring crate, not our driver, which has no streams.
//!
//! The same loop as on the runtimes: one receive into a large buffer, sends until it is empty, the
//! next receive. What differs is only who waits for completions. It is here to say what a ring
//! without a runtime costs, before our driver has streams.

#![allow(unsafe_code, reason = "the ring takes addresses of memory")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Context as _;
use io_uring::{IoUring, opcode, squeue, types};

use super::relay::{ANY_PORT, BUFFER_BYTES};

/// Operations in flight: one per relay, and the accept.
const ENTRIES: u32 = 256;

const ACCEPT: u64 = u64::MAX;

/// Two connections and what is on its way between them; at most one operation is in flight.
struct Relay {
    from: TcpStream,
    to: TcpStream,
    buf: Vec<u8>,
    /// Received, and of that sent.
    filled: usize,
    sent: usize,
}

/// Serves; `ready` gets the port. Everything goes to `destination`.
///
/// # Errors
/// If there is no ring, or it breaks.
pub(super) fn serve(destination: SocketAddr, ready: fn(u16)) -> anyhow::Result<()> {
    let listener = TcpListener::bind(ANY_PORT)?;
    ready(listener.local_addr()?.port());
    // Never shortened: an index names its relay as long as the ring lives. Declared before the
    // ring, so that their memory outlives it.
    let mut relays: Vec<Option<Relay>> = Vec::new();
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    let mut ring = builder.build(ENTRIES).context("No ring of this kind")?;
    let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build();
    push(&mut ring, &accept.user_data(ACCEPT))?;
    loop {
        ring.submit_and_wait(1)?;
        let done: Vec<(u64, i32)> =
            ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (who, result) in done {
            if who == ACCEPT {
                relays.push(Some(begin(result, destination)?));
                let index = relays.len() - 1;
                submit(&mut ring, &mut relays[index], index)?;
                continue;
            }
            let index = who as usize;
            advance(&mut relays[index], result);
            submit(&mut ring, &mut relays[index], index)?;
        }
    }
}

fn begin(accepted: i32, destination: SocketAddr) -> anyhow::Result<Relay> {
    anyhow::ensure!(accepted >= 0, "accept: {}", std::io::Error::from_raw_os_error(-accepted));
    // SAFETY: the kernel gave this descriptor to us with the completion, and to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(accepted) };
    let to = TcpStream::connect(destination)?;
    Ok(Relay { from: fd.into(), to, buf: vec![0; BUFFER_BYTES], filled: 0, sent: 0 })
}

/// Takes note of a completion; a relay whose connection ended is closed.
fn advance(relay: &mut Option<Relay>, result: i32) {
    let Some(open) = relay else { return };
    let Ok(count @ 1..) = usize::try_from(result) else {
        *relay = None;
        return;
    };
    if open.sent < open.filled {
        open.sent += count;
    } else {
        (open.filled, open.sent) = (count, 0);
    }
}

/// Asks for what comes next of a relay: the rest of the buffer out, or the next bytes in.
fn submit(ring: &mut IoUring, relay: &mut Option<Relay>, index: usize) -> anyhow::Result<()> {
    let Some(Relay { from, to, buf, filled, sent }) = relay else { return Ok(()) };
    let entry = if sent < filled {
        let rest = &buf[*sent..*filled];
        opcode::Send::new(types::Fd(to.as_raw_fd()), rest.as_ptr(), rest.len() as u32).build()
    } else {
        let fd = types::Fd(from.as_raw_fd());
        opcode::Recv::new(fd, buf.as_mut_ptr(), buf.len() as u32).build()
    };
    push(ring, &entry.user_data(index as u64))
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> anyhow::Result<()> {
    // SAFETY: the buffer of the entry is the heap memory of a `Relay`, which is freed only in
    // `advance`, after the completion of its one operation, or after the ring; the listener
    // outlives the ring.
    let pushed = unsafe { ring.submission().push(entry) };
    if pushed.is_ok() {
        return Ok(());
    }
    ring.submit()?;
    // SAFETY: as above.
    unsafe { ring.submission().push(entry) }.context("The ring is full")
}
