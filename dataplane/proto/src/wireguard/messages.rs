//! The four messages on the wire (section 5.4): lengths, offsets, and the test that says which of
//! them a datagram is.
//!
//! All integers are little-endian. The type is one 32-bit word, so its upper three bytes, which are
//! reserved, have to be zero.

use std::ops::Range;

use crate::limits::BUFFER_BYTES;
use crate::{DropReason, ReceiverIndex};

/// Bytes of a handshake initiation (section 5.4.2).
pub const INITIATION_BYTES: usize = 148;
/// Bytes of a handshake response (section 5.4.3).
pub const RESPONSE_BYTES: usize = 92;
/// Bytes of a cookie reply (section 5.4.7).
pub const COOKIE_REPLY_BYTES: usize = 64;
/// Bytes before the ciphertext of a transport message (section 5.4.6).
pub const DATA_HEADER_BYTES: usize = 16;
/// Bytes that a transport message adds to its plaintext: header and tag.
pub const DATA_OVERHEAD_BYTES: usize = DATA_HEADER_BYTES + crate::crypto::TAG_BYTES;
/// The plaintext of a transport message is padded with zeros to a multiple of this, though never
/// beyond the MTU (section 5.4.6).
pub const PADDING_MULTIPLE: usize = 16;
/// The traffic class byte of handshake messages: DSCP AF41, as the kernel marks them.
pub const HANDSHAKE_TOS: u8 = 0x88;

pub(super) const TYPE_INITIATION: u8 = 1;
pub(super) const TYPE_RESPONSE: u8 = 2;
pub(super) const TYPE_COOKIE_REPLY: u8 = 3;
pub(super) const TYPE_DATA: u8 = 4;

/// What a datagram claims to be. Its length and reserved bits are right; nothing else was looked
/// at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A handshake initiation: names no receiver.
    Initiation,
    /// A handshake response to the initiation that carried our `receiver`.
    Response {
        /// The index we chose for the initiation.
        receiver: ReceiverIndex,
    },
    /// A cookie reply to the handshake message that carried our `receiver`.
    Cookie {
        /// The index we chose for the handshake message that it answers.
        receiver: ReceiverIndex,
    },
    /// A transport message.
    Data {
        /// The index we chose for the keypair.
        receiver: ReceiverIndex,
        /// The sender's message counter, which is the nonce.
        counter: u64,
    },
}

/// Says which message a datagram is, by its first word and its length.
///
/// # Errors
/// [`DropReason::DatagramTruncated`], [`DropReason::DatagramOversized`],
/// [`DropReason::MessageTypeUnknown`] or [`DropReason::ReservedBitsSet`].
pub fn classify(datagram: &[u8]) -> Result<Message, DropReason> {
    let Some((word, _)) = datagram.split_first_chunk::<4>() else {
        return Err(DropReason::DatagramTruncated);
    };
    let (bytes_min, bytes_max) = match word[0] {
        TYPE_INITIATION => (INITIATION_BYTES, INITIATION_BYTES),
        TYPE_RESPONSE => (RESPONSE_BYTES, RESPONSE_BYTES),
        TYPE_COOKIE_REPLY => (COOKIE_REPLY_BYTES, COOKIE_REPLY_BYTES),
        TYPE_DATA => (DATA_OVERHEAD_BYTES, BUFFER_BYTES),
        _ => return Err(DropReason::MessageTypeUnknown),
    };
    if word[1..] != [0; 3] {
        return Err(DropReason::ReservedBitsSet);
    }
    if datagram.len() < bytes_min {
        return Err(DropReason::DatagramTruncated);
    }
    if datagram.len() > bytes_max {
        return Err(DropReason::DatagramOversized);
    }
    Ok(match word[0] {
        TYPE_INITIATION => Message::Initiation,
        TYPE_RESPONSE => Message::Response { receiver: index_at(datagram, RESPONSE_RECEIVER) },
        TYPE_COOKIE_REPLY => Message::Cookie { receiver: index_at(datagram, COOKIE_RECEIVER) },
        _ => Message::Data {
            receiver: index_at(datagram, DATA_RECEIVER),
            counter: counter_of(datagram),
        },
    })
}

// Where the fields are. Ranges of one message are consecutive, which a test checks.
pub(super) const INITIATION_SENDER: Range<usize> = 4..8;
pub(super) const INITIATION_EPHEMERAL: Range<usize> = 8..40;
pub(super) const INITIATION_STATIC: Range<usize> = 40..88;
pub(super) const INITIATION_STAMP: Range<usize> = 88..116;

pub(super) const RESPONSE_SENDER: Range<usize> = 4..8;
pub(super) const RESPONSE_RECEIVER: Range<usize> = 8..12;
pub(super) const RESPONSE_EPHEMERAL: Range<usize> = 12..44;
pub(super) const RESPONSE_EMPTY: Range<usize> = 44..60;

pub(super) const COOKIE_RECEIVER: Range<usize> = 4..8;
pub(super) const COOKIE_NONCE: Range<usize> = 8..32;
pub(super) const COOKIE_VALUE: Range<usize> = 32..48;
pub(super) const COOKIE_TAG: Range<usize> = 48..64;

pub(super) const DATA_RECEIVER: Range<usize> = 4..8;
const DATA_COUNTER: Range<usize> = 8..16;

/// The 32-bit index at `range`, which holds four bytes of a message whose length was checked.
pub(super) fn index_at(message: &[u8], range: Range<usize>) -> ReceiverIndex {
    ReceiverIndex(u32::from_le_bytes(field(message, range)))
}

/// The counter of a transport message whose length was checked.
pub(super) fn counter_of(message: &[u8]) -> u64 {
    u64::from_le_bytes(field(message, DATA_COUNTER))
}

/// A field of a message whose length was checked.
pub(super) fn field<const N: usize>(message: &[u8], range: Range<usize>) -> [u8; N] {
    message[range].try_into().expect("the range has the length of the field")
}

/// Writes type and sender, the first eight bytes of an initiation and of a response.
pub(super) fn write_head(message: &mut [u8], kind: u8, sender: ReceiverIndex) {
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message[4..8].copy_from_slice(&sender.0.to_le_bytes());
}

/// Writes the header of a transport message.
#[inline]
pub(super) fn write_data_header(message: &mut [u8], receiver: ReceiverIndex, counter: u64) {
    message[..4].copy_from_slice(&[TYPE_DATA, 0, 0, 0]);
    message[DATA_RECEIVER].copy_from_slice(&receiver.0.to_le_bytes());
    message[DATA_COUNTER].copy_from_slice(&counter.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, bytes: usize) -> Vec<u8> {
        let mut message: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message
    }

    #[test]
    fn a_message_is_what_its_type_and_length_say() {
        let receiver = ReceiverIndex(0x0706_0504);
        assert_eq!(classify(&message(1, 148)), Ok(Message::Initiation));
        let response = Message::Response { receiver: ReceiverIndex(0x0b0a_0908) };
        assert_eq!(classify(&message(2, 92)), Ok(response));
        assert_eq!(classify(&message(3, 64)), Ok(Message::Cookie { receiver }));
        let data = Message::Data { receiver, counter: 0x0f0e_0d0c_0b0a_0908 };
        // The length of a transport message need not be a multiple of 16.
        for bytes in [32, 33, 48, 1452, BUFFER_BYTES] {
            assert_eq!(classify(&message(4, bytes)), Ok(data));
        }
    }

    #[test]
    fn a_length_that_is_off_by_one_is_refused() {
        for (kind, bytes) in [(1, 148), (2, 92), (3, 64)] {
            let (short, long) = (message(kind, bytes - 1), message(kind, bytes + 1));
            assert_eq!(classify(&short), Err(DropReason::DatagramTruncated));
            assert_eq!(classify(&long), Err(DropReason::DatagramOversized));
        }
        assert_eq!(classify(&message(4, 31)), Err(DropReason::DatagramTruncated));
        let long = message(4, BUFFER_BYTES + 1);
        assert_eq!(classify(&long), Err(DropReason::DatagramOversized));
        for bytes in 0..4 {
            assert_eq!(classify(&[1, 0, 0, 0][..bytes]), Err(DropReason::DatagramTruncated));
        }
    }

    #[test]
    fn reserved_bytes_have_to_be_zero() {
        for (kind, bytes) in [(1, 148), (2, 92), (3, 64), (4, 32)] {
            for at in 1..4 {
                let mut message = message(kind, bytes);
                message[at] = 1;
                assert_eq!(classify(&message), Err(DropReason::ReservedBitsSet));
            }
        }
    }

    #[test]
    fn other_types_are_refused_whatever_their_length() {
        for kind in (0..=255).filter(|kind| !(1..=4).contains(kind)) {
            let unknown = classify(&message(kind, 148));
            assert_eq!(unknown, Err(DropReason::MessageTypeUnknown));
        }
    }

    #[test]
    fn fields_stand_shoulder_to_shoulder() {
        let layouts = [
            vec![INITIATION_SENDER, INITIATION_EPHEMERAL, INITIATION_STATIC, INITIATION_STAMP],
            vec![RESPONSE_SENDER, RESPONSE_RECEIVER, RESPONSE_EPHEMERAL, RESPONSE_EMPTY],
            vec![COOKIE_RECEIVER, COOKIE_NONCE, COOKIE_VALUE, COOKIE_TAG],
            vec![DATA_RECEIVER, DATA_COUNTER],
        ];
        for (layout, end) in layouts.iter().zip([148 - 32, 92 - 32, 64, 16]) {
            assert_eq!(layout[0].start, 4);
            assert!(layout.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(layout.last().map(|range| range.end), Some(end));
        }
    }

    #[test]
    fn a_data_header_reads_back_as_written() {
        let mut bytes = [0xee; 32];
        write_data_header(&mut bytes, ReceiverIndex(0xa1b2_c3d4), 0x0102_0304_0506_0708);
        let expected =
            Message::Data { receiver: ReceiverIndex(0xa1b2_c3d4), counter: 0x0102_0304_0506_0708 };
        assert_eq!(classify(&bytes), Ok(expected));
    }
}
