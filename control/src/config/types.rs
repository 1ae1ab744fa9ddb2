//! The checked configuration: whatever has one of these types is valid.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ringway_numa::CpuList;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use ringway_proto::wireguard::AdmissionLimits;

use super::fast_paths::FastPaths;
use super::problem::Problem;
pub(super) use super::service::{
    Api, ConnectionLog, Issuer, LogFormat, Metrics, Ocsp, Revocation, SignIn, StoreChoice,
};
use crate::harden;

/// A whole configuration, free of contradictions.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[interface]`.
    pub interface: Interface,
    /// `[exit]`.
    pub exit: Exit,
    /// `[clients]`.
    pub clients: Clients,
    /// `[limits]`.
    pub limits: Limits,
    /// `[workers]`, start-up flags applied.
    pub workers: Workers,
    /// `[memory]`.
    pub memory: Memory,
    /// `[stats]`.
    pub stats: Stats,
    /// `[store]`.
    pub store: StoreChoice,
    /// `[api]`.
    pub api: Api,
    /// `[sign_in]`.
    pub sign_in: SignIn,
    /// `[[issuer]]`, in the order of the file. Names are unique.
    pub issuers: Vec<Issuer>,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[security]`.
    pub security: harden::Settings,
    /// `[log]`.
    pub log: Log,
    /// `[[peer]]`, in the order of the file. Keys, names and prefixes are unique.
    pub peers: Vec<Peer>,
    /// What is allowed and yet probably not meant.
    pub warnings: Vec<Problem>,
    /// Where each option that is not at its default was set, by section and key.
    pub origins: BTreeMap<(&'static str, &'static str), Origin>,
}

/// Where a value comes from, if it is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file, from 1.
    Line(usize),
    /// The command line.
    Flag,
}

/// The gateway's own end of all tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name of the TUN interface, 1 to 15 bytes.
    pub name: String,
    /// UDP port, not 0.
    pub listen_port: u16,
    /// Where the private key is, or will be made.
    pub private_key_file: PathBuf,
    /// Largest inner packet in bytes, 576 to 9216 and at least 1280 with an IPv6 pool.
    pub mtu: u16,
    /// Inner IPv4 addresses of clients.
    pub pool4: Option<IpNet>,
    /// Inner IPv6 addresses of clients.
    pub pool6: Option<IpNet>,
    /// Inner addresses of the gateway; together their prefixes hold the pools.
    pub addresses: Vec<InterfaceAddress>,
    /// Mark of outer packets, 0 for none.
    pub fwmark: u32,
}

impl Interface {
    /// The pools, IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = IpNet> {
        self.pool4.into_iter().chain(self.pool6)
    }
}

/// An address of an interface with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address itself.
    pub address: IpAddr,
    /// Bits of the prefix that is reached through the interface.
    pub prefix: u8,
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How inner traffic leaves by this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Hide pool addresses behind the host's.
    pub masquerade: bool,
    /// Switch forwarding on while running.
    pub enable_forwarding: bool,
    /// Reduce the segment size in TCP handshakes.
    pub mss_clamp: bool,
    /// Verify inner checksums before packets are merged.
    pub verify_checksums: bool,
}

/// What goes into client files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// `HOST:PORT` of this gateway as clients reach it.
    pub endpoint: Option<String>,
    /// What clients send into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// DNS servers of connected clients.
    pub dns: Vec<IpAddr>,
    /// Seconds between keepalives of clients, 0 for off.
    pub keepalive_s: u16,
}

/// Upper bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most peers.
    pub peers_max: u32,
    /// From all clients of the store together, in bits per second.
    pub rate_up_bps: Option<u64>,
    /// To all clients of the store together, in bits per second.
    pub rate_down_bps: Option<u64>,
    /// Sessions of which a gateway under load begins no more.
    pub admission: AdmissionLimits,
    /// Handshakes per second and source that a gateway under load answers.
    pub handshakes_per_source: u32,
}

/// Cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many.
    pub count: WorkerCount,
    /// More than there are CPUs, for tests.
    pub oversubscribe: bool,
    /// CPUs they may have, the first worker's first; `None` for all that the process may use.
    pub cpus: Option<CpuList>,
    /// Memory nodes.
    pub numa: NumaChoice,
    /// CPU of the control thread.
    pub control_cpu: Option<u32>,
    /// How packets are moved.
    pub driver: DriverChoice,
    /// Whether the kernel is asked to bring packets to the worker that owns their session.
    pub steering: SteeringChoice,
    /// How long a worker looks for work before it sleeps.
    pub spin_us: SpinChoice,
    /// Whether a worker gives up what it does not need.
    pub sandbox: SandboxChoice,
    /// Whether sends may be zero copy.
    pub zero_copy: ZeroCopyChoice,
    /// Fast paths that are left out.
    pub without: FastPaths,
}

/// How many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    /// One for each physical core allowed.
    Auto,
    /// So many, at least 1.
    Exactly(u16),
}

/// How long a worker looks for work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinChoice {
    /// As the last arrivals suggest.
    Auto,
    /// Always so many microseconds, at most 1000.
    Micros(u16),
}

/// Which memory nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumaChoice {
    /// Those of the CPUs.
    Auto,
    /// Do not care.
    Off,
    /// Only these.
    Nodes(CpuList),
}

/// How packets are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// The best that the kernel offers.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Epoll,
}

impl From<DriverChoice> for ringway_ring::DriverChoice {
    fn from(choice: DriverChoice) -> Self {
        match choice {
            DriverChoice::Auto => Self::Auto,
            DriverChoice::Uring => Self::Uring,
            DriverChoice::Epoll => Self::Epoll,
        }
    }
}

/// Whether the kernel is asked to bring packets to the worker that owns their session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringChoice {
    /// Where it can.
    Auto,
    /// No: workers hand packets over to each other.
    Off,
}

/// Whether a worker gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxChoice {
    /// As far as the kernel can.
    On,
    /// No: for debuggers and tracers.
    Off,
}

/// Whether sends may be zero copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopyChoice {
    /// Never.
    Off,
    /// Where a probe shows that the kernel does not copy.
    Auto,
    /// Always, to measure and to test.
    On,
}

impl From<ZeroCopyChoice> for ringway_ring::ZeroCopyMode {
    fn from(choice: ZeroCopyChoice) -> Self {
        match choice {
            ZeroCopyChoice::Off => Self::Off,
            ZeroCopyChoice::Auto => Self::Auto,
            ZeroCopyChoice::On => Self::On,
        }
    }
}

/// Memory of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whether sessions have heaps of their own.
    pub session_heaps: SessionHeaps,
}

/// Whether sessions have heaps of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionHeaps {
    /// While there are few.
    Auto,
    /// All of them.
    Always,
    /// None.
    Never,
}

/// The control and statistics socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Absolute path.
    pub socket: PathBuf,
}

/// What is printed while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How much.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
    /// Where they go instead of standard error; relative to the state folder.
    pub file: Option<PathBuf>,
    /// What is kept of connections.
    pub connections: ConnectionLog,
    /// How long, 1 day to 3650 days.
    pub retention: Duration,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what was done.
    Info,
    /// And why, with addresses.
    Debug,
    /// And everything else.
    Trace,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the operator calls it; empty if it has no name.
    pub name: String,
    /// Who it is.
    pub public: PublicKey,
    /// Second secret; zeros if none. Already read from its file after [`Config::load`].
    pub preshared: PresharedKey,
    /// File of the second secret, if it is kept in one.
    pub preshared_file: Option<PathBuf>,
    /// Inner prefixes it may use.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is expected.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives to it, 0 for off.
    pub keepalive_s: u16,
    /// Line of the file at which it begins.
    pub line: usize,
}

/// What the command line sets above the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--workers`.
    pub count: Option<WorkerCount>,
    /// `--oversubscribe`.
    pub oversubscribe: bool,
    /// `--cpus`.
    pub cpus: Option<CpuList>,
    /// `--numa`.
    pub numa: Option<NumaChoice>,
    /// `--control-cpu`.
    pub control_cpu: Option<u32>,
    /// `--driver`.
    pub driver: Option<DriverChoice>,
    /// `--steering`.
    pub steering: Option<SteeringChoice>,
    /// `--spin-us`.
    pub spin_us: Option<SpinChoice>,
    /// `--sandbox`.
    pub sandbox: Option<SandboxChoice>,
    /// `--zero-copy`.
    pub zero_copy: Option<ZeroCopyChoice>,
    /// `--without`.
    pub without: Option<FastPaths>,
}

macro_rules! words {
    ($($name:ident { $($variant:ident $word:literal,)* })*) => {$(
        impl $name {
            /// The value that `word` stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }

            /// The word for the value.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    )*};
}

words! {
    DriverChoice { Auto "auto", Uring "uring", Epoll "epoll", }
    SteeringChoice { Auto "auto", Off "off", }
    SandboxChoice { On "on", Off "off", }
    ZeroCopyChoice { Off "off", Auto "auto", On "on", }
    Revocation { Strict "strict", Warn "warn", }
    Ocsp { Off "off", Warn "warn", Strict "strict", }
    LogFormat { Text "text", Json "json", }
    ConnectionLog { Full "full", NoLog "no-log", }
    SessionHeaps { Auto "auto", Always "always", Never "never", }
    LogLevel { Error "error", Warn "warn", Info "info", Debug "debug", Trace "trace", }
}

impl fmt::Display for WorkerCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(count) => count.fmt(f),
        }
    }
}
