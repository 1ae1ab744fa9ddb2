//! The doctor on recorded hosts: trees of files in place of `/proc` and `/sys`.

use std::fs;

use super::*;
use crate::config::Overrides;
use crate::scratch::Scratch;

fn files(name: &str, entries: &[(&str, &str)]) -> (Scratch, Files) {
    let folder = Scratch::new(name);
    for (path, text) in entries {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let files = Files { root: folder.path().to_owned() };
    (folder, files)
}

pub(super) fn config(text: &str) -> Config {
    Config::parse(text, "t", Path::new("/"), &Overrides::default()).unwrap()
}

fn find<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.name == name).unwrap()
}

#[test]
fn a_bare_host_is_told_what_is_missing_with_commands() {
    let (_folder, files) = files(
        "doctor_bare",
        &[
            ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n"),
            (
                "proc/self/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax open files  256  4096  files\n\
                 Max locked memory  65536  65536  bytes\n",
            ),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
            ("proc/sys/net/ipv4/ip_forward", "0\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
            ("proc/sys/net/ipv6/conf/default/disable_ipv6", "1\n"),
        ],
    );
    let findings = host::examine(&files, &config("[interface]\nlisten_port = 53\n"));
    for (name, state, fix) in [
        ("CAP_NET_ADMIN", State::Missing, "setcap"),
        ("CAP_NET_BIND_SERVICE", State::Missing, "setcap"),
        ("open files", State::Advice, "LimitNOFILE"),
        ("locked memory", State::Advice, "ulimit -l unlimited"),
        ("net.core.rmem_max", State::Advice, "sysctl -w net.core.rmem_max="),
        (
            "net.core.netdev_max_backlog",
            State::Advice,
            "sysctl -w net.core.netdev_max_backlog=5000",
        ),
        ("IPv6", State::Missing, "net.ipv6.conf.default.disable_ipv6=0"),
        ("IPv4 forwarding", State::Missing, "sysctl -w net.ipv4.ip_forward=1"),
        ("IPv6 forwarding", State::Missing, "enable_forwarding = true"),
    ] {
        let finding = find(&findings, name);
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.fix.as_ref().unwrap().contains(fix), "{finding:?}");
    }
    assert!(is_missing_something(&findings));
}

#[test]
fn a_well_set_host_has_nothing_missing() {
    let (_folder, files) = files(
        "doctor_good",
        &[
            ("proc/self/status", "CapEff:\t000001fffeffffff\n"),
            ("proc/self/limits", "Max open files  1048576 1048576 files\n"),
            ("proc/sys/net/core/rmem_max", "16777216\n"),
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
            ("proc/sys/net/ipv6/conf/eth0/accept_ra", "1\n"),
            ("proc/net/ipv6_route", &format!("{0:032} 00 {0:032} 00 {0:032} 1 1 1 1 eth0\n", 0)),
        ],
    );
    let text = "[exit]\nmasquerade = false\n[interface]\nlisten_port = 50999\n";
    let findings = host::examine(&files, &config(text));
    assert!(!is_missing_something(&findings), "{findings:?}");
    let routes = find(&findings, "accept_ra of eth0");
    assert_eq!(routes.fix.as_deref(), Some("sysctl -w net/ipv6/conf/eth0/accept_ra=2"));
}

#[test]
fn forwarding_that_the_gateway_switches_on_is_not_missing() {
    let (_folder, files) = files("doctor_forward", &[("proc/sys/net/ipv4/ip_forward", "0\n")]);
    let config = config("[exit]\nenable_forwarding = true\n");
    let findings = host::examine(&files, &config);
    assert_eq!(find(&findings, "IPv4 forwarding").state, State::Ok);
}

#[test]
fn uplinks_are_the_interfaces_with_a_default_route() {
    let (_folder, files) = files(
        "doctor_uplinks",
        &[
            (
                "proc/net/route",
                "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                 eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                 eth1\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
            ),
            (
                "proc/net/ipv6_route",
                "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                 fe800000000000000000000000000001 00000400 1 0 00000003 wlan0\n\
                 00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                 00000000000000000000000000000000 ffffffff 1 0 00200200       lo\n",
            ),
        ],
    );
    assert_eq!(machine::uplinks(&files), ["eth0", "wlan0"]);
}

#[test]
fn findings_are_printed_for_people_and_for_programs() {
    let findings = [
        Finding::ok("kernel", "release", "6.18"),
        Finding::missing("host", "nft", "is not there", "apt install nftables"),
    ];
    assert_eq!(
        show(&findings),
        "kernel\n  ok      release: 6.18\n\nhost\n  MISSING nft: is not there\n          \
         fix: apt install nftables\n\n1 missing, 0 could be better\n"
    );
    let value: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["findings"][1]["state"], "missing");
    assert_eq!(value["findings"][1]["fix"], "apt install nftables");
}

#[test]
fn this_machine_can_be_examined_without_a_configuration() {
    let findings = examine(&config(""));
    assert!(findings.len() > 10, "{findings:?}");
}
