//! The cryptography of a run: all its messages under one key.
//!
//! Several per call where the machine can, one by one otherwise; the bytes are the same. Must not
//! know counters' meaning, timers or peers: it is handed what may be opened or sealed.

use super::data::{Datagram, Outcome, Plain};
use super::messages::{DATA_HEADER_BYTES, counter_of};
use crate::DropReason;
use crate::crypto::{AeadKey, Batch, Packet, TAG_BYTES};
use crate::limits::RUN_MAX;

/// Messages of a call that fits into a small array: clearing the large one would cost as much as
/// sealing a small message.
const FEW: usize = 4;
/// Decrypts every pending message in place; those that do not verify are dropped. Headers stay.
pub(super) fn open_batch(key: &AeadKey, run: &mut [Datagram<'_>]) {
    match (key.batch(), run.len()) {
        (None, _) => run.iter_mut().for_each(|datagram| open_one(key, datagram)),
        (Some(batch), 0..=FEW) => open_together::<FEW>(batch, key, run),
        (Some(batch), _) => {
            run.chunks_mut(RUN_MAX).for_each(|run| open_together::<RUN_MAX>(batch, key, run));
        }
    }
}

/// Encrypts every packet in place, behind its header, under consecutive counters.
pub(super) fn seal_batch(key: &AeadKey, run: &mut [Plain<'_>], first: u64) {
    match (key.batch(), run.len()) {
        (None, _) => seal_one_by_one(key, run, first),
        (Some(batch), 0..=FEW) => seal_together::<FEW>(batch, key, run, first),
        (Some(batch), _) => {
            for (run, first) in run.chunks_mut(RUN_MAX).zip((first..).step_by(RUN_MAX)) {
                seal_together::<RUN_MAX>(batch, key, run, first);
            }
        }
    }
}

/// At most `N` messages.
fn open_together<const N: usize>(batch: Batch, key: &AeadKey, run: &mut [Datagram<'_>]) {
    const { assert!(N <= u64::BITS as usize, "a bit for each message") };
    let mut packets: [Packet<'_>; N] = std::array::from_fn(|_| Packet::default());
    let mut pending = 0;
    for (at, datagram) in run.iter_mut().enumerate() {
        if datagram.outcome == Outcome::Pending {
            let counter = counter_of(datagram.bytes);
            let bytes = &mut datagram.bytes[DATA_HEADER_BYTES..];
            let (key, at) = (key.bytes(), at as u32);
            packets[pending] = Packet { key, counter, bytes, at, ..Packet::default() };
            pending += 1;
        }
    }
    let packets = &mut packets[..pending];
    batch.open(packets);
    let refused = packets.iter().filter(|packet| !packet.authentic);
    let mut refused = refused.fold(0_u64, |bits, packet| bits | 1 << packet.at);
    while refused != 0 {
        let at = refused.trailing_zeros() as usize;
        run[at].outcome = Outcome::Dropped(DropReason::DataUndecryptable);
        refused &= refused - 1;
    }
}

/// At most `N` messages.
fn seal_together<const N: usize>(batch: Batch, key: &AeadKey, run: &mut [Plain<'_>], first: u64) {
    let mut packets: [Packet<'_>; N] = std::array::from_fn(|_| Packet::default());
    let present = run.len();
    for ((plain, packet), counter) in run.iter_mut().zip(&mut packets).zip(first..) {
        let bytes = &mut plain.bytes[DATA_HEADER_BYTES..];
        *packet = Packet { key: key.bytes(), counter, bytes, ..Packet::default() };
    }
    batch.seal(&mut packets[..present]);
}

fn open_one(key: &AeadKey, datagram: &mut Datagram<'_>) {
    if datagram.outcome != Outcome::Pending {
        return;
    }
    let counter = counter_of(datagram.bytes);
    let sealed = &mut datagram.bytes[DATA_HEADER_BYTES..];
    let opened = match sealed.split_last_chunk_mut::<TAG_BYTES>() {
        Some((text, tag)) => key.open(counter, &[], text, tag).is_ok(),
        None => false,
    };
    if !opened {
        datagram.outcome = Outcome::Dropped(DropReason::DataUndecryptable);
    }
}

fn seal_one_by_one(key: &AeadKey, run: &mut [Plain<'_>], first: u64) {
    for (packet, counter) in run.iter_mut().zip(first..) {
        let body = &mut packet.bytes[DATA_HEADER_BYTES..];
        if let Some((text, tag)) = body.split_last_chunk_mut::<TAG_BYTES>() {
            *tag = key.seal(counter, &[], text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::write_data_header;
    use super::*;
    use crate::ReceiverIndex;

    const LENGTHS: [usize; 9] = [0, 16, 32, 64, 80, 512, 1408, 1424, 1424];

    /// Datagrams with 16 bytes of room for the header: sealed one by one.
    fn run(count: usize, first: u64, key: &AeadKey) -> Vec<Vec<u8>> {
        let lengths = LENGTHS.iter().cycle().take(count);
        let mut datagrams: Vec<Vec<u8>> =
            lengths.map(|len| vec![7; DATA_HEADER_BYTES + len + TAG_BYTES]).collect();
        for (datagram, counter) in datagrams.iter_mut().zip(first..) {
            write_data_header(datagram, ReceiverIndex(1), counter);
        }
        let mut plain: Vec<Plain<'_>> = datagrams.iter_mut().map(|bytes| Plain { bytes }).collect();
        seal_batch(key, &mut plain, first);
        datagrams
    }

    #[test]
    fn together_and_one_by_one_make_the_same_bytes() {
        for count in [0, 1, 2, 3, 4, 5, 8, 9, 45, 64, 65, 130] {
            let first = u64::MAX / 2 + count as u64;
            let together = run(count, first, &AeadKey::for_data(&[3; 32]));
            let one_by_one = run(count, first, &AeadKey::new(&[3; 32]).without_batch());
            assert!(together == one_by_one, "{count} packets");
        }
    }

    #[test]
    fn short_messages_that_come_alone_are_the_same_through_either() {
        let key = AeadKey::for_data(&[3; 32]);
        let provider = AeadKey::new(&[3; 32]).without_batch();
        for counter in 0..100 {
            let sealed = run(1, counter, &key);
            assert_eq!(sealed, run(1, counter, &provider));
            let mut opened = sealed.clone();
            let mut datagrams = [Datagram::new(&mut opened[0])];
            open_batch(&key, &mut datagrams);
            assert_eq!(datagrams[0].outcome, Outcome::Pending);
        }
    }

    #[test]
    fn together_and_one_by_one_refuse_the_same_messages() {
        let keys = [AeadKey::for_data(&[3; 32]), AeadKey::new(&[3; 32]).without_batch()];
        for key in keys {
            for count in [1, 4, 5, 64, 130] {
                let mut datagrams = run(count, 5, &key);
                for bad in datagrams.iter_mut().skip(2).step_by(7) {
                    *bad.last_mut().expect("a tag") ^= 1;
                }
                let mut opened: Vec<Datagram<'_>> =
                    datagrams.iter_mut().map(|bytes| Datagram::new(bytes)).collect();
                // What was refused before is neither opened nor judged again.
                let earlier = Outcome::Dropped(DropReason::DataReplayed);
                opened[0].outcome = earlier;
                open_batch(&key, &mut opened);
                for (at, datagram) in opened.iter().enumerate() {
                    let expected = match at {
                        0 => earlier,
                        at if at % 7 == 2 => Outcome::Dropped(DropReason::DataUndecryptable),
                        _ => Outcome::Pending,
                    };
                    assert_eq!(datagram.outcome, expected, "{at} of {count}");
                    let text = DATA_HEADER_BYTES..datagram.bytes.len() - TAG_BYTES;
                    let is_plain = datagram.bytes[text].iter().all(|byte| *byte == 7);
                    assert!(expected != Outcome::Pending || is_plain, "{at} of {count}");
                }
            }
        }
    }
}
