//! Whether a gateway's counters account for everything that went in.

use ringway_proto::{DropReason, Instant};

use crate::cluster::Cluster;

/// What was handed to one gateway since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger {
    /// Datagrams.
    pub datagrams: u64,
    /// Packets and super-packets from the TUN.
    pub inside: u64,
    /// Packets from the TUN, those in super-packets counted singly.
    pub inside_packets: u64,
    /// Times that something was handed over or asked.
    pub occasions: u64,
    /// When it started.
    pub started: Instant,
}

/// Reasons for which only packets from the TUN are dropped.
const INSIDE: [DropReason; 9] = [
    DropReason::InsideNotIp,
    DropReason::InsideOffloadBad,
    DropReason::InsideNoPeer,
    DropReason::InsideNoEndpoint,
    DropReason::InsideTooBig,
    DropReason::StagedQueueFull,
    DropReason::StagedExpired,
    DropReason::SessionBudget,
    DropReason::PeerGone,
];

impl Ledger {
    /// Compares the counters with what went in.
    ///
    /// # Panics
    /// If something is missing, or was counted twice, or the gateway turned without a reason. What
    /// finds no transmit buffer may have come from either side, or be a message of its own.
    pub fn audit(&self, gateway: &mut Cluster, time: Instant) {
        let cores = u64::from(gateway.cores());
        let mut drops = |reason: &DropReason| gateway.drops(*reason);
        let exhausted = drops(&DropReason::TransmitExhausted) + drops(&DropReason::CrossingFull);
        let inside_drops: u64 = INSIDE.iter().map(&mut drops).sum();
        let all_drops: u64 = DropReason::ALL.iter().map(drops).sum();
        let taken = gateway.sum(|counters| {
            counters.to_exit_packets
                + counters.keepalives_received
                + counters.handshakes_completed_responder
                + counters.handshakes_completed_initiator
                + counters.cookies_received
        });
        let outside = taken + (all_drops - inside_drops - exhausted);
        assert!(
            (outside..=outside + exhausted).contains(&self.datagrams),
            "{} datagrams arrived, {outside} are accounted for, {exhausted} found no buffer",
            self.datagrams
        );
        let sealed = gateway.sum(|counters| counters.to_client_packets + counters.staged_packets);
        let inside = sealed + inside_drops;
        assert!(
            inside <= self.inside_packets && inside + exhausted >= self.inside,
            "{inside} packets from the TUN, {} to {} went in, {exhausted} found no buffer",
            self.inside,
            self.inside_packets
        );
        let seconds = time.since(self.started).as_secs();
        let turns_max = cores * (300 + 4 * self.occasions + 40 * seconds);
        let turns = gateway.sum(|counters| counters.turns);
        assert!(
            turns <= turns_max,
            "{turns} turns in {seconds} s with {} occasions",
            self.occasions
        );
    }
}
