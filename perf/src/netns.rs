//! Network namespaces that go away with their owner.
//!
//! Names carry the PID of the process that made them (`rw-PID-N-role`), so that [`sweep`] can tell
//! the leavings of a killed run from the namespaces of a live one.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::{Launch, SCRATCH_PREFIX};

const PREFIX: &str = "rw-";

/// A network namespace with loopback up; deleted when dropped, and with it every interface inside.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace. `role` is one word for the reader of `ip netns`.
    ///
    /// # Errors
    /// Without the privilege to make namespaces; the message says what is needed.
    pub fn new(role: &str) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            sweep();
        });
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{serial}-{role}", std::process::id());
        Launch::new("ip").args(["netns", "add", &name]).run().context(
            "Network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the ip command of iproute2",
        )?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        // IPv6 addresses are used at once.
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        Ok(netns)
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command to be run inside.
    #[must_use]
    pub fn launch(&self, program: &str) -> Launch {
        Launch::new(program).within(&self.name)
    }

    /// Runs `work` on a thread that has entered the namespace. Sockets made there stay there,
    /// whoever holds them.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = File::open(format!("/run/netns/{}", self.name))
            .with_context(|| format!("Opening namespace {}", self.name))?;
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                setns(handle, CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            });
            entered.join().map_err(|_| anyhow!("A thread in {} panicked", self.name))
        })?
        .with_context(|| format!("Entering namespace {}", self.name))
    }

    /// Runs a command line of words without blanks inside and returns its output.
    ///
    /// # Errors
    /// When it fails; the message has its error output.
    pub fn exec(&self, line: &str) -> Result<String> {
        let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.launch(program).words(rest).run()
    }

    /// Runs `ip -n NAME ...`.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, words: &str) -> Result<String> {
        Launch::new("ip").args(["-n", &self.name]).words(words).run()
    }

    /// Sets a sysctl of this namespace.
    ///
    /// # Errors
    /// When the key does not exist here.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.launch("sysctl").args(["-qw", &format!("{key}={value}")]).run().map(drop)
    }

    /// Makes it a router for both families.
    ///
    /// # Errors
    /// When a sysctl is refused.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Loads an nftables ruleset.
    ///
    /// # Errors
    /// With nft's own message.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let path = crate::process::scratch()?.join(format!("{}.nft", self.name));
        fs::write(&path, ruleset)?;
        self.launch("nft").arg("-f").arg(&path).run().map(drop)
    }

    /// Gives an interface addresses (`"10.0.0.1/24"`, either family) and brings it up. It may have
    /// them: the kernel takes down the ring of a process that was killed when it finds time, and
    /// until then its interface is there for the next process.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn address(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("address replace {address} dev {interface}{nodad}"))?;
        }
        self.ip(&format!("link set {interface} up")).map(drop)
    }

    /// Adds a route (`"10.0.0.0/8"`) through a gateway address.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn route(&self, prefix: &str, via: &str) -> Result<()> {
        self.ip(&format!("route replace {prefix} via {via}")).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Launch::new("ip").args(["netns", "del", &self.name]).run();
        if let Ok(scratch) = crate::process::scratch() {
            let _ = fs::remove_file(scratch.join(format!("{}.nft", self.name)));
            let _ = fs::remove_dir(scratch); // only when it is empty
        }
    }
}

/// Joins two namespaces by a veth pair and sets its MTU in bytes.
///
/// # Errors
/// When `ip` refuses.
pub fn veth(left: (&Netns, &str), right: (&Netns, &str), mtu: u16) -> Result<()> {
    left.0.ip(&format!(
        "link add {} mtu {mtu} type veth peer name {} mtu {mtu} netns {}",
        left.1,
        right.1,
        right.0.name()
    ))?;
    Ok(())
}

/// Deletes the namespaces and scratch folders of runs that no longer live; the first namespace of a
/// process does this too. Returns how many namespaces there were.
pub fn sweep() -> usize {
    for folder in names_in(&std::env::temp_dir()) {
        if folder.strip_prefix(SCRATCH_PREFIX).is_some_and(is_dead) {
            let _ = fs::remove_dir_all(std::env::temp_dir().join(folder));
        }
    }
    let dead = |name: &String| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(is_dead)
    };
    names_in(Path::new("/run/netns"))
        .filter(dead)
        .filter(|name| Launch::new("ip").args(["netns", "del", name]).run().is_ok())
        .count()
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn is_dead(pid: &str) -> bool {
    pid.parse::<u32>().is_ok() && !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}
