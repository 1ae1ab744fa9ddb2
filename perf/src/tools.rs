//! The traffic tools, each one command: generators, request/response, the impaired relay, the two
//! checkers.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{setsockopt, sockopt};

use crate::crowd::{self, FleetArgs};
use ringway_perf::emulator::LinkConfig;
use ringway_perf::flood::{Generator, Part};
use ringway_perf::impair::Relay;
use ringway_perf::order::{self, OrderCheck};
use ringway_perf::rr::{self, Transport};
use ringway_perf::{inner, nonce};

#[derive(Subcommand)]
pub(crate) enum Tool {
    /// Shake hands with a gateway and flood it with sealed packets. The private key is in
    /// WG_PRIVATE_KEY.
    Flood(FloodArgs),
    /// Send UDP datagrams as fast as the kernel takes them.
    Blast(BlastArgs),
    /// Answer `rr`.
    RrServe {
        /// Address to answer on, TCP and UDP.
        at: SocketAddr,
    },
    /// Measure round trips of one byte, one at a time.
    Rr {
        /// Address of the server.
        at: SocketAddr,
        /// Datagrams instead of a TCP connection.
        #[arg(long)]
        udp: bool,
        /// Seconds.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Relay UDP through a bad link, made from a seed. SIGUSR1 gives each client a new port towards
    /// the server.
    Impair(ImpairArgs),
    /// Send numbered datagrams at a steady rate.
    OrderSend(OrderSendArgs),
    /// Receive numbered datagrams and judge their order when nothing came for a while.
    OrderReceive {
        /// Address to receive on.
        at: SocketAddr,
        /// Silence that ends the run, in milliseconds.
        #[arg(long, default_value_t = 2_000)]
        idle_ms: u64,
    },
    /// Be many clients that speak the real protocol, each from an address of 10.128.0.0/9, which
    /// has to be local ("ip route add local 10.128.0.0/9 dev lo") and routed back here.
    Fleet(FleetArgs),
    /// Look for nonces used twice in a capture (pcap, UDP segmentation switched off on the captured
    /// link).
    Nonces {
        /// The capture.
        capture: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct FloodArgs {
    /// Address of the gateway.
    #[arg(long)]
    to: SocketAddr,
    /// Public key of the gateway.
    #[arg(long)]
    gateway: String,
    /// Inner source.
    #[arg(long)]
    from_inner: SocketAddr,
    /// Inner destination.
    #[arg(long)]
    to_inner: SocketAddr,
    /// What to send in turn, by comma: bytes of the inner packet, IP header included, and how many
    /// of them share a send (1 to 64), such as "64x56,576x32,1360x8".
    #[arg(long, value_delimiter = ',', default_value = "1360x64")]
    mix: Vec<String>,
    /// Datagrams per second; as many as possible when absent.
    #[arg(long)]
    per_s: Option<u64>,
    /// Inner UDP without checksum.
    #[arg(long)]
    no_checksum: bool,
    /// Seconds; 0 sends nothing and keeps the socket open until it is ended.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Args)]
pub(crate) struct BlastArgs {
    /// Where to.
    to: SocketAddr,
    /// Bytes of the IP packet, headers included.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Datagrams per send; more than one leave as a train, which the link may have to split.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Args)]
pub(crate) struct ImpairArgs {
    /// Address clients send to.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the server.
    #[arg(long)]
    server: SocketAddr,
    /// The seed; the same seed and packets give the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets lost, in percent.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Packets delivered twice, in percent.
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// How much later the second copy comes, milliseconds.
    #[arg(long, default_value_t = 1)]
    duplicate_after: u64,
    /// Packets held back, in percent.
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// How long they are held back, milliseconds.
    #[arg(long, default_value_t = 5)]
    reorder_by: u64,
    /// Packets with one bit flipped, in percent.
    #[arg(long, default_value_t = 0.0)]
    corrupt: f64,
    /// One-way delay, milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Added to the delay: up to so many milliseconds.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// Megabits per second.
    #[arg(long)]
    rate: Option<f64>,
    /// Kilobytes that wait for the rate; 0 for no limit.
    #[arg(long, default_value_t = 256)]
    queue: u64,
    /// Larger IP packets vanish, bytes.
    #[arg(long)]
    mtu: Option<usize>,
}

#[derive(Args)]
pub(crate) struct OrderSendArgs {
    /// Where to.
    to: SocketAddr,
    /// Datagrams per second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Datagrams.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Bytes of payload.
    #[arg(long, default_value_t = 100)]
    size: usize,
}

impl Tool {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Flood(args) => flood(&args),
            Self::Blast(args) => blast(&args),
            Self::RrServe { at } => rr::serve(at),
            Self::Rr { at, udp, seconds } => round_trips(at, udp, seconds),
            Self::Impair(args) => impair(&args),
            Self::OrderSend(args) => order_send(&args),
            Self::OrderReceive { at, idle_ms } => order_receive(at, Duration::from_millis(idle_ms)),
            Self::Fleet(args) => crowd::run(&args),
            Self::Nonces { capture } => nonces(&capture),
        }
    }
}

fn flood(args: &FloodArgs) -> Result<()> {
    let private = std::env::var("WG_PRIVATE_KEY").context("WG_PRIVATE_KEY is not set")?;
    let mut generator = Generator::connect(&private, &args.gateway, args.to)?;
    println!("port {}", generator.local()?.port());
    if args.seconds == 0 {
        loop {
            std::thread::park();
        }
    }
    let packets = args.mix.iter().map(|words| {
        let (size, batch) = size_and_batch(words)?;
        let (from, to) = (args.from_inner, args.to_inner);
        Ok((inner::udp_packet(from, to, size, !args.no_checksum)?, batch))
    });
    let packets = packets.collect::<Result<Vec<_>>>()?;
    let parts: Vec<Part<'_>> =
        packets.iter().map(|(packet, batch)| Part { packet, batch: *batch }).collect();
    let sent = generator.flood(&parts, args.per_s, Duration::from_secs(args.seconds))?;
    println!("sent {sent}");
    Ok(())
}

/// Reads "1360x64".
fn size_and_batch(words: &str) -> Result<(usize, usize)> {
    let (size, batch) = words.split_once('x').with_context(|| format!("{words:?} is no SIZExN"))?;
    Ok((size.parse()?, batch.parse()?))
}

fn blast(args: &BlastArgs) -> Result<()> {
    let headers = if args.to.is_ipv4() { 28 } else { 48 };
    let payload_bytes = args.size.saturating_sub(headers).max(1);
    let payload = vec![0; payload_bytes * args.batch.clamp(1, 64)];
    let socket = UdpSocket::bind(if args.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(args.to)?;
    if payload.len() > payload_bytes {
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(payload_bytes)?)
            .context("The kernel knows no UDP_SEGMENT")?;
    }
    let each = (payload.len() / payload_bytes) as u64;
    let (start, period, mut sent) = (Instant::now(), Duration::from_secs(args.seconds), 0_u64);
    while start.elapsed() < period {
        for _ in 0..64 {
            // A refused datagram is a lost one: the receiver counts what arrived.
            sent += if socket.send(&payload).is_ok() { each } else { 0 };
        }
    }
    println!("sent {sent}");
    Ok(())
}

fn round_trips(at: SocketAddr, udp: bool, seconds: u64) -> Result<()> {
    let transport = if udp { Transport::Udp } else { Transport::Tcp };
    let trips = rr::ask(transport, at, Duration::from_secs(seconds))?;
    let at = |share| trips.percentile_us(share);
    println!(
        r#"{{"count":{},"p50_us":{:.1},"p90_us":{:.1},"p99_us":{:.1},"p999_us":{:.1}}}"#,
        trips.count(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

fn impair(args: &ImpairArgs) -> Result<()> {
    let rebind = on_signal(Signal::SIGUSR1)?;
    let listen = UdpSocket::bind(args.listen)
        .with_context(|| format!("Binding {} for clients", args.listen))?;
    let mut relay = Relay::new(listen, args.server, link_config(args)?, args.seed)?;
    println!("relaying {} to {}, seed {}", args.listen, args.server, args.seed);
    loop {
        relay.turn()?;
        if rebind.swap(false, Ordering::Relaxed) {
            relay.rebind()?;
            println!("rebound; so far {:?}", relay.counts());
        }
    }
}

/// A flag that the signal raises; must be called before other threads are started.
fn on_signal(signal: Signal) -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(signal);
    signals.thread_block()?;
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            raised.store(true, Ordering::Relaxed);
        }
    });
    Ok(flag)
}

fn link_config(args: &ImpairArgs) -> Result<LinkConfig> {
    let millis = Duration::from_millis;
    Ok(LinkConfig {
        loss: ppm(args.loss)?,
        duplicate: ppm(args.duplicate)?,
        duplicate_after: millis(args.duplicate_after),
        reorder: ppm(args.reorder)?,
        reorder_by: millis(args.reorder_by),
        corrupt: ppm(args.corrupt)?,
        delay: millis(args.delay),
        jitter: millis(args.jitter),
        rate_bps: args.rate.map(bits_per_second).transpose()?,
        queue_bytes: args.queue * 1_000,
        mtu_bytes: args.mtu,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked before"
)]
fn ppm(percent: f64) -> Result<u32> {
    ensure!((0.0..=100.0).contains(&percent), "{percent} is not a percentage");
    Ok((percent * 10_000.0).round() as u32)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked before"
)]
fn bits_per_second(megabits: f64) -> Result<u64> {
    ensure!((0.001..=1e6).contains(&megabits), "{megabits} Mbit/s is not between 0.001 and 10^6");
    Ok((megabits * 1e6).round() as u64)
}

fn order_send(args: &OrderSendArgs) -> Result<()> {
    let socket = UdpSocket::bind(if args.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(args.to)?;
    let mut datagram = vec![0; args.size.max(order::NUMBER_BYTES)];
    let start = Instant::now();
    for number in 0..args.count {
        let due = Duration::from_nanos(number.saturating_mul(1_000_000_000) / args.rate.max(1));
        if let Some(ahead) = due.checked_sub(start.elapsed()) {
            std::thread::sleep(ahead);
        }
        order::write_number(&mut datagram, number);
        let _ = socket.send(&datagram);
    }
    println!("sent {}", args.count);
    Ok(())
}

fn order_receive(at: SocketAddr, idle: Duration) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("Binding {at}"))?;
    let mut datagram = [0; 2_048];
    let mut check = OrderCheck::default();
    let (length, _) = socket.recv_from(&mut datagram)?; // waits for the first one
    let start = Instant::now();
    check_number(&mut check, &datagram[..length], start);
    socket.set_read_timeout(Some(idle))?;
    while let Ok((length, _)) = socket.recv_from(&mut datagram) {
        check_number(&mut check, &datagram[..length], start);
    }
    println!("{}", check.report());
    Ok(())
}

fn check_number(check: &mut OrderCheck, datagram: &[u8], start: Instant) {
    if let Some(number) = order::read_number(datagram) {
        check.see(number, start.elapsed());
    }
}

fn nonces(path: &PathBuf) -> Result<()> {
    let capture = fs::read(path).with_context(|| format!("Reading {}", path.display()))?;
    let report = nonce::check(&capture)?;
    println!(
        "{} messages, {} keys, {} duplicates, {} nonces used twice",
        report.messages,
        report.keys,
        report.duplicates,
        report.reused.len()
    );
    for (port, index, counter) in &report.reused {
        println!("USED TWICE: to port {port}, receiver index {index:#010x}, counter {counter}");
    }
    ensure!(report.reused.is_empty(), "A nonce was used twice");
    Ok(())
}
