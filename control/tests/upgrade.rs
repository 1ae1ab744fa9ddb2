//! What the service manager and the file are to a gateway that is taken over.
//!
//! The manager is a socket of the test. Needs root, and `ip` and `wg` from the distribution; all is
//! in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// How long something may take that takes a second.
const SOON: Duration = Duration::from_secs(20);

const PEER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// A namespace, a folder, a file and a manager.
struct Site {
    name: String,
    folder: PathBuf,
    manager: UnixDatagram,
    processes: Vec<Child>,
}

impl Site {
    fn new() -> Self {
        let name = format!("rwu{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let manager = UnixDatagram::bind(folder.join("notify")).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let added = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(added.unwrap().success(), "these tests need root and ip");
        Self { name, folder, manager, processes: Vec::new() }
    }

    fn write(&self, endpoint: &str) {
        let text = format!(
            "[interface]\nname = \"{}\"\n[exit]\nmasquerade = false\nenable_forwarding = false\n\
             [stats]\nsocket = \"{}\"\n[workers]\ncount = 1\n\
             [[peer]]\nname = \"a\"\npublic_key = \"{PEER}\"\nendpoint = \"{endpoint}\"\n\
             allowed_ips = [\"10.77.0.2/32\"]\n",
            self.name,
            self.folder.join("stats").display()
        );
        fs::write(self.folder.join("ringway.toml"), text).unwrap();
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        command
    }

    /// Starts the program, which keeps the number of the process. Returns it.
    fn start(&mut self, arguments: &[&str], managed: bool) -> u32 {
        let mut command = self.inside(env!("CARGO_BIN_EXE_ringway"));
        command.args(arguments).arg("--config").arg(self.folder.join("ringway.toml"));
        command.arg("--state-dir").arg(&self.folder);
        if managed {
            command.env("NOTIFY_SOCKET", self.folder.join("notify")).env("WATCHDOG_USEC", "300000");
        }
        let child = command.spawn().unwrap();
        let number = child.id();
        self.processes.push(child);
        number
    }

    /// What the manager hears next that has this in it.
    fn hears(&self, wanted: &str) -> String {
        let mut bytes = [0; 1024];
        loop {
            let len = self.manager.recv(&mut bytes).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    }

    /// Forgets what was said until now.
    fn forget(&self) {
        self.manager.set_nonblocking(true).unwrap();
        while self.manager.recv(&mut [0; 1024]).is_ok() {}
        self.manager.set_nonblocking(false).unwrap();
    }

    /// The next process takes over; returns its number.
    fn upgrade(&mut self) -> u32 {
        let heir = self.start(&["upgrade", "-f"], false);
        let message = self.hears("MAINPID=");
        assert_eq!(message, format!("WATCHDOG=1\nMAINPID={heir}\n"));
        let old = self.processes.len() - 2;
        assert!(self.processes[old].wait().unwrap().success());
        self.forget();
        // Nobody else is left who could say it.
        self.hears("WATCHDOG=1");
        heir
    }

    fn endpoint(&self) -> String {
        let output = self.inside("wg").args(["show", &self.name, "endpoints"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn expects_peer_at(&self, endpoint: &str) {
        let wanted = format!("{PEER}\t{endpoint}");
        for _ in 0..2000 {
            if self.endpoint() == wanted {
                return;
            }
            thread::sleep(Duration::from_millis(10)); // between two looks at the state
        }
        panic!("{} instead of {wanted}", self.endpoint());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn privileged_the_manager_follows_two_upgrades_and_a_changed_endpoint_is_applied() {
    let mut site = Site::new();
    site.write("127.0.0.1:4001");
    site.start(&["run"], true);
    site.hears("READY=1");
    site.hears("WATCHDOG=1");
    site.expects_peer_at("127.0.0.1:4001");

    site.write("127.0.0.1:4002");
    site.upgrade();
    site.expects_peer_at("127.0.0.1:4002");

    // The second one is told by a process that the manager did not start.
    let heir = site.upgrade();
    site.expects_peer_at("127.0.0.1:4002");
    let told = Command::new("kill").arg(heir.to_string()).status().unwrap();
    assert!(told.success());
    site.hears("STOPPING=1");
    assert!(site.processes.last_mut().unwrap().wait().unwrap().success());
}
