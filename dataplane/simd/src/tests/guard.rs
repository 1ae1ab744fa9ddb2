//! Buffers that begin or end at a page nobody may touch: a load or store outside of a packet, and
//! not only outside of its allocation, ends the test.

#![allow(unsafe_code, reason = "maps pages without permissions")]

use super::{WAYS, batch, noise};
use crate::{Packet, TAG_BYTES};

const PAGE: usize = 4096;
/// Pages between the two guards.
const INSIDE: usize = 2;

/// Readable and writable pages between two that are neither.
struct Guarded(*mut u8);

impl Guarded {
    fn new() -> Self {
        let bytes = (INSIDE + 2) * PAGE;
        // SAFETY: a private anonymous mapping at an address of the kernel's choice disturbs
        // nothing.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0)
        };
        assert!(start != libc::MAP_FAILED);
        let start = start.cast::<u8>();
        // SAFETY: one page into a mapping of four is within it.
        let inside = unsafe { start.add(PAGE) };
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: these pages belong to the mapping above, which nobody else knows.
        assert_eq!(unsafe { libc::mprotect(inside.cast(), INSIDE * PAGE, rights) }, 0);
        Self(inside)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `new` made these bytes accessible, the kernel zeroed them, and `self` is
        // borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0, INSIDE * PAGE) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new` begins one page below.
        let start = unsafe { self.0.sub(PAGE) };
        // SAFETY: no reference into the mapping outlives `self`, which is its only owner.
        let unmapped = unsafe { libc::munmap(start.cast(), (INSIDE + 2) * PAGE) };
        assert_eq!(unmapped, 0);
    }
}

/// The bytes of a message of `len` bytes of text at the first or the last place of `pages`.
fn place(pages: &mut [u8], len: usize, at_end: bool) -> &mut [u8] {
    let bytes = len + TAG_BYTES;
    let start = if at_end { pages.len() - bytes } else { 0 };
    &mut pages[start..start + bytes]
}

#[test]
fn nothing_outside_of_a_packet_is_touched() {
    let Some(batch) = batch() else { return };
    let mut pages: Vec<Guarded> = (0..8).map(|_| Guarded::new()).collect();
    let keys: [[u8; 32]; 8] = std::array::from_fn(|at| [at as u8; 32]);
    for len in (0..700).chain([1423, 1424, 1425, 4000]) {
        let texts: Vec<Vec<u8>> = (0..8).map(|at| noise(at, len)).collect();
        for (way, at_end) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
            for (pages, text) in pages.iter_mut().zip(&texts) {
                pages.bytes().fill(0x5a);
                place(pages.bytes(), len, at_end)[..len].copy_from_slice(text);
            }
            for opens in [false, true] {
                let mut packets: Vec<Packet<'_>> = pages
                    .iter_mut()
                    .zip(&keys)
                    .map(|(pages, key)| Packet {
                        key,
                        bytes: place(pages.bytes(), len, at_end),
                        ..Packet::default()
                    })
                    .collect();
                if opens {
                    way.open(batch, &mut packets);
                    assert!(packets.iter().all(|packet| packet.authentic));
                } else {
                    way.seal(batch, &mut packets);
                }
            }
            for (pages, text) in pages.iter_mut().zip(&texts) {
                assert!(place(pages.bytes(), len, at_end)[..len] == text[..]);
                let around = pages.bytes().iter().filter(|byte| **byte == 0x5a).count();
                let inside = place(pages.bytes(), len, at_end).iter();
                let inside = inside.filter(|byte| **byte == 0x5a).count();
                assert_eq!(around - inside, INSIDE * PAGE - len - TAG_BYTES, "{way:?} {len}");
            }
        }
    }
}

#[test]
fn nothing_outside_of_keys_and_additional_data_is_read() {
    let Some(batch) = batch() else { return };
    let mut key_pages: Vec<Guarded> = (0..8).map(|_| Guarded::new()).collect();
    let mut data_pages: Vec<Guarded> = (0..8).map(|_| Guarded::new()).collect();
    key_pages.iter_mut().for_each(|pages| pages.bytes().fill(0x11));
    let keys: Vec<&[u8; 32]> =
        key_pages.iter_mut().filter_map(|pages| pages.bytes().last_chunk()).collect();
    let mut first_pages: Vec<Guarded> = (0..8).map(|_| Guarded::new()).collect();
    let first_keys: Vec<&[u8; 32]> =
        first_pages.iter_mut().filter_map(|pages| pages.bytes().first_chunk()).collect();
    for (way, len) in WAYS.into_iter().flat_map(|way| (0..300_usize).map(move |len| (way, len))) {
        for (keys, at_end) in [(&keys, true), (&first_keys, false)] {
            let mut bytes = [[0_u8; 40]; 8];
            let mut packets = Vec::new();
            for (((key, data), bytes), at) in
                keys.iter().zip(&mut data_pages).zip(&mut bytes).zip(0..)
            {
                // Of different lengths, so that some lanes rest while others read.
                let bytes_of = len.saturating_sub(at * 5);
                let data = data.bytes();
                let start = if at_end { data.len() - bytes_of } else { 0 };
                let additional = &data[start..start + bytes_of];
                packets.push(Packet { key, additional, bytes, ..Packet::default() });
            }
            way.seal(batch, &mut packets);
            way.open(batch, &mut packets);
            assert!(packets.iter().all(|packet| packet.authentic), "{way:?} {len}");
        }
    }
}
