//! Against aws-lc and `chacha20poly1305`, against public vectors, and beside unmapped pages.
//!
//! Without AVX-512 there is nothing to test: each test says so and ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod guard;
mod refused;
mod vectors;
mod wiped;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use proptest::prelude::*;

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
    fn seal(self, batch: Batch, packets: &mut [Packet<'_>]) {
        match self {
            Self::Chosen => batch.seal(packets),
            Self::Singly => packets.iter_mut().for_each(|packet| batch.0.seal_one(packet)),
            Self::Together => packets.chunks_mut(8).for_each(|group| batch.0.seal_group(group)),
        }
    }

    fn open(self, batch: Batch, packets: &mut [Packet<'_>]) {
        match self {
            Self::Chosen => batch.open(packets),
            Self::Singly => packets.iter_mut().for_each(|packet| batch.0.open_one(packet)),
            Self::Together => packets.chunks_mut(8).for_each(|group| batch.0.open_group(group)),
        }
    }
}

/// What a packet is made of.
#[derive(Clone, Debug)]
struct Message {
    key: [u8; 32],
    nonce_head: u32,
    counter: u64,
    additional: Vec<u8>,
    text: Vec<u8>,
}

impl Message {
    /// As in WireGuard.
    fn new(key: [u8; 32], counter: u64, text: Vec<u8>) -> Self {
        Self { key, nonce_head: 0, counter, additional: Vec::new(), text }
    }

    /// Everything different by `seed`.
    fn noisy(seed: u64, additional: usize, text: usize) -> Self {
        Self {
            key: noise(seed ^ 0x5eed, 32).try_into().unwrap(),
            nonce_head: seed as u32,
            counter: seed,
            additional: noise(!seed, additional),
            text: noise(seed, text),
        }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.nonce_head.to_le_bytes());
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        nonce
    }

    /// The text and room for a tag.
    fn with_room(&self) -> Vec<u8> {
        [&self.text[..], &[0xee; TAG_BYTES]].concat()
    }

    /// What aws-lc makes of it: ciphertext and tag.
    fn sealed_by_aws_lc(&self) -> Vec<u8> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.key).unwrap());
        let mut sealed = self.text.clone();
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        key.seal_in_place_append_tag(nonce, Aad::from(&self.additional), &mut sealed).unwrap();
        sealed
    }

    /// What `chacha20poly1305` makes of it: ciphertext and tag.
    fn sealed_by_rust_crypto(&self) -> Vec<u8> {
        let cipher = ChaCha20Poly1305::new(&self.key.into());
        let mut sealed = self.text.clone();
        let nonce = self.nonce().into();
        let tag =
            cipher.encrypt_inout_detached(&nonce, &self.additional, sealed.as_mut_slice().into());
        sealed.extend_from_slice(&tag.unwrap());
        sealed
    }
}

/// Packets of `messages` over `bytes`, in order.
fn packets<'a>(messages: &'a [Message], bytes: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    let both = messages.iter().zip(bytes).zip(0..);
    let packet = |((message, bytes), at): ((&'a Message, &'a mut Vec<u8>), u32)| Packet {
        key: &message.key,
        nonce_head: message.nonce_head,
        counter: message.counter,
        additional: &message.additional,
        bytes,
        at,
        authentic: false,
    };
    both.map(packet).collect()
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

/// Seals and opens `messages` every way and compares with both other implementations.
fn agrees(batch: Batch, messages: &[Message]) {
    let expected: Vec<Vec<u8>> = messages.iter().map(Message::sealed_by_aws_lc).collect();
    for (message, expected) in messages.iter().zip(&expected) {
        assert!(message.sealed_by_rust_crypto() == *expected, "the others differ: {message:?}");
    }
    for way in WAYS {
        let mut bytes: Vec<Vec<u8>> = messages.iter().map(Message::with_room).collect();
        way.seal(batch, &mut packets(messages, &mut bytes));
        assert!(bytes == expected, "{way:?} sealed otherwise: {:?}", lengths(messages));
        let mut opened = packets(messages, &mut bytes);
        way.open(batch, &mut opened);
        assert!(opened.iter().all(|packet| packet.authentic), "{way:?}: {:?}", lengths(messages));
        for (bytes, message) in bytes.iter().zip(messages) {
            assert!(bytes[..message.text.len()] == message.text[..], "{way:?} opened otherwise");
        }
    }
}

fn lengths(messages: &[Message]) -> Vec<[usize; 2]> {
    messages.iter().map(|message| [message.additional.len(), message.text.len()]).collect()
}

#[test]
fn agrees_with_two_implementations_at_every_length() {
    let Some(batch) = batch() else { return };
    for len in (0..2200).chain([4095, 4096, 8191, 8192, 8193, 16_383, 16_384, 65_535]) {
        let key: [u8; 32] = noise(len as u64, 32).try_into().unwrap();
        // Counters with low and high bits; texts of ones carry furthest in the authenticator.
        let message = |at: u64| {
            let text = if len % 5 == 0 { vec![0xff; len] } else { noise(at, len) };
            Message::new(key, at | at << 29 | at << 34 | at << 61, text)
        };
        let messages: Vec<Message> = (0..1 + len as u64 % 9).map(message).collect();
        agrees(batch, &messages);
    }
}

#[test]
fn lengths_that_differ_by_a_little_agree_in_one_group() {
    let Some(batch) = batch() else { return };
    for base in 0..200_u64 {
        let counters = [1, 2, 3, 4, 5, 6, 7, u64::MAX];
        let text = |at| noise(at as u64, base as usize + at * 9);
        let messages = counters.iter().enumerate();
        let messages: Vec<Message> =
            messages.map(|(at, c)| Message::new([base as u8; 32], *c, text(at))).collect();
        agrees(batch, &messages);
    }
}

#[test]
fn eight_of_as_many_keys_agree_at_every_length_and_eight_of_two_keys_too() {
    let Some(batch) = batch() else { return };
    for len in (0..700).chain([1360, 1420, 1424, 9000]) {
        let mut messages: Vec<Message> =
            (0..8).map(|at| Message::noisy(len as u64 + (at << 40), 0, len)).collect();
        agrees(batch, &messages);
        // All but one of one key, that one in every lane; of keys with one address or with two.
        let key = messages[0].key;
        messages.iter_mut().enumerate().for_each(|(at, message)| {
            if at != len % 8 {
                message.key = key;
            }
        });
        agrees(batch, &messages);
    }
}

#[test]
fn additional_data_agrees_at_every_length_and_in_every_lane() {
    let Some(batch) = batch() else { return };
    let lengths = (0..200).chain([255, 256, 257, 1000, 4096, 70_000]);
    for (additional, len) in lengths.flat_map(|additional| {
        [0, 1, 15, 16, 17, 48, 63, 64, 65, 128, 255, 256, 300, 1420].map(|len| (additional, len))
    }) {
        // One length; ends in different steps; one lane alone.
        let seed = (additional * 2000 + len) as u64;
        let of = |at: u64, additional| Message::noisy(seed + (at << 40), additional, len);
        agrees(batch, &(0..8).map(|at| of(at, additional)).collect::<Vec<_>>());
        let less = |at| of(at, additional.saturating_sub(13 * at as usize));
        agrees(batch, &(0..8).map(less).collect::<Vec<_>>());
        let alone = |at| of(at, if at == seed % 8 { additional } else { 0 });
        agrees(batch, &(0..8).map(alone).collect::<Vec<_>>());
    }
}

#[test]
fn a_call_agrees_whatever_the_order_of_its_lengths() {
    let Some(batch) = batch() else { return };
    for count in (1..70).chain([127, 128, 129, 200]) {
        let len =
            |at: u64| noise(at ^ count << 32, 2).iter().fold(0, |len, b| len * 8 + *b as usize);
        let messages: Vec<Message> = (0..count).map(|at| Message::noisy(at, 0, len(at))).collect();
        let mut bytes: Vec<Vec<u8>> = messages.iter().map(Message::with_room).collect();
        let mut sealed = packets(&messages, &mut bytes);
        batch.seal(&mut sealed);
        for part in sealed.chunks(ORDERED_MAX) {
            assert!(part.is_sorted_by(|a, b| rank(a) >= rank(b)));
        }
        let mut places: Vec<u32> = sealed.iter().map(|packet| packet.at).collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..count as u32));
        agrees(batch, &messages);
    }
}

/// Of a few keys or of many, with or without additional data.
fn messages(text: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<Message>> {
    let additional =
        prop_oneof![Just(0_usize), Just(0), 0..=40_usize, Just(8), Just(12), 0..300_usize];
    let keys = prop_oneof![Just(1_u64), Just(3), Just(u64::MAX)];
    let nonce_head = prop_oneof![Just(0), any::<u32>()];
    let each = proptest::collection::vec((text, additional, nonce_head, any::<u64>()), 1..=70);
    (keys, any::<u64>(), each).prop_map(|(keys, seed, each)| {
        let of = |(text, additional, nonce_head, counter): (_, _, _, u64)| Message {
            key: noise(seed ^ (counter % keys), 32).try_into().unwrap(),
            nonce_head,
            counter,
            additional: noise(!counter, additional),
            text: noise(counter, text),
        };
        each.into_iter().map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_call_agrees_whatever_its_keys_lengths_and_nonces(
        messages in messages(prop_oneof![0..2200_usize, 0..130_usize, Just(1424_usize)]),
    ) {
        let Some(batch) = batch() else { return Ok(()) };
        agrees(batch, &messages);
    }
}

#[test]
#[should_panic(expected = "a packet has room for its tag")]
fn sealing_without_room_for_a_tag_is_refused_loudly() {
    let Some(batch) = batch() else { panic!("a packet has room for its tag") };
    batch.seal(&mut [Packet { bytes: &mut [0; 15], ..Packet::default() }]);
}

#[test]
fn a_call_without_packets_does_nothing() {
    let Some(batch) = batch() else { return };
    batch.seal(&mut []);
    batch.open(&mut []);
}

#[test]
fn a_packet_does_not_show_its_key_or_text() {
    let packet = Packet { key: &[171; 32], bytes: &mut [205; 40], ..Packet::default() };
    let shown = format!("{packet:?}");
    assert!(!shown.contains("171") && !shown.contains("205"), "{shown}");
}
