//! ChaCha20-Poly1305 for several packets per call, beside one that does them one by one.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use ringway_proto::crypto::{Batch, Packet, TAG_BYTES};

use super::input::Input;

/// A packet, and what it must become.
struct Case {
    key: [u8; 32],
    nonce_head: u32,
    counter: u64,
    additional: Vec<u8>,
    text: Vec<u8>,
    sealed: Vec<u8>,
}

impl Case {
    /// Of any lengths; one of a few keys, so that some are alike and some are not.
    fn read(input: &mut Input<'_>) -> Self {
        let (shape, key) = (input.byte(), input.byte());
        let text_bytes = usize::from(input.u16()) % if shape & 1 == 0 { 200 } else { 2000 };
        let additional_bytes = match shape >> 1 & 3 {
            0 | 1 => 0,
            2 => usize::from(input.byte() % 32),
            _ => usize::from(input.u16()) % 500,
        };
        // Bytes of the input, then as many others as are missing.
        let mut fill = |len: usize| {
            let mut bytes = input.take(len.min(16)).to_vec();
            bytes.resize(len, if shape & 8 == 0 { shape } else { 0xff });
            bytes
        };
        let (text, additional, nonce) = (fill(text_bytes), fill(additional_bytes), fill(12));
        let (head, counter) = nonce.split_first_chunk().expect("12 bytes");
        let mut case = Self {
            key: [key % 5; 32],
            nonce_head: u32::from_le_bytes(*head),
            counter: u64::from_le_bytes(*counter.first_chunk().expect("8 bytes")),
            additional,
            sealed: text.clone(),
            text,
        };
        let cipher = ChaCha20Poly1305::new(&case.key.into());
        let nonce = <[u8; 12]>::try_from(nonce).expect("12 bytes").into();
        let text = case.sealed.as_mut_slice().into();
        let tag = cipher.encrypt_inout_detached(&nonce, &case.additional, text).expect("short");
        case.sealed.extend_from_slice(&tag);
        case
    }
}

fn packets<'a>(cases: &'a [Case], bytes: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    let both = cases.iter().zip(bytes).zip(0..);
    let packet = |((case, bytes), at): ((&'a Case, &'a mut Vec<u8>), u32)| Packet {
        key: &case.key,
        nonce_head: case.nonce_head,
        counter: case.counter,
        additional: &case.additional,
        bytes,
        at,
        authentic: false,
    };
    both.map(packet).collect()
}

/// A call makes the bytes that the other implementation makes, and takes back what was not changed,
/// and nothing else, whatever is beside it.
pub(crate) fn a_call_does_what_one_by_one_does(bytes: &[u8]) {
    let Some(batch) = Batch::detect() else { return };
    let mut input = Input::new(bytes);
    let count = 1 + input.byte() % 20;
    let cases: Vec<Case> = (0..count).map(|_| Case::read(&mut input)).collect();

    let with_room = |case: &Case| [&case.text[..], &[0; TAG_BYTES]].concat();
    let mut messages: Vec<Vec<u8>> = cases.iter().map(with_room).collect();
    batch.seal(&mut packets(&cases, &mut messages));
    for (message, case) in messages.iter().zip(&cases) {
        assert!(*message == case.sealed, "sealed otherwise");
    }

    let changed: Vec<bool> =
        messages.iter_mut().map(|message| !input.damage(message).is_empty()).collect();
    let mut opened = packets(&cases, &mut messages);
    batch.open(&mut opened);
    for packet in opened {
        let at = packet.at as usize;
        assert_eq!(packet.authentic, !changed[at], "packet {at}");
        let text = &cases[at].text;
        assert!(changed[at] || packet.bytes[..text.len()] == text[..], "opened otherwise");
    }
}
