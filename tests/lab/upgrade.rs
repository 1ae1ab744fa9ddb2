//! A new process takes the gateway over under traffic: nobody notices, and a new process that fails
//! leaves everything as it was.
//!
//! ```text
//!   cli: stock client ── gw: ringway, then another one (tcpdump) ── dst
//! ```
//!
//! Loss is counted by numbered datagrams, nonces by a checker that knows every message of the
//! capture, handshakes by what the untouched client says. What fails is the real program: strace
//! ends it, or stops it, as it is about to say the next thing.

#![allow(clippy::print_stdout, reason = "what was lost and how long it took, with the result")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_perf::iperf::{self, Amount, Direction, Run};
use ringway_perf::nonce::{self, NonceReport};
use ringway_perf::order::OrderReport;
use ringway_perf::ping;
use ringway_perf::process::{Launch, Process, scratch};
use ringway_perf::programs::{Program, matrix_flags};
use ringway_perf::topology::{Family, Line, Place, Site};
use ringway_perf::wait::wait_for;

use crate::product::{Product, ringway};
use crate::setup::{
    SOON, client_at, destination_at, gateway, iperf_server, numbered_while, settled, site,
};

/// Numbered datagrams per second and direction.
const RATE: u64 = 500;

/// TCP beside them, bits per second: the machine is not to be full, so that every loss tells.
const TCP_RATE: u64 = 20_000_000;

/// Limit for an upgrade: a build without optimisation under strace takes a second.
const UPGRADE_LIMIT: Duration = Duration::from_secs(20);

fn program() -> String {
    let found = Program::Ringway.find();
    found.expect("ringway is not built: cargo build -p ringway-control").display().to_string()
}

/// `ringway upgrade` of the site's gateway, in the foreground, so that it ends with its owner.
fn upgrade(site: &Site, strace: &[&str]) -> Launch {
    let interface = site.gateway.tunnel.interface();
    let launch = match strace {
        [] => site.line.gw.launch(&program()),
        words => {
            let words = words.iter().copied();
            site.line.gw.launch("strace").args(["-o", "/dev/null"]).args(words).arg(program())
        }
    };
    launch.args(["upgrade", "-f", "--interface", interface])
}

/// Starts the next process and waits until it is the gateway.
fn upgraded(launch: &Launch) -> Process {
    let mut process = launch.spawn().unwrap();
    wait_for("the new process to take over", UPGRADE_LIMIT, || {
        process.ended().is_some() || process.output().contains("Took over")
    })
    .unwrap();
    assert!(process.ended().is_none(), "{}{}", process.errors(), process.output());
    print!("{}", process.output());
    process
}

/// Captures what leaves the gateway while `work` runs, and looks at its nonces.
fn captured<T>(line: &Line, work: impl FnOnce() -> T) -> (T, NonceReport) {
    // Large sends must be captured as single datagrams.
    line.gw.exec("ethtool -K out tx-udp-segmentation off").unwrap();
    let path: PathBuf = scratch().unwrap().join(format!("{}.pcap", line.gw.name()));
    let mut tcpdump = line
        .gw
        .launch("tcpdump")
        .words("-i out -U -B 16384 -Z root -w")
        .arg(&path)
        .arg("udp")
        .spawn()
        .unwrap();
    wait_for("tcpdump to listen", SOON, || tcpdump.errors().contains("listening")).unwrap();
    let done = work();
    tcpdump.stop();
    assert!(tcpdump.errors().contains("\n0 packets dropped by kernel"), "{}", tcpdump.errors());
    let report = nonce::check(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(&path).unwrap();
    (done, report)
}

/// Numbered datagrams both ways while `work` runs; what became of those to the exit, and of those
/// to the client.
fn numbered_both_ways<T: Send>(
    line: &Line,
    work: impl FnOnce() -> T + Send,
) -> (T, [OrderReport; 2]) {
    let (cli, dst) = (&line.cli, &line.dst);
    let up = (client_at(Family::V4, 7007), destination_at(Family::V4, 7007));
    let down = (destination_at(Family::V6, 7008), client_at(Family::V6, 7008));
    let ((done, to_client, _), to_exit, _) = numbered_while((cli, up.0), (dst, up.1), RATE, || {
        numbered_while((dst, down.0), (cli, down.1), RATE, work)
    });
    (done, [to_exit, to_client])
}

/// When the client and the gateway last shook hands.
fn handshakes(site: &Site) -> [u64; 2] {
    [&site.client, &site.gateway.tunnel].map(|tunnel| tunnel.peers().unwrap()[0].handshake_s)
}

fn answers(site: &Site) {
    for inside in Family::BOTH {
        let to = Place::Destination.address(inside);
        ping::until_answered(&site.line.cli, to, SOON).unwrap();
    }
}

#[test]
fn privileged_three_upgrades_in_a_row_are_not_noticed() {
    if gateway() != Program::Ringway {
        return; // others cannot
    }
    let mut site = site();
    settled(&site.client);
    let before = handshakes(&site);
    let server = iperf_server(&site, Family::V4);
    let amount = Amount::Seconds { omitted_s: 0, measured_s: 12 };
    let run = Run { streams: 1, direction: Direction::Up, amount, rate_limit: Some(TCP_RATE) };
    let mut heirs = Vec::new();
    let (reports, nonces) = captured(&site.line, || {
        let mut tcp = server.client(&site.line.cli, run, None).spawn().unwrap();
        let ((), reports) = numbered_both_ways(&site.line, || {
            for _ in 0..3 {
                let flags = matrix_flags();
                heirs.push(upgraded(&upgrade(&site, &[]).args(flags)));
                answers(&site);
                let carried = || site.gateway.tunnel.peers().unwrap()[0].rx_bytes;
                let start = carried();
                wait_for("a megabyte to pass", SOON, || carried() > start + (1 << 20)).unwrap();
            }
        });
        let ended = tcp.wait(Duration::from_secs(30)).unwrap();
        assert!(ended.success(), "{}{}", tcp.errors(), tcp.output());
        let carried = iperf::read(&tcp.output()).unwrap();
        println!("TCP: {carried:?}");
        // Of a stream that had stood still for long, however busy the machine is.
        assert!(carried.bits_per_second > TCP_RATE as f64 / 2.0, "TCP slowed down: {carried:?}");
        reports
    });
    for (report, way) in reports.iter().zip(["to exit", "to client"]) {
        println!("{way}: {report}");
        assert_eq!((report.missing, report.duplicates, report.late), (0, 0, 0), "{way}: {report}");
        assert!(report.gap_max < Duration::from_secs(1), "{way}: {report}");
    }
    assert!(nonces.reused.is_empty(), "{nonces:?}");
    assert_eq!(nonces.keys, 2, "one key each way, as before: {nonces:?}");
    // The checker saw what left: at the least, a message for each datagram that arrived. (Those of
    // the client come merged, and only the first of each train is looked at.)
    assert!(nonces.messages >= reports[1].arrived, "{nonces:?}");
    assert_eq!(handshakes(&site), before, "nobody shook hands again");

    // Each has ended as it should when the next took over.
    let old = site.gateway.tunnel.process().ended();
    assert!(old.is_some_and(|status| status.success()), "{old:?}");
    let mut last = heirs.pop().unwrap();
    for mut heir in heirs {
        wait_for("an old process to end", SOON, || heir.ended().is_some()).unwrap();
        assert!(heir.ended().unwrap().success(), "{}", heir.errors());
    }
    // Whoever asks finds the new one, which can be configured.
    site.gateway.tunnel.set("fwmark 7").unwrap();
    assert!(last.ended().is_none());
    answers(&site);
}

/// A new process that fails.
struct Failing {
    what: String,
    /// What strace does to it.
    strace: Vec<String>,
    flags: &'static [&'static str],
    /// Something of what the operator is told, if there is somebody left to tell.
    told: Option<&'static str>,
}

/// What happens to it as it is about to say its message of this number: that it accepts (2), is
/// prepared (3), is ready (4), carries packets (5).
fn struck(by: &str, message: u32) -> Failing {
    let inject = format!("inject=sendmsg:{by}:when={message}");
    let strace = ["-e", "trace=sendmsg", "-e", &inject].map(str::to_owned).to_vec();
    Failing { what: format!("{by} at message {message}"), strace, flags: &[], told: None }
}

fn failures() -> Vec<Failing> {
    let no_ring = "-f -e trace=io_uring_setup -e inject=io_uring_setup:error=ENOSYS";
    let mut all = vec![
        Failing {
            what: "another number of workers".to_owned(),
            strace: Vec::new(),
            flags: &["--workers", "7", "--oversubscribe"],
            told: Some("would have 7"),
        },
        Failing {
            what: "no ring".to_owned(),
            strace: no_ring.split(' ').map(str::to_owned).collect(),
            flags: &["--driver", "uring"],
            told: Some("ringway:"),
        },
    ];
    all.extend((2..=5).map(|message| struck("signal=SIGKILL", message)));
    // It carries packets and cannot say so: then there must not be two.
    all.push(struck("error=EIO", 5));
    all
}

#[test]
fn privileged_a_new_process_that_fails_leaves_everything_as_it_was() {
    if gateway() != Program::Ringway {
        return;
    }
    let mut site = site();
    settled(&site.client);
    let before = handshakes(&site);
    let ((heir, reports), nonces) = captured(&site.line, || {
        numbered_both_ways(&site.line, || {
            for failing in failures() {
                fail(&site, &failing);
                answers(&site);
            }
            upgraded(&upgrade(&site, &[]).args(matrix_flags()))
        })
    });
    for (report, way) in reports.iter().zip(["to exit", "to client"]) {
        println!("{way}: {report}");
        assert_eq!(report.duplicates, 0, "{way}: {report}");
        // Where several cores share the work, a packet that one of them has in hand when it stands
        // still and goes on may be passed by the next one: seen once in many runs, by one place.
        let failed = failures().len() as u64;
        assert!(report.late <= failed && report.displacement_max <= 2, "{way}: {report}");
        // The one that is silent is waited for, and what comes in five seconds is more than queues
        // take.
        assert!(report.gap_max < Duration::from_secs(8), "{way}: {report}");
    }
    assert!(nonces.reused.is_empty(), "{nonces:?}");
    assert_eq!(nonces.keys, 2, "one key each way, as before: {nonces:?}");
    assert_eq!(handshakes(&site), before, "nobody shook hands again");
    let old = site.gateway.tunnel.process();
    wait_for("the old process to end", SOON, || old.ended().is_some()).unwrap();
    assert!(old.ended().unwrap().success(), "{}", old.errors());
    drop(heir);
}

/// Lets a new process fail, and the old one find out.
fn fail(site: &Site, failing: &Failing) {
    let strace: Vec<&str> = failing.strace.iter().map(String::as_str).collect();
    let launch = upgrade(site, &strace).args(failing.flags.iter().copied());
    let mut process = launch.spawn().unwrap();
    wait_for(&failing.what, UPGRADE_LIMIT, || process.ended().is_some()).unwrap();
    let ended = process.ended().unwrap();
    let said = process.output() + &process.errors();
    println!("{}: {ended}: {said}", failing.what);
    match failing.told {
        Some(told) => {
            assert!(said.contains(told), "{}: {said}", failing.what);
            assert!(ended.code().is_some_and(|code| code != 0), "{}: {ended}", failing.what);
        }
        // Or by the old process, which would not share the gateway.
        None => assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32), "{}", failing.what),
    }
}

/// A new process that stands still from its message of this number on.
fn standing_still(site: &Site, message: u32) -> Launch {
    let failing = struck("signal=SIGSTOP", message);
    let strace: Vec<&str> = failing.strace.iter().map(String::as_str).collect();
    upgrade(site, &strace)
}

#[test]
fn privileged_a_new_process_that_stands_still_is_not_waited_for_and_not_left_behind() {
    if gateway() != Program::Ringway {
        return;
    }
    let site = site();
    settled(&site.client);
    let before = handshakes(&site);
    // Before it says that it is ready: then it has the sessions and was not told to begin.
    let (reports, nonces) = captured(&site.line, || {
        let ((), reports) = numbered_both_ways(&site.line, || {
            let mut process = standing_still(&site, 3).spawn().unwrap();
            let ended = process.wait(UPGRADE_LIMIT).unwrap();
            assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32), "{}", process.errors());
            answers(&site);
        });
        reports
    });
    for (report, way) in reports.iter().zip(["to exit", "to client"]) {
        println!("{way}: {report}");
        assert_eq!((report.duplicates, report.late), (0, 0), "{way}: {report}");
        assert!(report.gap_max < Duration::from_secs(6), "{way}: {report}");
    }
    assert!(nonces.reused.is_empty(), "{nonces:?}");
    assert_eq!(handshakes(&site), before, "nobody shook hands again");
}

#[test]
fn privileged_a_gateway_can_be_stopped_while_it_waits_for_a_new_process() {
    if gateway() != Program::Ringway {
        return;
    }
    let mut site = site();
    // Having said that it accepts: it has descriptors and would be waited for for two minutes.
    let mut process = standing_still(&site, 2).spawn().unwrap();
    let old = site.gateway.tunnel.pid();
    // Under strace every process stands still for a moment at each call.
    let mut seen = 0;
    wait_for("the new process to stand still", SOON, || {
        seen = if standing(&site, old) { seen + 1 } else { 0 };
        seen == 5
    })
    .unwrap();
    let old = site.gateway.tunnel.process();
    old.signal(Signal::SIGTERM).unwrap();
    let ended = old.wait(SOON).unwrap();
    assert!(ended.success(), "{}", old.errors());
    let ended = process.wait(SOON).unwrap();
    assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32), "{}", process.errors());
    let interface = site.gateway.tunnel.interface();
    site.line.gw.exec(&format!("ip link show {interface}")).unwrap_err();
}

/// Whether a process of the gateway's host that is not `old` stands still.
fn standing(site: &Site, old: u32) -> bool {
    let pids = Launch::new("ip").args(["netns", "pids", site.line.gw.name()]).run().unwrap();
    pids.lines().map(str::trim).filter(|pid| *pid != old.to_string()).any(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let stopped = status.lines().any(|line| line.starts_with("State:\tt"));
        stopped && status.contains("Name:\tringway")
    })
}

#[test]
fn privileged_an_upgrade_keeps_the_host_as_it_is_until_the_last_process_ends() {
    if gateway() != Program::Ringway {
        return;
    }
    let mut product = Product::start(Line::new(1500).unwrap(), Family::V4);
    let client = product.client(crate::setup::stock_client(), "laptop");
    let handshake = settled(&client);
    let table = || product.line.gw.exec("nft list tables").unwrap();
    assert!(table().contains("ringway"), "{}", table());

    // A file that says what only a restart can do is refused by name.
    let path = product.state.join("ringway.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("10.91.9.0/24", "10.91.8.0/24")).unwrap();
    let launch = ringway(&product.line, &product.state, &["upgrade", "-f"]).args(matrix_flags());
    let refused = launch.run().unwrap_err().to_string();
    assert!(refused.contains("[interface] pools"), "{refused}");
    // A file that says more about peers is done as by a reload.
    let guest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=";
    fs::write(&path, format!("{good}\n[[peer]]\npublic_key = \"{guest}\"\n")).unwrap();

    let mut heir = upgraded(&launch);
    assert!(heir.output().contains("1 peer(s) added"), "{}", heir.output());
    wait_for("the old process to end", SOON, || product.process.ended().is_some()).unwrap();
    assert!(product.process.ended().unwrap().success());
    assert!(table().contains("ringway"), "the old process took its table away");
    for inside in Family::BOTH {
        let to = Place::Destination.address(inside);
        assert!(ping::once(&product.line.cli, to, 56));
    }
    assert_eq!(client.peers().unwrap()[0].handshake_s, handshake);
    assert!(product.ask(&["peer", "list"]).contains("laptop"));
    // The cores publish their counters every 100 ms.
    wait_for("counters", SOON, || product.ask(&["stats"]).contains("to_exit_packets")).unwrap();
    // And once more, in the background.
    product.ask(&["upgrade"]);
    wait_for("the second process to end", SOON, || heir.ended().is_some()).unwrap();
    assert!(ping::once(&product.line.cli, Place::Destination.address(Family::V4), 56));

    let pids = Launch::new("ip").args(["netns", "pids", product.line.gw.name()]).run().unwrap();
    let last = pids.lines().find_map(|pid| {
        let words = fs::read(format!("/proc/{}/cmdline", pid.trim())).ok()?;
        words.windows(7).any(|word| word == b"upgrade").then(|| pid.trim().to_owned())
    });
    product.line.gw.exec(&format!("kill {}", last.unwrap())).unwrap();
    wait_for("the host to be as before", SOON, || !table().contains("ringway")).unwrap();
}
