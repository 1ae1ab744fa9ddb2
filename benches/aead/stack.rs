//! Whether keys are left on the stack by optimised code, whose frames are not those of the crate's
//! own tests.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use ringway_simd::{Batch, Packet, TAG_BYTES};

/// Every word of every key.
const WORD: [u8; 4] = [0x9d, 0x3b, 0xe1, 0x57];
/// Between the frame that looks and those that are looked at, so that looking overwrites none.
const DISTANCE: usize = 16 << 10;
/// The distance, and twice what a call takes.
const SEEN: usize = 2 * DISTANCE;

/// Whether a word of a key is found after a call, or not found where one was put.
pub(crate) fn gate(batch: Batch) -> bool {
    let mut key = [0; 32];
    key.as_chunks_mut::<4>().0.fill(WORD);
    let keys = [key; 8];
    let mut left = 0;
    for (count, opens) in [(1, false), (1, true), (8, false), (8, true)] {
        let mut messages = vec![[0; 1360 + TAG_BYTES]; count];
        let both = messages.iter_mut().zip(&keys);
        let mut packets: Vec<Packet<'_>> =
            both.map(|(bytes, key)| Packet { key, bytes, ..Packet::default() }).collect();
        left +=
            words_after(|| if opens { batch.open(&mut packets) } else { batch.seal(&mut packets) });
    }
    let put = words_after(|| {
        black_box(key);
    });
    let broken = left != 0 || put == 0;
    let verdict = if broken { "BROKEN" } else { "ok" };
    println!("{left} words of keys on the stack after calls, {put} where it was put: {verdict}");
    broken
}

/// Words of keys in the stack below this frame after `work`. The kernel reads it, so no reference
/// to memory of ended frames is needed.
#[inline(never)]
fn words_after(mut work: impl FnMut()) -> usize {
    let mut seen = vec![0; SEEN];
    let memory = File::open("/proc/self/mem").expect("memory of this process");
    let here = black_box(0_u8);
    let below = (&raw const here).addr() - SEEN;
    at_a_distance(&mut work);
    memory.read_exact_at(&mut seen, below as u64).expect("the stack is there");
    seen.windows(WORD.len()).filter(|bytes| **bytes == WORD).count()
}

#[inline(never)]
fn at_a_distance(work: &mut impl FnMut()) {
    let room = black_box([0xa5_u8; DISTANCE]);
    work();
    black_box(&room);
}
