//! Whether time depends on secrets: two classes of inputs are measured in random turns, and Welch's
//! t says whether their means differ by more than chance (the method of dudect, Reparaz, Balasch
//! and Verbauwhede, 2017).
//!
//! Beyond 4.5 a difference is suspected there; here it must be beyond [`SUSPICIOUS`] in each of
//! some attempts. A comparison that stops at the first difference is measured beside it and must be
//! found, or the method would prove nothing on this machine.

use std::hint::black_box;
use std::time::Instant;

use ringway_simd::{Batch, Packet, TAG_BYTES};

/// The t that is a finding. Without a leak the largest of 60 was 4.2 (EPYC 9005, neighbours busy);
/// the leaky comparison exceeded 250 each time.
const SUSPICIOUS: f64 = 10.0;
/// Measurements of a case, of both classes together.
const MEASUREMENTS: usize = 100_000;
const ATTEMPTS: usize = 3;
/// Inputs of each class that are taken in turn.
const INPUTS: usize = 32;
/// Shares of the fastest measurements that are judged by themselves: what disturbs is slow.
const KEPT: [f64; 4] = [1.0, 0.95, 0.8, 0.5];
const ADDITIONAL: usize = 12;

/// How the classes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Differ {
    /// Keys, additional data and texts of zeros, or random ones.
    Contents,
    /// Forged tags, different from the right one in their first byte, or in their last.
    Tags,
    /// The same, with a comparison that leaks.
    LeakyTags,
}

/// (packets, bytes of text, how the classes differ)
const CASES: [(usize, usize, Differ); 7] = [
    (1, 64, Differ::Contents),
    (8, 64, Differ::Contents),
    (1, 1360, Differ::Contents),
    (8, 1360, Differ::Contents),
    (1, 64, Differ::Tags),
    (8, 64, Differ::Tags),
    (8, 64, Differ::LeakyTags),
];

/// Whether time tells something, or does not where it should.
pub(crate) fn gate(batch: Batch) -> bool {
    let mut broken = false;
    for (count, bytes, differ) in CASES {
        let leaks = differ == Differ::LeakyTags;
        let mut case = Case::new(batch, count, bytes, differ);
        let mut t = case.measure();
        for _ in 1..ATTEMPTS {
            if (t > SUSPICIOUS) == leaks {
                break;
            }
            t = case.measure();
        }
        let holds = (t > SUSPICIOUS) == leaks;
        let verdict = match (holds, leaks) {
            (true, false) => "ok",
            (true, true) => "ok, found what is there",
            (false, false) => "TIME DEPENDS ON SECRETS",
            (false, true) => "NOT FOUND: the method is blind here",
        };
        println!("t {t:.1} of {SUSPICIOUS}: {verdict} ({count} of {bytes} bytes, {differ:?})");
        broken |= !holds;
    }
    broken
}

/// What a call works on.
#[derive(Clone)]
struct Input {
    keys: Vec<[u8; 32]>,
    additional: Vec<[u8; ADDITIONAL]>,
    messages: Vec<Vec<u8>>,
}

impl Input {
    /// Becomes one of two, but reads both: where an input lies tells nothing of its class.
    fn choose(&mut self, class: usize, pair: &[Self; 2]) {
        let [zeroth, first] = pair;
        let mask = black_box(0_u8.wrapping_sub(class as u8));
        let blend = |to: &mut [u8], zeroth: &[u8], first: &[u8]| {
            for ((to, zeroth), first) in to.iter_mut().zip(zeroth).zip(first) {
                *to = zeroth & !mask | first & mask;
            }
        };
        for (at, message) in self.messages.iter_mut().enumerate() {
            blend(&mut self.keys[at], &zeroth.keys[at], &first.keys[at]);
            blend(&mut self.additional[at], &zeroth.additional[at], &first.additional[at]);
            blend(message, &zeroth.messages[at], &first.messages[at]);
        }
    }

    /// With tags that are wrong in one byte.
    fn forged(&self, at: usize) -> Self {
        let mut forged = self.clone();
        for message in &mut forged.messages {
            let tag = message.len() - TAG_BYTES;
            message[tag + at] ^= 1;
        }
        forged
    }

    fn packets(&mut self) -> Vec<Packet<'_>> {
        let both = self.keys.iter().zip(&self.additional).zip(&mut self.messages);
        let packets = both.map(|((key, additional), bytes)| Packet {
            key,
            additional,
            bytes,
            ..Packet::default()
        });
        packets.collect()
    }
}

struct Case {
    batch: Batch,
    differ: Differ,
    /// By turns of one class and of the other.
    inputs: Vec<[Input; 2]>,
    /// The right tags of each input; they are secret from who forges.
    tags: Vec<Vec<[u8; TAG_BYTES]>>,
    random: Random,
}

impl Case {
    fn new(batch: Batch, count: usize, bytes: usize, differ: Differ) -> Self {
        let mut random = Random(1);
        let mut case = Self { batch, differ, inputs: Vec::new(), tags: Vec::new(), random };
        for _ in 0..INPUTS {
            let zeros = Input {
                keys: vec![[0; 32]; count],
                additional: vec![[0; ADDITIONAL]; count],
                messages: vec![vec![0; bytes + TAG_BYTES]; count],
            };
            let mut any = zeros.clone();
            any.keys.iter_mut().for_each(|key| random.fill(key));
            any.additional.iter_mut().for_each(|additional| random.fill(additional));
            any.messages.iter_mut().for_each(|message| random.fill(message));
            let mut tags = Vec::new();
            let pair = if differ == Differ::Contents {
                [zeros, any]
            } else {
                batch.seal(&mut any.packets());
                tags.extend(
                    any.messages.iter().filter_map(|message| message.last_chunk().copied()),
                );
                [0, 1].map(|class| any.forged(class * (TAG_BYTES - 1)))
            };
            case.inputs.push(pair);
            case.tags.push(tags);
        }
        case.random = random;
        case
    }

    /// The largest t of all shares.
    fn measure(&mut self) -> f64 {
        let mut work = self.inputs[0][0].clone();
        let mut times = Vec::with_capacity(MEASUREMENTS);
        // The first are not kept: caches and predictors are cold.
        for round in 0..MEASUREMENTS + 1000 {
            let class = usize::from(self.random.next() & 1 == 1);
            let at = round % INPUTS;
            work.choose(class, &self.inputs[at]);
            let ns = self.time(&mut work, &self.tags[at]);
            if round >= 1000 {
                times.push((ns, class));
            }
        }
        times.sort_unstable();
        // All that took as long as the last one kept are kept, whatever their class.
        let limits = KEPT.map(|kept| times[(times.len() as f64 * kept) as usize - 1].0);
        let parts = limits.map(|limit| times.partition_point(|time| time.0 <= limit));
        parts.iter().map(|part| welch(&times[..*part]).abs()).fold(0.0, f64::max)
    }

    /// Nanoseconds of one call.
    fn time(&self, work: &mut Input, tags: &[[u8; TAG_BYTES]]) -> u64 {
        let mut packets = work.packets();
        let start = Instant::now();
        match self.differ {
            Differ::Contents => self.batch.seal(&mut packets),
            Differ::Tags => self.batch.open(&mut packets),
            Differ::LeakyTags => {
                self.batch.open(&mut packets);
                for (packet, tag) in packets.iter().zip(tags) {
                    black_box(same_until_it_differs(&packet.bytes[packet.bytes.len() - 16..], tag));
                }
            }
        }
        start.elapsed().as_nanos() as u64
    }
}

/// What must not be done: stops at the first difference.
fn same_until_it_differs(left: &[u8], right: &[u8]) -> bool {
    for (left, right) in left.iter().zip(right) {
        if black_box(left) != right {
            return false;
        }
    }
    true
}

/// Welch's t of two classes of times.
fn welch(times: &[(u64, usize)]) -> f64 {
    let of = |class| times.iter().filter(move |time| time.1 == class).map(|time| time.0 as f64);
    let [(n0, mean0, variance0), (n1, mean1, variance1)] = [0, 1].map(|class| {
        let count = of(class).count() as f64;
        let mean = of(class).sum::<f64>() / count;
        let squares = of(class).map(|time| (time - mean).powi(2)).sum::<f64>();
        (count, mean, squares / (count - 1.0))
    });
    (mean0 - mean1) / (variance0 / n0 + variance1 / n1).sqrt()
}

/// A generator without secrets.
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next() as u8);
    }
}
