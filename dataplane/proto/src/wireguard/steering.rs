//! Which messages name their receiver, as numbers for whoever spreads datagrams over cores before
//! any of our code runs. That side knows no protocol, and this one knows no sockets.

use super::messages::{
    COOKIE_RECEIVER, COOKIE_REPLY_BYTES, DATA_OVERHEAD_BYTES, DATA_RECEIVER, RESPONSE_BYTES,
    RESPONSE_RECEIVER, TYPE_COOKIE_REPLY, TYPE_DATA, TYPE_RESPONSE,
};
use crate::limits::BUFFER_BYTES;

/// A kind of message that carries the index we gave its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// Its first four bytes as a big-endian number: type, then reserved zeros.
    pub first_word: u32,
    /// Its fewest bytes.
    pub bytes_min: u32,
    /// Its most bytes.
    pub bytes_max: u32,
    /// Where the index is, little-endian.
    pub index_at: u32,
}

/// All kinds there are, the most frequent first. Initiations are none: they name nobody.
///
/// Handshake messages have one length, so several that were merged on the way in match no rule.
/// They are then seen where initiations are, which costs a crossing and nothing else.
pub const STEERING: [Steered; 3] = [
    Steered {
        first_word: first_word(TYPE_DATA),
        bytes_min: DATA_OVERHEAD_BYTES as u32,
        bytes_max: BUFFER_BYTES as u32,
        index_at: DATA_RECEIVER.start as u32,
    },
    Steered {
        first_word: first_word(TYPE_RESPONSE),
        bytes_min: RESPONSE_BYTES as u32,
        bytes_max: RESPONSE_BYTES as u32,
        index_at: RESPONSE_RECEIVER.start as u32,
    },
    Steered {
        first_word: first_word(TYPE_COOKIE_REPLY),
        bytes_min: COOKIE_REPLY_BYTES as u32,
        bytes_max: COOKIE_REPLY_BYTES as u32,
        index_at: COOKIE_RECEIVER.start as u32,
    },
];

const fn first_word(kind: u8) -> u32 {
    u32::from_be_bytes([kind, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReceiverIndex;
    use crate::wireguard::{Message, classify};

    #[test]
    fn a_message_is_steered_by_the_index_that_it_is_read_as_naming() {
        for steered in STEERING {
            for len in [steered.bytes_min, steered.bytes_max] {
                let mut message = vec![0u8; len as usize];
                message[..4].copy_from_slice(&steered.first_word.to_be_bytes());
                message[steered.index_at as usize..][..4].copy_from_slice(&[1, 2, 3, 4]);
                let (Ok(Message::Data { receiver, .. })
                | Ok(Message::Response { receiver })
                | Ok(Message::Cookie { receiver })) = classify(&message)
                else {
                    panic!("{steered:?} is no message with a receiver")
                };
                assert_eq!(receiver, ReceiverIndex(0x0403_0201));
            }
        }
    }

    #[test]
    fn one_byte_less_is_no_message_of_the_kind() {
        for steered in STEERING {
            let mut message = vec![0u8; steered.bytes_min as usize - 1];
            message[..4].copy_from_slice(&steered.first_word.to_be_bytes());
            assert!(classify(&message).is_err());
        }
    }
}
