//! What passed an interface, by `tcpdump`: inner bytes each way, and when the last packet did.
//!
//! On the gateway's own interface packets of one flow are merged, with one header for many. They
//! are counted as what they are on the wire: datagrams of the one size that a test sends, segments
//! of what fits the interface.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ringway_perf::netns::Netns;
use ringway_perf::process::{Process, scratch};
use ringway_perf::wait::wait_for;

use crate::setup::SOON;

/// A running capture.
pub(crate) struct Capture {
    tcpdump: Process,
    path: PathBuf,
}

/// A packet: when, in seconds since the epoch, from where to where, and how large it and its parts
/// are together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) at: f64,
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) bytes: u64,
}

/// Largest inner packet.
const MTU: u64 = 1420;

impl Capture {
    pub(crate) fn start(netns: &Netns, interface: &str, filter: &str) -> Self {
        let path = scratch().unwrap().join(format!("{}-{interface}.pcap", netns.name()));
        let tcpdump = netns
            .launch("tcpdump")
            .words("-U --immediate-mode -B 65536 -s 96 -Z root -i")
            .arg(interface)
            .arg("-w")
            .arg(&path)
            .words(filter);
        let tcpdump = tcpdump.spawn().unwrap();
        wait_for("tcpdump to listen", SOON, || tcpdump.errors().contains("listening")).unwrap();
        Self { tcpdump, path }
    }

    /// Ends it and returns the IPv4 packets. `datagram` is the payload of every UDP datagram.
    pub(crate) fn finish(mut self, datagram: u64) -> Vec<Seen> {
        self.tcpdump.stop();
        let said = self.tcpdump.errors();
        // An interface that was taken away ends it before it counts.
        let lost = said.contains("packets dropped by kernel")
            && !said.contains("\n0 packets dropped by kernel");
        assert!(!lost, "{said}");
        let bytes = fs::read(&self.path).unwrap();
        let _ = fs::remove_file(&self.path);
        packets(&bytes, datagram)
    }
}

/// Bytes from and to an address.
pub(crate) fn both_ways(seen: &[Seen], address: Ipv4Addr) -> (u64, u64) {
    let sum = |side: fn(&Seen) -> Ipv4Addr| {
        seen.iter().filter(|one| side(one) == address).map(|one| one.bytes).sum()
    };
    (sum(|one| one.from), sum(|one| one.to))
}

fn packets(pcap: &[u8], datagram: u64) -> Vec<Seen> {
    let word = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xa1b2_c3d4, "a capture with microseconds, of this machine's byte order");
    // Raw IP, or with an Ethernet header.
    let link = match word(20) {
        1 => 14,
        101 | 12 => 0,
        other => panic!("link type {other}"),
    };
    let (mut at, mut seen) = (24, Vec::new());
    while at + 16 <= pcap.len() {
        let (seconds, micros, kept) = (word(at), word(at + 4), word(at + 8) as usize);
        let Some(packet) = pcap.get(at + 16..at + 16 + kept) else { break };
        at += 16 + kept;
        let Some(ip) = packet.get(link..).filter(|ip| ip.len() >= 28 && ip[0] >> 4 == 4) else {
            continue;
        };
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        seen.push(Seen {
            at: f64::from(seconds) + f64::from(micros) / 1e6,
            from: address(12),
            to: address(16),
            bytes: size(ip, datagram),
        });
    }
    seen
}

/// The bytes of a packet and its headers, as if it had never been merged.
fn size(ip: &[u8], datagram: u64) -> u64 {
    let total = u64::from(u16::from_be_bytes([ip[2], ip[3]]));
    let ip_header = u64::from(ip[0] & 15) * 4;
    let (header, part) = match ip[9] {
        17 => (ip_header + 8, datagram),
        6 => {
            let header = ip_header + u64::from(ip.get(32).map_or(5, |byte| byte >> 4)) * 4;
            (header, MTU - header)
        }
        _ => return total,
    };
    let payload = total.saturating_sub(header);
    payload + header * payload.div_ceil(part).max(1)
}
