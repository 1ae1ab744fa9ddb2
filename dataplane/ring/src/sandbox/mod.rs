//! What a worker gives up once it is set up: it moves packets, and needs little more of the kernel
//! than that.
//!
//! Four parts, each on the calling thread only and for good: its capabilities go; Landlock takes
//! away files, TCP and signals; the ring is restricted to what the driver does; a filter refuses
//! all other system calls. A part that the kernel lacks is said and done without: a gateway without
//! a sandbox is better than none. What is refused fails with an error number and nothing is killed,
//! because the thread carries everybody's traffic: a refusal that a library did not expect must not
//! stop it. Refusals reach the kernel's log where auditing is built in.
//!
//! What it cannot do: a worker shares memory and descriptors with the rest of the process. Who runs
//! code of their own in a worker may use the descriptors that are open and write the memory of
//! threads that are not in the sandbox. It stops a worker that was talked into a call, and makes
//! the next step of an attack harder; it is no wall between processes.
//!
//! What it costs per call is in `seccomp`; the other parts cost nothing there. This module must not
//! know what a worker is for.

mod landlock;
mod privileges;
mod seccomp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::backend::Backend;
use crate::ring::{Ring, RingMode};

/// Why a part of the sandbox is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {fix}")]
pub struct Gap {
    /// What is in the way.
    pub why: String,
    /// What helps.
    pub fix: String,
}

impl Gap {
    fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { why: why.into(), fix: fix.into() }
    }

    /// The call was refused, and not by a kernel that lacks it.
    fn refused(what: &str, error: &io::Error) -> Self {
        let fix = "allow it in the seccomp profile of the container or service";
        Self::new(format!("{what}: {error}"), fix)
    }
}

/// How the sandbox of a thread stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Capabilities of the thread are dropped, and it cannot get new privileges.
    pub capabilities: Result<(), Gap>,
    /// Files, TCP, and signals and abstract sockets of others are out of reach: with this version
    /// of the kernel's interface.
    pub landlock: Result<u32, Gap>,
    /// The ring does only what the driver does; `false` if the driver has no ring.
    pub ring: Result<bool, Gap>,
    /// System calls that a worker does not need are refused.
    pub seccomp: Result<(), Gap>,
}

impl Sandbox {
    /// How many parts there are.
    pub const PARTS: u64 = 4;

    /// The parts that are missing, by name.
    pub fn gaps(&self) -> impl Iterator<Item = (&'static str, &Gap)> {
        [
            ("capabilities", self.capabilities.as_ref().err()),
            ("landlock", self.landlock.as_ref().err()),
            ("ring restrictions", self.ring.as_ref().err()),
            ("seccomp", self.seccomp.as_ref().err()),
        ]
        .into_iter()
        .filter_map(|(name, gap)| Some((name, gap?)))
    }

    /// Whether all parts are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.gaps().next().is_none()
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.landlock {
            Ok(version) => write!(f, "landlock {version}")?,
            Err(_) => write!(f, "no landlock")?,
        }
        let choose = |there: bool, yes, no| if there { yes } else { no };
        let capabilities = choose(self.capabilities.is_ok(), "dropped", "kept");
        let ring = match &self.ring {
            Ok(true) => "ring restricted",
            Ok(false) => "no ring",
            Err(_) => "ring unrestricted",
        };
        let seccomp = choose(self.seccomp.is_ok(), "seccomp", "no seccomp");
        write!(f, ", capabilities {capabilities}, {ring}, {seccomp}")
    }
}

/// Gives up what a worker with this driver does not need: the last step of its start, on its own
/// thread. `wakers` are the eventfds that it writes to wake others.
pub fn enter(driver: &mut impl Backend, wakers: &[BorrowedFd<'_>]) -> Sandbox {
    let calls = seccomp::Calls {
        ring: driver.ring_fd(),
        inside: driver.tun().map(|tun| tun.raw_fd()),
        own_waker: driver.waker_fd().as_raw_fd(),
        wakers: wakers.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    apply(&calls, || driver.restrict())
}

/// Enters the sandbox on a thread that does nothing else, to see what this kernel offers.
///
/// # Panics
/// If no thread can be made.
#[must_use]
pub fn rehearse() -> Sandbox {
    let body = || {
        let mut ring = Ring::new(RingMode::Deferred, 8, 32).ok();
        let fd = ring.as_ref().map(Ring::fd);
        let none: RawFd = -1;
        let calls = seccomp::Calls { ring: fd, inside: None, own_waker: none, wakers: Vec::new() };
        apply(&calls, || ring.as_mut().map_or(Ok(()), |ring| ring.restrict(&[])))
    };
    match std::thread::spawn(body).join() {
        Ok(sandbox) => sandbox,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// All parts; the filter last, because it refuses the calls that the others are made of.
fn apply(calls: &seccomp::Calls, restrict: impl FnOnce() -> io::Result<()>) -> Sandbox {
    let capabilities = privileges::drop_capabilities().and_then(|()| privileges::forbid_new());
    let landlock = landlock::restrict();
    let ring =
        restrict().map(|()| calls.ring.is_some()).map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => {
                Gap::new("The kernel does not know ring restrictions", "run Linux 5.10 or newer")
            }
            _ => Gap::refused("The ring cannot be restricted", &error),
        });
    let seccomp = seccomp::install(calls);
    Sandbox { capabilities, landlock, ring, seccomp }
}
