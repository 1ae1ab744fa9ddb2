//! Certificates under another clock: the real gateway believes that it is another day
//! (libfaketime), and `openssl`, `curl` and whoever made the certificates do not.
//!
//! Needs root, and `ip`, `curl`, `openssl` and `faketime` from the distribution; each gateway is in
//! a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../src/authority.rs"]
#[allow(dead_code, reason = "the unit tests use all of it")]
mod authority;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use authority::{Authority, Responder};
use serde_json::Value;

/// How long something may take that takes a second.
const SOON: Duration = Duration::from_secs(30);

/// Where Debian puts the library, by architecture.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

const INVALID: (u64, &str) = (401, "certificate validation failed");

/// A gateway on another day, and who made the certificates of its clients.
struct Site {
    name: String,
    folder: PathBuf,
    authority: Authority,
    gateway: Option<Child>,
    _responder: Option<Responder>,
}

impl Site {
    /// Certificates for a year and a list for thirty days; `ann` has one. `more` is added to
    /// `[sign_in]`.
    fn new(name: &str, more: &str) -> Self {
        let name = format!("rwc{name}{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new(&folder.join("authority"), "Crew CA");
        authority.issue("ann", "ann");
        authority.issue_for("localhost", "localhost", "server", &["-days", "3000"]);
        authority.publish();
        for (from, to) in [("pem", "api.pem"), ("key", "api.key")] {
            fs::copy(authority.file("localhost", from), folder.join(to)).unwrap();
        }
        let text = format!(
            "[interface]\nname = \"{name}\"\n[exit]\nmasquerade = false\n\
             [clients]\nendpoint = \"192.0.2.1:51820\"\n[workers]\ncount = 1\n\
             [stats]\nsocket = \"{folder}/stats\"\n\
             [api]\nsocket = \"{folder}/api\"\nlisten = [\"127.0.0.1:8443\"]\n\
             certificate_file = \"api.pem\"\nkey_file = \"api.key\"\n\
             [sign_in]\ncertificate_authorities = \"authority/ca.pem\"\n\
             revocation_lists = [\"authority/ca.crl\"]\n{more}",
            folder = folder.display()
        );
        fs::write(folder.join("ringway.toml"), text).unwrap();
        for words in [["netns", "add", &name].as_slice(), &["-n", &name, "link", "set", "lo", "up"]]
        {
            let done = Command::new("ip").args(words).status();
            assert!(done.unwrap().success(), "these tests need root and ip");
        }
        Self { name, folder, authority, gateway: None, _responder: None }
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        command
    }

    /// Starts the gateway so many days, hours or minutes (`+40d`, `-2d`) from now.
    fn start(&mut self, shift: &str) {
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists());
        let library = library.expect("libfaketime is missing: run tools/setup test");
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = self
            .inside(Path::new(env!("CARGO_BIN_EXE_ringway")))
            .args(["run", "--config"])
            .arg(self.folder.join("ringway.toml"))
            .arg("--state-dir")
            .arg(&self.folder)
            .env("LD_PRELOAD", library)
            .env("FAKETIME", shift)
            // Timers and deadlines are of this world.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.gateway = Some(child.unwrap());
        self.until("the API", || self.log().contains("The API answers on"));
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < SOON, "never: {what}\n{}", self.log());
            thread::sleep(Duration::from_millis(20)); // between two looks at the state
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Runs a command of the program, on our own clock.
    fn ringway(&self, line: &str) {
        let done = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(line.split(' '))
            .arg("--socket")
            .arg(self.folder.join("api"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The user `ann` with a device, who signs in with a certificate only.
    fn ann(&self) {
        for line in
            ["user add ann", "device add ann laptop", "policy set default --factors certificate"]
        {
            self.ringway(line);
        }
    }

    /// Signs in with the certificate of `ann`: the status, and what is said.
    fn sign_in(&self) -> (u64, String) {
        let done = self
            .inside(Path::new("curl"))
            .args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"])
            .args(["--header", "Content-Type: application/json", "--data", "{}", "--insecure"])
            .arg("--cert")
            .arg(self.authority.file("ann", "pem"))
            .arg("--key")
            .arg(self.authority.file("ann", "key"))
            .arg("https://localhost:8443/api/v1/access/sign-in")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let said = body["detail"].as_str().unwrap_or_default().to_owned();
        (status.parse().unwrap(), said)
    }

    /// A line of the metrics that begins so: its value.
    fn metric(&self, name: &str) -> f64 {
        let done = Command::new("curl")
            .args(["--silent", "--unix-socket"])
            .arg(self.folder.join("api"))
            .arg("http://gateway/api/v1/metrics")
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
    }

    fn refused(&self, code: &str) -> f64 {
        self.metric(&format!("ringway_authentications_refused_total{{reason=\"{code}\"}}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn privileged_a_certificate_lets_in_on_its_days_and_on_no_other() {
    let mut site = Site::new("a", "");
    site.start("+1d");
    site.ann();
    assert_eq!(site.sign_in().0, 200, "{}", site.log());
    // Another day, another process, the same records.
    for (shift, code) in [
        ("-2d", "certificate_not_yet"),
        ("+31d", "certificate_status"),
        ("+366d", "certificate_expired"),
    ] {
        let mut gateway = site.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        site.start(shift);
        let (status, said) = site.sign_in();
        assert_eq!((status, said.as_str()), INVALID, "{shift}");
        assert_eq!(site.refused(code), 1.0, "{shift}: {}", site.log());
    }
}

#[test]
fn privileged_what_ends_on_the_gateways_clock_is_announced_by_it() {
    let mut site = Site::new("b", "");
    let ends = |site: &Site, kind: &str| {
        site.metric(&format!("ringway_certificate_ends_seconds{{kind=\"{kind}\"}}"))
    };
    site.start("+1d");
    let day = 86_400.0;
    assert!((28.0 * day..30.0 * day).contains(&ends(&site, "revocation_list")));
    assert!(!site.log().contains("renew it"), "{}", site.log());
    for (shift, said) in [("+25d", "ends in 4 day(s): renew it"), ("+31d", "has ended: renew it")] {
        let mut gateway = site.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        site.start(shift);
        let line = format!("The list of revoked certificates of \"CN=Crew CA\" {said}");
        site.until(&line, || site.log().contains(&line));
    }
    assert_eq!(ends(&site, "revocation_list"), 0.0);
    assert!(ends(&site, "authority") > 3_000.0 * day);
}

#[test]
fn privileged_an_answer_of_a_responder_that_is_old_on_the_gateways_clock_is_worth_nothing() {
    let port = Responder::port();
    let responder = format!("ocsp = \"strict\"\nocsp_responder = \"http://127.0.0.1:{port}\"\n");
    let mut site = Site::new("c", &responder);
    site.authority.issue_for("answers", "Responder", "answers", &[]);
    // `openssl ocsp` answers in the namespace of the gateway and on the clock of everybody else.
    site._responder =
        Some(site.authority.respond_in(Some(&site.name), port, "answers", &["-nmin", "5"]));
    site.start("+0d");
    site.ann();
    assert_eq!(site.sign_in().0, 200, "{}", site.log());
    for (shift, code) in [("+1h", "certificate_ocsp_invalid"), ("-1h", "certificate_not_yet")] {
        let mut gateway = site.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        site.start(shift);
        let (status, said) = site.sign_in();
        assert_eq!((status, said.as_str()), INVALID, "{shift}");
        assert_eq!(site.refused(code), 1.0, "{shift}: {}", site.log());
    }
}
