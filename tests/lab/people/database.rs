//! A real PostgreSQL server of the distribution, in a folder of its own, that ends with its owner.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway_perf::process::{Launch, Process};
use ringway_perf::wait::wait_for;

/// PostgreSQL does not run as root, so it runs as this user and group.
const NOBODY: u32 = 65_534;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Database {
    folder: PathBuf,
    process: Option<Process>,
}

impl Database {
    /// Makes an empty server, which does not run yet.
    pub(crate) fn new() -> Self {
        let name = format!("ringway-lab-pg-{}", ringway_perf::programs::unique_interface());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        program("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "ringway", "-E", "UTF8", "--locale=C.UTF-8"])
            .arg("-D")
            .arg(folder.join("data"))
            .output(PATIENCE)
            .unwrap();
        Self { folder, process: None }
    }

    /// What a configuration says to find it.
    pub(crate) fn config(&self) -> String {
        let host = self.folder.display();
        format!("[store]\nurl = \"postgresql:///postgres?host={host}&user=ringway\"\n")
    }

    /// Starts it and waits until it lets somebody in.
    pub(crate) fn start(&mut self) {
        let launch = program("postgres").arg("-D").arg(self.folder.join("data"));
        let socket = format!("unix_socket_directories={}", self.folder.display());
        let launch = ["listen_addresses=", "fsync=off", &socket]
            .into_iter()
            .fold(launch, |launch, setting| launch.args(["-c", setting]));
        let process = launch.spawn().unwrap();
        let socket = self.folder.join(".s.PGSQL.5432");
        wait_for("PostgreSQL to be ready", PATIENCE, || {
            process.errors().contains("ready to accept") && UnixStream::connect(&socket).is_ok()
        })
        .unwrap_or_else(|e| panic!("{e}: {}", process.errors()));
        self.process = Some(process);
    }

    /// Sends a signal to the server and all its processes.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let all = std::iter::once(pid.to_string());
        for pid in all.chain(children.split_whitespace().map(str::to_owned)) {
            // Some have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.parse().unwrap()), signal);
        }
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process.take().unwrap().kill();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGQUIT);
        }
        self.process = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of the distribution's PostgreSQL, as a user that it accepts.
fn program(name: &str) -> Launch {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path().join("bin")).collect();
    folders.retain(|folder| folder.join(name).exists());
    folders.sort();
    let folder = folders.pop().expect("there is no PostgreSQL server: run tools/setup test");
    let who = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups --");
    Launch::new("env").args(["-C", "/", "setpriv"]).words(&who).arg(folder.join(name))
}
