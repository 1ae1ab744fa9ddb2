//! First bytes → what it is, and how much of the buffer is of the same kind.
//!
//! A GRO buffer holds datagrams of one sender, nearly always of one session. Runs of data messages
//! with the same receiver index are handed on together, so that a tunnel is looked up once and may
//! open several packets at once.

use ringway_proto::DropReason;
use ringway_proto::limits::RUN_MAX;
use ringway_proto::wireguard::{self, Message};

/// Bytes that say "data message for this receiver index": type, reserved bits, index.
const DATA_PREFIX_BYTES: usize = 8;

/// Shortest data message: header and tag around nothing.
const DATA_BYTES_MIN: usize = 32;

/// What the next datagrams are.
#[derive(Debug)]
pub struct Run {
    /// The first of them, classified; the others are alike if it is data.
    pub message: Result<Message, DropReason>,
    /// Bytes of all of them together.
    pub bytes: usize,
    /// How many they are, at most [`RUN_MAX`]; one unless they are data.
    pub count: usize,
}

/// Classifies the datagram at the start of `bytes` and finds how many like it follow. `stride` is
/// the length of each datagram but the last; `bytes` is not empty and `stride` is not zero.
#[must_use]
pub fn next_run(bytes: &[u8], stride: usize) -> Run {
    let first = &bytes[..stride.min(bytes.len())];
    let message = wireguard::classify(first);
    let mut run = Run { message, bytes: first.len(), count: 1 };
    if !matches!(run.message, Ok(Message::Data { .. })) {
        return run;
    }
    let prefix = &first[..DATA_PREFIX_BYTES];
    for datagram in bytes[run.bytes..].chunks(stride).take(RUN_MAX - 1) {
        if datagram.len() < DATA_BYTES_MIN || &datagram[..DATA_PREFIX_BYTES] != prefix {
            break;
        }
        run.bytes += datagram.len();
        run.count += 1;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(receiver: u32, len: usize) -> Vec<u8> {
        let mut datagram = vec![0; len];
        datagram[0] = 4;
        datagram[4..8].copy_from_slice(&receiver.to_le_bytes());
        datagram
    }

    #[test]
    fn equal_receivers_form_one_run_up_to_the_short_last_datagram() {
        let mut bytes = Vec::new();
        for _ in 0..5 {
            bytes.extend(data(7, 64));
        }
        bytes.extend(data(7, 48));
        let run = next_run(&bytes, 64);
        assert_eq!((run.count, run.bytes), (6, 5 * 64 + 48));
    }

    #[test]
    fn another_receiver_ends_the_run() {
        let mut bytes = data(7, 64);
        bytes.extend(data(8, 64));
        let run = next_run(&bytes, 64);
        assert_eq!((run.count, run.bytes), (1, 64));
    }

    #[test]
    fn a_truncated_tail_is_left_for_its_own_refusal() {
        let mut bytes = data(7, 64);
        bytes.extend([4, 0, 0, 0]);
        assert_eq!(next_run(&bytes, 64).count, 1);
        let tail = next_run(&bytes[64..], 64);
        assert_eq!(tail.bytes, 4);
        assert!(tail.message.is_err());
    }

    #[test]
    fn a_run_is_never_longer_than_the_arrays_for_it() {
        let mut bytes = Vec::new();
        for _ in 0..RUN_MAX + 10 {
            bytes.extend(data(7, 32));
        }
        assert_eq!(next_run(&bytes, 32).count, RUN_MAX);
    }
}
