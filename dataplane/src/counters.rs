//! Counters of one core: plain integers in the core's own struct, published as words in the
//! housekeeping phase.
//!
//! [`LAYOUT`] says what each published word means, so that control can sum and print them without
//! knowing the struct. Adding a drop reason adds its counter.

use std::time::Duration;

use ringway_proto::DropReason;

/// Buckets of a histogram: bucket `i` counts values below `2^i`; the last one counts all that are
/// larger.
pub const HISTOGRAM_BUCKETS: usize = 32;

/// What a published field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; one word.
    Counter,
    /// A level; one word, summed over cores.
    Gauge,
    /// A high-water mark or a setting; one word, the largest of all cores counts.
    Peak,
    /// [`HISTOGRAM_BUCKETS`] words of counts, then one of the sum of values.
    Histogram,
    /// One word per [`DropReason`], in the order of [`DropReason::ALL`].
    ByReason,
}

impl Kind {
    /// Words the field takes in the page.
    #[must_use]
    pub const fn words(self) -> usize {
        match self {
            Self::Counter | Self::Gauge | Self::Peak => 1,
            Self::Histogram => HISTOGRAM_BUCKETS + 1,
            Self::ByReason => DropReason::COUNT,
        }
    }
}

/// One field of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in metrics and manual, unit last (`_bytes`, `_packets`, `_ns`).
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What an operator should think.
    pub help: &'static str,
}

/// Counts of values by their power of two.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; HISTOGRAM_BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; HISTOGRAM_BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bucket.min(HISTOGRAM_BUCKETS - 1)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Counts a time in milliseconds.
    pub fn record_ms(&mut self, time: Duration) {
        self.record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// How often a value was in each bucket: 0 in the first, then from one power of two to below
    /// the next, all others in the last.
    #[must_use]
    pub const fn counts(&self) -> &[u64; HISTOGRAM_BUCKETS] {
        &self.counts
    }
}

/// Something that is published as one field.
trait Publish {
    fn put(&self, out: &mut [u64]);
}

impl Publish for u64 {
    fn put(&self, out: &mut [u64]) {
        out[0] = *self;
    }
}

impl Publish for Histogram {
    fn put(&self, out: &mut [u64]) {
        out[..HISTOGRAM_BUCKETS].copy_from_slice(&self.counts);
        out[HISTOGRAM_BUCKETS] = self.sum;
    }
}

impl Publish for [u64; DropReason::COUNT] {
    fn put(&self, out: &mut [u64]) {
        out.copy_from_slice(self);
    }
}

macro_rules! counters {
    ($($name:ident: $ty:ty, $kind:ident, $help:literal;)*) => {
        /// What one core counts.
        #[derive(Clone, Debug)]
        #[repr(align(64))]
        #[expect(missing_docs, reason = "each field's meaning is its help text in LAYOUT")]
        pub struct Counters { $(pub $name: $ty,)* }

        /// The fields of the page, in order.
        pub const LAYOUT: &[Field] = &[
            $(Field { name: stringify!($name), kind: Kind::$kind, help: $help },)*
        ];

        impl Counters {
            /// Writes all fields into `out`, which has [`WORDS`] words.
            pub fn publish(&self, out: &mut [u64]) {
                let mut at = 0;
                $(
                    let words = Kind::$kind.words();
                    self.$name.put(&mut out[at..at + words]);
                    at += words;
                )*
                debug_assert_eq!(at, WORDS);
            }
        }
    };
}

counters! {
    to_exit_packets: u64, Counter, "Inner packets that left towards an exit.";
    to_exit_bytes: u64, Counter, "Inner bytes that left towards an exit.";
    to_client_packets: u64, Counter, "Inner packets sealed for clients.";
    to_client_bytes: u64, Counter, "Inner bytes sealed for clients.";
    keepalives_received: u64, Counter, "Authenticated empty messages received.";
    drops: [u64; DropReason::COUNT], ByReason, "Packets that ended here, by reason.";
    handshakes_completed_responder: u64, Counter, "Handshakes that clients began and that we answered.";
    handshakes_completed_initiator: u64, Counter, "Handshakes that we began and peers answered.";
    handshakes_sent: u64, Counter, "Initiations sent, repeats included.";
    handshakes_abandoned: u64, Counter, "Handshakes given up after 90 s without an answer.";
    cookies_sent: u64, Counter, "Cookie replies sent while under load.";
    cookies_received: u64, Counter, "Cookie replies received and believed.";
    roamed: u64, Counter, "Times a peer's endpoint moved.";
    roams_refused: u64, Counter, "Times a peer's endpoint stayed where it was, because it had moved too often.";
    path_probes: u64, Counter, "Echo requests sent to learn what a path carries.";
    path_narrowed: u64, Counter, "Times a path was found to carry less than was thought.";
    icmp_sent: u64, Counter, "ICMP errors sent to hosts inside.";
    mss_clamped: u64, Counter, "TCP handshakes whose segment size was reduced.";
    congestion_marked: u64, Counter, "Inner packets marked because the outer one met congestion.";
    tun_coalesced_packets: u64, Counter, "Inner packets that left merged into a super-packet.";
    tun_writes: u64, Counter, "Writes to the TUN; one may carry a super-packet.";
    trains_sent: u64, Counter, "UDP sends; one may carry many datagrams.";
    receive_packets: Histogram, Histogram, "Datagrams received with one completion.";
    run_packets: Histogram, Histogram, "Datagrams opened together.";
    seal_packets: Histogram, Histogram, "Packets sealed together.";
    tun_packets: Histogram, Histogram, "Inner packets written to the TUN with one write.";
    train_packets: Histogram, Histogram, "Datagrams sent with one UDP send.";
    crossed_out_datagrams: u64, Counter, "Datagrams handed to the core that owns their session.";
    crossed_out_packets: u64, Counter, "Packets or super-packets of the TUN handed to the core of their peer.";
    crossed_out_handshakes: u64, Counter, "Handshake messages handed to the core that may answer them.";
    crossed_in_datagrams: u64, Counter, "Datagrams that other cores handed over.";
    crossed_in_packets: u64, Counter, "Packets or super-packets of the TUN that other cores handed over.";
    crossed_in_handshakes: u64, Counter, "Handshake messages that other cores handed over.";
    crossed_out_credits: u64, Counter, "Messages about credit of accounts sent to other cores.";
    crossed_in_credits: u64, Counter, "Messages about credit of accounts that other cores sent.";
    session_disconnected_ms: Histogram, Histogram, "Milliseconds between the end of a session and the beginning of the client's next.";
    session_connecting_ms: Histogram, Histogram, "Milliseconds from an initiation of ours to its answer.";
    session_link_up_ms: Histogram, Histogram, "Milliseconds from our answer to an initiation to the first packet under its keys.";
    session_online_ms: Histogram, Histogram, "Milliseconds that a session lived, renewals included, counted at its end.";
    turn_ns: Histogram, Histogram, "Nanoseconds a turn worked (waiting and looking for work not counted).";
    turns_pressed: u64, Counter, "Turns in which the core was overloaded and held sessions to their share.";
    buffers_waited: u64, Counter, "Buffers that waited on an overloaded core because their session had had its share.";
    turns: u64, Counter, "Turns of the loop.";
    spins_hit: u64, Counter, "Times the core looked for work before sleeping, and some came.";
    spins_missed: u64, Counter, "Times it looked for work before sleeping, and none came.";
    spins_interrupted: u64, Counter, "Times another thread needed the CPU while it looked for work.";
    spin_ns: u64, Counter, "Nanoseconds for which it looked for work before sleeping.";
    commands_applied: u64, Counter, "Commands of control that took effect.";
    commands_refused: u64, Counter, "Commands of control that were refused.";
    reports_refused: u64, Counter, "Answers to control that had to wait because its channel was full.";
    peers: u64, Gauge, "Configured peers.";
    sessions: u64, Gauge, "Peers with a keypair that may be used now.";
    handshakes_queued: u64, Gauge, "Handshake messages waiting for their turn.";
    staged_packets: u64, Gauge, "Packets waiting for a handshake.";
    receives_revived: u64, Counter, "Times UDP receives that had failed for good were started again.";
    arenas_off_node: u64, Gauge, "Packet arenas that are not on the node of their core.";
    sandbox_gaps: u64, Gauge, "Parts of the sandbox, of four per worker, that workers do without.";
    accounts: u64, Gauge, "Accounts that limit or meter peers; every core has them all.";
    session_bytes: u64, Gauge, "Bytes held for sessions, fixed part and variable part.";
    half_open: u64, Gauge, "Sessions that wait for their client's first packet.";
    under_load: u64, Gauge, "1 while the core answers initiations with cookies.";
}

/// Words of the shard's part of the page.
pub const WORDS: usize = {
    let mut total = 0;
    let mut i = 0;
    while i < LAYOUT.len() {
        total += LAYOUT[i].kind.words();
        i += 1;
    }
    total
};

impl Default for Counters {
    fn default() -> Self {
        Self {
            to_exit_packets: 0,
            to_exit_bytes: 0,
            to_client_packets: 0,
            to_client_bytes: 0,
            keepalives_received: 0,
            drops: [0; DropReason::COUNT],
            handshakes_completed_responder: 0,
            handshakes_completed_initiator: 0,
            handshakes_sent: 0,
            handshakes_abandoned: 0,
            cookies_sent: 0,
            cookies_received: 0,
            roamed: 0,
            roams_refused: 0,
            path_probes: 0,
            path_narrowed: 0,
            icmp_sent: 0,
            mss_clamped: 0,
            congestion_marked: 0,
            tun_coalesced_packets: 0,
            tun_writes: 0,
            trains_sent: 0,
            receive_packets: Histogram::default(),
            run_packets: Histogram::default(),
            seal_packets: Histogram::default(),
            tun_packets: Histogram::default(),
            train_packets: Histogram::default(),
            crossed_out_datagrams: 0,
            crossed_out_packets: 0,
            crossed_out_handshakes: 0,
            crossed_in_datagrams: 0,
            crossed_in_packets: 0,
            crossed_in_handshakes: 0,
            crossed_out_credits: 0,
            crossed_in_credits: 0,
            session_disconnected_ms: Histogram::default(),
            session_connecting_ms: Histogram::default(),
            session_link_up_ms: Histogram::default(),
            session_online_ms: Histogram::default(),
            turn_ns: Histogram::default(),
            turns_pressed: 0,
            buffers_waited: 0,
            turns: 0,
            spins_hit: 0,
            spins_missed: 0,
            spins_interrupted: 0,
            spin_ns: 0,
            commands_applied: 0,
            commands_refused: 0,
            reports_refused: 0,
            peers: 0,
            sessions: 0,
            handshakes_queued: 0,
            staged_packets: 0,
            receives_revived: 0,
            arenas_off_node: 0,
            sandbox_gaps: 0,
            accounts: 0,
            session_bytes: 0,
            half_open: 0,
            under_load: 0,
        }
    }
}

impl Counters {
    /// Counts one packet that ended here.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}
