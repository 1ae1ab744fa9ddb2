//! Secrets stay in memory: no core dumps, no debugger of the same user, and no swap where that is
//! wished.
//!
//! A core dump would hold every key, so the program gives dumps up before it reads one. Locked
//! memory is a choice: what is locked cannot be given back when sessions end, and a host without
//! swap needs none. Packet memory is never locked: it holds no keys, and it is large. What could
//! not be done is said, not hidden. This module must not know where keys are.

use std::fmt;
use std::fs;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Number of the capability that lifts the limit of locked memory (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// How secrets are kept: `[security]` of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Allow core dumps and debuggers again, to look into a crash. Dumps then hold keys.
    pub core_dumps: bool,
    /// Lock everything but packet memory, so that no key reaches a swap device. Memory of sessions
    /// that have ended is then kept for the next ones.
    pub lock_memory: bool,
}

/// What became of locking memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Nobody asked for it.
    NotAsked,
    /// What is touched from now on stays in memory, as does what was.
    Yes,
    /// It cannot be done, and why.
    No(String),
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked for"),
            Self::Yes => f.write_str("locked, packet memory aside"),
            Self::No(why) => write!(f, "not locked: {why}"),
        }
    }
}

/// Gives up core dumps, and lets no process of the same user look into this one. For every command
/// of the program, before it reads a key; a refusal changes nothing and is told by the doctor.
pub fn no_core_dumps() {
    let limit = getrlimit(Resource::Core);
    // The hard limit stays, so that an operator can ask for dumps again.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Does what the configuration wants. The caller says what came of it.
#[must_use]
pub fn apply(settings: Settings) -> Locked {
    if settings.core_dumps {
        allow_core_dumps();
    }
    if settings.lock_memory { lock_memory() } else { Locked::NotAsked }
}

fn allow_core_dumps() {
    let limit = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
}

/// Without room for everything that may ever be mapped, locking would make allocations fail later:
/// then it is not done at all.
fn lock_memory() -> Locked {
    let limit = getrlimit(Resource::Memlock).current;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = limit.filter(|_| !has_capability(&status, CAP_IPC_LOCK)) {
        let why = format!(
            "the limit of locked memory is {bytes} bytes; set LimitMEMLOCK=infinity in the unit, or \
             ulimit -l unlimited"
        );
        return Locked::No(why);
    }
    // Only what is touched: the address space is much larger than what is used.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => Locked::Yes,
        Err(error) => Locked::No(io::Error::from(error).to_string()),
    }
}

/// Whether the effective set in the text of `/proc/PID/status` has a capability.
fn has_capability(status: &str, capability: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> capability & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_found_in_the_effective_set_alone() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000004000\n";
        assert!(has_capability(status, CAP_IPC_LOCK));
        assert!(!has_capability(status, CAP_IPC_LOCK + 1));
        assert!(!has_capability("", CAP_IPC_LOCK));
    }

    #[test]
    fn by_default_nothing_is_locked_and_nothing_dumped() {
        assert_eq!(Settings::default(), Settings { core_dumps: false, lock_memory: false });
        assert_eq!(apply(Settings::default()), Locked::NotAsked);
        assert_eq!(Locked::No("why".to_owned()).to_string(), "not locked: why");
    }
}
