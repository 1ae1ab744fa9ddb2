//! A gateway that serves people, with their devices on hosts of their own.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_perf::netns::{Netns, veth};
use ringway_perf::ping;
use ringway_perf::process::{Process, scratch};
use ringway_perf::programs::{Program, Tunnel, matrix_flags, unique_interface};
use ringway_perf::topology::{Family, HANDSHAKE_LIMIT, Line, Place};
use ringway_perf::wait::{wait_for, wait_until};
use ringway_perf::wg::KeyPair;
use serde_json::{Value, json};

use super::api::Api;
use crate::product::ringway;
use crate::setup::SOON;

/// How a gateway differs from the plain one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// More sections of its file.
    pub(crate) config: String,
    /// More flags of its start.
    pub(crate) flags: Vec<&'static str>,
    /// Its state folder; one of its own if none is named.
    pub(crate) state: Option<PathBuf>,
}

/// `ringway run` with a store and an API, and the hosts around it.
pub(crate) struct House {
    pub(crate) process: Process,
    pub(crate) interface: String,
    pub(crate) state: PathBuf,
    pub(crate) api: Api,
    pub(crate) line: Line,
    /// Hosts of further clients.
    hosts: Vec<Netns>,
    flags: Vec<&'static str>,
}

impl House {
    /// The plain one.
    pub(crate) fn new() -> Self {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Self {
        let Plan { config, flags, state } = plan;
        let line = Line::new(1500).unwrap();
        let interface = unique_interface();
        let state = state.unwrap_or_else(|| scratch().unwrap().join(&interface));
        fs::create_dir_all(&state).unwrap();
        let text = format!(
            "[interface]\nname = \"{interface}\"\npools = [\"10.91.9.0/24\", \"fd91:9::/64\"]\n\
             [exit]\nenable_forwarding = true\n\
             [clients]\nendpoint = \"10.91.1.1:51820\"\ndns = []\n{config}\n"
        );
        fs::write(state.join("ringway.toml"), text).unwrap();
        let process = run(&line, &state, &flags);
        let api = Api::at(Path::new(&format!("/run/ringway/{interface}.api")));
        let house = Self { process, interface, state, api, line, hosts: Vec::new(), flags };
        house.is_served();
        house
    }

    /// Waits until the API answers and the store is known.
    pub(crate) fn is_served(&self) {
        let up = || {
            let answer = self.api.try_ask("GET", "/api/v1/health", &[], "");
            answer.is_ok_and(|answer| {
                let part = |part: &Value| part["name"] == "store" && part["healthy"] == true;
                answer.json()["parts"].as_array().is_some_and(|parts| parts.iter().any(part))
            })
        };
        wait_for("the API to answer", SOON, up)
            .unwrap_or_else(|e| panic!("{e}\n{}{}", self.process.errors(), self.process.output()));
    }

    /// Kills the gateway as a power failure would and starts it again.
    pub(crate) fn kill_and_start(&mut self) {
        self.process.kill();
        self.start();
        self.is_served();
    }

    /// Starts it again.
    pub(crate) fn start(&mut self) {
        self.process = run(&self.line, &self.state, &self.flags);
    }

    /// Stops it as an operator would and starts it again.
    pub(crate) fn restart(&mut self) {
        self.process.signal(Signal::SIGTERM).unwrap();
        let ended = self.process.wait(SOON).unwrap();
        assert!(ended.success(), "{}", self.process.errors());
        self.start();
        self.is_served();
    }

    /// One more host for clients, with a wire of its own; its number for [`House::join`].
    pub(crate) fn host(&mut self) -> usize {
        let number = self.hosts.len() + 1;
        let host = Netns::new("more").unwrap();
        let at_gateway = format!("more{number}");
        veth((&host, "out"), (&self.line.gw, &at_gateway), 1500).unwrap();
        host.address("out", &[&format!("10.92.{number}.2/24")]).unwrap();
        self.line.gw.address(&at_gateway, &[&format!("10.92.{number}.1/24")]).unwrap();
        host.route("10.91.1.1", &format!("10.92.{number}.1")).unwrap();
        self.hosts.push(host);
        number
    }

    /// A host of clients: 0 is the one that is always there.
    pub(crate) fn netns(&self, host: usize) -> &Netns {
        if host == 0 { &self.line.cli } else { &self.hosts[host - 1] }
    }

    /// Makes a user; `more` is merged into the form.
    pub(crate) fn user(&self, name: &str, more: Value) -> Value {
        let mut form = json!({ "name": name });
        if let (Value::Object(form), Value::Object(more)) = (&mut form, more) {
            form.extend(more);
        }
        self.api.post("/api/v1/users", &form)
    }

    /// Adds a device that made its own key, and lets it in.
    pub(crate) fn device(&self, user: &str, name: &str) -> Device {
        self.device_with(user, name, KeyPair::generate().unwrap())
    }

    pub(crate) fn device_with(&self, user: &str, name: &str, keys: KeyPair) -> Device {
        let form = json!({ "name": name, "public_key": keys.public });
        let added = self.api.post(&format!("/api/v1/users/{user}/devices"), &form);
        self.grant(user);
        Device::new(user, name, keys, added["client_file"].as_str().unwrap())
    }

    /// An operator lets all devices of a user in.
    pub(crate) fn grant(&self, user: &str) -> Value {
        self.api.post(&format!("/api/v1/users/{user}/access"), &json!({}))
    }

    /// Starts a client with the device's file on one of the hosts and waits for traffic.
    pub(crate) fn join(&self, device: &Device, program: Program, host: usize) -> Tunnel {
        let tunnel = self.load(device, program, host);
        let to = Place::Destination.address(Family::V4);
        ping::until_answered(self.netns(host), to, HANDSHAKE_LIMIT).unwrap_or_else(|e| {
            panic!("{e}\n{}\n{}", self.process.errors(), self.api.get("/api/v1/sessions"))
        });
        tunnel
    }

    /// As [`House::join`], without waiting.
    pub(crate) fn load(&self, device: &Device, program: Program, host: usize) -> Tunnel {
        let netns = self.netns(host);
        let tunnel = Tunnel::start(program, netns, None).unwrap();
        let interface = tunnel.interface();
        tunnel.apply(&device.for_wg()).unwrap();
        for address in device.setting("Address").split(", ") {
            netns.address(interface, &[address]).unwrap();
        }
        netns.ip(&format!("link set {interface} mtu {}", device.setting("MTU"))).unwrap();
        for prefix in ["10.91.2.0/24", "10.91.9.0/24"] {
            netns.ip(&format!("route replace {prefix} dev {interface}")).unwrap();
        }
        netns.ip(&format!("-6 route replace fd91:2::/64 dev {interface}")).unwrap();
        tunnel
    }

    /// The session of a device, if there is one.
    pub(crate) fn session(&self, device: &Device) -> Option<Value> {
        let listed = self.api.get(&format!("/api/v1/sessions?user={}", device.user));
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|one| one["device"] == device.name.as_str()).cloned()
    }

    /// Waits for the session of a device.
    pub(crate) fn expect_session(&self, device: &Device) -> Value {
        let what = format!("a session of {}", device.name);
        wait_until(&what, SOON, || self.session(device)).unwrap_or_else(|e| {
            let all = self.api.get("/api/v1/sessions");
            let shown = ringway(&self.line, &self.state, &["stats", "--json"]).run();
            panic!("{e}: {all}\n{shown:?}")
        })
    }

    /// Waits until there is none.
    pub(crate) fn expect_no_session(&self, device: &Device, limit: Duration) {
        let what = format!("the session of {} to end", device.name);
        wait_for(&what, limit, || self.session(device).is_none()).unwrap();
    }

    /// Whether one echo request of a host is answered.
    pub(crate) fn answers(&self, host: usize) -> bool {
        ping::once(self.netns(host), Place::Destination.address(Family::V4), 56)
    }

    /// Waits until the destination answers a host.
    pub(crate) fn until_answered(&self, host: usize, limit: Duration) {
        let to = Place::Destination.address(Family::V4);
        ping::until_answered(self.netns(host), to, limit)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.process.errors()));
    }

    /// Inner bytes of a user from and to its devices, as the ledger has them.
    pub(crate) fn used(&self, user: &str) -> (u64, u64) {
        let days = self.api.get(&format!("/api/v1/users/{user}/usage"));
        let sum = |field: &str| {
            let rows = days.as_array().unwrap().iter();
            rows.map(|row| row[field].as_u64().unwrap()).sum()
        };
        (sum("up_bytes"), sum("down_bytes"))
    }

    /// `ringway stats --json`.
    pub(crate) fn stats(&self) -> Value {
        let said = ringway(&self.line, &self.state, &["stats", "--json"]).run().unwrap();
        serde_json::from_str(&said).unwrap()
    }

    /// One counter of all cores, by its name or by `drops.REASON`.
    pub(crate) fn total(&self, name: &str) -> u64 {
        let stats = self.stats();
        let found = name.split('.').fold(&stats["total"], |at, part| &at[part]);
        found.as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}{}", self.process.output(), self.process.errors());
        }
        self.process.stop();
        let _ = fs::remove_dir_all(&self.state);
    }
}

fn run(line: &Line, state: &Path, flags: &[&'static str]) -> Process {
    let launch = ringway(line, state, &["run"]);
    // Flags of the test itself come first: the matrix says nothing of what a test is about.
    let own = flags.contains(&"--workers");
    let launch = if own { launch } else { launch.args(matrix_flags()) };
    let mut process = launch.args(flags.iter().copied()).spawn().unwrap();
    let served = wait_for("the gateway to serve", SOON, || {
        process.ended().is_some()
            || process.output().contains("Serving")
            || process.errors().contains("Serving")
    });
    let ended = process.ended();
    assert!(ended.is_none() && served.is_ok(), "{}{}", process.errors(), process.output());
    process
}

/// A device of a user: what it knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) keys: KeyPair,
    /// What the gateway wrote for it.
    pub(crate) file: String,
}

impl Device {
    pub(crate) fn new(user: &str, name: &str, keys: KeyPair, file: &str) -> Self {
        Self { user: user.to_owned(), name: name.to_owned(), keys, file: file.to_owned() }
    }

    /// The value of a `Key = value` line of the file.
    pub(crate) fn setting(&self, key: &str) -> &str {
        let mut lines = self.file.lines().filter_map(|line| line.split_once(" = "));
        lines.find(|(found, _)| *found == key).map(|(_, value)| value).unwrap()
    }

    /// Its inner IPv4 address.
    pub(crate) fn address(&self) -> IpAddr {
        let first = self.setting("Address").split([',', '/']).next().unwrap();
        first.parse().unwrap()
    }

    /// Its inner address and a port.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }

    /// What `wg setconf` reads: the file without what only wg-quick knows, and the key that the
    /// device kept for itself.
    fn for_wg(&self) -> String {
        let quick = ["Address", "MTU", "DNS", "#"];
        let mut text = String::new();
        for line in
            self.file.lines().filter(|line| !quick.iter().any(|word| line.starts_with(word)))
        {
            text.push_str(&format!("{line}\n"));
            if line == "[Interface]" && !self.file.contains("\nPrivateKey = ") {
                text.push_str(&format!("PrivateKey = {}\n", self.keys.private));
            }
        }
        text
    }
}
