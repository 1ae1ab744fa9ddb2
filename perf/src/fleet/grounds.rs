//! The namespaces a fleet lives in, and the gateway it is after.
//!
//! ```text
//!   cli: 10.128.0.0/9 is local ── gw: gateway under test ── dst: far end
//!        (sources of the fleets)      10.0.0.0/10 inside        10.91.2.2
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ringway_proto::crypto::{PrivateKey, PublicKey, hash};

use super::{Fleet, Roster};
use crate::process::{Launch, Process};
use crate::programs::{Program, unique_interface};
use crate::sink::drops_of_port;
use crate::stats::Stats;
use crate::topology::{GATEWAY_PORT, Line};
use crate::uapi::Uapi;
use crate::wait::wait_for;

/// Sources of fleets: all of it is local where they are.
pub const OUTER_PREFIX: &str = "10.128.0.0/9";

/// Addresses of clients inside.
const INNER_PREFIX: &str = "10.0.0.0/10";

/// Limit for the gateway to make its interface and sockets.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Where the gateway listens.
const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 91, 1, 1), GATEWAY_PORT);

/// Where the far end listens.
const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 91, 2, 2), 9_010);

/// Our gateway as a bare WireGuard interface, and namespaces for fleets around it.
#[derive(Debug)]
pub struct Grounds {
    // Dropped before the namespaces.
    process: Process,
    interface: String,
    public: PublicKey,
    /// Its configuration socket.
    pub uapi: Uapi,
    /// Its stats socket.
    pub stats: Stats,
    /// The namespaces.
    pub line: Line,
}

impl Grounds {
    /// Starts the gateway with these flags (`--workers 2 --oversubscribe`), with a key and a port,
    /// and without peers.
    ///
    /// # Errors
    /// Without privilege, or when it does not start; with its last words.
    pub fn start(flags: &str) -> Result<Self> {
        let line = Line::new(1500)?;
        line.cli.ip(&format!("route add local {OUTER_PREFIX} dev lo"))?;
        line.gw.ip(&format!("route add {OUTER_PREFIX} via 10.91.1.2"))?;
        line.dst.ip(&format!("route add {INNER_PREFIX} via 10.91.2.1"))?;
        let path = Program::Ringway.find().context("ringway is not built")?;
        let interface = unique_interface();
        let mut process = Launch::new(path)
            .args(["wg", "-f", &interface])
            .words(flags)
            .within(line.gw.name())
            .env("WG_LOG_LEVEL", "error")
            .spawn()?;
        let uapi = Uapi::of(&interface);
        let up = wait_for("the gateway to answer", START_LIMIT, || {
            process.ended().is_some() || uapi.answers()
        });
        if up.is_err() || process.ended().is_some() {
            bail!("ringway did not start:\n{}{}", process.errors(), process.output());
        }
        let private = PrivateKey::from_bytes(hash(&[b"ringway grounds", interface.as_bytes()]));
        uapi.set(&format!(
            "private_key={}\nlisten_port={GATEWAY_PORT}\n",
            crate::uapi::hex(&private.to_bytes())
        ))?;
        line.gw.ip(&format!("link set {interface} mtu 1420 up"))?;
        line.gw.ip(&format!("route add {INNER_PREFIX} dev {interface}"))?;
        let stats = Stats::of(&interface);
        Ok(Self { process, interface, public: private.public(), uapi, stats, line })
    }

    /// Where it listens.
    #[must_use]
    pub const fn gateway(&self) -> SocketAddrV4 {
        GATEWAY
    }

    /// Where a far end may listen.
    #[must_use]
    pub const fn far(&self) -> SocketAddrV4 {
        FAR
    }

    /// The gateway's public key.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The name of its interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The gateway's process id; the thread of that number is its control thread.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Datagrams that found one of the gateway's sockets full; a merged one counts as one.
    ///
    /// # Errors
    /// When the kernel does not list the sockets.
    pub fn socket_drops(&self) -> Result<u64> {
        drops_of_port(&self.line.gw, GATEWAY_PORT)
    }

    /// What the gateway said on standard error, for reports of failures.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.errors()
    }

    /// Makes a fleet of these clients and tells the gateway of them.
    ///
    /// # Errors
    /// When the gateway refuses them.
    pub fn fleet(&self, roster: Roster) -> Result<Fleet> {
        let fleet = self.strangers(roster)?;
        self.admit(&fleet)?;
        Ok(fleet)
    }

    /// Makes a fleet that the gateway does not know.
    ///
    /// # Errors
    /// Without the privilege for raw sockets.
    pub fn strangers(&self, roster: Roster) -> Result<Fleet> {
        Fleet::enlist(roster, self.public, GATEWAY, &self.line.cli)
    }

    /// Tells the gateway of all clients of a fleet, in one request.
    ///
    /// # Errors
    /// When it refuses.
    pub fn admit(&self, fleet: &Fleet) -> Result<()> {
        let all = 0..fleet.roster().count;
        let text: String = all.map(|number| peer_lines(fleet, number)).collect();
        self.uapi.set(&text)
    }

    /// Removes all clients of a fleet, in one request.
    ///
    /// # Errors
    /// When it refuses.
    pub fn dismiss(&self, fleet: &Fleet) -> Result<()> {
        let all = 0..fleet.roster().count;
        let text: String = all
            .map(|number| {
                let key = crate::uapi::hex(&fleet.public(number).0);
                format!("public_key={key}\nupdate_only=true\nremove=true\n")
            })
            .collect();
        self.uapi.set(&text)
    }
}

/// The lines that add one client.
fn peer_lines(fleet: &Fleet, number: u32) -> String {
    let key = crate::uapi::hex(&fleet.public(number).0);
    format!("public_key={key}\nallowed_ip={}/32\n", fleet.roster().inner(number))
}

/// Binds the calling thread to one CPU, or lets it run on all that this process began with. Threads
/// and programs it starts from then on inherit that.
///
/// # Errors
/// When there is no such CPU.
pub fn pin_this_thread(cpu: Option<usize>) -> Result<()> {
    let all = all_cpus()?;
    let set = match cpu {
        None => all,
        Some(cpu) => {
            let mut one = CpuSet::new();
            one.set(cpu)?;
            one
        }
    };
    let bound = sched_setaffinity(Pid::from_raw(0), &set);
    bound.with_context(|| format!("Binding to CPU {cpu:?}"))
}

/// How many CPUs this process began with, whatever the calling thread is bound to now.
///
/// # Errors
/// When the kernel does not tell.
pub fn cpu_count() -> Result<usize> {
    let all = all_cpus()?;
    Ok((0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)).count())
}

/// The main thread is never bound.
fn all_cpus() -> Result<CpuSet> {
    let main = Pid::from_raw(i32::try_from(std::process::id())?);
    sched_getaffinity(main).context("Asking for the CPUs of this process")
}

/// Lets the calling thread run before everything ordinary on its CPU, so that what it measures is
/// not its own waiting. Without the privilege nothing changes.
pub fn hurry_this_thread() {
    let thread = nix::unistd::gettid().to_string();
    let _refused = Launch::new("chrt").args(["-f", "-p", "2", &thread]).run();
}
