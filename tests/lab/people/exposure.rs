//! A port scan of the real gateway: from outside, from the network behind it, and by a client
//! through the tunnel. Every port of TCP and UDP in both families is tried, by `nmap`.
//!
//! Exactly what the configuration names is open. A host tells with an error that a UDP port is
//! nobody's; the gateway's own port says nothing at all to strangers, so it is the one that stays
//! silent. The gateway's host is let send as many such errors as it likes: with the usual limit of
//! one in a second the scan would say the same and take a day.

#![allow(clippy::print_stdout, reason = "what was found, with the result")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use ringway_perf::netns::Netns;
use ringway_perf::process::scratch;
use ringway_perf::programs::unique_interface;
use ringway_perf::topology::{Family, Place};
use ringway_perf::wait::wait_for;
use serde_json::json;

use super::capture::Capture;
use super::enrol_page::certificate;
use super::house::{House, Plan};
use crate::setup::{SOON, stock_client};

/// The port of the tunnel as a scan sees it.
const TUNNEL: &str = "51820/udp silent";

/// A scan of one address takes three seconds of an idle machine.
const SCANNED: Duration = Duration::from_secs(120);

/// What a scan of all ports of an address finds: open ones, and ones that say nothing.
fn scan(from: &Netns, to: IpAddr) -> BTreeSet<String> {
    let family = if to.is_ipv6() { "-6" } else { "-4" };
    let launch = from.launch("nmap").arg(family).arg(to.to_string());
    let said = launch.words("-n -Pn -sS -sU -p- -T5 --max-retries 10 -oG -").output(SCANNED);
    let said = said.unwrap();
    let field = |name: &str| {
        let line = said.lines().find(|line| line.contains("\tPorts: ")).unwrap_or_default();
        let mut fields = line.split('\t').filter_map(|field| field.split_once(": "));
        fields.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let closed = field("Ignored State");
    let ports = field("Ports").unwrap_or_else(|| panic!("nothing was scanned: {said}"));
    let mut found = BTreeSet::new();
    for port in ports.split(", ").filter(|port| !port.trim().is_empty()) {
        let parts: Vec<&str> = port.trim().split('/').collect();
        let state = if parts[1] == "open|filtered" { "silent" } else { parts[1] };
        found.insert(format!("{}/{} {state}", parts[0], parts[2]));
    }
    println!("{to} from {}: {found:?}, {closed:?}", from.name());
    // Whatever was not found said that it is closed: nothing was lost on the way.
    assert_eq!(closed, Some(format!("closed ({})", 2 * 65_535 - found.len())), "{said}");
    found
}

/// Scans both addresses of a place at the same time; they have the same ports.
fn scan_both(from: &Netns, place: Place) -> BTreeSet<String> {
    let [four, six] = std::thread::scope(|scope| {
        let scans =
            Family::BOTH.map(|family| scope.spawn(move || scan(from, place.address(family))));
        scans.map(|scan| scan.join().unwrap())
    });
    assert_eq!(four, six, "the families differ");
    four
}

fn set<const N: usize>(items: [&str; N]) -> BTreeSet<String> {
    items.map(str::to_owned).into()
}

/// What the host of the gateway listens on, also for itself alone.
fn listeners(house: &House) -> BTreeSet<String> {
    let said = house.line.gw.exec("ss -H -l -n -t -u").unwrap();
    let name = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", words[0], words[4])
    };
    said.lines().map(name).collect()
}

fn talkative(house: House) -> House {
    let gw = &house.line.gw;
    gw.sysctl("net.ipv4.icmp_ratelimit", "0").unwrap();
    gw.sysctl("net.ipv4.icmp_msgs_per_sec", "1000000").unwrap();
    gw.sysctl("net.ipv4.icmp_msgs_burst", "1000000").unwrap();
    gw.sysctl("net.ipv6.icmp.ratelimit", "0").unwrap();
    house
}

/// A gateway whose API and metrics are there for others, for itself, and for everybody.
fn exposed() -> House {
    let state = scratch().unwrap().join(unique_interface());
    fs::create_dir_all(&state).unwrap();
    certificate(&state);
    let config = "[api]\nlisten = [\"10.91.1.1:8443\", \"[fd91:1::1]:8443\", \"127.0.0.1:8080\", \
                  \"[::]:9443\", \"0.0.0.0:9443\"]\n\
                  certificate_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";
    let plan = Plan { config: config.to_owned(), state: Some(state), ..Plan::default() };
    talkative(House::with(plan))
}

#[test]
fn privileged_a_scan_from_outside_finds_nothing_but_the_tunnel_which_does_not_answer() {
    let house = talkative(House::new());
    let answers = Capture::start(&house.line.cli, "out", "udp and src host 10.91.1.1");
    let refused = || {
        let drops = house.stats()["total"]["drops"].clone();
        let counts = drops.as_object().unwrap().values();
        counts.filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    let before = refused();
    assert_eq!(scan_both(&house.line.cli, Place::GatewayOutside), set([TUNNEL]));
    // It was asked, and told nobody.
    wait_for("the scan to be refused", SOON, || refused() >= before + 2).unwrap();
    let answers = answers.finish(0);
    assert!(answers.is_empty(), "{answers:?}");
    assert_eq!(listeners(&house), set(["udp 0.0.0.0:51820", "udp [::]:51820"]));
}

#[test]
fn privileged_a_scan_through_the_tunnel_finds_no_more_than_one_from_outside() {
    let house = talkative(House::new());
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let client = house.join(&laptop, stock_client(), 0);
    let route = format!("-6 route replace fd91:9::/64 dev {}", client.interface());
    house.line.cli.ip(&route).unwrap();
    assert_eq!(scan_both(&house.line.cli, Place::GatewayInside), set([TUNNEL]));
}

#[test]
fn privileged_a_scan_from_outside_and_from_behind_finds_what_the_configuration_names() {
    let house = exposed();
    let named = set([TUNNEL, "8443/tcp open", "9443/tcp open"]);
    assert_eq!(scan_both(&house.line.cli, Place::GatewayOutside), named);
    let behind = scan(&house.line.dst, "10.91.2.1".parse().unwrap());
    assert_eq!(behind, set([TUNNEL, "9443/tcp open"]));
    let all = set([
        "tcp 10.91.1.1:8443",
        "tcp [fd91:1::1]:8443",
        "tcp 127.0.0.1:8080",
        "tcp 0.0.0.0:9443",
        "tcp [::]:9443",
        "udp 0.0.0.0:51820",
        "udp [::]:51820",
    ]);
    assert_eq!(listeners(&house), all);
}

#[test]
fn privileged_a_scan_through_the_tunnel_finds_what_the_configuration_names() {
    let house = exposed();
    house.user("ada", json!({}));
    let laptop = house.device("ada", "laptop");
    let client = house.join(&laptop, stock_client(), 0);
    let route = format!("-6 route replace fd91:9::/64 dev {}", client.interface());
    house.line.cli.ip(&route).unwrap();
    let named = set([TUNNEL, "9443/tcp open"]);
    assert_eq!(scan_both(&house.line.cli, Place::GatewayInside), named);
}
