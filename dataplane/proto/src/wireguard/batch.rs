//! The cryptography of messages that are opened, or sealed, together: those of one tunnel, or of
//! many.
//!
//! Several per call where the machine can, one by one otherwise; the bytes are the same. Must not
//! know counters' meaning, timers or peers: it is handed what may be opened or sealed.

use super::data::{Datagram, Outcome, Plain};
use super::messages::{DATA_HEADER_BYTES, counter_of};
use crate::DropReason;
use crate::crypto::{AeadKey, Packet, TAG_BYTES};
use crate::limits::RUN_MAX;

/// Messages of a call that fits into a small array: clearing the large one would cost as much as
/// sealing a small message.
const FEW: usize = 4;

/// Decrypts every pending message in place, each under its own of `keys`; those that do not verify
/// are dropped, and those without a key are left alone. Headers stay.
///
/// # Panics
/// If there are not as many keys as messages: the caller's invariant.
pub fn open_batch(keys: &[Option<&AeadKey>], run: &mut [Datagram<'_>]) {
    assert!(keys.len() == run.len(), "a place for the key of each message");
    if run.len() <= FEW {
        open_together::<FEW>(keys, run);
    } else {
        let parts = keys.chunks(RUN_MAX).zip(run.chunks_mut(RUN_MAX));
        parts.for_each(|(keys, run)| open_together::<RUN_MAX>(keys, run));
    }
}

/// Encrypts every packet in place, behind its header, which says the counter, each under its own of
/// `keys`; those without one are left alone, and the caller must not send them.
///
/// # Panics
/// If there are not as many keys as packets, or a packet has no room for its tag: the caller's
/// invariants.
pub fn seal_batch(keys: &[Option<&AeadKey>], run: &mut [Plain<'_>]) {
    assert!(keys.len() == run.len(), "a place for the key of each packet");
    if run.len() <= FEW {
        seal_together::<FEW>(keys, run);
    } else {
        let parts = keys.chunks(RUN_MAX).zip(run.chunks_mut(RUN_MAX));
        parts.for_each(|(keys, run)| seal_together::<RUN_MAX>(keys, run));
    }
}

/// At most `N` messages.
fn open_together<const N: usize>(keys: &[Option<&AeadKey>], run: &mut [Datagram<'_>]) {
    const { assert!(N <= u64::BITS as usize, "a bit for each message") };
    let mut packets: [Packet<'_>; N] = std::array::from_fn(|_| Packet::default());
    let (mut pending, mut with) = (0, None);
    for ((at, datagram), key) in run.iter_mut().enumerate().zip(keys) {
        let (Outcome::Pending, Some(key)) = (datagram.outcome, key) else { continue };
        if let Some(batch) = key.batch() {
            let counter = counter_of(datagram.bytes);
            let bytes = &mut datagram.bytes[DATA_HEADER_BYTES..];
            packets[pending] =
                Packet { key: key.bytes(), counter, bytes, at: at as u32, ..Packet::default() };
            pending += 1;
            with = Some(batch);
        } else {
            open_one(key, datagram);
        }
    }
    let Some(batch) = with else { return };
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

/// At most `N` packets.
fn seal_together<const N: usize>(keys: &[Option<&AeadKey>], run: &mut [Plain<'_>]) {
    let mut packets: [Packet<'_>; N] = std::array::from_fn(|_| Packet::default());
    let (mut pending, mut with) = (0, None);
    for (plain, key) in run.iter_mut().zip(keys) {
        let Some(key) = key else { continue };
        if let Some(batch) = key.batch() {
            let counter = counter_of(plain.bytes);
            let bytes = &mut plain.bytes[DATA_HEADER_BYTES..];
            packets[pending] = Packet { key: key.bytes(), counter, bytes, ..Packet::default() };
            pending += 1;
            with = Some(batch);
        } else {
            seal_one(key, plain);
        }
    }
    if let Some(batch) = with {
        batch.seal(&mut packets[..pending]);
    }
}

fn open_one(key: &AeadKey, datagram: &mut Datagram<'_>) {
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

fn seal_one(key: &AeadKey, packet: &mut Plain<'_>) {
    let counter = counter_of(packet.bytes);
    let body = packet.bytes[DATA_HEADER_BYTES..].split_last_chunk_mut::<TAG_BYTES>();
    let (text, tag) = body.expect("a packet has room for its tag");
    *tag = key.seal(counter, &[], text);
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
        seal_batch(&vec![Some(key); count], &mut plain);
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
            open_batch(&[Some(&key)], &mut datagrams);
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
                open_batch(&vec![Some(&key); count], &mut opened);
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

    #[test]
    fn each_message_has_the_key_at_its_place() {
        let keys: Vec<AeadKey> = (0..20)
            .map(|number| match number % 4 {
                // Some as on a machine without batches.
                0 => AeadKey::new(&[number; 32]).without_batch(),
                _ => AeadKey::for_data(&[number; 32]),
            })
            .collect();
        let key_at = |at: usize| (at % 5 != 3).then(|| &keys[at % keys.len()]);
        let places: Vec<Option<&AeadKey>> = (0..70).map(key_at).collect();
        let unsealed: Vec<Vec<u8>> = run(70, 9, &AeadKey::for_data(&[99; 32]));
        let mut sealed = unsealed.clone();
        let mut plain: Vec<Plain<'_>> = sealed.iter_mut().map(|bytes| Plain { bytes }).collect();
        seal_batch(&places, &mut plain);
        for (at, key) in places.iter().enumerate() {
            assert_eq!(sealed[at] == unsealed[at], key.is_none(), "{at}");
        }
        let opened = |keys: &[Option<&AeadKey>]| -> Vec<Outcome> {
            let mut bytes = sealed.clone();
            let mut run: Vec<Datagram<'_>> = bytes.iter_mut().map(|it| Datagram::new(it)).collect();
            open_batch(keys, &mut run);
            run.iter().map(|datagram| datagram.outcome).collect()
        };
        assert_eq!(opened(&places), [Outcome::Pending; 70]);
        let mut swapped = places.clone();
        swapped.swap(10, 11);
        for (at, outcome) in opened(&swapped).into_iter().enumerate() {
            let refused = outcome == Outcome::Dropped(DropReason::DataUndecryptable);
            assert_eq!(refused, at == 10 || at == 11, "{at}");
        }
    }
}
