//! Request and response, one at a time: the latency of the path when nothing else happens.
//!
//! One byte there, one byte back, as netperf's TCP_RR and UDP_RR do it; every round trip is kept,
//! so the percentiles are exact.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// What carries the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP connection without Nagle's delay.
    Tcp,
    /// Datagrams; a lost one is asked again after 200 ms and does not count.
    Udp,
}

impl Transport {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Round trips of a run.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    sorted: Vec<Duration>,
}

impl RoundTrips {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(mut trips: Vec<Duration>) -> Option<Self> {
        trips.sort_unstable();
        (!trips.is_empty()).then_some(Self { sorted: trips })
    }

    /// The round trip that a share of them (0 to 1) does not exceed, in microseconds.
    #[must_use]
    pub fn percentile_us(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below the length, which is far below 2^52"
        )]
        let index = ((self.sorted.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        self.sorted[index].as_secs_f64() * 1e6
    }

    /// How many there were.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.sorted.len()
    }
}

/// Answers forever on `at`, both transports. Prints nothing; to be ended by its owner.
///
/// # Errors
/// When the address is taken.
pub fn serve(at: SocketAddr) -> Result<()> {
    let udp = UdpSocket::bind(at).with_context(|| format!("Binding UDP {at}"))?;
    let tcp = TcpListener::bind(at).with_context(|| format!("Binding TCP {at}"))?;
    std::thread::spawn(move || {
        let mut byte = [0; 16];
        loop {
            // A refused answer is the asker's loss; it asks again.
            if let Ok((length, from)) = udp.recv_from(&mut byte) {
                let _ = udp.send_to(&byte[..length], from);
            }
        }
    });
    loop {
        let (stream, _) = tcp.accept()?;
        std::thread::spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Asks for `period` after a warm-up of a tenth of it.
///
/// # Errors
/// When the server does not answer at all.
pub fn ask(transport: Transport, at: SocketAddr, period: Duration) -> Result<RoundTrips> {
    let mut sorted = match transport {
        Transport::Tcp => ask_tcp(at, period),
        Transport::Udp => ask_udp(at, period),
    }?;
    ensure!(!sorted.is_empty(), "No answer from {at}");
    sorted.sort_unstable();
    Ok(RoundTrips { sorted })
}

fn ask_tcp(at: SocketAddr, period: Duration) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))
        .with_context(|| format!("Connecting to {at}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    collect(period, || {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        Ok(true)
    })
}

fn ask_udp(at: SocketAddr, period: Duration) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut serial: u64 = 0;
    collect(period, || {
        serial += 1;
        socket.send(&serial.to_be_bytes())?;
        let mut answer = [0; 16];
        // An answer to an earlier question that was given up is passed over.
        while let Ok(length) = socket.recv(&mut answer) {
            if answer[..length] == serial.to_be_bytes() {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

fn collect(period: Duration, mut trip: impl FnMut() -> Result<bool>) -> Result<Vec<Duration>> {
    let (begin, warm_up) = (Instant::now(), period / 10);
    let mut trips = Vec::new();
    // At least one, so that a period of zero asks whether anyone answers.
    loop {
        let start = Instant::now();
        if trip()? && begin.elapsed() > warm_up {
            trips.push(start.elapsed());
        }
        if begin.elapsed() >= period + warm_up {
            break;
        }
    }
    Ok(trips)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_trips() {
        let trips = RoundTrips { sorted: (1..=101).map(Duration::from_micros).collect() };
        assert!((trips.percentile_us(0.5) - 51.0).abs() < 1e-9);
        assert!((trips.percentile_us(0.99) - 100.0).abs() < 1e-9);
        assert!((trips.percentile_us(1.0) - 101.0).abs() < 1e-9);
    }

    #[test]
    fn both_transports_are_answered() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || serve(free));
        for transport in [Transport::Udp, Transport::Tcp] {
            let up = || ask(transport, free, Duration::from_millis(20)).ok();
            let trips = crate::wait::wait_until("an answer", Duration::from_secs(5), up).unwrap();
            assert!(trips.count() > 0);
        }
    }
}
