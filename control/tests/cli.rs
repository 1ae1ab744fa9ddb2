//! The program as an operator meets it: the built binary, its output, its exit codes.
//!
//! Tests named `privileged_*` run a gateway in a network namespace of their own; without root they
//! fail and say so. They wait for states, never for seconds.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

/// How often a test looks whether a state has come about before it gives up: for 20 s.
const LOOKS_MAX: u32 = 2_000;

/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway_cli_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ringway(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(arguments)
        .env_remove("STATE_DIRECTORY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may end before this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn keys_are_made_and_turned_into_public_ones() {
    let private = ringway(&["genkey"], "");
    assert_eq!((code(&private), out(&private).len()), (0, 45));
    assert_eq!(out(&ringway(&["pubkey"], &out(&private))).len(), 45);
    assert_eq!(out(&ringway(&["pubkey"], &format!("{PRIVATE}\n"))), format!("{PUBLIC}\n"));
    let preshared = ringway(&["genpsk"], "");
    assert_eq!(out(&preshared).len(), 45);
    assert_ne!(out(&private), out(&ringway(&["genkey"], "")));
    let bad = ringway(&["pubkey"], "hunter2\n");
    assert_eq!(code(&bad), 3);
    assert!(err(&bad).contains("44 characters"), "{}", err(&bad));
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_one_sentence() {
    let folder = Folder::new("codes");
    let bad = folder.file("bad.toml", "[interface]\nlisten_port = 99999\n");
    let good = folder.file("good.toml", "[stats]\nsocket = \"/nowhere/a.stats\"\n");
    let (bad, good) = (bad.to_str().unwrap(), good.to_str().unwrap());
    for (arguments, expected, parts) in [
        (vec!["frobnicate"], 2, "unrecognized subcommand"),
        (vec!["run", "--workers", "0"], 2, "write a number from 1 to 1024"),
        (vec!["run", "--cpus", "3-1", "-c", good], 2, "ends before it begins"),
        (vec!["peer", "add", "a b", "-c", good], 2, "write a name of 1 to 64 letters"),
        (vec!["peer", "add", "a", "--endpoint", "fd00::1:5", "-c", good], 2, "without brackets"),
        (vec!["peer", "remove", "nobody", "-c", good], 2, "ringway peer list"),
        (vec!["wg", "a/b"], 2, "cannot be the name of an interface"),
        (vec!["check", "-c", bad], 3, "bad.toml:2:15: listen_port = 99999 is out of range"),
        (vec!["run", "-c", bad], 3, "bad.toml:2:15:"),
        (vec!["peer", "add", "a", "-c", bad], 3, "bad.toml:2:15:"),
        (vec!["stats", "-c", good], 7, "start it with \"ringway run\""),
        (vec!["reload", "-c", good], 7, "No gateway answers at /nowhere/a.stats"),
        (
            vec!["check", "-c", "/nowhere/x.toml"],
            8,
            "Cannot read the configuration /nowhere/x.toml",
        ),
        (vec!["check", "--state-dir", "/nowhere"], 8, "\"ringway run\" makes one"),
        (vec!["run", "--state-dir", "/proc/nowhere"], 8, "Cannot make the state folder"),
    ] {
        let output = ringway(&arguments, "");
        assert_eq!(code(&output), expected, "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(parts), "{arguments:?} lacks {parts}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_answers_and_not_failures() {
    for arguments in [["--help"], ["--version"], ["help"]] {
        let output = ringway(&arguments, "");
        assert_eq!((code(&output), err(&output).as_str()), (0, ""));
        assert!(out(&output).contains("ringway"), "{}", out(&output));
    }
}

#[test]
fn check_prints_a_file_that_checks_the_same() {
    let folder = Folder::new("check");
    let text = format!("[interface]\nmtu = 1380\n[[peer]]\npublic_key = \"{PUBLIC}\"\n");
    let path = folder.file("a.toml", &text);
    let first = ringway(&["check", "--config", path.to_str().unwrap()], "");
    assert_eq!(code(&first), 0, "{}", err(&first));
    assert!(out(&first).contains("(line 2)\nmtu = 1380\n"), "{}", out(&first));
    assert!(err(&first).contains("is valid, with 1 peer(s)"), "{}", err(&first));
    let again = folder.file("b.toml", &out(&first));
    let second = ringway(&["check", "--config", again.to_str().unwrap()], "");
    assert_eq!(code(&second), 0, "{}", err(&second));
}

#[test]
fn a_peer_lives_from_add_to_remove_and_its_file_is_clean() {
    let folder = Folder::new("peer");
    let path = folder.file("a.toml", "# mine\n[stats]\nsocket = \"/nowhere/a.stats\"\n");
    let config = ["--config", path.to_str().unwrap()];
    let add =
        ["peer", "add", "phone", "--endpoint", "vpn.example.org", "--keepalive", "25", "--qr"];
    let added = ringway(&[add.as_slice(), &config].concat(), "");
    assert_eq!(code(&added), 0, "{}", err(&added));
    let file = out(&added);
    assert!(file.starts_with("# phone\n[Interface]\nPrivateKey = "), "{file}");
    assert!(file.contains("\nEndpoint = vpn.example.org:51820\nPersistentKeepalive = 25\n"));
    assert!(!file.contains('█'), "the QR code is not in the file");
    assert!(err(&added).contains('█') && err(&added).contains("No gateway is running"));
    let listed = ringway(&[["peer", "list"].as_slice(), &config].concat(), "");
    assert!(out(&listed).contains("phone") && out(&listed).contains("10.77.0.2/32"));
    assert!(!out(&listed).contains("PrivateKey"));
    let removed = ringway(&[["peer", "remove", "phone"].as_slice(), &config].concat(), "");
    assert_eq!(code(&removed), 0, "{}", err(&removed));
    let left = fs::read_to_string(&path).unwrap();
    assert!(left.starts_with("# mine\n") && !left.contains("phone"), "{left}");
}

/// A gateway that answers one reload with this, after it did something.
fn answering(
    socket: &Path,
    answer: &'static str,
    before: impl FnOnce() + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let _ = fs::remove_file(socket);
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut asked = String::new();
        client.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "reload\n");
        before();
        client.write_all(answer.as_bytes()).unwrap();
    })
}

#[test]
fn what_the_running_gateway_refuses_is_taken_back_from_the_file() {
    let folder = Folder::new("take_back");
    let socket = folder.0.join("a.stats");
    let text = format!("# mine\n[api]\nsocket = \"off\"\n[stats]\nsocket = {socket:?}\n");
    let path = folder.file("a.toml", &text);
    let config = ["--config", path.to_str().unwrap()];
    let add = ["peer", "add", "phone", "--endpoint", "vpn.example.org"];
    let add = [add.as_slice(), &config].concat();
    let read = |path: &Path| fs::read_to_string(path).unwrap();

    let gateway = answering(&socket, "Refused: not today\n", || {});
    let refused = ringway(&add, "");
    gateway.join().unwrap();
    assert_eq!((code(&refused), out(&refused).as_str()), (9, ""), "no file for nobody");
    let said = err(&refused);
    assert!(said.contains("not today") && said.contains("again as it was before"), "{said}");
    assert_eq!(read(&path), text);

    // Nobody knows what the gateway does: the file keeps what was asked for.
    let gateway = answering(&socket, "", || {});
    let unclear = ringway(&add, "");
    gateway.join().unwrap();
    assert_eq!(code(&unclear), 9);
    let said = err(&unclear);
    assert!(said.contains("is not known") && said.contains("keeps the change"), "{said}");
    let with_phone = read(&path);
    assert!(with_phone.contains("phone"));
    assert!(out(&unclear).contains("PrivateKey"), "nobody else has the client's key");

    let remove = [["peer", "remove", "phone"].as_slice(), &config].concat();
    let gateway = answering(&socket, "Refused: not today\n", || {});
    assert_eq!(code(&ringway(&remove, "")), 9);
    gateway.join().unwrap();
    assert_eq!(read(&path), with_phone);

    // What somebody else wrote meanwhile is not overwritten.
    let theirs = path.clone();
    let edit = move || fs::write(theirs, "# theirs\n").unwrap();
    let gateway = answering(&socket, "Refused: not today\n", edit);
    let edited = ringway(&remove, "");
    gateway.join().unwrap();
    assert!(err(&edited).contains("somebody has edited it since"), "{}", err(&edited));
    assert_eq!(read(&path), "# theirs\n");
}

#[test]
fn a_peer_that_is_added_while_the_gateway_rests_may_meet_leases_and_that_is_said() {
    let folder = Folder::new("leases");
    let text = "[stats]\nsocket = \"/nowhere/a.stats\"\n[api]\nsocket = \"/nowhere/a.api\"\n";
    let path = folder.file("a.toml", text);
    let state = folder.0.to_str().unwrap();
    let add = |name| {
        let add = ["peer", "add", name, "--endpoint", "vpn.example.org", "--state-dir", state];
        let added = ringway(&[add.as_slice(), &["--config", path.to_str().unwrap()]].concat(), "");
        assert_eq!(code(&added), 0, "{}", err(&added));
        err(&added)
    };
    let said = "what users lease was not looked at";
    assert!(!add("first").contains(said), "there are no records yet");
    folder.file("ringway.db", "");
    assert!(add("second").contains(said));
}

#[test]
fn doctor_speaks_to_people_and_programs() {
    let folder = Folder::new("doctor");
    let state = ["--state-dir", folder.0.to_str().unwrap()];
    let text = ringway(&[["doctor"].as_slice(), &state].concat(), "");
    assert!(matches!(code(&text), 0 | 1), "{}", err(&text));
    assert!(out(&text).contains("io_uring") && out(&text).contains("could be better"));
    let json = ringway(&[["doctor", "--json"].as_slice(), &state].concat(), "");
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["ok"].as_bool().unwrap(), code(&json) == 0);
    assert!(fs::read_dir(&folder.0).unwrap().next().is_none(), "looking makes nothing");
}

/// Starts the program with an empty folder for its sockets: `ip netns exec` gives every command
/// mounts of its own, and tests beside each other would meet in the default one.
const OWN_RUN: [&str; 3] = [
    "-c",
    "mkdir -p /run/ringway && mount -t tmpfs none /run/ringway && exec \"$0\" \"$@\"",
    env!("CARGO_BIN_EXE_ringway"),
];

/// A network namespace with a gateway in it; both are gone when it is dropped.
struct Lab {
    name: String,
    folder: Folder,
    gateway: Option<Child>,
}

impl Lab {
    fn new(name: &str) -> Self {
        let lab = Self {
            name: format!("rwcli{name}{}", std::process::id()),
            folder: Folder::new(name),
            gateway: None,
        };
        let made = Command::new("ip").args(["netns", "add", &lab.name]).output().unwrap();
        assert!(made.status.success(), "needs root to make a network namespace: {}", err(&made));
        lab.inside("ip", &["link", "set", "lo", "up"]);
        let socket = lab.folder.0.join("a.stats");
        let text = format!("[stats]\nsocket = \"{}\"\n", socket.display());
        lab.folder.file("ringway.toml", &text);
        lab
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Output {
        let arguments = [&["netns", "exec", &self.name, program], arguments].concat();
        Command::new("ip").args(arguments).output().unwrap()
    }

    fn state(&self) -> [&str; 2] {
        ["--state-dir", self.folder.0.to_str().unwrap()]
    }

    fn ringway(&self, arguments: &[&str]) -> Output {
        let arguments = [&OWN_RUN, arguments, &self.state()].concat();
        self.inside("sh", &arguments)
    }

    /// Starts the gateway and waits until it serves; gives what it said.
    fn start(&mut self) -> String {
        // `ip netns exec` becomes the program, so its number is the gateway's.
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.name, "sh"])
            .args(OWN_RUN)
            .arg("run")
            .args(self.state())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !said.contains("Serving") {
            if lines.read_line(&mut said).unwrap() == 0 {
                let output = child.wait_with_output().unwrap();
                panic!("did not start: {said}{}", err(&output));
            }
        }
        self.gateway = Some(child);
        said
    }

    fn signal(&self, signal: &str) {
        let id = self.gateway.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn wait(&mut self) -> Output {
        self.gateway.take().unwrap().wait_with_output().unwrap()
    }

    fn tables(&self) -> String {
        out(&self.inside("nft", &["list", "ruleset"]))
    }

    fn forwards(&self) -> String {
        let switches = ["-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
        out(&self.inside("sysctl", &switches))
    }

    fn peers(&self) -> usize {
        let peers: Vec<serde_json::Value> = serde_json::from_str(&self.ask("peers json")).unwrap();
        peers.len()
    }

    fn ask(&self, query: &str) -> String {
        let mut socket = UnixStream::connect(self.folder.0.join("a.stats")).unwrap();
        writeln!(socket, "{query}").unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if done() {
            return;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    panic!("waited in vain: {what}");
}

fn forwarding_on(folder: &Path) {
    let path = folder.join("ringway.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("[exit]\nenable_forwarding = true\n{text}")).unwrap();
}

#[test]
fn privileged_a_first_start_serves_on_defaults_and_leaves_nothing() {
    let mut lab = Lab::new("first");
    fs::remove_file(lab.folder.0.join("ringway.toml")).unwrap();
    let said = lab.start();
    assert!(said.contains("Made the configuration"), "{said}");
    assert!(said.contains("Made the private key"), "{said}");
    assert!(said.contains("ringway peer add NAME"), "{said}");
    assert!(lab.tables().contains("table inet ringway_ringway0"));
    lab.signal("-TERM");
    let ended = lab.wait();
    assert_eq!(code(&ended), 0, "{}", err(&ended));
    assert_eq!(lab.tables(), "");
    assert!(!out(&lab.inside("ip", &["link"])).contains("ringway0"));
}

#[test]
fn privileged_a_host_without_ipv6_is_served_over_ipv4() {
    let mut lab = Lab::new("v4");
    lab.inside("sysctl", &["-w", "net.ipv6.conf.default.disable_ipv6=1"]);
    let path = lab.folder.0.join("ringway.toml");
    let refused = lab.ringway(&["run"]);
    assert_eq!(code(&refused), 3, "{}", err(&refused));
    assert!(err(&refused).contains("IPv6 is switched off on this host"), "{}", err(&refused));
    assert_eq!(lab.tables(), "");
    fs::remove_file(&path).unwrap();
    assert!(lab.start().contains("without IPv6, which is switched off here"));
}

#[test]
fn privileged_peers_come_and_go_while_it_runs() {
    let mut lab = Lab::new("live");
    lab.start();
    let added = lab.ringway(&["peer", "add", "phone", "--endpoint", "192.0.2.1"]);
    assert_eq!(code(&added), 0, "{}", err(&added));
    assert!(err(&added).contains("1 peer(s) added, 0 changed, 0 removed"), "{}", err(&added));
    assert_eq!(lab.peers(), 1);
    let removed = lab.ringway(&["peer", "remove", "phone"]);
    assert!(err(&removed).contains("0 changed, 1 removed"), "{}", err(&removed));
    assert_eq!(lab.peers(), 0);
}

#[test]
fn privileged_a_reload_is_whole_or_nothing() {
    let mut lab = Lab::new("reload");
    lab.start();
    let path = lab.folder.0.join("ringway.toml");
    let before = fs::read_to_string(&path).unwrap();
    let peer = format!("[[peer]]\npublic_key = \"{PUBLIC}\"\n");
    fs::write(&path, format!("{before}[interface]\nlisten_port = 9\n{peer}")).unwrap();
    let refused = lab.ringway(&["reload"]);
    assert_eq!(code(&refused), 9, "{}", err(&refused));
    assert!(err(&refused).contains("[interface] listen_port"), "{}", err(&refused));
    assert_eq!(lab.peers(), 0, "nothing half applied");
    fs::write(&path, format!("{before}{peer}")).unwrap();
    lab.signal("-HUP");
    wait_until("the peer is there", || lab.ask("peers json").contains(PUBLIC));
    fs::write(&path, "nonsense").unwrap();
    assert!(lab.ask("reload").starts_with("Refused:"));
    assert!(lab.ask("peers json").contains(PUBLIC), "a bad file changes nothing");
}

#[test]
fn privileged_a_killed_gateway_is_put_back_by_the_next_start() {
    let mut lab = Lab::new("kill");
    let before = (lab.tables(), lab.forwards());
    forwarding_on(&lab.folder.0);
    lab.start();
    assert_eq!(lab.forwards(), "1\n1\n");
    lab.signal("-KILL");
    let killed = lab.wait();
    assert_eq!(killed.status.code(), None);
    assert_ne!((lab.tables(), lab.forwards()), before, "kill -9 undoes nothing by itself");
    let said = lab.start();
    assert!(said.contains("The last run was killed"), "{said}");
    lab.signal("-TERM");
    assert_eq!(code(&lab.wait()), 0);
    assert_eq!((lab.tables(), lab.forwards()), before);
}

#[test]
fn privileged_what_is_in_the_way_has_its_exit_code_and_leaves_nothing() {
    let mut lab = Lab::new("busy");
    forwarding_on(&lab.folder.0);
    let before = (lab.tables(), lab.forwards());
    lab.inside("ip", &["link", "add", "ringway0", "type", "veth", "peer", "name", "v1"]);
    let exists = lab.ringway(&["run"]);
    assert_eq!(code(&exists), 6, "{}", err(&exists));
    assert_eq!((lab.tables(), lab.forwards()), before);
    lab.inside("ip", &["link", "del", "ringway0"]);
    lab.start();
    let twice = lab.ringway(&["run"]);
    assert_eq!(code(&twice), 6, "{}", err(&twice));
    assert!(err(&twice).contains("is running with the state folder"), "{}", err(&twice));
    let other = Folder::new("busy_other");
    let socket = other.0.join("a.stats");
    let text = format!("[stats]\nsocket = \"{}\"\n[interface]\nname = \"rw9\"\n", socket.display());
    let path = other.file("other.toml", &text);
    let places = ["--config", path.to_str().unwrap(), "--state-dir", other.0.to_str().unwrap()];
    let run = [["run"].as_slice(), &places].concat();
    let overlaps = lab.inside(env!("CARGO_BIN_EXE_ringway"), &run);
    assert_eq!(code(&overlaps), 3, "{}", err(&overlaps));
    assert!(err(&overlaps).contains("overlaps the network 10.77.0.0/24 of the interface ringway0"));
    fs::write(&path, format!("{text}pools = [\"10.78.0.0/24\"]\n")).unwrap();
    let busy = lab.inside(env!("CARGO_BIN_EXE_ringway"), &run);
    assert_eq!(code(&busy), 5, "{}", err(&busy));
    assert!(err(&busy).contains("51820"), "{}", err(&busy));
    assert!(!lab.tables().contains("rw9"));
}
