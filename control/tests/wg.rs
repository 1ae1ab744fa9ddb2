//! `ringway wg` as `wg` and `ip` meet it: a daemon per interface in namespaces of its own.
//!
//! ```text
//!   namespace 0                     namespace 1 / 2
//!   daemons, UDP over loopback      interfaces a / b, after they were moved there
//! ```
//!
//! All tests need root, and `ip` and `wg` from the distribution. They wait for states, never for
//! seconds.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// How often a state is looked for before the test gives up: 20 s.
const LOOKS_MAX: u32 = 2000;

/// Namespaces of one test, and names nobody else has.
struct Lab {
    id: String,
    folder: PathBuf,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("rwd{}x{number}", std::process::id());
        let folder = std::env::temp_dir().join(&id);
        fs::create_dir_all(&folder).unwrap();
        let lab = Self { id, folder };
        for namespace in 0..3 {
            run("ip", &["netns", "add", &lab.namespace(namespace)]);
            lab.ip(namespace, &["link", "set", "lo", "up"]);
        }
        lab
    }

    fn namespace(&self, number: u32) -> String {
        format!("{}-{number}", self.id)
    }

    /// An interface name of at most 15 bytes.
    fn interface(&self, letter: char) -> String {
        format!("{}{letter}", self.id)
    }

    fn ip(&self, namespace: u32, arguments: &[&str]) -> String {
        run("ip", &[&["-n", &self.namespace(namespace)], arguments].concat())
    }

    fn inside(&self, namespace: u32, arguments: &[&str]) -> Output {
        let name = self.namespace(namespace);
        Command::new("ip").args(["netns", "exec", &name]).args(arguments).output().unwrap()
    }

    /// Starts a daemon.
    fn daemon(&self, namespace: u32, interface: &str) -> Output {
        self.inside(namespace, &[env!("CARGO_BIN_EXE_ringway"), "wg", interface])
    }

    /// Starts a daemon in namespace 0 that will succeed.
    fn start(&self, letter: char) -> String {
        self.start_in(0, letter)
    }

    fn start_in(&self, namespace: u32, letter: char) -> String {
        let interface = self.interface(letter);
        let output = self.daemon(namespace, &interface);
        assert!(output.status.success(), "{output:?}");
        interface
    }

    fn processes(&self) -> String {
        (0..3).map(|number| run("ip", &["netns", "pids", &self.namespace(number)])).collect()
    }

    fn ends(&self) {
        wait_until("the daemon to end", || self.processes().trim().is_empty());
    }

    fn ports(&self) -> String {
        String::from_utf8(self.inside(0, &["ss", "-Huln"]).stdout).unwrap()
    }

    /// One echo from `namespace` to `address`, tried until it comes back.
    fn reaches(&self, namespace: u32, address: &str) {
        wait_until(&format!("{address} to answer"), || {
            self.inside(namespace, &["ping", "-c", "1", "-W", "1", address]).status.success()
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for process in self.processes().split_whitespace() {
            let _ = Command::new("kill").arg(process).output();
        }
        for namespace in 0..3 {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(namespace)]).output();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} (these tests need root, ip and wg)",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn wg(arguments: &[&str]) -> String {
    run("wg", arguments)
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for {what}");
}

fn socket(interface: &str) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{interface}.sock"))
}

/// A request on the configuration socket, and its answer.
fn ask(interface: &str, request: &str) -> String {
    let mut stream = UnixStream::connect(socket(interface)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

fn stats(interface: &str) -> String {
    let path = format!("/run/ringway/{interface}.stats");
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"stats\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A private key in a file, and its public key.
fn key(lab: &Lab, letter: char) -> (PathBuf, String) {
    let path = lab.folder.join(format!("{letter}.key"));
    fs::write(&path, wg(&["genkey"])).unwrap();
    let public = Command::new("wg")
        .arg("pubkey")
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap()
        .stdout;
    (path, String::from_utf8(public).unwrap().trim().to_owned())
}

#[test]
fn privileged_the_daemon_returns_when_it_serves_and_goes_with_its_interface() {
    let lab = Lab::new();
    let name = lab.start('a');
    assert_eq!(fs::metadata(socket(&name)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&name, "get=1\n\n"), "errno=0\n\n");
    assert!(lab.ip(0, &["link", "show", &name]).contains("mtu 1420"));
    lab.ip(0, &["link", "delete", &name]);
    lab.ends();
    assert!(!socket(&name).exists());
    assert!(!Path::new(&format!("/run/ringway/{name}.stats")).exists());
}

#[test]
fn privileged_removing_the_socket_or_a_signal_ends_the_daemon_and_its_interface() {
    let lab = Lab::new();
    let name = lab.start('a');
    fs::remove_file(socket(&name)).unwrap();
    lab.ends();
    assert!(!lab.ip(0, &["link"]).contains(&name));
    let name = lab.start('b');
    run("kill", &["-TERM", lab.processes().trim()]);
    lab.ends();
    assert!(!socket(&name).exists());
    assert!(!lab.ip(0, &["link"]).contains(&name));
}

#[test]
fn privileged_a_start_that_fails_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    let name = lab.start('a');
    let second = lab.daemon(0, &name);
    assert_eq!(second.status.code(), Some(6), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains(&name), "{second:?}");
    assert_eq!(ask(&name, "get=1\n\n"), "errno=0\n\n", "the first one goes on");
    let long = lab.daemon(0, "a-name-that-is-too-long");
    assert_eq!(long.status.code(), Some(2), "{long:?}");
}

#[test]
fn privileged_a_socket_that_nobody_serves_is_replaced() {
    let lab = Lab::new();
    let name = lab.interface('a');
    fs::create_dir_all("/var/run/wireguard").unwrap();
    drop(UnixListener::bind(socket(&name)).unwrap());
    lab.start('a');
    assert_eq!(ask(&name, "get=1\n\n"), "errno=0\n\n");
}

#[test]
fn privileged_wg_reads_back_what_it_set() {
    let lab = Lab::new();
    let name = lab.start('a');
    let (own, _) = key(&lab, 'a');
    let (_, peer) = key(&lab, 'b');
    let psk = lab.folder.join("psk");
    fs::write(&psk, wg(&["genpsk"])).unwrap();
    let (own, psk) = (own.to_str().unwrap(), psk.to_str().unwrap());
    wg(&["set", &name, "private-key", own, "listen-port", "4711", "fwmark", "0x20"]);
    let allowed = "10.0.0.0/8,fd00::/64";
    let change = ["set", &name, "peer", &peer, "preshared-key", psk, "allowed-ips", allowed];
    let rest = ["endpoint", "[2001:db8::1]:7", "persistent-keepalive", "25"];
    wg(&[&change[..], &rest[..]].concat());
    let dump = wg(&["show", &name, "dump"]);
    let fields: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(fields[0][2..], ["4711", "0x20"]);
    let secret = fs::read_to_string(psk).unwrap();
    let expected = [&peer, secret.trim(), "[2001:db8::1]:7", allowed, "0", "0", "0", "25"];
    assert_eq!(fields[1], expected);

    // A prefix can be taken away alone, and moves to whoever gets it next.
    let hex = |line: &str| ask(&name, line);
    let text = hex("get=1\n\n");
    let public = text.lines().find(|line| line.starts_with("public_key=")).unwrap();
    assert_eq!(hex(&format!("set=1\n{public}\nallowed_ip=-10.0.0.0/8\n\n")), "errno=0\n\n");
    assert!(!hex("get=1\n\n").contains("10.0.0.0/8"));
    wg(&["set", &name, "peer", &peer, "remove"]);
    assert_eq!(wg(&["show", &name, "peers"]), "");
}

#[test]
fn privileged_ports_open_with_the_interface_and_a_busy_one_changes_nothing() {
    let lab = Lab::new();
    let name = lab.start('a');
    wg(&["set", &name, "listen-port", "4001"]);
    assert!(!lab.ports().contains(":4001"), "an interface that is down listens nowhere");
    lab.ip(0, &["link", "set", &name, "up"]);
    wait_until("port 4001", || lab.ports().contains(":4001"));
    wg(&["set", &name, "listen-port", "4002"]);
    wait_until("port 4002 alone", || {
        lab.ports().contains(":4002") && !lab.ports().contains(":4001")
    });

    let other = lab.start('b');
    lab.ip(0, &["link", "set", &other, "up"]);
    wait_until("the other to listen", || !wg(&["show", &other, "listen-port"]).starts_with('0'));
    assert_eq!(ask(&other, "set=1\nlisten_port=4002\nfwmark=9\n\n"), "errno=-98\n\n");
    assert_eq!(wg(&["show", &other, "fwmark"]).trim(), "off");
    lab.ip(0, &["link", "set", &name, "down"]);
    wait_until("port 4002 to close", || !lab.ports().contains(":4002"));
    assert_eq!(ask(&other, "set=1\nlisten_port=4002\n\n"), "errno=0\n\n");
}

#[test]
fn privileged_an_interface_is_followed_into_another_namespace() {
    let lab = Lab::new();
    let name = lab.start('a');
    lab.ip(0, &["link", "set", &name, "mtu", "1300"]);
    wait_until("the MTU", || stats(&name).contains("inner mtu 1300"));
    lab.ip(0, &["link", "set", &name, "netns", &lab.namespace(1)]);
    lab.ip(1, &["link", "set", &name, "mtu", "9000", "up"]);
    wait_until("the MTU there", || stats(&name).contains("(up)"));
    assert!(stats(&name).contains("inner mtu 9000"), "{}", stats(&name));
    wait_until("sockets where it was born", || !lab.ports().trim().is_empty());
    lab.ip(1, &["link", "delete", &name]);
    lab.ends();
}

#[test]
fn privileged_two_daemons_carry_traffic_and_follow_each_other_to_new_ports() {
    let lab = Lab::new();
    let (a, b) = (lab.start('a'), lab.start('b'));
    let ((key_a, public_a), (key_b, public_b)) = (key(&lab, 'a'), key(&lab, 'b'));
    let ends = [
        (1, &a, key_a, "4101", &public_b, "10.9.0.1/24", "10.9.0.2/32", "127.0.0.1:4102"),
        (2, &b, key_b, "4102", &public_a, "10.9.0.2/24", "10.9.0.1/32", "127.0.0.1:4101"),
    ];
    for (namespace, name, key, port, peer, address, allowed, endpoint) in ends {
        let own = ["set", name, "private-key", key.to_str().unwrap(), "listen-port", port];
        let far = ["peer", peer, "allowed-ips", allowed, "endpoint", endpoint];
        wg(&[&own[..], &far[..]].concat());
        lab.ip(0, &["link", "set", name, "netns", &lab.namespace(namespace)]);
        lab.ip(namespace, &["address", "add", address, "dev", name]);
        lab.ip(namespace, &["link", "set", name, "up"]);
    }
    lab.reaches(1, "10.9.0.2");
    wg(&["set", &a, "listen-port", "4103"]);
    lab.reaches(1, "10.9.0.2");
    assert_eq!(wg(&["show", &b, "endpoints"]).trim(), format!("{public_a}\t127.0.0.1:4103"));
    wg(&["set", &b, "listen-port", "4104"]);
    lab.reaches(2, "10.9.0.1");
    assert_eq!(wg(&["show", &a, "endpoints"]).trim(), format!("{public_b}\t127.0.0.1:4104"));

    // Whoever owns the address is answered; the other is not heard any more.
    let (_, stranger) = key(&lab, 'c');
    wg(&["set", &a, "peer", &stranger, "allowed-ips", "10.9.0.2/32"]);
    let before = stats(&a);
    assert!(!lab.inside(2, &["ping", "-c", "1", "-W", "1", "10.9.0.1"]).status.success());
    assert!(!before.contains("source_not_allowed"));
    wait_until("the drop to be counted", || stats(&a).contains("source_not_allowed"));
}

#[test]
fn privileged_a_source_address_that_goes_away_is_not_clung_to() {
    let lab = Lab::new();
    let (a, b) = (lab.start_in(1, 'a'), lab.start_in(2, 'b'));
    let ((key_a, public_a), (key_b, public_b)) = (key(&lab, 'a'), key(&lab, 'b'));
    lab.ip(
        1,
        &["link", "add", "v", "type", "veth", "peer", "name", "v", "netns", &lab.namespace(2)],
    );
    for (namespace, name, key, peer, outer, inner, allowed) in [
        (1, &a, key_a, &public_b, "10.8.0.1/24", "10.9.0.1/24", "10.9.0.2/32"),
        (2, &b, key_b, &public_a, "10.8.0.2/24", "10.9.0.2/24", "10.9.0.1/32"),
    ] {
        lab.ip(namespace, &["address", "add", outer, "dev", "v"]);
        lab.ip(namespace, &["link", "set", "v", "up"]);
        let own = ["set", name, "private-key", key.to_str().unwrap(), "listen-port", "4201"];
        wg(&[&own[..], &["peer", peer, "allowed-ips", allowed]].concat());
        lab.ip(namespace, &["address", "add", inner, "dev", name]);
        lab.ip(namespace, &["link", "set", name, "up"]);
    }
    wg(&["set", &a, "peer", &public_b, "endpoint", "10.8.0.2:4201"]);
    lab.reaches(1, "10.9.0.2");
    lab.ip(1, &["address", "add", "10.8.0.10/24", "dev", "v"]);
    lab.ip(1, &["address", "delete", "10.8.0.1/24", "dev", "v"]);
    lab.ip(1, &["address", "replace", "10.8.0.10/24", "dev", "v"]);
    lab.reaches(1, "10.9.0.2");
    assert_eq!(wg(&["show", &b, "endpoints"]).trim(), format!("{public_a}\t10.8.0.10:4201"));

    // An answer leaves by the address that was asked, not by the one the kernel would choose.
    lab.ip(1, &["address", "add", "10.8.0.11/24", "dev", "v"]);
    wg(&["set", &b, "peer", &public_a, "endpoint", "10.8.0.11:4201"]);
    lab.reaches(2, "10.9.0.1");
    assert_eq!(wg(&["show", &b, "endpoints"]).trim(), format!("{public_a}\t10.8.0.11:4201"));
}

#[test]
fn privileged_answers_of_any_length_arrive_whole() {
    let lab = Lab::new();
    let name = lab.start('a');
    let mut config = format!("[Interface]\nPrivateKey = {}[Peer]\n", wg(&["genkey"]));
    config += &format!("PublicKey = {}\n", key(&lab, 'b').1);
    for a in 1..=255 {
        for b in 0..256 {
            config += &format!("AllowedIPs = {a}.{b}.0.0/16,{a}::{b}/128\n");
        }
    }
    for _ in 0..50 {
        config += &format!("[Peer]\nPublicKey = {}", wg(&["genkey"]));
    }
    let path = lab.folder.join("conf");
    fs::write(&path, config).unwrap();
    wg(&["setconf", &name, path.to_str().unwrap()]);
    let answer = wg(&["show", &name, "allowed-ips"]);
    assert_eq!(answer.lines().count(), 51);
    assert_eq!(
        answer.matches('/').count() - answer.lines().map(keys_slashes).sum::<usize>(),
        255 * 256 * 2
    );
}

/// Slashes in the key at the beginning of a line.
fn keys_slashes(line: &str) -> usize {
    line.split('\t').next().unwrap_or_default().matches('/').count()
}

/// The CPUs each thread of the daemon may use, by the thread's name.
fn cpus_by_thread(lab: &Lab) -> Vec<(String, String)> {
    let process = lab.processes().trim().to_owned();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: PathBuf| {
        let status = read(thread.join("status"));
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        (read(thread.join("comm")).trim().to_owned(), cpus.unwrap_or_default().trim().to_owned())
    };
    threads.map(|thread| of(thread.unwrap().path())).collect()
}

#[test]
fn privileged_workers_and_control_stay_where_flags_and_taskset_put_them() {
    let lab = Lab::new();
    let cpus = thread::available_parallelism().unwrap().get();
    let last = (cpus - 1).to_string();
    let interface = lab.interface('a');
    // The mask of taskset leaves one CPU, so two workers share it.
    let start = ["taskset", "-c", &last, env!("CARGO_BIN_EXE_ringway"), "wg", "--workers", "2"];
    let output = lab.inside(0, &[&start[..], &[&interface]].concat());
    assert_eq!(output.status.code(), Some(3), "two workers do not fit on one CPU: {output:?}");
    let output = lab.inside(0, &[&start[..], &["--oversubscribe", &interface]].concat());
    assert!(output.status.success(), "{output:?}");
    let threads = cpus_by_thread(&lab);
    assert!(threads.iter().all(|(_, cpus)| *cpus == last), "{threads:?}");
    let workers = threads.iter().filter(|(name, _)| name.starts_with("ringway-"));
    assert_eq!(workers.filter(|(name, _)| name != "ringway-wg").count(), 2, "{threads:?}");
    lab.ip(0, &["link", "del", &interface]);
    lab.ends();

    let interface = lab.interface('b');
    let count = cpus.to_string();
    let flags = ["wg", "--workers", &count, "--control-cpu", "0", &interface];
    let output = lab.inside(0, &[&[env!("CARGO_BIN_EXE_ringway")], &flags[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let threads = cpus_by_thread(&lab);
    for worker in 0..cpus {
        let name = format!("ringway-{worker}");
        let cpus = threads.iter().find(|(found, _)| *found == name).map(|(_, cpus)| cpus.clone());
        assert!(cpus.is_some_and(|cpus| !cpus.contains([',', '-'])), "{threads:?}");
    }
    assert!(threads.contains(&("ringway".to_owned(), "0".to_owned())), "{threads:?}");
}
