//! The counters of all cores at about one moment.
//!
//! Pure arithmetic on words whose meaning comes from the layout the cores publish by.

use ringway_dataplane::counters::{Field, HISTOGRAM_BUCKETS, Kind};
use ringway_proto::DropReason;

/// All pages, read whole, each at its core's last publication.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the words mean, in order.
    pub layout: Vec<Field>,
    /// Words of each core.
    pub cores: Vec<Vec<u64>>,
    /// About the gateway as a whole.
    pub about: About,
}

/// What the control thread knows and counts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Name of the interface.
    pub interface: String,
    /// Version of the program.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Public key in base64, if a key is set.
    pub public_key: Option<String>,
    /// UDP port, 0 while there are no sockets.
    pub listen_port: u16,
    /// Whether the interface is up.
    pub up: bool,
    /// Largest inner packet, in bytes.
    pub inner_mtu: u16,
    /// Configured peers, as control has them.
    pub peers_configured: u64,
    /// Commands that cores have not answered yet.
    pub commands_pending: u64,
    /// Requests on the configuration socket that were answered.
    pub requests_served: u64,
    /// Requests on the configuration socket that were refused.
    pub requests_refused: u64,
    /// Answers given on the stats socket.
    pub queries_served: u64,
    /// Lines on the stats socket that were no command.
    pub queries_unknown: u64,
    /// Clients of either socket cut off for being idle, slow or oversized.
    pub clients_cut: u64,
    /// Bytes the program's allocator has handed out.
    pub heap_bytes: u64,
    /// Bytes of packet memory that are mapped, touched or not.
    pub mapped_bytes: u64,
    /// Bytes of the process that are in memory.
    pub resident_bytes: u64,
    /// 1 while the kernel steers datagrams.
    pub datagrams_steered: u64,
    /// 1 while the kernel steers packets of the TUN.
    pub packets_steered: u64,
    /// Prefixes that the kernel's map lacks.
    pub prefixes_unsteered: u64,
    /// Changes of the map that the kernel refused.
    pub steering_refusals: u64,
    /// Workers whose sandbox is complete.
    pub workers_sandboxed: u64,
    /// How the parts that depend on the kernel stand, and why.
    pub parts: Vec<Part>,
    /// Reloads that took effect.
    pub reloads: u64,
    /// Reloads that changed nothing because something was wrong.
    pub reloads_refused: u64,
}

/// A part of the gateway that depends on what the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, such as `driver`.
    pub name: &'static str,
    /// How it stands, in a word.
    pub state: &'static str,
    /// Why, in a sentence.
    pub why: String,
}

/// One number about control, with its name and meaning.
#[derive(Clone, Copy, Debug)]
pub struct AboutField {
    /// Name, unit last.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What an operator should think.
    pub help: &'static str,
    /// How much.
    pub value: u64,
}

impl About {
    /// The numbers, for all ways of writing them.
    #[must_use]
    pub fn fields(&self) -> [AboutField; 20] {
        let field = |kind, name, value, help| AboutField { name, kind, help, value };
        let counter = |name, value, help| field(Kind::Counter, name, value, help);
        let gauge = |name, value, help| field(Kind::Gauge, name, value, help);
        [
            gauge("uptime_seconds", self.uptime_s, "Seconds since the gateway started."),
            gauge("interface_up", u64::from(self.up), "1 while the interface is up."),
            gauge("inner_mtu_bytes", self.inner_mtu.into(), "Largest inner packet."),
            gauge("peers_configured", self.peers_configured, "Peers that control has."),
            gauge("commands_pending", self.commands_pending, "Commands without an answer yet."),
            gauge("heap_bytes", self.heap_bytes, "Allocated by the program."),
            gauge("mapped_bytes", self.mapped_bytes, "Packet memory mapped, touched or not."),
            gauge("resident_bytes", self.resident_bytes, "In memory, whatever for."),
            counter("requests_served", self.requests_served, "Configuration requests answered."),
            counter("requests_refused", self.requests_refused, "Configuration requests refused."),
            counter("queries_served", self.queries_served, "Answers on the stats socket."),
            counter("queries_unknown", self.queries_unknown, "Lines that were no stats command."),
            counter("clients_cut", self.clients_cut, "Idle, slow or oversized clients cut off."),
            gauge(
                "datagrams_steered",
                self.datagrams_steered,
                "1 while the kernel brings datagrams to the worker that owns their session.",
            ),
            gauge(
                "packets_steered",
                self.packets_steered,
                "1 while the kernel brings packets for clients to the worker that has the client.",
            ),
            gauge(
                "prefixes_unsteered",
                self.prefixes_unsteered,
                "Prefixes that the kernel had no room for; workers hand their packets over.",
            ),
            counter(
                "steering_refusals",
                self.steering_refusals,
                "Prefixes that the kernel refused to steer.",
            ),
            gauge(
                "workers_sandboxed",
                self.workers_sandboxed,
                "Workers that gave up everything that they do not need.",
            ),
            counter("reloads", self.reloads, "Reloads that took effect."),
            counter("reloads_refused", self.reloads_refused, "Reloads that changed nothing."),
        ]
    }
}

/// The value of one field on one core, or of all cores together.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A counter, a gauge or a peak.
    Number(u64),
    /// Counts by power of two.
    Histogram(Histogram<'a>),
    /// Counts in the order of [`DropReason::ALL`].
    ByReason(&'a [u64]),
}

/// Counts by power of two: bucket `i` holds values below `2^i` that no smaller bucket holds; the
/// last one all larger ones.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    /// One count per bucket.
    pub counts: &'a [u64],
    /// Sum of the values.
    pub sum: u64,
}

impl Snapshot {
    /// All fields of one core, in order.
    pub fn of_core(&self, core: usize) -> impl Iterator<Item = (&Field, Value<'_>)> {
        values(&self.layout, &self.cores[core])
    }

    /// The words of all cores together: the largest of each peak, the sum of everything else.
    #[must_use]
    pub fn total(&self) -> Vec<u64> {
        let words = self.layout.iter().map(|field| field.kind.words()).sum();
        let mut total = vec![0_u64; words];
        for core in &self.cores {
            let mut at = 0;
            for field in &self.layout {
                for word in at..at + field.kind.words() {
                    total[word] = match field.kind {
                        Kind::Peak => total[word].max(core[word]),
                        Kind::Counter | Kind::Gauge | Kind::Histogram | Kind::ByReason => {
                            total[word].wrapping_add(core[word])
                        }
                    };
                }
                at += field.kind.words();
            }
        }
        total
    }
}

impl Snapshot {
    /// One number of `words`, which is one core's page or a total; 0 if there is no such field.
    #[must_use]
    pub fn number(&self, words: &[u64], name: &str) -> u64 {
        let mut fields = values(&self.layout, words);
        fields
            .find_map(|(field, value)| match value {
                Value::Number(number) if field.name == name => Some(number),
                Value::Number(_) | Value::Histogram(_) | Value::ByReason(_) => None,
            })
            .unwrap_or(0)
    }
}

/// The fields of `words`, which is one core's page or a total.
pub fn values<'a>(
    layout: &'a [Field],
    words: &'a [u64],
) -> impl Iterator<Item = (&'a Field, Value<'a>)> {
    let mut rest = words;
    layout.iter().map(move |field| {
        let (own, after) = rest.split_at(field.kind.words());
        rest = after;
        (field, value(field.kind, own))
    })
}

fn value(kind: Kind, words: &[u64]) -> Value<'_> {
    match kind {
        Kind::Counter | Kind::Gauge | Kind::Peak => Value::Number(words[0]),
        Kind::Histogram => {
            let (counts, sum) = words.split_at(HISTOGRAM_BUCKETS);
            Value::Histogram(Histogram { counts, sum: sum[0] })
        }
        Kind::ByReason => Value::ByReason(words),
    }
}

/// The reasons that counted anything, with their counts.
pub fn reasons(counts: &[u64]) -> impl Iterator<Item = (DropReason, u64)> + '_ {
    DropReason::ALL.iter().copied().zip(counts.iter().copied()).filter(|(_, count)| *count > 0)
}

impl Histogram<'_> {
    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The mean of the values, 0 if there are none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let count = self.count();
        if count == 0 { 0.0 } else { self.sum as f64 / count as f64 }
    }

    /// A value that `permille` of the values do not exceed: the largest its bucket can hold.
    #[must_use]
    pub fn quantile(&self, permille: u64) -> u64 {
        let wanted = (self.count() * permille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return largest_of(bucket);
            }
        }
        0
    }
}

/// The largest whole number that bucket `bucket` can hold (the last bucket has no bound; this is
/// its lower end).
#[must_use]
pub const fn largest_of(bucket: usize) -> u64 {
    (1_u64 << bucket) - 1
}

#[cfg(test)]
pub(crate) mod samples {
    //! A small snapshot for the tests of the writers.

    use super::*;

    pub(crate) fn snapshot() -> Snapshot {
        let field = |name, kind, help| Field { name, kind, help };
        let layout = vec![
            field("to_exit_bytes", Kind::Counter, "Inner bytes."),
            field("peers", Kind::Gauge, "Configured peers."),
            field("ring_high_water", Kind::Peak, "Most entries \"at once\"\nin the \\ ring."),
            field("turn_ns", Kind::Histogram, "Nanoseconds a turn worked."),
            field("drops", Kind::ByReason, "Packets that ended here."),
        ];
        let about = About {
            interface: "wg0".into(),
            version: "0.1.0",
            uptime_s: 61,
            public_key: Some("KEY=".into()),
            listen_port: 51820,
            up: true,
            inner_mtu: 1420,
            peers_configured: 3,
            parts: vec![Part { name: "driver", state: "uring", why: "it was asked for".into() }],
            ..About::default()
        };
        Snapshot { layout, cores: vec![words(100, 1, 7), words(50, 2, 9)], about }
    }

    fn words(bytes: u64, peers: u64, peak: u64) -> Vec<u64> {
        let mut words = vec![bytes, peers, peak];
        let mut counts = [0; HISTOGRAM_BUCKETS];
        counts[0] = 1; // one zero
        counts[11] = 2; // two of 1024..=2047
        words.extend(counts);
        words.push(3000);
        let mut drops = [0; DropReason::COUNT];
        drops[4] = bytes;
        words.extend(drops);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_adds_everything_and_keeps_the_highest_peak() {
        let snapshot = samples::snapshot();
        let total = snapshot.total();
        let seen: Vec<_> = values(&snapshot.layout, &total).map(|(_, value)| value).collect();
        assert!(matches!(seen[0], Value::Number(150)));
        assert!(matches!(seen[1], Value::Number(3)));
        assert!(matches!(seen[2], Value::Number(9)));
        let Value::Histogram(turn) = seen[3] else { panic!() };
        assert_eq!((turn.count(), turn.sum), (6, 6000));
        let Value::ByReason(drops) = seen[4] else { panic!() };
        assert_eq!(reasons(drops).collect::<Vec<_>>(), [(DropReason::ALL[4], 150)]);
    }

    #[test]
    fn quantiles_are_the_upper_ends_of_their_buckets() {
        let snapshot = samples::snapshot();
        let total = snapshot.total();
        let Some((_, Value::Histogram(turn))) = values(&snapshot.layout, &total).nth(3) else {
            panic!()
        };
        assert_eq!(turn.quantile(100), 0);
        assert_eq!(turn.quantile(500), 2047);
        assert_eq!(turn.quantile(990), 2047);
        assert!((turn.mean() - 1000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_manual_explains_what_control_counts() {
        let manual = include_str!("../../manual/control_metrics.md");
        for field in About::default().fields() {
            let kind = if field.kind == Kind::Counter { "counter" } else { "level" };
            let row = format!("| `{}` | {kind} | {} |", field.name, field.help);
            assert!(manual.contains(&row), "control/manual/control_metrics.md lacks: {row}");
        }
    }

    #[test]
    fn an_empty_histogram_has_no_quantiles() {
        let empty = Histogram { counts: &[0; HISTOGRAM_BUCKETS], sum: 0 };
        assert_eq!((empty.quantile(500), empty.count()), (0, 0));
        assert!(empty.mean().abs() < f64::EPSILON);
    }
}
