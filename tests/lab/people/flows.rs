//! Datagrams at a steady pace from one place to another, and how much of it arrives.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringway_perf::netns::Netns;
use ringway_perf::sink::roomy_receiver;

/// Bytes that IP and UDP add to a datagram (IPv4).
pub(crate) const HEADERS: u64 = 28;

/// A stream of datagrams of one size; ends when dropped.
pub(crate) struct Flow {
    done: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    got: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    size: u64,
}

/// One end: a namespace and an address in it.
pub(crate) type End<'a> = (&'a Netns, SocketAddr);

impl Flow {
    /// Sends datagrams of `payload` bytes, `bits` of inner bits in a second with all headers.
    pub(crate) fn start(from: End<'_>, to: End<'_>, payload: usize, bits: u64) -> Self {
        let receiver = roomy_receiver(to.0, to.1).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let sender = from.0.inside(|| UdpSocket::bind(from.1)).unwrap().unwrap();
        sender.connect(to.1).unwrap();
        let (done, sent, got) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let size = payload as u64 + HEADERS;
        let receive = {
            let (done, got) = (Arc::clone(&done), Arc::clone(&got));
            move || count(&receiver, &done, &got)
        };
        let send = {
            let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
            move || pace(&sender, payload, bits, &done, &sent)
        };
        let threads = vec![thread::spawn(receive), thread::spawn(send)];
        Self { done, sent, got, threads, size }
    }

    /// Inner bytes that arrived so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.datagrams() * self.size
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.got.load(Ordering::Acquire)
    }

    /// Ends the sender, waits for what is on its way and says how many datagrams were sent and how
    /// many arrived.
    pub(crate) fn finish(mut self) -> (u64, u64) {
        self.end();
        (self.sent.load(Ordering::Acquire), self.datagrams())
    }

    fn end(&mut self) {
        self.done.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end();
    }
}

fn pace(socket: &UdpSocket, payload: usize, bits: u64, done: &AtomicBool, sent: &AtomicU64) {
    let (begun, datagram) = (Instant::now(), vec![0x5a; payload]);
    let ns_each = (payload as u64 + HEADERS) * 8 * 1_000_000_000 / bits;
    let mut number = 0_u64;
    let mut late = Duration::ZERO;
    while !done.load(Ordering::Acquire) {
        let due = Duration::from_nanos(number * ns_each) + late;
        let now = begun.elapsed();
        if let Some(early) = due.checked_sub(now) {
            thread::sleep(early);
        } else if now > due + Duration::from_millis(20) {
            // A machine that stood still does not make a burst.
            late += now - due;
        }
        if socket.send(&datagram).is_ok() {
            sent.fetch_add(1, Ordering::Release);
        }
        number += 1;
    }
}

/// Until the sender is done and nothing has come for a while.
fn count(socket: &UdpSocket, done: &AtomicBool, got: &AtomicU64) {
    let mut datagram = [0; 2_048];
    let mut silent = 0;
    while silent < 4 {
        match socket.recv(&mut datagram) {
            Ok(_) => {
                got.fetch_add(1, Ordering::Release);
                silent = 0;
            }
            Err(_) if done.load(Ordering::Acquire) => silent += 1,
            Err(_) => {}
        }
    }
}

/// Bits per second that all flows together carried while this long passed.
pub(crate) fn rate_over(flows: &[&Flow], time: Duration) -> f64 {
    let bytes = || flows.iter().map(|flow| flow.bytes()).sum::<u64>();
    let (begun, before) = (Instant::now(), bytes());
    thread::sleep(time);
    (bytes() - before) as f64 * 8.0 / begun.elapsed().as_secs_f64()
}
