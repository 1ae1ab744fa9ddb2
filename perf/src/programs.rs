//! The WireGuard programs behind one driver: start in a namespace, configure with stock `wg`, stop.
//! OpenVPN and ocserv are named here too, so that they have a place in tables; what drives them is
//! [`crate::others`].
//!
//! The WireGuard programs follow the contract `PROGRAM [-f] INTERFACE`: make a TUN device of that
//! name, then a configuration socket. The socket's folder is shared by all namespaces, so interface
//! names are unique per process.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait::wait_for;
use crate::wg::{self, Config, PeerStatus};

/// Limit for a daemon to make its interface and socket; it normally takes some 20 ms.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A VPN server in user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// This project's gateway, as `ringway wg -f`.
    Ringway,
    /// This project's gateway, made to use io_uring.
    RingwayUring,
    /// This project's gateway, made to use epoll.
    RingwayEpoll,
    /// This project's gateway with two workers.
    RingwayTwo,
    /// wireguard-go of the distribution.
    WireguardGo,
    /// A newer wireguard-go, if one is installed as `wireguard-go-new`.
    WireguardGoNew,
    /// boringtun-cli.
    Boringtun,
    /// gotatun-cli.
    Gotatun,
    /// OpenVPN, which speaks a protocol of its own.
    OpenVpn,
    /// ocserv, which speaks OpenConnect's protocol: TLS and DTLS.
    Ocserv,
}

impl Program {
    /// The stock peers that speak WireGuard.
    pub const PEERS: [Self; 4] =
        [Self::WireguardGoNew, Self::WireguardGo, Self::Boringtun, Self::Gotatun];

    /// What is measured when nobody chooses: what is installed, with ours first. Of two
    /// wireguard-go it is the newer one.
    #[must_use]
    pub fn by_default() -> Vec<Self> {
        let ours = [Self::Ringway].into_iter().chain(Self::VARIANTS);
        let others = Self::PEERS.into_iter().chain(Self::OTHERS);
        let mut all: Vec<Self> =
            ours.chain(others.filter(|other| other.find().is_some())).collect();
        if all.contains(&Self::WireguardGoNew) {
            all.retain(|program| *program != Self::WireguardGo);
        }
        all
    }

    /// Servers of other protocols: as servers between namespaces like any other, but never in the
    /// place of a WireGuard program.
    pub const OTHERS: [Self; 2] = [Self::OpenVpn, Self::Ocserv];

    /// Our gateway in other shapes than the default one.
    pub const VARIANTS: [Self; 3] = [Self::RingwayUring, Self::RingwayEpoll, Self::RingwayTwo];

    /// Whether it is this project's, in whatever shape.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        match self {
            Self::Ringway | Self::RingwayUring | Self::RingwayEpoll | Self::RingwayTwo => true,
            Self::WireguardGo
            | Self::WireguardGoNew
            | Self::Boringtun
            | Self::Gotatun
            | Self::OpenVpn
            | Self::Ocserv => false,
        }
    }

    /// Whether it speaks WireGuard.
    #[must_use]
    pub const fn is_wireguard(self) -> bool {
        !matches!(self, Self::OpenVpn | Self::Ocserv)
    }

    /// How many processors it is meant to fill.
    #[must_use]
    pub const fn workers(self) -> u32 {
        if matches!(self, Self::RingwayTwo) { 2 } else { 1 }
    }

    /// Its short name in tables and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::WireguardGo => "wireguard-go",
            Self::WireguardGoNew => "wireguard-go-new",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::RingwayUring => "ringway-uring",
            Self::RingwayEpoll => "ringway-epoll",
            Self::RingwayTwo => "ringway-2-workers",
            Self::OpenVpn => "openvpn",
            Self::Ocserv => "ocserv",
        }
    }

    /// Reads a short name.
    ///
    /// # Errors
    /// Lists the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let ours = || [Self::Ringway].into_iter().chain(Self::VARIANTS);
        let all = || ours().chain(Self::PEERS).chain(Self::OTHERS);
        let names = all().map(Self::name).collect::<Vec<_>>().join(", ");
        all()
            .find(|program| program.name() == name)
            .with_context(|| format!("No program is called {name:?}; there are {names}"))
    }

    /// Where it is installed: `RINGWAY_BIN` or a build of this tree for ours, the path or cargo's
    /// folder for others.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Ringway | Self::RingwayUring | Self::RingwayEpoll | Self::RingwayTwo => {
                find_ringway()
            }
            Self::WireguardGo | Self::WireguardGoNew | Self::OpenVpn => {
                find_in_path(&[self.name()])
            }
            // Nobody but its client talks to it.
            Self::Ocserv => find_in_path(&["openconnect"]).and_then(|_| find_in_path(&["ocserv"])),
            Self::Boringtun => find_in_path(&["boringtun-cli"]),
            Self::Gotatun => find_in_path(&["gotatun-cli", "gotatun"]),
        }
    }

    /// What it says about its version, on one line.
    #[must_use]
    pub fn version(self) -> String {
        let Some(path) = self.find() else { return "not installed".to_owned() };
        // Some say it as an error, and fail.
        let asked = Launch::new(path).arg("--version").spawn().and_then(|mut process| {
            process.wait(Duration::from_secs(10))?;
            Ok(format!("{}{}", process.output(), process.errors()))
        });
        let text = asked.unwrap_or_default();
        text.lines().next().unwrap_or("unknown").trim().to_owned()
    }

    fn command(self, interface: &str) -> Result<Launch> {
        let path = self.find().with_context(|| format!("{self} is not installed"))?;
        let launch = Launch::new(path);
        Ok(match self {
            Self::Ringway => launch.args(["wg", "-f", interface]).args(matrix_flags()),
            Self::RingwayUring => launch.args(["wg", "-f", interface, "--driver", "uring"]),
            Self::RingwayEpoll => launch.args(["wg", "-f", interface, "--driver", "epoll"]),
            Self::RingwayTwo => {
                launch.args(["wg", "-f", interface, "--workers", "2", "--oversubscribe"])
            }
            Self::WireguardGo | Self::WireguardGoNew => launch.args(["-f", interface]),
            Self::Boringtun | Self::Gotatun => {
                launch.args(["-f", "--disable-drop-privileges", interface])
            }
            Self::OpenVpn | Self::Ocserv => bail!("{self} speaks no WireGuard"),
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running WireGuard interface and its daemon.
#[derive(Debug)]
pub struct Tunnel {
    program: Program,
    netns: String,
    interface: String,
    cpus: Option<String>,
    process: Process,
}

impl Tunnel {
    /// Starts `program` in `netns`, on the given CPUs if any, and waits until its configuration
    /// socket answers.
    ///
    /// # Errors
    /// When the program is missing or its interface does not appear; with its last words.
    pub fn start(program: Program, netns: &Netns, cpus: Option<&str>) -> Result<Self> {
        let interface = unique_interface();
        let process = launch(program, netns.name(), &interface, cpus)?;
        let cpus = cpus.map(str::to_owned);
        Ok(Self { program, netns: netns.name().to_owned(), interface, cpus, process })
    }

    /// Which program it is.
    #[must_use]
    pub const fn program(&self) -> Program {
        self.program
    }

    /// The name of its interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The daemon.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The daemon's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// With the message of `wg`.
    pub fn configure(&self, config: &Config) -> Result<()> {
        wg::setconf(&self.netns, &self.interface, config)
    }

    /// Replaces the configuration by text that `wg setconf` reads.
    ///
    /// # Errors
    /// With the message of `wg`.
    pub fn apply(&self, text: &str) -> Result<()> {
        wg::setconf_text(&self.netns, &self.interface, text)
    }

    /// Changes some settings: the words after `wg set INTERFACE`.
    ///
    /// # Errors
    /// With the message of `wg`.
    pub fn set(&self, words: &str) -> Result<()> {
        wg::set(&self.netns, &self.interface, words)
    }

    /// Its peers and their counters.
    ///
    /// # Errors
    /// When the socket does not answer.
    pub fn peers(&self) -> Result<Vec<PeerStatus>> {
        wg::peers(&self.netns, &self.interface)
    }

    /// Ends the daemon with SIGKILL, as a crash would, and starts a fresh one under the same
    /// interface name.
    ///
    /// # Errors
    /// As [`Tunnel::start`].
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(self.program, &self.netns, &self.interface, self.cpus.as_deref())?;
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.process.stop();
        // Not every program removes its socket.
        let _ = std::fs::remove_file(socket_of(&self.interface));
    }
}

fn socket_of(interface: &str) -> PathBuf {
    PathBuf::from(format!("/run/wireguard/{interface}.sock"))
}

fn launch(program: Program, netns: &str, interface: &str, cpus: Option<&str>) -> Result<Process> {
    let mut process = program
        .command(interface)?
        .within(netns)
        .on_cpus(cpus)
        .env("WG_LOG_LEVEL", "error")
        .env("LOG_LEVEL", "error")
        .spawn()?;
    // Not by `wg show`: it removes a socket that is bound but does not listen yet.
    let socket = socket_of(interface);
    let started = wait_for(&format!("{program} to answer on {interface}"), START_LIMIT, || {
        process.ended().is_some() || UnixStream::connect(&socket).is_ok()
    });
    if started.is_err() || process.ended().is_some() {
        bail!("{program} did not start:\n{}{}", process.errors(), process.output());
    }
    Ok(process)
}

/// What the environment says of our own program, as its start-up flags: `RINGWAY_LAB_WORKERS`,
/// `RINGWAY_LAB_DRIVER`, `RINGWAY_LAB_STEERING`, `RINGWAY_LAB_WITHOUT` and `RINGWAY_LAB_ZERO_COPY`.
/// So the same tests run over a matrix.
#[must_use]
pub fn matrix_flags() -> Vec<String> {
    let word = |name: &str| std::env::var(name).ok().filter(|word| !word.is_empty());
    let mut flags = Vec::new();
    // A single worker is the default, and is not bound to a CPU that tests beside it want too.
    if let Some(count) = word("RINGWAY_LAB_WORKERS").filter(|count| count != "1") {
        flags.extend(["--workers".to_owned(), count, "--oversubscribe".to_owned()]);
    }
    for (name, flag) in [
        ("RINGWAY_LAB_DRIVER", "--driver"),
        ("RINGWAY_LAB_STEERING", "--steering"),
        ("RINGWAY_LAB_WITHOUT", "--without"),
        ("RINGWAY_LAB_ZERO_COPY", "--zero-copy"),
    ] {
        flags.extend(word(name).into_iter().flat_map(|word| [flag.to_owned(), word]));
    }
    flags
}

/// An interface name of at most 15 bytes, unlike that of any other live process.
#[must_use]
pub fn unique_interface() -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("rw{:x}w{serial:x}", std::process::id())
}

fn find_ringway() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RINGWAY_BIN") {
        return Some(path.into());
    }
    // Of several builds the newest is meant.
    let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    ["release", "ci", "debug"]
        .iter()
        .filter_map(|profile| target.join(profile).join("ringway").canonicalize().ok())
        .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

pub(crate) fn find_in_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::home_dir().map(|home| home.join(".cargo/bin"));
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(cargo).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}
