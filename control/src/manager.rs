//! The service manager (systemd, or whoever speaks like it): told how the gateway is.
//!
//! How to reach it stands in the environment of the process that it started. A process that takes
//! a gateway over was not started by it, or as something else, and is told by the process before:
//! see [`inherit`]. The protocol is that of sd_notify(3).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, process};

use sd_notify::NotifyState;
use tracing::debug;

use crate::failure::{Failure, Status};

/// How long a manager that does not listen may hold control up.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// What a process knows of its manager. Without one all is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manager {
    /// Its socket: a path, or a name without one behind an `@`.
    pub socket: String,
    /// How long the gateway may be silent, in microseconds; 0 is for ever.
    pub watchdog_us: u64,
    /// Control group of the process that knows it.
    pub group: String,
}

static CURRENT: OnceLock<Manager> = OnceLock::new();

/// The manager of this process.
pub fn current() -> &'static Manager {
    CURRENT.get_or_init(Manager::of_environment)
}

/// From now on this process speaks to the manager of the process that it takes over from. If that
/// had none, it keeps its own. Only what comes first counts.
pub fn inherit(manager: &Manager) {
    if !manager.socket.is_empty() {
        // Taken already means spoken to already.
        let _ = CURRENT.set(manager.clone());
    }
}

/// Tells the manager, if there is one.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = current().send(states) {
        debug!("Notifying the service manager: {error}");
    }
}

impl Manager {
    fn of_environment() -> Self {
        let value = |name| env::var(name).unwrap_or_default();
        let socket = value("NOTIFY_SOCKET");
        if socket.is_empty() {
            return Self::default();
        }
        // Whoever inherits the environment of a watched process is not watched.
        let watched = [String::new(), process::id().to_string()].contains(&value("WATCHDOG_PID"));
        let watchdog_us = value("WATCHDOG_USEC").parse().ok().filter(|_| watched);
        Self { socket, watchdog_us: watchdog_us.unwrap_or(0), group: own_group() }
    }

    /// How long the gateway may be silent.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        match self.watchdog_us {
            0 => None,
            limit => Some(Duration::from_micros(limit)),
        }
    }

    /// Whether the manager would take this process for the gateway: it must be in the control group
    /// of the one before.
    ///
    /// # Errors
    /// Where to start it instead.
    pub fn accepts_this_process(&self) -> Result<(), Failure> {
        let own = own_group();
        if self.socket.is_empty() || is_within(&own, &self.group) {
            return Ok(());
        }
        let message = format!(
            "The running gateway belongs to the service {:?} and this process to {own:?}, so the \
             service would end with the old process: start this command from within the service, \
             or restart the service",
            self.group
        );
        Err(Failure::new(Status::Refused, message))
    }

    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        if self.socket.is_empty() {
            return Ok(());
        }
        let mut message = String::new();
        for state in states {
            let _ = writeln!(message, "{state}"); // into memory
        }
        let address = match self.socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(OsStr::new(&self.socket))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.send_to_addr(message.as_bytes(), &address).map(drop)
    }
}

/// The control group that services are told apart by; empty where there are none.
fn own_group() -> String {
    fs::read_to_string("/proc/self/cgroup").map(|text| group(&text)).unwrap_or_default()
}

/// The old hierarchy of the manager wins over the unified one, which is empty beside it.
fn group(text: &str) -> String {
    let of = |kind: &str| {
        let mut paths = text.lines().filter_map(|line| line.split_once(':'));
        paths.find_map(|(_, rest)| rest.strip_prefix(kind).map(str::to_owned))
    };
    of("name=systemd:").or_else(|| of(":")).unwrap_or_default()
}

fn is_within(own: &str, group: &str) -> bool {
    let below = own.strip_prefix(group.trim_end_matches('/'));
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_process_of_the_service_or_of_a_group_in_it_is_accepted() {
        let service = "/system.slice/ringway.service";
        for (own, accepted) in [
            (service, true),
            ("/system.slice/ringway.service/.control", true),
            ("/system.slice/ringway.service2", false),
            ("/user.slice/session-1.scope", false),
            ("", false),
        ] {
            assert_eq!(is_within(own, service), accepted, "{own}");
        }
        assert!(is_within("/", "/") && is_within("/a", "/") && is_within("", ""));
    }

    #[test]
    fn the_group_is_read_from_both_hierarchies() {
        assert_eq!(group("0::/a.service\n"), "/a.service");
        let mixed = "12:cpu,cpuacct:/x\n1:name=systemd:/a.service\n0::/\n";
        assert_eq!(group(mixed), "/a.service");
        assert_eq!(group(""), "");
    }

    #[test]
    fn a_manager_without_a_path_is_told_too() {
        let name = format!("ringway-manager-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = Manager { socket: format!("@{name}"), ..Manager::default() };
        manager.send(&[NotifyState::Watchdog, NotifyState::MainPid(7)]).unwrap();
        let mut heard = [0; 64];
        let len = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"WATCHDOG=1\nMAINPID=7\n");
    }
}
