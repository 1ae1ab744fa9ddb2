//! Secrets that the gateway makes up, shows once and keeps as a hash only.
//!
//! A secret reads `PREFIX_RANDOM_CHECK`: the prefix lets scanners of repositories recognise one
//! that leaked, 256 random bits cannot be guessed, and the check tells a typing error from a wrong
//! secret before the store is asked. As the random part is that long, a plain SHA-256 is hash
//! enough: there is nothing that a slow one would protect.

use ringway_proto::crypto::Random;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A token for programs.
    Token,
    /// A one-time link for a device.
    Enrolment,
}

impl Purpose {
    /// How its secrets begin.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "rw_",
            Self::Enrolment => "re_",
        }
    }
}

/// Random bytes of a secret.
const RANDOM_BYTES: usize = 32;
/// Bytes of the check: one typing error in four thousand million goes unnoticed.
const CHECK_BYTES: usize = 4;

/// Draws a secret. The text is erased when dropped.
#[must_use]
pub fn make(purpose: Purpose, random: &mut dyn Random) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
    random.fill(&mut bytes[..]);
    // Room for everything, so that no copy is left behind by a growing buffer.
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(purpose.prefix());
    push_hex(&mut text, &bytes[..]);
    let check = check(&text);
    text.push('_');
    push_hex(&mut text, &check);
    text
}

/// The hash under which the store keeps the secret `text`; none if it cannot be one, be it mistyped
/// or for another purpose.
#[must_use]
pub fn hash(purpose: Purpose, text: &str) -> Option<[u8; 32]> {
    let (body, given) = text.rsplit_once('_')?;
    let random = body.strip_prefix(purpose.prefix())?;
    let is_hex = |part: &str, bytes: usize| {
        part.len() == 2 * bytes && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !is_hex(random, RANDOM_BYTES) || !is_hex(given, CHECK_BYTES) {
        return None;
    }
    let mut expected = Zeroizing::new(String::with_capacity(2 * CHECK_BYTES));
    push_hex(&mut expected, &check(body));
    // Not a secret by itself: it follows from what the caller sent.
    (*expected == given).then(|| Sha256::digest(text.as_bytes()).into())
}

fn check(body: &str) -> [u8; CHECK_BYTES] {
    let mut digest: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    digest.zeroize();
    check
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SystemRandom;
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_recognised_and_only_for_its_purpose() {
        let token = make(Purpose::Token, &mut SystemRandom);
        assert!(token.starts_with("rw_") && token.len() == 3 + 64 + 1 + 8, "{} bytes", token.len());
        assert_eq!(hash(Purpose::Token, &token), Some(Sha256::digest(token.as_bytes()).into()));
        assert_eq!(hash(Purpose::Enrolment, &token), None);
        assert_ne!(*token, *make(Purpose::Token, &mut SystemRandom));
    }

    proptest! {
        #[test]
        fn any_single_wrong_character_is_noticed(at in 0_usize..76, other in "[0-9a-z_]") {
            let token = make(Purpose::Token, &mut SystemRandom);
            let mut wrong = token.to_string();
            wrong.replace_range(at..=at, &other);
            prop_assume!(wrong != *token);
            prop_assert_eq!(hash(Purpose::Token, &wrong), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,90}") {
            let _ = hash(Purpose::Token, &text);
            let _ = hash(Purpose::Enrolment, &format!("re_{text}_00000000"));
        }
    }
}
