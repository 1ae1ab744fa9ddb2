//! How long packets take, and the least by which calls must be faster.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringway_proto::crypto::AeadKey;
use ringway_simd::{Batch, Packet, TAG_BYTES};

const ROUNDS: usize = 401;
/// Long enough for the clock, short enough that most rounds are not disturbed.
const ROUND: Duration = Duration::from_micros(30);
/// Packets of the largest call.
const MOST: usize = 64;
/// The longest text of mixed ones.
const MIXED_MAX: usize = 1424;

/// Whether the packets of a call have one key or each its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    One,
    Each,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Of text; mixed if none.
    pub(crate) bytes: Option<usize>,
    pub(crate) count: usize,
    pub(crate) keys: Keys,
}

/// Nanoseconds per packet, medians.
#[derive(Debug)]
pub(crate) struct Took {
    pub(crate) seal_alone: f64,
    pub(crate) seal: f64,
    pub(crate) open_alone: f64,
    pub(crate) open: f64,
}

/// Least ratios: (bytes, packets, keys, ratio). What was measured is about twice as much (EPYC
/// 9005, 2026-11): 4.9, 4.9, 2.4, 2.4, 2.3.
const LEAST: [(Option<usize>, usize, Keys, f64); 5] = [
    (Some(64), 8, Keys::One, 2.5),
    (Some(64), 8, Keys::Each, 2.5),
    (Some(1360), 8, Keys::Each, 1.4),
    (Some(1360), 64, Keys::One, 1.4),
    (None, 64, Keys::Each, 1.3),
];
/// A busy machine may disturb one attempt; code that is too slow is so in each.
const ATTEMPTS: usize = 3;

/// Whether a ratio is below its least one, each time.
pub(crate) fn gate(batch: Batch) -> bool {
    let mut broken = false;
    for (bytes, count, keys, least) in LEAST {
        let shape = Shape { bytes, count, keys };
        let ratios = (0..ATTEMPTS).map(|_| {
            let took = measure(batch, shape);
            (took.seal_alone / took.seal).min(took.open_alone / took.open)
        });
        let best = ratios.fold(0.0, |best: f64, ratio| if best < least { ratio } else { best });
        let verdict = if best < least { "TOO SLOW" } else { "ok" };
        println!("faster {best:.2} times, at least {least}: {verdict} ({shape:?})");
        broken |= best < least;
    }
    broken
}

/// Keys, and messages with room for their tags.
struct Messages {
    keys: Vec<[u8; 32]>,
    alone: Vec<AeadKey>,
    plain: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
}

impl Messages {
    fn new(shape: Shape) -> Self {
        let mut state = 1_u64;
        let mut any = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % (MIXED_MAX + 1)
        };
        let len = |_| shape.bytes.unwrap_or_else(&mut any);
        let plain: Vec<Vec<u8>> =
            (0..shape.count).map(len).map(|len| vec![1; len + TAG_BYTES]).collect();
        let keys = if shape.keys == Keys::One { 1 } else { shape.count };
        let keys: Vec<[u8; 32]> = (0..keys).map(|at| [at as u8; 32]).collect();
        let alone: Vec<AeadKey> = keys.iter().map(AeadKey::new).collect();
        let mut messages = Self { keys, alone, sealed: plain.clone(), plain };
        let mut sealed = messages.plain.clone();
        messages.seal_alone(&mut sealed);
        messages.sealed = sealed;
        messages
    }

    fn key(&self, at: usize) -> usize {
        if self.keys.len() == 1 { 0 } else { at }
    }

    fn seal_alone(&self, messages: &mut [Vec<u8>]) {
        for (at, message) in messages.iter_mut().enumerate() {
            if let Some((text, tag)) = message.split_last_chunk_mut::<TAG_BYTES>() {
                *tag = self.alone[self.key(at)].seal(at as u64, &[], text);
            }
        }
    }

    fn open_alone(&self, messages: &mut [Vec<u8>]) {
        for (at, message) in messages.iter_mut().enumerate() {
            if let Some((text, tag)) = message.split_last_chunk_mut::<TAG_BYTES>() {
                let _ = black_box(self.alone[self.key(at)].open(at as u64, &[], text, tag));
            }
        }
    }

    /// Fills packets, as callers do for each call, and hands them over.
    fn together<const N: usize>(&self, messages: &mut [Vec<u8>], call: impl Fn(&mut [Packet<'_>])) {
        let mut packets: [Packet<'_>; N] = std::array::from_fn(|_| Packet::default());
        let count = messages.len();
        for (at, (packet, bytes)) in packets.iter_mut().zip(messages).enumerate() {
            let key = &self.keys[self.key(at)];
            *packet = Packet { key, counter: at as u64, bytes, ..Packet::default() };
        }
        call(&mut packets[..count]);
    }

    fn call(&self, messages: &mut [Vec<u8>], call: impl Fn(&mut [Packet<'_>])) {
        match messages.len() {
            0..=1 => self.together::<1>(messages, call),
            2..=8 => self.together::<8>(messages, call),
            _ => self.together::<MOST>(messages, call),
        }
    }
}

/// Measures both ways in turns.
pub(crate) fn measure(batch: Batch, shape: Shape) -> Took {
    assert!(shape.count <= MOST, "at most {MOST} packets");
    let messages = Messages::new(shape);
    let mut buffers = [const { Vec::new() }; 5];
    buffers.fill(messages.plain.clone());
    let [a, b, c, d, e] = &mut buffers;
    let mut samples = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        samples[0].push(time(|| messages.seal_alone(a)));
        samples[1].push(time(|| messages.call(b, |packets| batch.seal(packets))));
        samples[2].push(time(|| copy(&messages.sealed, c)));
        samples[3].push(time(|| {
            copy(&messages.sealed, d);
            messages.open_alone(d);
        }));
        samples[4].push(time(|| {
            copy(&messages.sealed, e);
            messages.call(e, |packets| batch.open(packets));
        }));
    }
    let [seal_alone, seal, copied, open_alone, open] = samples.map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2] / shape.count as f64
    });
    Took { seal_alone, seal, open_alone: open_alone - copied, open: open - copied }
}

/// Nanoseconds of one call of `work`.
fn time(mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < ROUND {
        for _ in 0..4 {
            work();
        }
        calls += 4;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn copy(from: &[Vec<u8>], to: &mut [Vec<u8>]) {
    for (from, to) in from.iter().zip(to) {
        to.copy_from_slice(black_box(from));
    }
}
