//! Data packets one by one with the provider, and several per call with `ringway-simd`.
//!
//! ```text
//! cargo bench --package ringway-benches --bench aead -- [BYTES,BYTES.. [PACKETS,PACKETS..]]
//! cargo bench --profile ci --package ringway-benches --bench aead -- --gate
//! ```
//!
//! Nanoseconds per packet, medians of rounds in which the contenders take turns. `BYTES` are of
//! text, without header and tag; `mixed` is any up to 1424. Keys: `one` for all, or of `each`
//! packet. Opening needs a fresh ciphertext each time: the copy is measured by itself and
//! subtracted. Nobody else should use the machine meanwhile.
//!
//! The gate takes ten seconds and fails if calls are not faster than one by one ([`speed`]), if
//! their time depends on secrets ([`leaks`]) or if keys are left on the stack ([`stack`]). It
//! compares within one run and with wide margins, so a busy machine does not fail it.

#![allow(clippy::print_stdout, reason = "a bench prints")]

mod leaks;
mod speed;
mod stack;

use anyhow::{Context, ensure};
use ringway_simd::Batch;
use speed::{Keys, Shape};

/// What `mixed` stands for on the command line and in the table.
const MIXED: &str = "mixed";

fn main() -> anyhow::Result<()> {
    // Cargo itself adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let found = Batch::detect();
    if words == ["--gate"] {
        return match found {
            Some(batch) => gate(batch),
            None => {
                println!("skipped: this machine has no AVX-512 with IFMA and VBMI2");
                Ok(())
            }
        };
    }
    let batch = found.context("this machine has no AVX-512 with IFMA and VBMI2")?;
    let mut lists = words.iter();
    let sizes = lists.next().map_or("64,256,512,1360,1420,mixed", String::as_str);
    let counts = numbers(lists.next().map_or("1,2,3,4,5,8,16,45,64", String::as_str))?;
    println!(
        "| bytes | packets | keys | seal alone | together | ratio | open alone | together | ratio |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (size, count) in sizes.split(',').flat_map(|size| counts.iter().map(move |n| (size, *n))) {
        let bytes = if size == MIXED { None } else { Some(size.parse().context("a length")?) };
        for keys in [Keys::One, Keys::Each] {
            let took = speed::measure(batch, Shape { bytes, count, keys });
            println!(
                "| {size} | {count} | {keys:?} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} |",
                took.seal_alone,
                took.seal,
                took.seal_alone / took.seal,
                took.open_alone,
                took.open,
                took.open_alone / took.open,
            );
        }
    }
    Ok(())
}

fn numbers(list: &str) -> anyhow::Result<Vec<usize>> {
    list.split(',').map(|number| number.parse().context("a list of numbers")).collect()
}

fn gate(batch: Batch) -> anyhow::Result<()> {
    let broken = [speed::gate(batch), leaks::gate(batch), stack::gate(batch)];
    ensure!(broken == [false; 3], "sealing and opening do not keep what they promise");
    Ok(())
}
