//! Arbitrary bytes at every door: never a panic, never a session, never a state that was not there.

use proptest::collection::vec;
use proptest::prelude::*;

use super::pair::{Pair, ipv4};
use crate::wireguard::{
    CookieChecker, Datagram, Message, OpenedInitiation, Outcome, OutgoingKind, classify,
};
use crate::{DropReason, ReceiverIndex};

/// Bytes that are more often than by chance a message by type and length.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![Just(148), Just(92), Just(64), 0..200_usize, 0..2000_usize];
    (0..6_u8, any::<bool>(), lengths.prop_flat_map(|bytes| vec(any::<u8>(), bytes))).prop_map(
        |(kind, reserved, mut bytes)| {
            if bytes.len() >= 4 && !reserved {
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            }
            bytes
        },
    )
}

/// The three handshake messages and a transport message of a live pair.
fn recorded(pair: &mut Pair) -> [Vec<u8>; 4] {
    let now = pair.now;
    pair.a.tunnel.want_handshake(now);
    let initiation = pair.a.expect(OutgoingKind::Initiation, now);
    let mut reply = vec![0; 64];
    CookieChecker::new(&pair.b.identity)
        .reply(
            &initiation,
            ([192, 0, 2, 1], 1).into(),
            now.mono,
            &mut super::pair::Seeded(5),
            reply.as_mut_slice().try_into().unwrap(),
        )
        .unwrap();
    let mut other = Pair::new();
    other.handshake();
    let data = other.a.seal(&ipv4(100), now).unwrap();
    pair.b.initiation(&initiation, now).unwrap();
    let response = pair.b.expect(OutgoingKind::Response, now);
    [initiation, response, reply, data]
}

proptest! {
    #[test]
    fn random_datagrams_are_refused_everywhere(bytes in datagram()) {
        let mut pair = Pair::new();
        pair.handshake();
        let now = pair.pass_s(6);
        pair.a.tunnel.want_handshake(now);
        pair.a.expect(OutgoingKind::Initiation, now);
        let before = pair.a.tunnel.poll_timeout();
        let live = pair.a.table.live.clone();

        let class = classify(&bytes);
        let opened = OpenedInitiation::open(&pair.a.identity, &bytes);
        prop_assert!(opened.is_err());
        if class != Ok(Message::Initiation) {
            let foreign = matches!(
                opened.err(),
                Some(
                    DropReason::MessageTypeUnknown
                        | DropReason::ReservedBitsSet
                        | DropReason::DatagramTruncated
                        | DropReason::DatagramOversized
                )
            );
            prop_assert!(foreign);
        }
        prop_assert!(pair.a.response(&bytes, now).is_err());
        prop_assert!(pair.a.tunnel.accept_cookie(&bytes, now).is_err());
        prop_assert!(!CookieChecker::new(&pair.a.identity).check_mac1(&bytes));
        for index in live.iter().copied().chain([ReceiverIndex(0)]) {
            let mut bytes = bytes.clone();
            let mut run = [Datagram::new(&mut bytes)];
            let summary = pair.a.tunnel.open_run(index, &mut run, now);
            prop_assert!(matches!(run[0].outcome, Outcome::Dropped(_)));
            prop_assert!(!summary.authenticated);
        }
        prop_assert_eq!(pair.a.tunnel.poll_timeout(), before);
        prop_assert_eq!(&pair.a.table.live, &live);
        prop_assert!(!pair.a.tunnel.has_output());
    }

    #[test]
    fn a_cut_message_is_refused(which in 0..4_usize, keep in 0..1000_usize) {
        let mut pair = Pair::new();
        let messages = recorded(&mut pair);
        let cut = &messages[which][..keep % messages[which].len()];
        let now = pair.pass_s(6);
        prop_assert!(OpenedInitiation::open(&pair.b.identity, cut).is_err());
        prop_assert!(pair.a.response(cut, now).is_err());
        prop_assert!(pair.a.tunnel.accept_cookie(cut, now).is_err());
        // The handshake under way survives all of it.
        prop_assert_eq!(pair.a.response(&messages[1], now), Ok(()));
    }

    #[test]
    fn a_message_with_one_bit_changed_is_refused(which in 0..3_usize, bit in 0..10_000_usize) {
        let mut pair = Pair::new();
        let mut messages = recorded(&mut pair);
        let now = pair.pass_s(6);
        // All that handshake and first MAC cover; the second MAC only counts under load.
        let covered = 8 * [132, 76, 64][which];
        let bit = bit % covered;
        messages[which][bit / 8] ^= 1 << (bit % 8);
        let refused = match which {
            0 => {
                let mac1 = CookieChecker::new(&pair.b.identity).check_mac1(&messages[0]);
                !mac1
            }
            1 => {
                let mac1 = CookieChecker::new(&pair.a.identity).check_mac1(&messages[1]);
                !mac1 || pair.a.response(&messages[1], now).is_err()
            }
            _ => {
                // The receiver only leads the way; the rest is sealed.
                let leads = (32..64).contains(&bit);
                leads || pair.a.tunnel.accept_cookie(&messages[2], now).is_err()
            }
        };
        prop_assert!(refused, "message {which}, bit {bit}");
    }
}

#[test]
fn a_transport_message_with_any_bit_changed_is_refused() {
    let mut pair = Pair::new();
    pair.handshake();
    let now = pair.now;
    let message = pair.a.seal(&ipv4(32), now).unwrap();
    for bit in 0..8 * message.len() {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let (outcome, summary) = pair.b.open(&changed, now);
        assert!(matches!(outcome, Outcome::Dropped(_)), "bit {bit}");
        assert!(!summary.authenticated);
    }
    assert_eq!(pair.b.open(&message, now).0, Outcome::Packet { start: 16, len: 32 });
}
