//! What the process may do and how the host is set: capabilities, limits, buffers, forwarding, the
//! firewall program, the port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::net::UnixStream;

use ringway_proto::allowed_ips::IpNet;
use ringway_ring::UdpOptions;

use super::{Files, Finding};
use crate::config::Config;
use crate::exit::{links, nft};
use crate::run;

const AREA: &str = "host";

/// Numbers of capabilities in the masks of `/proc` (linux/capability.h).
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_ADMIN: u32 = 12;

/// Backlog of packets per CPU below which bursts are lost before anybody reads them.
const BACKLOG_MIN: u64 = 5_000;

/// Open files of a gateway with few sessions: sockets, queues, rings and clients of control.
const FILES_MIN: u64 = 1_024;

/// Memory that a worker's ring may register, in bytes: receive and transmit buffers together.
const LOCKED_BYTES_PER_WORKER: u64 = 64 << 20;

pub(super) fn examine(files: &Files, config: &Config) -> Vec<Finding> {
    let mut findings = vec![configuration(config)];
    findings.extend(capabilities(files, config));
    findings.extend(limits(files));
    findings.extend(buffers(files));
    findings.extend(forwarding(files, config));
    findings.extend(ipv6(files, config));
    findings.extend(pools(config));
    findings.push(firewall(config));
    findings.push(port(config));
    findings
}

fn configuration(config: &Config) -> Finding {
    let peers = config.peers.len();
    let capacity = config.limits.peers_max;
    let text = format!("{peers} of at most {capacity} peers, {} warning(s)", config.warnings.len());
    if config.warnings.is_empty() {
        Finding::ok(AREA, "configuration", text)
    } else {
        Finding::advice(AREA, "configuration", text, "ringway check")
    }
}

fn capabilities(files: &Files, config: &Config) -> Vec<Finding> {
    let status = files.text("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| mask >> capability & 1 == 1;
    let fix = "run as root, or by the systemd unit (tools/packaging/install), or setcap \
               cap_net_admin,cap_net_bind_service+ep on the program";
    let mut findings = vec![if has(CAP_NET_ADMIN) {
        Finding::ok(AREA, "CAP_NET_ADMIN", "interface, addresses, firewall, marks")
    } else {
        let text = "no interface can be made, no address set, no firewall table";
        Finding::missing(AREA, "CAP_NET_ADMIN", text, fix)
    }];
    let lowest = files.number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let port = config.interface.listen_port;
    if u64::from(port) < lowest && !has(CAP_NET_BIND_SERVICE) {
        let text = format!("port {port} is below {lowest}");
        findings.push(Finding::missing(AREA, "CAP_NET_BIND_SERVICE", text, fix));
    }
    findings
}

fn limits(files: &Files) -> Vec<Finding> {
    let text = files.text("/proc/self/limits").unwrap_or_default();
    let soft = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = line.split_whitespace().next()?;
        if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
    };
    let checks = [
        ("open files", "Max open files", FILES_MIN, "NOFILE", "ulimit -n 1048576"),
        (
            "locked memory",
            "Max locked memory",
            LOCKED_BYTES_PER_WORKER,
            "MEMLOCK",
            "ulimit -l unlimited",
        ),
    ];
    let judged = checks.into_iter().filter_map(|(name, line, least, limit, command)| {
        let value = soft(line)?;
        let shown = if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() };
        Some(if value >= least {
            Finding::ok(AREA, name, shown)
        } else {
            let text = format!("{shown}, a worker may want {least}");
            let fix = format!("{command} (Limit{limit}=infinity in a systemd unit)");
            Finding::advice(AREA, name, text, fix)
        })
    });
    judged.collect()
}

fn buffers(files: &Files) -> Vec<Finding> {
    let wanted = UdpOptions::default().buffer_bytes as u64;
    let checks = [
        ("net.core.rmem_max", wanted, "bursts are lost in a full socket without CAP_NET_ADMIN"),
        ("net.core.wmem_max", wanted, "sends are refused sooner without CAP_NET_ADMIN"),
        ("net.core.netdev_max_backlog", BACKLOG_MIN, "bursts are lost before the socket"),
    ];
    let judged = checks.into_iter().filter_map(|(name, least, what)| {
        let value = files.number(&format!("/proc/sys/{}", name.replace('.', "/")))?;
        Some(if value >= least {
            Finding::ok(AREA, name, value.to_string())
        } else {
            let text = format!("{value} is below {least}: {what}");
            Finding::advice(AREA, name, text, format!("sysctl -w {name}={least}"))
        })
    });
    judged.collect()
}

fn forwarding(files: &Files, config: &Config) -> Vec<Finding> {
    let interface = &config.interface;
    let families = [
        (interface.pool4.is_some(), "IPv4 forwarding", "net.ipv4.ip_forward"),
        (interface.pool6.is_some(), "IPv6 forwarding", "net.ipv6.conf.all.forwarding"),
    ];
    let mut findings = Vec::new();
    for (_, name, switch) in families.into_iter().filter(|(wanted, ..)| *wanted) {
        let on = files.number(&format!("/proc/sys/{}", switch.replace('.', "/")));
        findings.push(match on {
            Some(1..) => Finding::ok(AREA, name, "the host forwards"),
            _ if config.exit.enable_forwarding => {
                Finding::ok(AREA, name, "switched on while the gateway runs, and back at the end")
            }
            Some(0) => Finding::missing(
                AREA,
                name,
                "clients reach this host and nothing behind it",
                format!("sysctl -w {switch}=1, or write enable_forwarding = true in [exit]"),
            ),
            None => Finding::missing(
                AREA,
                name,
                "the kernel has this protocol switched off",
                "leave its pool out of pools in [interface]",
            ),
        });
    }
    findings.extend(advertised_routes(files));
    findings
}

/// A host that forwards IPv6 stops listening to router advertisements, and with them its own
/// default route expires, unless it is told to go on listening.
fn advertised_routes(files: &Files) -> Vec<Finding> {
    if files.number("/proc/sys/net/ipv6/conf/all/forwarding") != Some(1) {
        return Vec::new();
    }
    let judged = super::machine::uplinks(files).into_iter().filter_map(|uplink| {
        let listens = files.number(&format!("/proc/sys/net/ipv6/conf/{uplink}/accept_ra"))?;
        (listens == 1).then(|| {
            let text = "a forwarding host ignores router advertisements; its default route may \
                        expire";
            let fix = format!("sysctl -w net/ipv6/conf/{uplink}/accept_ra=2");
            Finding::advice(AREA, format!("accept_ra of {uplink}"), text, fix)
        })
    });
    judged.collect()
}

fn ipv6(files: &Files, config: &Config) -> Option<Finding> {
    config.interface.pool6?;
    let off = |scope: &&str| {
        files.number(&format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")) == Some(1)
    };
    let scope = ["all", "default"].into_iter().find(off)?;
    let text = "switched off on this host: the interface cannot have its IPv6 address";
    let fix = format!(
        "leave the IPv6 pool out of pools in [interface], or sysctl -w \
         net.ipv6.conf.{scope}.disable_ipv6=0"
    );
    Some(Finding::missing(AREA, "IPv6", text, fix))
}

fn pools(config: &Config) -> Vec<Finding> {
    let interface = &config.interface;
    let pools: Vec<IpNet> = interface.pools().collect();
    // Where netlink does not answer, other checks say so.
    let conflicts = run::wait_for(links::conflicts(&interface.name, &pools)).unwrap_or_default();
    let judged = conflicts.into_iter().map(|conflict| {
        let fix = "write other pools in [interface], or remove that address";
        Finding::missing(AREA, format!("pool {}", conflict.pool), conflict.to_string(), fix)
    });
    judged.collect()
}

fn firewall(config: &Config) -> Finding {
    const NAME: &str = "nft";
    if !config.exit.masquerade {
        return Finding::ok(AREA, NAME, "not needed: masquerade = false");
    }
    match nft::version() {
        Ok(version) => Finding::ok(AREA, NAME, version),
        Err(error) => Finding::missing(
            AREA,
            NAME,
            format!("cannot be started ({error}), and masquerade = true needs it"),
            "apt install nftables, or write masquerade = false in [exit]",
        ),
    }
}

fn port(config: &Config) -> Finding {
    let port = config.interface.listen_port;
    let name = format!("UDP port {port}");
    if UnixStream::connect(&config.stats.socket).is_ok() {
        return Finding::ok(AREA, name, "the gateway is running");
    }
    let addresses = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let busy = addresses.into_iter().any(|address| {
        let bound = UdpSocket::bind((address, port));
        bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    });
    if busy {
        let fix = format!(
            "ss -ulpn 'sport = :{port}' shows who has it; stop that or write another \
                           listen_port in [interface]"
        );
        Finding::missing(AREA, name, "is taken by another program", fix)
    } else {
        Finding::ok(AREA, name, "free")
    }
}
