//! Runs of data messages under one key: one by one with the provider, and together with
//! `ringway-simd`, by time.
//!
//! ```text
//! cargo bench --package ringway-benches --bench aead -- [BYTES,BYTES.. [PACKETS,PACKETS..]]
//! ```
//!
//! Nanoseconds per packet, medians of rounds in which the contenders take turns. `BYTES` are of
//! text, without header and tag. Opening needs a fresh ciphertext each time: the copy is measured
//! by itself and subtracted. Nobody else should use the machine meanwhile.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringway_proto::crypto::AeadKey;
use ringway_simd::{Batch, Packet, TAG_BYTES};

const KEY: [u8; 32] = [7; 32];
const ROUNDS: usize = 401;
/// Long enough for the clock, short enough that most rounds are not disturbed.
const ROUND: Duration = Duration::from_micros(30);

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let mut lists = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let sizes = numbers(lists.next().as_deref().unwrap_or("64,256,512,1360,1424"))?;
    let runs = numbers(lists.next().as_deref().unwrap_or("1,2,3,4,5,8,16,45,64"))?;
    let batch = Batch::detect().context("this machine has no AVX-512 with IFMA and VBMI2")?;
    println!(
        "| bytes | packets | seal alone | seal together | ratio | open alone | open together | ratio |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for bytes in sizes {
        for packets in &runs {
            let [seal, seal_batch, copy, open, open_batch] = measure(batch, bytes, *packets);
            let (open, open_batch) = (open - copy, open_batch - copy);
            println!(
                "| {bytes} | {packets} | {seal:.0} | {seal_batch:.0} | {:.2} | {open:.0} | {open_batch:.0} | {:.2} |",
                seal / seal_batch,
                open / open_batch,
            );
        }
    }
    Ok(())
}

fn numbers(list: &str) -> anyhow::Result<Vec<usize>> {
    list.split(',').map(|number| number.parse().context("a list of numbers")).collect()
}

/// Medians, in nanoseconds per packet: seal alone and together, copy, copy and open alone and
/// together.
fn measure(batch: Batch, bytes: usize, packets: usize) -> [f64; 5] {
    let key = AeadKey::new(&KEY);
    let plain = vec![vec![1; bytes + TAG_BYTES]; packets];
    let mut sealed = plain.clone();
    seal_alone(&key, &mut sealed);
    let (mut a, mut b, mut c, mut d) = (plain.clone(), plain.clone(), plain.clone(), plain.clone());
    let (mut packets_b, mut e) = (row(&mut b), plain);
    let mut packets_e = row(&mut e);
    let mut samples = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        samples[0].push(time(|| seal_alone(&key, &mut a)));
        samples[1].push(time(|| batch.seal(&mut packets_b)));
        samples[2].push(time(|| copy(&sealed, &mut c)));
        samples[3].push(time(|| {
            copy(&sealed, &mut d);
            open_alone(&key, &mut d);
        }));
        samples[4].push(time(|| {
            for (from, to) in sealed.iter().zip(&mut packets_e) {
                to.bytes.copy_from_slice(black_box(from));
            }
            batch.open(&mut packets_e);
        }));
    }
    samples.map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2] / packets as f64
    })
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

fn row(messages: &mut [Vec<u8>]) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    for (at, bytes) in messages.iter_mut().enumerate() {
        packets.push(Packet { key: &KEY, counter: at as u64, bytes, ..Packet::default() });
    }
    packets
}

fn seal_alone(key: &AeadKey, messages: &mut [Vec<u8>]) {
    for (message, counter) in messages.iter_mut().zip(0..) {
        if let Some((text, tag)) = message.split_last_chunk_mut::<TAG_BYTES>() {
            *tag = key.seal(counter, &[], text);
        }
    }
}

fn open_alone(key: &AeadKey, messages: &mut [Vec<u8>]) {
    for (message, counter) in messages.iter_mut().zip(0..) {
        if let Some((text, tag)) = message.split_last_chunk_mut::<TAG_BYTES>() {
            let _ = black_box(key.open(counter, &[], text, tag));
        }
    }
}

fn copy(from: &[Vec<u8>], to: &mut [Vec<u8>]) {
    for (from, to) in from.iter().zip(to) {
        to.copy_from_slice(black_box(from));
    }
}
