//! What a call leaves behind on the stack, read back through `/proc/self/mem`: the kernel copies,
//! so no reference to memory of ended frames is needed.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use super::{Message, Way, batch, packets};

/// Every word of every key. Keys of one call have it at different addresses.
const WORD: [u8; 4] = [0x9d, 0x3b, 0xe1, 0x57];
/// Room between the frame that looks and those that are looked at, so that looking overwrites none.
const DISTANCE: usize = 16 << 10;
/// How far it looks: the distance, and twice what a group takes.
const SEEN: usize = DISTANCE + (16 << 10);

/// Calls `work` at a distance, then returns the stack below this frame.
#[inline(never)]
fn stack_after(mut work: impl FnMut()) -> Vec<u8> {
    let mut seen = vec![0; SEEN];
    let memory = File::open("/proc/self/mem").unwrap();
    let here = black_box(0_u8);
    let below = (&raw const here).addr() - SEEN;
    at_a_distance(&mut work);
    memory.read_exact_at(&mut seen, below as u64).unwrap();
    seen
}

#[inline(never)]
fn at_a_distance(work: &mut impl FnMut()) {
    let room = black_box([0xa5_u8; DISTANCE]);
    work();
    black_box(&room);
}

/// Places of `secret` on the stack.
fn count(stack: &[u8], secret: &[u8]) -> usize {
    stack.windows(secret.len()).filter(|bytes| *bytes == secret).count()
}

/// Keystream of the texts, which are zeros, in numbers.
fn keystream(sealed: &[Vec<u8>]) -> Vec<[u8; 8]> {
    let texts = sealed.iter().flat_map(|sealed| sealed[..sealed.len() - 16].as_chunks::<8>().0);
    texts.copied().collect()
}

fn secrets_left(way: Way, copies: usize, text: usize, additional: usize) -> [usize; 2] {
    let Some(batch) = batch() else { return [0; 2] };
    let mut key = [0; 32];
    key.as_chunks_mut::<4>().0.fill(WORD);
    let message =
        Message { additional: vec![1; additional], ..Message::new(key, 0, vec![0; text]) };
    let messages: Vec<Message> =
        (0..copies as u64).map(|counter| Message { counter, ..message.clone() }).collect();
    let mut bytes: Vec<Vec<u8>> = messages.iter().map(Message::with_room).collect();
    let mut sealed = packets(&messages, &mut bytes);
    let after_seal = stack_after(|| way.seal(batch, black_box(&mut sealed)));
    let keystream = keystream(&bytes);
    let mut opened = packets(&messages, &mut bytes);
    let after_open = stack_after(|| way.open(batch, black_box(&mut opened)));
    let of_stream = |stack: &[u8]| keystream.iter().map(|eight| count(stack, eight)).sum::<usize>();
    let keys = count(&after_seal, &WORD) + count(&after_open, &WORD);
    [keys, of_stream(&after_seal) + of_stream(&after_open)]
}

#[test]
fn a_call_leaves_no_key_and_no_keystream_on_the_stack() {
    for copies in [1, 2, 7, 8, 9, 20] {
        for (text, additional) in [(0, 0), (64, 0), (64, 12), (200, 100), (500, 0), (1420, 8)] {
            let left = secrets_left(Way::Chosen, copies, text, additional);
            assert_eq!(left, [0, 0], "{copies} packets, {text} and {additional} bytes");
        }
    }
}

/// The test above would see what it looks for: below [`crate::Batch`] nothing is overwritten.
#[test]
fn without_overwriting_keys_and_keystream_are_found() {
    if batch().is_none() {
        return;
    }
    for (way, copies) in [(Way::Singly, 1), (Way::Together, 8)] {
        let [keys, keystream] = secrets_left(way, copies, 1420, 0);
        assert!(keys > 0, "{way:?}: no key");
        assert!(keystream > 0, "{way:?}: no keystream");
    }
}
