//! What was tampered with is refused, and nothing else is.

use proptest::prelude::*;

use super::{Message, WAYS, Way, batch, messages, noise, packets};
use crate::{Batch, TAG_BYTES};

/// What an attacker changed in a packet.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A bit of ciphertext or tag.
    Sealed(u64),
    /// A bit of the additional data.
    Additional(u64),
    /// A byte more of additional data, zero as its padding is.
    AdditionalByte,
    /// A bit of the key.
    Key(u64),
    NonceHead(u32),
    Counter(u32),
}

impl Change {
    fn apply(self, message: &mut Message, sealed: &mut [u8]) {
        let flip = |bytes: &mut [u8], bit: u64| {
            let bit = (bit % (8 * bytes.len()) as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        };
        match self {
            Self::Additional(bit) if !message.additional.is_empty() => {
                flip(&mut message.additional, bit);
            }
            Self::Sealed(bit) | Self::Additional(bit) => flip(sealed, bit),
            Self::AdditionalByte => message.additional.push(0),
            Self::Key(bit) => flip(&mut message.key, bit),
            Self::NonceHead(bit) => message.nonce_head ^= 1 << (bit % 32),
            Self::Counter(bit) => message.counter ^= 1 << (bit % 64),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any::<u64>().prop_map(Change::Sealed),
        2 => any::<u64>().prop_map(Change::Additional),
        1 => Just(Change::AdditionalByte),
        1 => any::<u64>().prop_map(Change::Key),
        1 => any::<u32>().prop_map(Change::NonceHead),
        1 => any::<u32>().prop_map(Change::Counter),
    ]
}

/// Opens `sealed` one way; what is wrong is refused without its plaintext, all else is as it was.
fn refuses(batch: Batch, way: Way, messages: &[Message], sealed: &[Vec<u8>], wrong: &[bool]) {
    let mut bytes = sealed.to_vec();
    let mut opened = packets(messages, &mut bytes);
    way.open(batch, &mut opened);
    for packet in &opened {
        let (text, wrong) = (&messages[packet.at as usize].text, wrong[packet.at as usize]);
        let found = &packet.bytes[..text.len()];
        assert_eq!(packet.authentic, !wrong, "{way:?} {}", packet.at);
        let shows = text.len() >= 16 && found == &text[..];
        assert!(packet.authentic || !shows, "{way:?} shows unverified plaintext");
        assert!(!packet.authentic || found == &text[..], "{way:?} opened otherwise");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_bit_was_changed_in_is_refused_and_nothing_else(
        mut messages in messages(0..1500_usize),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), change()), 1..6),
    ) {
        let Some(batch) = batch() else { return Ok(()) };
        let mut sealed: Vec<Vec<u8>> = messages.iter().map(Message::sealed_by_aws_lc).collect();
        let mut wrong = vec![false; sealed.len()];
        for (index, change) in changes {
            let at = index.index(sealed.len());
            // A second change could undo the first.
            if !wrong[at] {
                wrong[at] = true;
                change.apply(&mut messages[at], &mut sealed[at]);
            }
        }
        for way in WAYS {
            refuses(batch, way, &messages, &sealed, &wrong);
        }
    }
}

/// Changes each bit of what eight packets have by turns, in each lane.
fn every_bit_counts(change: fn(u64) -> Change, bits: u64, additional: usize, text: usize) {
    let Some(batch) = batch() else { return };
    let honest: Vec<Message> =
        (0..8).map(|at| Message::noisy(at << 32, additional, text)).collect();
    let honest_sealed: Vec<Vec<u8>> = honest.iter().map(Message::sealed_by_aws_lc).collect();
    for (bit, lane) in (0..bits).flat_map(|bit| (0..8).map(move |lane| (bit, lane))) {
        let (mut messages, mut sealed) = (honest.clone(), honest_sealed.clone());
        change(bit).apply(&mut messages[lane], &mut sealed[lane]);
        let wrong: Vec<bool> = (0..8).map(|at| at == lane).collect();
        for way in WAYS {
            refuses(batch, way, &messages, &sealed, &wrong);
        }
    }
}

#[test]
fn every_bit_of_text_and_tag_counts_in_every_lane() {
    for len in [0, 20, 64, 300] {
        let bits = 8 * (len + TAG_BYTES) as u64;
        every_bit_counts(Change::Sealed, bits, len / 3, len);
    }
}

#[test]
fn every_bit_of_additional_data_counts_in_every_lane() {
    for len in [1, 8, 12, 16, 40, 70] {
        every_bit_counts(Change::Additional, 8 * len as u64, len, 50);
    }
}

#[test]
fn every_bit_of_the_key_counts_in_every_lane() {
    every_bit_counts(Change::Key, 256, 0, 50);
}

#[test]
fn what_was_sealed_for_another_session_is_refused() {
    let Some(batch) = batch() else { return };
    let mut messages: Vec<Message> =
        (0..8).map(|at| Message::new([at; 32], 7, noise(7, 90))).collect();
    let sealed: Vec<Vec<u8>> = messages.iter().map(Message::sealed_by_aws_lc).collect();
    let (two, five) = (messages[2].key, messages[5].key);
    (messages[2].key, messages[5].key) = (five, two);
    let wrong: Vec<bool> = (0..8).map(|at| at == 2 || at == 5).collect();
    for way in WAYS {
        refuses(batch, way, &messages, &sealed, &wrong);
    }
}

#[test]
fn moving_a_byte_between_additional_data_and_text_is_refused() {
    let Some(batch) = batch() else { return };
    // Both are authenticated as the same blocks: only the lengths differ.
    let honest: Vec<Message> = (0..8).map(|at| Message::noisy(at, 16, 32)).collect();
    let mut sealed: Vec<Vec<u8>> = honest.iter().map(Message::sealed_by_aws_lc).collect();
    let mut messages = honest;
    for (message, sealed) in messages.iter_mut().zip(&mut sealed) {
        message.additional.extend(sealed.drain(..16));
        message.text.drain(..16);
    }
    for way in WAYS {
        refuses(batch, way, &messages, &sealed, &[true; 8]);
    }
}

#[test]
fn a_group_shows_nothing_of_a_packet_it_refuses() {
    let Some(batch) = batch() else { return };
    let messages: Vec<Message> = (0..8).map(|c| Message::new([1; 32], c, vec![9; 100])).collect();
    let mut bytes: Vec<Vec<u8>> = messages.iter().map(Message::sealed_by_aws_lc).collect();
    bytes[3][100] ^= 1;
    batch.0.open_group(&mut packets(&messages, &mut bytes));
    assert_eq!(bytes[3][..100], [0; 100]);
    assert_eq!(bytes[4][..100], [9; 100]);
}

#[test]
fn a_packet_without_room_for_a_tag_is_not_authentic() {
    let Some(batch) = batch() else { return };
    let message = Message::new([1; 32], 7, b"text".to_vec());
    let messages = [message.clone(), message.clone(), message];
    for len in 0..TAG_BYTES {
        let mut bytes = vec![vec![0; len], messages[1].sealed_by_aws_lc(), vec![0; len]];
        let mut opened = packets(&messages, &mut bytes);
        opened[0].authentic = true;
        batch.open(&mut opened);
        assert!(opened.iter().all(|packet| packet.authentic == (packet.at == 1)));
    }
}
