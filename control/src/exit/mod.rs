//! The local exit: what must be different on this host so that clients' traffic can leave by it.
//!
//! The order is always: write down, then change; change back, then forget. So whatever happens in
//! between, kill -9 included, the next start of the same gateway knows what to put back. The
//! interface itself is not written down: it vanishes with its process.
//!
//! This module must not know cores, peers or sessions.

pub mod journal;
pub mod links;
pub mod nft;
mod shared;
pub mod sysctl;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ringway_proto::allowed_ips::IpNet;
use tracing::debug;

use crate::config::Config;
use crate::failure::{Failure, Status};
use crate::stats;
use journal::{Journal, JournalFile};
use shared::{Claim, Meeting};
use sysctl::{Setting, SysctlError, Sysctls};

/// How long the interface of a process that was killed may still be there.
const LINGER: Duration = Duration::from_secs(2);

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitPlan {
    /// The gateway's interface.
    pub interface: String,
    /// Prefixes of clients.
    pub pools: Vec<IpNet>,
    /// Hide the pools behind the host's addresses.
    pub masquerade: bool,
    /// Switch forwarding on.
    pub enable_forwarding: bool,
}

impl ExitPlan {
    /// What this configuration wants.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            interface: config.interface.name.clone(),
            pools: config.interface.pools().collect(),
            masquerade: config.exit.masquerade,
            enable_forwarding: config.exit.enable_forwarding,
        }
    }

    fn has(&self, v4: bool) -> bool {
        self.pools.iter().any(|pool| pool.address().is_ipv4() == v4)
    }
}

/// The exit as it is set up. Dropping it puts the host back.
#[derive(Debug)]
pub struct LocalExit {
    file: JournalFile,
    sysctls: Sysctls,
    /// What is on the host; `None` once it has been put back.
    journal: Option<Journal>,
    /// While this gateway needs the host to forward.
    claim: Option<Claim>,
}

impl LocalExit {
    /// Puts back what a killed run left, then makes the changes. Call it before the interface is
    /// made: it refuses a second gateway with the same name and state folder. Says what it did and
    /// what the operator should know, line by line.
    ///
    /// # Errors
    /// A missing program or capability, a folder that cannot be written, another gateway. The host
    /// is as before then.
    pub fn set_up(plan: &ExitPlan, state_dir: &Path) -> Result<(Self, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let sysctls = Sysctls::default();
        let (file, left) = JournalFile::open(state_dir, &plan.interface)?;
        if let Some(left) = left {
            notes.push("The last run was killed: putting back what it changed".to_owned());
            notes.extend(put_back(&sysctls, Some(&left), None)?);
            file.clear()?;
        }
        refuse_another(&plan.interface)?;
        let mut exit = Self { file, sysctls, journal: None, claim: None };
        if plan.enable_forwarding {
            // Before looking, so that nobody switches it off in between.
            exit.claim = claim();
        }
        exit.change(plan, &mut notes)?;
        Ok((exit, notes))
    }

    /// Takes the exit over from another process, as it is. `lock` is that of its journal.
    ///
    /// # Errors
    /// A journal that is not one.
    pub fn adopt(plan: &ExitPlan, state_dir: &Path, lock: OwnedFd) -> Result<Self, Failure> {
        let (file, journal) = JournalFile::adopt(state_dir, &plan.interface, lock)?;
        // The other process still has its own.
        let claim = if plan.enable_forwarding { claim() } else { None };
        Ok(Self { file, sysctls: Sysctls::default(), journal, claim })
    }

    /// The journal's lock, for another process.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        self.file.lock()
    }

    /// Leaves the host as it is: another process has taken the exit over.
    pub fn release(mut self) {
        self.journal = None;
        // The other process has its own.
        self.claim = None;
    }

    /// Puts the host back and forgets. Says what could not be put back, or was left alone.
    ///
    /// # Errors
    /// A table that cannot be removed; the journal stays then, and the next start tries again.
    pub fn undo(mut self) -> Result<Vec<String>, Failure> {
        self.put_back()
    }

    fn change(&mut self, plan: &ExitPlan, notes: &mut Vec<String>) -> Result<(), Failure> {
        let masquerade = plan.masquerade && !plan.pools.is_empty();
        let settings = if plan.enable_forwarding {
            let settings = self.sysctls.forwarding(plan.has(true), plan.has(false));
            settings.map_err(|error| switch_failed(&error))?
        } else {
            Vec::new()
        };
        if !masquerade && settings.is_empty() {
            notes.extend(self.forwarding_notes(plan));
            return Ok(());
        }
        let table = masquerade.then(|| nft::table_name(&plan.interface));
        let journal = Journal::new(table, settings)?;
        self.file.write(&journal)?;
        // From here on dropping `self` puts everything back, also when the next line fails.
        let journal = self.journal.insert(journal);
        self.sysctls.apply(&journal.settings).map_err(|error| switch_failed(&error))?;
        notes.extend(switched(&journal.settings));
        if masquerade {
            nft::masquerade(&plan.interface, &plan.pools)?;
            let table = nft::table_name(&plan.interface);
            notes.push(format!("Clients leave with this host's address (nft table inet {table})"));
        }
        notes.extend(self.forwarding_notes(plan));
        Ok(())
    }

    /// Warns where the host does not forward: clients then reach the gateway and nothing behind it.
    fn forwarding_notes(&self, plan: &ExitPlan) -> Vec<String> {
        let switches = [
            (plan.has(true), "IPv4", "net/ipv4/ip_forward"),
            (plan.has(false), "IPv6", "net/ipv6/conf/all/forwarding"),
        ];
        let off = switches.into_iter().filter(|(wanted, _, name)| {
            *wanted && self.sysctls.read(name).is_ok_and(|value| value == "0")
        });
        let note = |(_, family, name): (bool, &str, &str)| {
            format!(
                "warning: the host does not forward {family}, so clients reach nothing behind it: \
                 write enable_forwarding = true in [exit], or sysctl -w {}=1",
                name.replace('/', ".")
            )
        };
        off.map(note).collect()
    }

    fn put_back(&mut self) -> Result<Vec<String>, Failure> {
        let journal = self.journal.take();
        let claim = self.claim.take();
        if journal.is_none() && claim.is_none() {
            return Ok(Vec::new());
        }
        let notes = put_back(&self.sysctls, journal.as_ref(), claim)?;
        self.file.clear()?;
        Ok(notes)
    }
}

impl Drop for LocalExit {
    fn drop(&mut self) {
        // Whoever wants to hear about problems calls `undo`; the journal stays if one is serious.
        let _ = self.put_back();
    }
}

/// Refuses to touch the table of a gateway that runs with another state folder: what this one has
/// left itself is put back by now. The interface of a process that was killed lasts for a moment.
fn refuse_another(interface: &str) -> Result<(), Failure> {
    let table = nft::table_name(interface);
    let is_in_use = || links::exists(interface) && nft::is_there(&table);
    let begun = Instant::now();
    while is_in_use() {
        if begun.elapsed() > LINGER {
            let message = format!(
                "The interface {interface} and its nft table inet {table} are in use by another \
                 gateway: stop it, or choose another name in [interface] (if none runs: nft delete \
                 table inet {table})"
            );
            return Err(Failure::new(Status::InterfaceExists, message));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Where gateways that need forwarding meet. Without `/proc` each is on its own.
fn meeting() -> Option<Meeting> {
    let network = std::fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    Some(Meeting::new(Path::new(stats::FOLDER), network))
}

/// What cannot be claimed is not shared: this gateway then puts back what it found.
fn claim() -> Option<Claim> {
    meeting()?.claim().inspect_err(|error| debug!("Sharing the forwarding switch: {error}")).ok()
}

/// Puts back what a gateway changed, and what others left to it; while others need the host to
/// forward, leaves that to them.
fn put_back(
    sysctls: &Sysctls,
    journal: Option<&Journal>,
    claim: Option<Claim>,
) -> Result<Vec<String>, Failure> {
    let own = journal.map_or(&[][..], |journal| &journal.settings);
    let settled = match meeting() {
        Some(meeting) => meeting.settle(claim, own.to_vec()).unwrap_or_else(|error| {
            debug!("Sharing the forwarding switch: {error}");
            own.to_vec()
        }),
        None => own.to_vec(),
    };
    let mut notes = sysctls.undo(&settled);
    if settled.is_empty() && !own.is_empty() {
        let note = "Another gateway needs forwarding: the last one to stop switches it off";
        notes.push(note.to_owned());
    }
    if let Some(table) = journal.and_then(|journal| journal.table.as_ref()) {
        nft::remove(table)?;
    }
    Ok(notes)
}

/// The switches that were set, in one line.
fn switched(settings: &[Setting]) -> Option<String> {
    let shown = |setting: &Setting| {
        setting.during.as_ref().map(|during| format!("{}={during}", setting.name))
    };
    let list: Vec<String> = settings.iter().filter_map(shown).collect();
    let text = format!("Switched on until the end: sysctl {}", list.join(" "));
    (!list.is_empty()).then_some(text)
}

fn switch_failed(error: &SysctlError) -> Failure {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    let kind = error.error.kind();
    let hint = if matches!(kind, PermissionDenied | ReadOnlyFilesystem) {
        "run as root, or let the host do it (sysctl -w net.ipv4.ip_forward=1 \
         net.ipv6.conf.all.forwarding=1) and write enable_forwarding = false in [exit]"
    } else if kind == NotFound {
        "the kernel lacks that protocol: leave its pool out"
    } else {
        "write enable_forwarding = false in [exit] and let the host do it"
    };
    Failure::new(Status::Unsupported, format!("{error}: {hint}"))
}
