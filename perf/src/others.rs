//! VPNs that speak no WireGuard, each between its own server and its own stock client: OpenVPN, and
//! ocserv with openconnect.
//!
//! They take the place of both tunnels of [`crate::topology`], with the same namespaces, inner
//! network and MTU, IPv4 only. Everything else is stock: buffers, ciphers that both sides prefer,
//! no offload into the kernel. Certificates are made for each pair and live as long as it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::ping;
use crate::process::{Launch, Process, scratch};
use crate::programs::{Program, unique_interface};
use crate::topology::{Family, GATEWAY_PORT, HANDSHAKE_LIMIT, Line, Pinning, Place};
use crate::wait::wait_for;

/// Limit for a server or client to say that it is ready; TLS takes well below a second.
const START_LIMIT: Duration = Duration::from_secs(15);

/// As the tunnels of WireGuard have it. ocserv takes some bytes less where its headers are longer.
const TUNNEL_MTU: u16 = 1420;

/// User and password of the one client of ocserv.
const USER: &str = "perf";
const PASSWORD: &str = "not a secret";

/// What openconnect runs to set its interface up, in place of a script that edits name servers too.
const SCRIPT: &str = "#!/bin/sh
[ \"$reason\" = connect ] || exit 0
ip link set \"$TUNDEV\" mtu \"$INTERNAL_IP4_MTU\" up
ip address add \"$INTERNAL_IP4_ADDRESS/24\" dev \"$TUNDEV\"
ip route replace 10.91.2.0/24 dev \"$TUNDEV\"
";

/// A server in `gw` and its client in `cli`, connected.
#[derive(Debug)]
pub struct Pair {
    // Dropped in this order: who reads files or lives in a namespace goes before it.
    client: Process,
    server: Process,
    _files: Files,
    /// The namespaces.
    pub line: Line,
}

impl Pair {
    /// Starts `program` and its client and waits until the destination answers through them.
    ///
    /// # Errors
    /// When one of them is missing or does not get ready; with its last words.
    pub fn connect(line: Line, program: Program, pinning: Pinning) -> Result<Self> {
        let files = Files::create()?;
        let (server, client) = match program {
            Program::OpenVpn => openvpn(&line, &files, pinning),
            Program::Ocserv => ocserv(&line, &files, pinning),
            Program::Ringway
            | Program::RingwayUring
            | Program::RingwayEpoll
            | Program::RingwayTwo
            | Program::WireguardGo
            | Program::WireguardGoNew
            | Program::Boringtun
            | Program::Gotatun => bail!("{program} speaks WireGuard"),
        }?;
        let pair = Self { client, server, _files: files, line };
        let to = Place::Destination.address(Family::V4);
        ping::until_answered(&pair.line.cli, to, HANDSHAKE_LIMIT)
            .with_context(|| format!("server: {}", pair.server.output()))
            .with_context(|| format!("client: {}", pair.client.output()))?;
        Ok(pair)
    }

    /// Process id of the server.
    #[must_use]
    pub fn server_pid(&self) -> u32 {
        self.server.pid()
    }

    /// Process id of the client.
    #[must_use]
    pub fn client_pid(&self) -> u32 {
        self.client.pid()
    }
}

fn openvpn(line: &Line, files: &Files, pinning: Pinning) -> Result<(Process, Process)> {
    let at = Place::GatewayOutside.address(Family::V4);
    let (server, client) = (files.identity("server")?, files.identity("client")?);
    let start = |own: &Identity, other: &Identity, netns: &str, cpus, words: &str| {
        let interface = unique_interface();
        Launch::new(Program::OpenVpn.find().context("openvpn is not installed")?)
            .words(&format!("--dev-type tun --dev {interface} --proto udp4 --tun-mtu {TUNNEL_MTU}"))
            .words("--disable-dco --data-ciphers AES-256-GCM --topology subnet --verb 3")
            .args(["--cert".into(), own.certificate.clone()])
            .args(["--key".into(), own.key.clone()])
            .args(["--peer-fingerprint", &other.fingerprint])
            .words(words)
            .within(netns)
            .on_cpus(cpus)
            .spawn()
    };
    let words = format!("--local {at} --port {GATEWAY_PORT} --server 10.91.9.0 255.255.255.0");
    let words = format!("{words} --dh none");
    let mut serving = start(&server, &client, line.gw.name(), pinning.gateway, &words)?;
    await_words(&mut serving, "Initialization Sequence Completed")?;
    let words = format!("--client --nobind --remote {at} {GATEWAY_PORT}");
    let words = format!("{words} --route 10.91.2.0 255.255.255.0");
    let mut connected = start(&client, &server, line.cli.name(), pinning.ends, &words)?;
    await_words(&mut connected, "Initialization Sequence Completed")?;
    Ok((serving, connected))
}

fn ocserv(line: &Line, files: &Files, pinning: Pinning) -> Result<(Process, Process)> {
    let at = Place::GatewayOutside.address(Family::V4);
    let identity = files.identity("server")?;
    let hash = Launch::new("openssl").args(["passwd", "-5", PASSWORD]).run()?;
    let users = files.write("users", &format!("{USER}:*:{}\n", hash.trim()))?;
    let config = files.write("ocserv.conf", &ocserv_config(files, &identity, &users))?;
    let mut server = Launch::new(Program::Ocserv.find().context("ocserv is not installed")?)
        .args(["-f".into(), "-c".into(), config.into_os_string()])
        .within(line.gw.name())
        .on_cpus(pinning.gateway)
        .spawn()?;
    await_words(&mut server, "initialized")?;

    let script = files.write("script", SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    let mut client = Launch::new("openconnect")
        .words(&format!("--user {USER} --passwd-on-stdin --non-inter --no-system-trust"))
        .args(["--interface", &unique_interface()])
        .args(["--cafile".into(), identity.certificate])
        .args(["--script".into(), script])
        .arg(format!("https://{at}:{GATEWAY_PORT}"))
        .input(files.write("password", &format!("{PASSWORD}\n"))?)
        .within(line.cli.name())
        .on_cpus(pinning.ends)
        .spawn()?;
    // Until then packets go through TLS.
    await_words(&mut client, "Established DTLS connection")?;
    Ok((server, client))
}

fn ocserv_config(files: &Files, identity: &Identity, users: &Path) -> String {
    let (users, socket) = (users.display(), files.path("socket"));
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    // It appends a number to the name of its interface.
    let device = unique_interface();
    format!(
        "auth = \"plain[passwd={users}]\"
tcp-port = {GATEWAY_PORT}
udp-port = {GATEWAY_PORT}
run-as-user = root
run-as-group = root
socket-file = {}
server-cert = {certificate}
server-key = {key}
isolate-workers = false
max-clients = 4
max-same-clients = 4
rate-limit-ms = 0
max-ban-score = 0
keepalive = 300
dpd = 300
mobile-dpd = 300
try-mtu-discovery = false
auth-timeout = 60
cookie-timeout = 300
rekey-time = 86400
device = {device}
predictable-ips = true
ipv4-network = 10.91.9.0
ipv4-netmask = 255.255.255.0
mtu = {TUNNEL_MTU}
cisco-client-compat = false
dtls-legacy = false
log-level = 1
",
        socket.display()
    )
}

/// Waits until a process says something, on whichever of its outputs.
fn await_words(process: &mut Process, words: &str) -> Result<()> {
    let said = |process: &Process| format!("{}{}", process.output(), process.errors());
    let waited = wait_for(&format!("{words:?}"), START_LIMIT, || {
        process.ended().is_some() || said(process).contains(words)
    });
    waited.with_context(|| said(process))?;
    ensure!(said(process).contains(words), "It ended:\n{}", said(process));
    Ok(())
}

/// A folder that goes with its owner.
#[derive(Debug)]
struct Files(PathBuf);

/// A key, and a certificate that it signed itself.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    fingerprint: String,
}

impl Files {
    fn create() -> Result<Self> {
        let folder = scratch()?.join(unique_interface());
        fs::create_dir(&folder).with_context(|| format!("Creating {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("Writing {}", path.display()))?;
        Ok(path)
    }

    /// Makes a certificate for the address of the gateway, as openconnect wants it.
    fn identity(&self, name: &str) -> Result<Identity> {
        let at = Place::GatewayOutside.address(Family::V4);
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(name));
        Launch::new("openssl")
            .words("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30")
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", &format!("subjectAltName=IP:{at}")])
            .args(["-keyout".into(), key.clone()])
            .args(["-out".into(), certificate.clone()])
            .run()
            .context("Certificates need the openssl command")?;
        let told = Launch::new("openssl")
            .words("x509 -noout -fingerprint -sha256 -in")
            .arg(certificate.clone())
            .run()?;
        let fingerprint = told.trim().split_once('=').context("openssl told no fingerprint")?.1;
        Ok(Identity { certificate, key, fingerprint: fingerprint.to_owned() })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
