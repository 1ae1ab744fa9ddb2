//! A gateway that serves people, and what its clients are made of: users and devices in its store,
//! fleets whose keys those devices have, a stock client for TCP.
//!
//! ```text
//!   cli: fleets, a stock client ── gw: ringway run, its API on a Unix socket ── dst: far ends
//!        10.128.0.0/9 is local            10.0.0.0/14 inside                10.91.2.2
//! ```
//!
//! Every scenario begins with one of its own. It must not know the gateway's insides.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use ringway_proto::crypto::PublicKey;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cpu;
use crate::fleet::{Fleet, OUTER_PREFIX, Roster, cpu_count, pin_this_thread};
use crate::process::{Process, scratch};
use crate::programs::{Program, Tunnel, unique_interface};
use crate::topology::{GATEWAY_PORT, HANDSHAKE_LIMIT, Line, Place};
use crate::wait::{wait_for, wait_until};
use crate::wg::KeyPair;
use crate::{ping, topology};

/// Addresses of clients inside; those of a [`Roster`] are among them.
const POOL: &str = "10.0.0.0/14";

/// Limit for a gateway to start with very many records.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Seed of all keys of all scenarios.
pub(super) const SEED: u64 = 0x9e09;

/// The policy of everybody who has a device: access does not end meanwhile.
const FORM: &str = r#"{"session_timeout_s": 0, "devices_max": 1000, "sessions_max": 1000}"#;

/// The gateway and the hosts around it.
pub(super) struct House {
    // Dropped before the namespaces.
    process: Process,
    state: PathBuf,
    socket: PathBuf,
    pub(super) api: Api,
    pub(super) line: Line,
    public: PublicKey,
}

impl House {
    /// Starts it with more sections of its configuration, and binds this thread, and those it
    /// starts, away from its worker. `prepare` may put files into its state folder first.
    pub(super) fn start(config: &str, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        pin_this_thread(None)?;
        let line = Line::new(1500)?;
        line.cli.ip(&format!("route add local {OUTER_PREFIX} dev lo"))?;
        line.gw.ip(&format!("route add {OUTER_PREFIX} via 10.91.1.2"))?;
        line.dst.ip(&format!("route add {POOL} via 10.91.2.1"))?;
        let interface = unique_interface();
        let state = scratch()?.join(&interface);
        fs::create_dir_all(&state)?;
        prepare(&state)?;
        let text = format!(
            "[interface]\nname = \"{interface}\"\npools = [\"{POOL}\"]\n\
             [exit]\nenable_forwarding = true\n\
             [clients]\nendpoint = \"10.91.1.1:{GATEWAY_PORT}\"\ndns = []\n{config}\n"
        );
        fs::write(state.join("ringway.toml"), text)?;
        let process = spawn(&line, &state)?;
        let socket = PathBuf::from(format!("/run/ringway/{interface}.api"));
        let api = Api::at(&socket);
        let public = PublicKey([0; 32]);
        let mut house = Self { process, state, socket, api, line, public };
        house.is_served()?;
        house.api.call("PATCH", "/api/v1/policies/default", Some(&serde_json::from_str(FORM)?))?;
        house.public = house.learn_key(&interface)?;
        pin_this_thread(ends_cpu())?;
        Ok(house)
    }

    /// One more connection to the API.
    pub(super) fn dial(&self) -> Api {
        Api::at(&self.socket)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Processor seconds that it has taken.
    pub(super) fn cpu_s(&self) -> f64 {
        cpu::seconds_of(self.pid())
    }

    /// Seconds that its worker had to wait for its processor because somebody else had it.
    pub(super) fn worker_waited_s(&self) -> f64 {
        cpu::waited_s_of(self.pid(), "ringway-0")
    }

    /// Its resident memory once it has come to rest, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        let mut last = cpu::resident_bytes_of(self.pid());
        let still = || {
            let now = cpu::resident_bytes_of(self.pid());
            let still = now.abs_diff(last) < 64 << 10;
            last = now;
            std::thread::sleep(Duration::from_millis(300));
            still
        };
        wait_for("memory to come to rest", START_LIMIT, still)?;
        Ok(last)
    }

    /// Bytes of the store's files.
    pub(super) fn store_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for entry in fs::read_dir(&self.state)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("ringway.db") {
                sum += entry.metadata()?.len();
            }
        }
        Ok(sum)
    }

    /// Stops it as an operator would and starts it again; the seconds that stopping took, and the
    /// moment of the new start. Nothing is waited for.
    pub(super) fn restart(&mut self) -> Result<(f64, Instant)> {
        let begun = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let ended = self.process.wait(START_LIMIT)?;
        ensure!(ended.success(), "The gateway ended with {ended}: {}", self.process.errors());
        let stopped_s = begun.elapsed().as_secs_f64();
        pin_this_thread(None)?;
        let started = Instant::now();
        self.process = spawn(&self.line, &self.state)?;
        pin_this_thread(ends_cpu())?;
        Ok((stopped_s, started))
    }

    /// Waits until the API answers and the store is known.
    pub(super) fn is_served(&self) -> Result<()> {
        let up = || {
            let answer = self.api.request("GET", "/api/v1/health", None);
            answer.is_ok_and(|answer| {
                let part = |part: &Value| part["name"] == "store" && part["healthy"] == true;
                answer.json()["parts"].as_array().is_some_and(|parts| parts.iter().any(part))
            })
        };
        wait_for("the API to answer", START_LIMIT, up)
            .with_context(|| format!("{}{}", self.process.errors(), self.process.output()))
    }

    /// A fleet of clients that the gateway does not know yet.
    pub(super) fn strangers(&self, roster: Roster) -> Result<Fleet> {
        let at = SocketAddrV4::new(Ipv4Addr::new(10, 91, 1, 1), GATEWAY_PORT);
        Fleet::enlist(roster, self.public, at, &self.line.cli)
    }

    /// A fleet, a user for each client (`NAME0`, `NAME1`, …) with a device, let in by an operator.
    pub(super) fn fleet(&self, name: &str, roster: Roster) -> Result<Fleet> {
        let fleet = self.strangers(roster)?;
        for number in 0..roster.count {
            let user = format!("{name}{number}");
            self.api.call("POST", "/api/v1/users", Some(&json!({ "name": user })))?;
            let form = json!({
                "name": "device",
                "public_key": STANDARD.encode(fleet.public(number).0),
                "address4": roster.inner(number),
            });
            self.api.call("POST", &format!("/api/v1/users/{user}/devices"), Some(&form))?;
            self.let_in(&user)?;
        }
        Ok(fleet)
    }

    /// As [`House::fleet`], each with a session.
    pub(super) fn connected(&self, name: &str, roster: Roster) -> Result<Fleet> {
        let mut fleet = self.fleet(name, roster)?;
        let shaken = fleet.shake(0..roster.count, 64, Duration::from_secs(40))?;
        ensure!(shaken.failed == 0, "{} of {name} got no session: {}", shaken.failed, self.said());
        Ok(fleet)
    }

    /// An operator lets all devices of a user in.
    pub(super) fn let_in(&self, user: &str) -> Result<()> {
        let path = format!("/api/v1/users/{user}/access");
        self.api.call("POST", &path, Some(&json!({})))?;
        Ok(())
    }

    /// A stock client on a device of its own, through which the destination answers.
    pub(super) fn stock_client(&self, user: &str) -> Result<Tunnel> {
        let candidates = [Program::WireguardGoNew, Program::Gotatun, Program::WireguardGo];
        let program = candidates.into_iter().find(|program| program.find().is_some());
        let program = program.context("No client is installed: tools/setup full")?;
        let keys = KeyPair::generate()?;
        self.api.call("POST", "/api/v1/users", Some(&json!({ "name": user })))?;
        let form = json!({ "name": "laptop", "public_key": keys.public });
        let added = self.api.call("POST", &format!("/api/v1/users/{user}/devices"), Some(&form))?;
        self.let_in(user)?;
        let file = added["client_file"].as_str().context("The API gave no client file")?;
        let cli = &self.line.cli;
        let tunnel = Tunnel::start(program, cli, ends_cpu().map(|_| "0"))?;
        tunnel.apply(&for_wg(file, &keys))?;
        let interface = tunnel.interface();
        for address in setting(file, "Address")?.split(", ") {
            cli.address(interface, &[address])?;
        }
        cli.ip(&format!("link set {interface} mtu {}", setting(file, "MTU")?))?;
        cli.ip(&format!("route replace 10.91.2.0/24 dev {interface}"))?;
        let to = Place::Destination.address(topology::Family::V4);
        ping::until_answered(cli, to, HANDSHAKE_LIMIT).with_context(|| self.said())?;
        Ok(tunnel)
    }

    /// What it said, for reports of failures.
    pub(super) fn said(&self) -> String {
        format!("{}{}", self.process.errors(), self.process.output())
    }

    fn learn_key(&self, interface: &str) -> Result<PublicKey> {
        let text = self.line.gw.launch("wg").args(["show", interface, "public-key"]).run()?;
        let bytes = STANDARD.decode(text.trim())?;
        let bytes = <[u8; 32]>::try_from(bytes);
        Ok(PublicKey(bytes.map_err(|_| anyhow::anyhow!("No key: {text}"))?))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.process.stop();
        let _gone = fs::remove_dir_all(&self.state);
    }
}

/// The CPU of everything that is not the gateway, if it has one of its own.
pub(super) fn ends_cpu() -> Option<usize> {
    cpu_count().is_ok_and(|cpus| cpus > 1).then_some(0)
}

fn spawn(line: &Line, state: &Path) -> Result<Process> {
    let program = Program::Ringway.find().context("ringway is not built")?;
    let place = if cpu_count()? > 1 { "--workers 1 --cpus 1" } else { "--workers 1" };
    let launch = line.gw.launch(&program.to_string_lossy()).arg("run").words(place);
    let mut process = launch.arg("--state-dir").arg(state).spawn()?;
    let serving = wait_until("the gateway to serve", START_LIMIT, || {
        let said = |text: String| text.contains("Serving");
        let ended = process.ended();
        (ended.is_some() || said(process.output()) || said(process.errors())).then_some(ended)
    });
    match serving {
        Ok(None) => Ok(process),
        Ok(Some(_)) | Err(_) => {
            bail!("ringway did not start:\n{}{}", process.errors(), process.output())
        }
    }
}

/// The value of a `Key = value` line.
fn setting<'a>(file: &'a str, key: &str) -> Result<&'a str> {
    let mut lines = file.lines().filter_map(|line| line.split_once(" = "));
    let found = lines.find(|(found, _)| *found == key).map(|(_, value)| value);
    found.with_context(|| format!("The client file has no {key}"))
}

/// What `wg setconf` reads: without what only wg-quick knows, and with the device's own key.
fn for_wg(file: &str, keys: &KeyPair) -> String {
    let quick = ["Address", "MTU", "DNS", "#"];
    let mut text = String::new();
    for line in file.lines().filter(|line| !quick.iter().any(|word| line.starts_with(word))) {
        text.push_str(&format!("{line}\n"));
        if line == "[Interface]" {
            text.push_str(&format!("PrivateKey = {}\n", keys.private));
        }
    }
    text
}
