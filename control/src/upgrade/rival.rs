//! The process at the other end of an upgrade, as the running one sees it: who it is, and how to
//! make sure that it is gone.
//!
//! It is held on to by a descriptor, so its number may be used again without harm. This file must
//! not know what is said.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::ready::Ready;

/// How long the end of a killed process is waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The process at the other end.
#[derive(Debug)]
pub struct Rival {
    pid: i32,
    /// Stays its own when its number is used again.
    handle: Ready<OwnedFd>,
    /// It was seen to have ended, which is told once only.
    ended: Cell<bool>,
}

impl Rival {
    /// Only a process of our own user, or of root.
    ///
    /// # Errors
    /// Why it is not talked to.
    pub fn of(stream: &UnixStream) -> Result<Self, String> {
        let peer = stream.peer_cred().map_err(|error| format!("Who asks is unknown: {error}"))?;
        if peer.uid() != rustix::process::geteuid().as_raw() && peer.uid() != 0 {
            return Err(format!("User {} may not take the gateway over", peer.uid()));
        }
        let pid = peer.pid().and_then(Pid::from_raw);
        // A process of another PID namespace has no number here.
        let pid = pid.ok_or("The process that asks cannot be seen from here")?;
        Self::hold(pid)
            .map_err(|error| format!("The process that asks cannot be held on to: {error}"))
    }

    /// The process of this number, now.
    pub(super) fn hold(pid: Pid) -> std::io::Result<Self> {
        let handle = Ready::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        Ok(Self { pid: pid.as_raw_nonzero().get(), handle, ended: Cell::new(false) })
    }

    /// Its number, for people and service managers.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Gives it a signal that was meant for whoever is the gateway.
    pub fn pass(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.handle.get(), signal) {
            debug!("Passing a signal to process {}: {error}", self.pid);
        }
    }

    /// Waits this long for its end, and ends it then. It has descriptors of the gateway's, so it
    /// must not stay.
    pub async fn see_off(&self, patience: Duration) {
        if !self.ends_within(patience).await {
            self.kill().await;
        }
    }

    /// Ends it.
    pub async fn kill(&self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(self.handle.get(), Signal::KILL);
        if !self.ends_within(KILL_TIMEOUT).await {
            warn!("Process {} cannot be seen to have ended", self.pid);
        }
    }

    async fn ends_within(&self, limit: Duration) -> bool {
        if !self.ended.get() {
            let seen = timeout(limit, self.handle.readable(|_| ())).await;
            self.ended.set(matches!(seen, Ok(Ok(()))));
        }
        self.ended.get()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn on_runtime<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test)
    }

    /// A process that ends when its input does.
    fn other() -> (Child, Rival) {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let rival = Rival::hold(Pid::from_child(&child)).unwrap();
        (child, rival)
    }

    #[test]
    fn a_process_that_goes_by_itself_is_not_killed() {
        on_runtime(async {
            let (mut child, rival) = other();
            drop(child.stdin.take());
            rival.see_off(Duration::from_secs(10)).await;
            assert!(child.wait().unwrap().success());
        });
    }

    #[test]
    fn a_process_that_stays_is_ended_also_when_it_stands_still() {
        on_runtime(async {
            let (mut child, rival) = other();
            rival.pass(Signal::STOP);
            rival.see_off(Duration::from_millis(10)).await;
            assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(9));
            let begun = std::time::Instant::now();
            rival.see_off(KILL_TIMEOUT).await;
            assert!(begun.elapsed() < KILL_TIMEOUT, "it was waited for again");
        });
    }

    #[test]
    fn a_signal_reaches_it() {
        on_runtime(async {
            let (mut child, rival) = other();
            rival.pass(Signal::TERM);
            assert_eq!(child.wait().unwrap().signal(), Some(15));
        });
    }
}
