//! Three minutes of traffic over two rekeys, in both roles at once, watched by a nonce checker.
//!
//! ```text
//!   cli: wireguard-go ── gw: ours (tcpdump) ── dst        we answer handshakes
//!   cli: ours ── gw: wireguard-go (tcpdump) ── dst        we start them
//! ```
//!
//! One test, because it takes its 200 s of wall time whatever the machine does.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use ringway_perf::nonce;
use ringway_perf::order::OrderReport;
use ringway_perf::process::scratch;
use ringway_perf::topology::{Family, Plan, Site};
use ringway_perf::wait::{wait_for, wait_until};

use crate::setup::{
    SOON, client_at, connected, destination_at, gateway, numbered_while, stock_client,
};

/// Beyond REJECT_AFTER_TIME (180 s): whoever still used the first key would be cut off.
const SOAK: Duration = Duration::from_secs(200);

const RATE: u64 = 200;

#[test]
fn privileged_rekeying_loses_nothing_in_either_role() {
    let plans = [Plan::new(gateway(), stock_client()), Plan::new(stock_client(), gateway())];
    // Sites are made on this thread: their programs end with the thread that started them.
    let sites = plans.map(connected);
    thread::scope(|scope| {
        let soaks = sites.each_ref().map(|site| scope.spawn(|| soak(site)));
        for (soaked, site) in soaks.into_iter().zip(&sites) {
            let (reports, handshakes) = soaked.join().unwrap();
            let who = format!("{} at the gateway", site.plan.gateway);
            for report in reports {
                assert_eq!((report.duplicates, report.late), (0, 0), "{who}: {report}");
                assert_eq!(report.missing, 0, "{who}: {report}");
                assert!(report.gap_max < Duration::from_secs(1), "{who}: {report}");
            }
            assert!(handshakes.len() >= 2, "{who}: handshakes at {handshakes:?}");
        }
    });
}

/// Traffic both ways for the whole time; returns the verdicts and the times of handshakes seen.
fn soak(site: &Site) -> ([OrderReport; 2], BTreeSet<u64>) {
    let capture = scratch().unwrap().join(format!("{}.pcap", site.line.gw.name()));
    // Large sends must be captured as single datagrams.
    site.line.gw.exec("ethtool -K out tx-udp-segmentation off").unwrap();
    let mut tcpdump = site
        .line
        .gw
        .launch("tcpdump")
        .words("-i out -U -B 4096 -Z root -w")
        .arg(&capture)
        .args(["udp"])
        .spawn()
        .unwrap();
    wait_for("tcpdump to listen", SOON, || tcpdump.errors().contains("listening")).unwrap();

    let (cli, dst) = (&site.line.cli, &site.line.dst);
    let up = (client_at(Family::V4, 7007), destination_at(Family::V4, 7007));
    let down = (destination_at(Family::V6, 7008), client_at(Family::V6, 7008));
    let ((handshakes, to_client, _), to_exit, _) =
        numbered_while((cli, up.0), (dst, up.1), RATE, || {
            numbered_while((dst, down.0), (cli, down.1), RATE, || watch(site))
        });
    tcpdump.stop();
    let report = nonce::check(&std::fs::read(&capture).unwrap()).unwrap();
    std::fs::remove_file(&capture).unwrap();
    assert!(report.reused.is_empty(), "{report:?}");
    assert!(report.keys >= 4, "two keys in each direction: {report:?}");
    assert!(report.messages > 2 * RATE * 150, "{report:?}");
    ([to_exit, to_client], handshakes)
}

/// Looks at the handshake times until the soak is over.
fn watch(site: &Site) -> BTreeSet<u64> {
    let (start, mut handshakes) = (Instant::now(), BTreeSet::new());
    wait_until("the soak to end", SOAK + SOON, || {
        handshakes.insert(site.gateway.tunnel.peers().unwrap()[0].handshake_s);
        thread::sleep(Duration::from_secs(1)); // a soak: time itself is what is tested
        (start.elapsed() > SOAK).then_some(())
    })
    .unwrap();
    handshakes
}
