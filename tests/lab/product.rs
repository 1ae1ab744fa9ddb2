//! The whole product: `ringway run`, clients on the files it wrote, masquerade, counters by reason.
//!
//! ```text
//!   cli: stock client ── gw: ringway run, masquerade ── dst (knows no inner address)
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ringway_perf::iperf::{Amount, Direction, Run, Server};
use ringway_perf::ping;
use ringway_perf::process::{Launch, Process, scratch};
use ringway_perf::programs::{Program, Tunnel, matrix_flags, unique_interface};
use ringway_perf::topology::{Family, HANDSHAKE_LIMIT, Line, Place};
use ringway_perf::wait::wait_for;

use crate::setup::{LATER, SOON, destination_at, settled, stock_client};

/// `ringway run` in the gateway's namespace, with a state folder of its own.
pub(crate) struct Product {
    pub(crate) process: Process,
    interface: String,
    pub(crate) state: PathBuf,
    pub(crate) line: Line,
}

impl Product {
    /// Starts it on a file that says only where, and waits until it serves.
    pub(crate) fn start(line: Line, outside: Family) -> Self {
        Self::start_with(line, outside, &[])
    }

    /// As [`Product::start`], with more flags.
    pub(crate) fn start_with(line: Line, outside: Family, flags: &[&str]) -> Self {
        let interface = unique_interface();
        let state = scratch().unwrap().join(&interface);
        std::fs::create_dir_all(&state).unwrap();
        let endpoint = SocketAddr::new(Place::GatewayOutside.address(outside), 51_820);
        let config = format!(
            "[interface]\nname = \"{interface}\"\npools = [\"10.91.9.0/24\", \"fd91:9::/64\"]\n\
             [exit]\nenable_forwarding = true\n[clients]\nendpoint = \"{endpoint}\"\n"
        );
        std::fs::write(state.join("ringway.toml"), config).unwrap();
        // The way back exists only for the gateway's own address.
        line.dst.ip("route del 10.91.9.0/24").unwrap();
        line.dst.ip("-6 route del fd91:9::/64").unwrap();
        let run = ringway(&line, &state, &["run"]).args(matrix_flags());
        let run = run.args(flags.iter().copied());
        let mut process = run.spawn().unwrap();
        wait_for("the gateway to serve", SOON, || {
            process.ended().is_some()
                || process.output().contains("Serving")
                || process.errors().contains("Serving")
        })
        .unwrap();
        assert!(process.ended().is_none(), "{}{}", process.errors(), process.output());
        Self { process, interface, state, line }
    }

    pub(crate) fn ask(&self, words: &[&str]) -> String {
        ringway(&self.line, &self.state, words).run().unwrap()
    }

    /// Adds a peer and starts a client in the client's namespace on the file that was printed.
    pub(crate) fn client(&self, program: Program, name: &str) -> Tunnel {
        let file = self.ask(&["peer", "add", name]);
        let tunnel = Tunnel::start(program, &self.line.cli, None).unwrap();
        let (interface, cli) = (tunnel.interface(), &self.line.cli);
        tunnel.apply(&stripped(&file)).unwrap();
        for address in setting(&file, "Address").split(", ") {
            cli.address(interface, &[address]).unwrap();
        }
        cli.ip(&format!("link set {interface} mtu {}", setting(&file, "MTU"))).unwrap();
        // The file says everything; the lab sends what is behind the outer wire.
        for prefix in ["10.91.2.0/24", "10.91.9.0/24"] {
            cli.ip(&format!("route replace {prefix} dev {interface}")).unwrap();
        }
        for prefix in ["fd91:2::/64", "fd91:9::/64"] {
            cli.ip(&format!("-6 route replace {prefix} dev {interface}")).unwrap();
        }
        for inside in Family::BOTH {
            let to = Place::Destination.address(inside);
            ping::until_answered(cli, to, HANDSHAKE_LIMIT).unwrap();
        }
        tunnel
    }

    fn drops(&self, reason: &str) -> u64 {
        let stats: serde_json::Value =
            serde_json::from_str(&self.ask(&["stats", "--json"])).unwrap();
        let count = stats["total"]["drops"][reason].as_u64();
        count.unwrap_or_else(|| panic!("no reason is called {reason}"))
    }

    fn expect_drops(&self, reason: &str, more_than: u64) {
        wait_for(reason, SOON, || self.drops(reason) > more_than).unwrap();
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        self.process.stop();
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

pub(crate) fn ringway(line: &Line, state: &std::path::Path, words: &[&str]) -> Launch {
    let program =
        Program::Ringway.find().expect("ringway is not built: cargo build -p ringway-control");
    line.gw
        .launch(&program.to_string_lossy())
        .args(words.iter().copied())
        .arg("--state-dir")
        .arg(state)
}

/// The value of a `Key = value` line.
fn setting<'a>(file: &'a str, key: &str) -> &'a str {
    let lines = file.lines().filter_map(|line| line.split_once(" = "));
    lines.filter(|(found, _)| *found == key).map(|(_, value)| value).next().unwrap()
}

/// What `wg setconf` reads: the file without what only wg-quick knows.
fn stripped(file: &str) -> String {
    let quick = ["Address", "MTU", "DNS", "#"];
    let kept = file.lines().filter(|line| !quick.iter().any(|word| line.starts_with(word)));
    kept.map(|line| format!("{line}\n")).collect()
}

pub(crate) fn download(product: &Product, inside: Family, bytes: u64) -> anyhow::Result<()> {
    transfer(product, inside, Direction::Down, bytes)
}

pub(crate) fn transfer(
    product: &Product,
    inside: Family,
    direction: Direction,
    bytes: u64,
) -> anyhow::Result<()> {
    let to = Place::Destination.address(inside);
    let server = Server::start(&product.line.dst, to, 5201, None)?;
    let amount = Amount::Bytes(bytes);
    let run = Run { streams: 1, direction, amount, rate_limit: None };
    server.run(&product.line.cli, run, None).map(drop)
}

fn runs_on_the_file_the_gateway_wrote(client: Program) {
    for outside in Family::BOTH {
        let product = Product::start(Line::new(1500).unwrap(), outside);
        let _client = product.client(client, "laptop");
        for inside in Family::BOTH {
            download(&product, inside, 8 << 20).unwrap();
            assert_eq!(source_seen(&product, inside), exit_address(inside));
        }
    }
}

fn exit_address(inside: Family) -> IpAddr {
    match inside {
        Family::V4 => "10.91.2.1".parse().unwrap(),
        Family::V6 => "fd91:2::1".parse().unwrap(),
    }
}

/// The source address under which a datagram of the client reaches the destination.
fn source_seen(product: &Product, inside: Family) -> IpAddr {
    let to = destination_at(inside, 7010);
    let receiver = product.line.dst.inside(|| UdpSocket::bind(to)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let any = if inside == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    let sender = product.line.cli.inside(|| UdpSocket::bind(any)).unwrap().unwrap();
    sender.send_to(b"who am I", to).unwrap();
    receiver.recv_from(&mut [0; 16]).unwrap().1.ip()
}

#[test]
fn privileged_wireguard_go_runs_on_the_file_the_gateway_wrote() {
    runs_on_the_file_the_gateway_wrote(Program::WireguardGo);
}

#[test]
fn privileged_boringtun_runs_on_the_file_the_gateway_wrote() {
    runs_on_the_file_the_gateway_wrote(Program::Boringtun);
}

#[test]
fn privileged_gotatun_runs_on_the_file_the_gateway_wrote() {
    runs_on_the_file_the_gateway_wrote(Program::Gotatun);
}

/// ```text
///   cli ── 1500 ── rtr (route of 1280 bytes, says nothing) ── 1500 ── gw ── dst      IPv6 outside
/// ```
#[test]
fn privileged_a_mebibyte_crosses_a_black_hole_of_1280_over_ipv6() {
    let (line, _router) = Line::with_black_hole(1280).unwrap();
    let product = Product::start(line, Family::V6);
    let _client = product.client(stock_client(), "laptop");
    download(&product, Family::V4, 1 << 20)
        .unwrap_or_else(|e| panic!("{e:#}\n{}", product.ask(&["stats"])));
}

/// A session does not notice that others come and go, nor that a file with a mistake was refused.
#[test]
fn privileged_a_live_session_outlives_changes_of_the_configuration() {
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let client = product.client(stock_client(), "laptop");
    let handshake = settled(&client);
    let ping = |what: &str| {
        let to = Place::Destination.address(Family::V4);
        assert!(ping::once(&product.line.cli, to, 56), "after {what}");
    };
    for number in 0..5 {
        product.ask(&["peer", "add", &format!("guest{number}")]);
        ping("adding a peer");
    }
    product.ask(&["peer", "remove", "guest1"]);
    ping("removing a peer");
    let path = product.state.join("ringway.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}\n[nonsense]\n")).unwrap();
    assert!(ringway(&product.line, &product.state, &["reload"]).run().is_err());
    ping("a refused file");
    std::fs::write(&path, good).unwrap();
    product.ask(&["reload"]);
    ping("a reload");
    assert_eq!(client.peers().unwrap()[0].handshake_s, handshake);

    product.ask(&["peer", "remove", "laptop"]);
    let to = Place::Destination.address(Family::V4);
    assert!(!ping::once(&product.line.cli, to, 56), "a removed peer still gets through");
}

/// Each kind of bad input is counted under its own reason, and the session goes on.
#[test]
fn privileged_bad_input_is_counted_by_reason() {
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let client = product.client(stock_client(), "laptop");
    let socket = product.line.cli.inside(|| UdpSocket::bind("10.91.1.2:0")).unwrap().unwrap();
    socket.connect("10.91.1.1:51820").unwrap();
    let mut initiation = [0x55; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    let mut data = [0x55; 96];
    data[..4].copy_from_slice(&[4, 0, 0, 0]);
    let mut reserved = data;
    reserved[2] = 1;
    let cases: [(&str, &[u8]); 6] = [
        ("datagram_truncated", &[4, 0, 0, 0, 1]),
        ("datagram_oversized", &[initiation.as_slice(), &[0; 7]].concat()),
        ("message_type_unknown", &[9; 64]),
        ("reserved_bits_set", &reserved),
        ("mac1_wrong", &initiation),
        ("index_unknown", &data),
    ];
    for (reason, datagram) in cases {
        let before = product.drops(reason);
        socket.send(datagram).unwrap();
        product.expect_drops(reason, before);
    }

    // Inside: a source that was not given, and a destination that nobody has.
    let (spoofed, interface) = ("10.91.9.77", client.interface());
    product.line.cli.address(interface, &[&format!("{spoofed}/24")]).unwrap();
    let inside = product.line.cli.inside(|| UdpSocket::bind((spoofed, 0))).unwrap().unwrap();
    let before = product.drops("source_not_allowed");
    inside.send_to(b"spoofed", destination_at(Family::V4, 9)).unwrap();
    product.expect_drops("source_not_allowed", before);
    let before = product.drops("inside_no_peer");
    let nobody = ["-c", "ping -n -c 1 -W 2 10.91.9.200 || true"];
    let told = product.line.gw.launch("sh").args(nobody).run().unwrap();
    assert!(told.contains("Unreachable"), "a host expects to hear that nobody is there: {told}");
    product.expect_drops("inside_no_peer", before);

    let to = Place::Destination.address(Family::V4);
    ping::until_answered(&product.line.cli, to, LATER).unwrap();
}

/// As an operator without our program would ask.
#[test]
fn privileged_the_stats_socket_answers_socat() {
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let _client = product.client(stock_client(), "laptop");
    let socket = format!("/run/ringway/{}.stats", product.interface);
    for (question, expected) in [
        ("stats", "to_exit_packets"),
        ("metrics", "# EOF"),
        ("sessions", "10.91.9.2"),
        ("help", "metrics"),
    ] {
        let line = format!("echo {question} | socat -t 5 - UNIX-CONNECT:{socket}");
        let ask = Launch::new("sh").args(["-c", &line]);
        // The cores publish their counters every 100 ms.
        wait_for(&format!("{expected} in the answer to {question}"), SOON, || {
            ask.run().unwrap().contains(expected)
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", ask.run()));
    }
}

/// As an operator who knows WireGuard would look.
#[test]
fn privileged_wg_shows_a_gateway_that_has_a_file_and_may_not_change_it() {
    let product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let _client = product.client(stock_client(), "laptop");
    let wg = |words: &str| {
        let words = words.split(' ').collect::<Vec<_>>();
        product.line.gw.launch("wg").args(words).run()
    };
    let shown = wg(&format!("show {}", product.interface)).unwrap();
    for expected in ["listening port: 51820", "10.91.9.2/32", "latest handshake"] {
        assert!(shown.contains(expected), "{expected} in:\n{shown}");
    }
    let refused = wg(&format!("set {} listen-port 7", product.interface)).unwrap_err();
    assert!(format!("{refused:#}").contains("not permitted"), "{refused:#}");
    assert!(wg(&format!("show {} listen-port", product.interface)).unwrap().contains("51820"));
}
