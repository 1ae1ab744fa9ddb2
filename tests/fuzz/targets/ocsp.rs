//! Answers of responders (OCSP): what is believed was signed, byte for byte.

use std::sync::Arc;

use ringway_control::auth::backend::CertificateId;
use ringway_control::auth::certificate::ocsp::answer::{ANSWER_BYTES_MAX, Answer};
use ringway_control::auth::certificate::ocsp::judge::judge;
use ringway_control::auth::certificate::ocsp::{Issuer, Question};
use ringway_control::store::records::Timestamp;

/// Contents of the name `CN=CA`, and of the key of those answers in the corpus that are genuine.
/// Its other half is gone.
const NAME: &[u8] = &[0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, 0x43, 0x41];
const KEY: &[u8] = &[
    0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x7c, 0x4e, 0xba, 0xd1, 0xe6, 0xd5,
    0xf7, 0x60, 0x34, 0x68, 0x58, 0x1b, 0x55, 0x4d, 0x3f, 0x2e, 0xcb, 0x5f, 0x02, 0x37, 0xfb, 0xc3,
    0x3e, 0x75, 0x86, 0xd8, 0xe4, 0x9c, 0x4e, 0xf5, 0x0e, 0xdb,
];
/// Of the certificate that they are about.
const SERIAL: &[u8] = &[0x10, 0x00];
/// When they were made, 2026-12-01.
const AT: Timestamp = Timestamp(1_796_100_400_000);
/// How many bytes are changed one by one.
const CHANGED: usize = 16;

/// What is read lies in what came, and an answer that is believed is not once a byte of what it
/// says has changed.
pub(crate) fn only_an_unchanged_answer_is_believed(bytes: &[u8]) {
    let Ok(answer) = Answer::read(bytes) else {
        assert!(judge(bytes, &question(), &[], AT).is_err());
        return;
    };
    assert!(bytes.len() <= ANSWER_BYTES_MAX);
    let start = answer.signed.as_ptr() as usize - bytes.as_ptr() as usize;
    let signed = start..start + answer.signed.len();
    assert_eq!(&bytes[signed.clone()], answer.signed);
    if judge(bytes, &question(), &[], AT).is_err() {
        return;
    }
    let step = (signed.len() / CHANGED).max(1);
    for at in signed.step_by(step) {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(judge(&changed, &question(), &[], AT).is_err(), "byte {at} does not matter");
    }
}

/// What is asked.
fn question() -> Question {
    Question {
        id: CertificateId { issuer: NAME.to_vec(), serial: SERIAL.to_vec() },
        issuer: Arc::new(Issuer::new(NAME, KEY)),
        responder: "http://192.0.2.7".to_owned(),
    }
}
