//! Known answers of a whole handshake. `vectors.py` beside this file computes them from the
//! formulas of the whitepaper with other libraries.

use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::tests::{hex, hex_array};
use crate::crypto::{AeadKey, PresharedKey, PrivateKey, Random, hash, mac, xseal};
use crate::wireguard::cookie::CookieJar;
use crate::wireguard::identity::cookie_key;
use crate::wireguard::noise::{Initiation, SessionKeys};
use crate::wireguard::{CookieChecker, Identity, OpenedInitiation, Tai64n};
use crate::{Instant, ReceiverIndex};

const INITIATION: &str = "010000000403020179a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89
    af85a51af0225eb421886af8f54fb31289d49dcd82b0f6f3279d40d7cff913fece0c64ad226eef3320755b393b72f1
    6842c8d7ee78a74e93738ba38292f4ecc10f619cb6124d105a91ccf6200b344413d82f6b9425a1bb4a954fb279535a
    e00b00000000000000000000000000000000";
const RESPONSE: &str = "02000000d4c3b2a104030201675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36
    577958371ea52ff78f0c293f699108412e52397652026b57969e44d91127561b3adcaae31d8afe0000000000000000
    0000000000000000";
const KEEPALIVE_OF_INITIATOR: &str =
    "04000000d4c3b2a10000000000000000c05b5687dc9e973b4033587e96b81434";
const DATA_OF_RESPONDER: &str = "0400000004030201000000000000000043d83f981f43f3dcddafbb7c4aa523a38
    ad6cc03b98a1ece79c0602863cb3e754f765b7be0e209e76f1c500e677381d2";

/// Thirty-two ascending bytes, as all keys of the vectors are.
fn ascending(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first + at as u8)
}

/// Randomness that is known beforehand.
struct Known(u8);

impl Random for Known {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&ascending(self.0)[..out.len()]);
    }
}

fn initiator() -> Identity {
    Identity::new(PrivateKey::from_bytes(ascending(0x00)))
}

fn responder() -> Identity {
    Identity::new(PrivateKey::from_bytes(ascending(0x20)))
}

fn static_static() -> Zeroizing<[u8; 32]> {
    initiator().private().agree(&responder().public()).unwrap()
}

fn stamp() -> Tai64n {
    Tai64n::after(Tai64n::default(), Duration::new(1_760_000_000, 487_000_000))
}

/// The initiation with its MACs, and the state behind it.
fn initiate(jar: &mut CookieJar) -> (Initiation, [u8; 148]) {
    let mut message = [0xee; 148];
    let peer = responder().public();
    let index = ReceiverIndex(0x0102_0304);
    let (us, shared, random) = (initiator(), static_static(), &mut Known(0x40));
    let state = Initiation::create(&us, &peer, &shared, stamp(), index, random, &mut message);
    jar.stamp(&peer, &mut message, Instant::ZERO);
    (state.unwrap(), message)
}

/// The response with its MACs, and the keys of the responder.
fn respond(initiation: &[u8]) -> (SessionKeys, [u8; 92]) {
    let mut opened = OpenedInitiation::open(&responder(), initiation).unwrap();
    assert_eq!(opened.peer, initiator().public());
    assert_eq!(opened.authenticate(&static_static()).unwrap(), stamp());
    let mut message = [0xee; 92];
    let index = ReceiverIndex(0xa1b2_c3d4);
    let preshared = PresharedKey(ascending(0x80));
    let keys = opened.respond(&preshared, index, &mut Known(0x60), &mut message).unwrap();
    CookieJar::default().stamp(&initiator().public(), &mut message, Instant::ZERO);
    (keys, message)
}

#[test]
fn an_initiation_is_the_one_of_the_whitepaper() {
    let (_, message) = initiate(&mut CookieJar::default());
    assert_eq!(message[..], hex(INITIATION)[..]);
    assert!(CookieChecker::new(&responder()).check_mac1(&message));
    assert!(!CookieChecker::new(&initiator()).check_mac1(&message));
}

#[test]
fn a_response_is_the_one_of_the_whitepaper() {
    let (keys, message) = respond(&hex(INITIATION));
    assert_eq!(message[..], hex(RESPONSE)[..]);
    assert_eq!(keys.theirs, ReceiverIndex(0x0102_0304));
    assert!(CookieChecker::new(&initiator()).check_mac1(&message));
}

#[test]
fn transport_keys_are_those_of_the_whitepaper() {
    let (state, initiation) = initiate(&mut CookieJar::default());
    let (of_responder, response) = respond(&initiation);
    let preshared = PresharedKey(ascending(0x80));
    let of_initiator = state.finish(&initiator(), &preshared, &response).unwrap();
    assert_eq!(of_initiator.send, of_responder.receive);
    assert_eq!(of_initiator.receive, of_responder.send);

    let keepalive = AeadKey::new(&of_initiator.send).seal(0, &[], &mut []);
    assert_eq!(keepalive[..], hex(KEEPALIVE_OF_INITIATOR)[16..]);
    let mut text = hex("45000014").into_iter().chain([0; 28]).collect::<Vec<u8>>();
    let tag = AeadKey::new(&of_responder.send).seal(0, &[], &mut text);
    assert_eq!([&text[..], &tag].concat(), hex(DATA_OF_RESPONDER)[16..]);
}

#[test]
fn a_second_mac_covers_the_first() {
    let cookie: [u8; 16] = std::array::from_fn(|at| 0xc0 + at as u8);
    let message = hex(INITIATION);
    let expected = hex_array("53dc03a2bc1720b8f292ff7d07b08511");
    assert_eq!(mac(&cookie, &[&message[..132]]), expected);

    let mut jar = CookieJar::default();
    let (_, first) = initiate(&mut jar);
    let mut reply = [0; 64];
    reply[0] = 3;
    reply[32..48].copy_from_slice(&cookie);
    let key = cookie_key(&responder().public());
    let tag = xseal(&key, &[0; 24], &first[116..132], &mut reply[32..48]);
    reply[48..].copy_from_slice(&tag);
    jar.accept(&responder().public(), &reply, Instant::ZERO).unwrap();
    let (_, second) = initiate(&mut jar);
    assert_eq!(second[132..], expected);
}

#[test]
fn a_cookie_covers_address_and_port() {
    let mut checker = CookieChecker::new(&responder());
    let from = SocketAddr::from(([192, 0, 2, 7], 7));
    // The first reply draws the secret.
    let message = hex(INITIATION);
    checker.reply(&message, from, Instant::ZERO, &mut Known(0xd0), &mut [0; 64]).unwrap();
    let cases = [
        ("192.0.2.1:51820", "e21d0dfe41b7cc2ad77c91c959ad15fe"),
        ("[::ffff:192.0.2.1]:51820", "e21d0dfe41b7cc2ad77c91c959ad15fe"),
        ("[2001:db8::1]:51820", "86bdde79266144896f8363c694b2208d"),
    ];
    for (from, cookie) in cases {
        let from: SocketAddr = from.parse().unwrap();
        let mut message = hex(INITIATION);
        let second = mac(&hex_array::<16>(cookie), &[&message[..132]]);
        message[132..].copy_from_slice(&second);
        assert!(checker.check_mac2(&message, from, Instant::ZERO), "{from}");
        let neighbour = SocketAddr::new(from.ip(), 51821);
        assert!(!checker.check_mac2(&message, neighbour, Instant::ZERO), "{from}");
    }
}

#[test]
fn the_chain_starts_from_the_constants_of_the_whitepaper() {
    let chain = hash(&[b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]);
    let expected = "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36";
    assert_eq!(chain, hex_array(expected));
    let transcript = hash(&[&chain, b"WireGuard v1 zx2c4 Jason@zx2c4.com"]);
    let expected = "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3";
    assert_eq!(transcript, hex_array(expected));
}
