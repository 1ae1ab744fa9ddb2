//! A real PostgreSQL server, in a folder of its own, that ends with this process whatever happens.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// PostgreSQL does not run as root, so it runs as this user and group.
pub(crate) const NOBODY: u32 = 65_534;
/// Longest wait for a server to come up or go down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, which others may share.
pub(crate) struct Server {
    folder: PathBuf,
    /// Settings beside those that all servers of tests have.
    settings: Vec<String>,
    port: u16,
    pid: std::sync::Mutex<Option<Pid>>,
}

/// The folder of this run, which goes when this process has ended, however it ends.
pub(crate) fn scratch() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = base().join(format!("ringway-store-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        // Its input ends with us. A server that ends at the same time may still write a file.
        let remove = "cat; rm -rf \"$0\" || { sleep 2; rm -rf \"$0\"; }";
        static CLEANER: OnceLock<Child> = OnceLock::new();
        CLEANER.get_or_init(|| {
            let mut cleaner = Command::new("sh");
            cleaner.args(["-c", remove]).arg(&folder).current_dir("/").stdin(Stdio::piped());
            cleaner.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        folder
    })
}

/// In memory if there is room: thousands of small files take a disk longer than the tests take.
fn base() -> PathBuf {
    /// What all servers and stores of a run need, and as much again.
    const NEEDED: u64 = 2 << 30;
    if let Some(folder) = std::env::var_os("RINGWAY_STORE_TEST_FOLDER") {
        return PathBuf::from(folder);
    }
    let memory = PathBuf::from("/dev/shm");
    let free = rustix::fs::statvfs(&memory).map_or(0, |about| about.f_bavail * about.f_frsize);
    if free >= NEEDED { memory } else { std::env::temp_dir() }
}

/// A name that no other has in this run.
pub(crate) fn fresh(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{what}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// The one that tests share; nobody stops it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of its own.
    pub(crate) fn start() -> Self {
        Self::start_with(5432, |_| Vec::new())
    }

    /// One of its own on this port, with settings that may name files put into its folder.
    pub(crate) fn start_with(port: u16, settings: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = scratch().join(fresh("postgres"));
        fs::create_dir_all(&folder).unwrap();
        if is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = program("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "ringway", "-E", "UTF8", "--locale=C.UTF-8"])
            .arg("-D")
            .arg(folder.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let settings = settings(&folder);
        let server = Self { folder, settings, port, pid: std::sync::Mutex::new(None) };
        server.run();
        server
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn run(&self) {
        let socket = format!("unix_socket_directories={}", self.folder.display());
        let mut command = program("postgres");
        command.arg("-D").arg(self.folder.join("data"));
        let port = format!("port={}", self.port);
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "max_connections=200",
            "max_wal_size=64MB",
            &socket,
            &port,
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        // It is sent a signal when the thread that started it ends, so that thread stays.
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut child: Child = command.spawn().unwrap();
            let log = BufReader::new(child.stderr.take().unwrap());
            tell.send(child.id()).unwrap();
            for line in log.lines().map_while(Result::ok) {
                // Kept short: what tests provoke fills the log.
                if line.contains("FATAL") || line.contains("PANIC") {
                    eprintln!("{line}");
                }
            }
            let _ = child.wait();
        });
        let pid = told.recv_timeout(PATIENCE).unwrap();
        *self.pid.lock().unwrap() = Some(Pid::from_raw(pid.cast_signed()));
        let started = Instant::now();
        while let Err(error) = postgres::Client::connect(&self.url("postgres"), postgres::NoTls) {
            assert!(started.elapsed() < PATIENCE, "the server does not come up: {error:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let (folder, port) = (self.folder.display(), self.port);
        format!("postgresql:///{database}?host={folder}&port={port}&user=ringway")
    }

    /// Makes a database and returns its address.
    pub(crate) fn database(&self) -> String {
        let name = fresh("db");
        let url = self.url("postgres");
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        self.url(&name)
    }

    /// Sends a signal to the server and all its processes.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid.lock().unwrap().unwrap();
        // The server first, so that it starts no other.
        kill(pid, signal).unwrap();
        for child in children(pid) {
            // Some have ended meanwhile.
            let _ = kill(child, signal);
        }
    }

    /// Kills the server and waits until it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.pid.lock().unwrap().unwrap();
        let all: Vec<Pid> = children(pid).into_iter().chain([pid]).collect();
        self.signal(Signal::SIGKILL);
        let started = Instant::now();
        while all.iter().any(|pid| Path::new(&format!("/proc/{pid}/cwd")).read_link().is_ok()) {
            assert!(started.elapsed() < PATIENCE, "the server does not go down");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = *self.pid.lock().unwrap() {
            // Ends at once, its processes with it; it may be gone already.
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGQUIT);
        }
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let listed = listed.unwrap_or_default();
    listed.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// A program of the distribution's PostgreSQL, as a user that it accepts, and ended with us.
fn program(name: &str) -> Command {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|folder| folder.join(name).exists());
    versions.sort();
    let Some(folder) = versions.last() else {
        panic!("there is no PostgreSQL server: run tools/setup test");
    };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "SIGQUIT"]).current_dir("/");
    if is_root() {
        command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(folder.join(name));
    command
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
