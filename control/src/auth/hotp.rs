//! One-time passwords that go by a counter (RFC 4226), for authenticators without a clock: a small
//! device with a button, or an application that is set so.
//!
//! Six digits, SHA-1. The authenticator counts each press, the gateway each code that it took, so
//! the two drift apart when somebody presses for nothing: a code counts up to [`AHEAD`] counters
//! later than the last one (RFC 4226, section 7.4). Whoever is further ahead presents two codes in
//! a row, as one text of twelve digits, and is found up to [`FAR_AHEAD`] counters later: one code
//! alone would be right by chance too often there. A counter counts once, and with it all before:
//! the store takes one only if it is later than the last. This module must not know users.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use totp_rs::{Algorithm, TOTP};
use zeroize::Zeroizing;

use super::backend::Secret;
use super::totp::{self, DIGITS, Enrolment, Hash};

/// Counters that are looked at for one code, the next one first.
pub const AHEAD: u64 = 10;
/// Counters that are looked at for two codes in a row.
pub const FAR_AHEAD: u64 = 100;
/// The latest counter that a new enrolment may begin with: what the store counts in has room for
/// all that follow.
pub const COUNTER_MAX: u64 = 1 << 53;

/// Begins an enrolment of `user` at `issuer`, counting from 0. It is not kept before [`confirm`].
///
/// # Errors
///
/// No random bytes from the operating system, as a text.
pub fn enrol(issuer: &str, user: &str) -> Result<Enrolment, String> {
    let made = totp::enrol(issuer, user, Hash::Sha1)?;
    // The same URL but for its kind and where it begins.
    let rest = made.url.strip_prefix("otpauth://totp/").unwrap_or_default();
    let url = Zeroizing::new(format!("otpauth://hotp/{rest}&counter=0"));
    Ok(Enrolment { url, ..made })
}

/// Whether `code` (or two in a row) shows that an authenticator has `secret` and counts from
/// `first` on; if so, the counter that it has used up.
#[must_use]
pub fn confirm(secret: &[u8], code: &Secret, first: u64) -> Option<u64> {
    let digits = totp::digits(code);
    Codes::of(secret).find(&digits, first.min(COUNTER_MAX))
}

/// The codes of a secret, by their counters.
pub(super) struct Codes(TOTP);

impl Codes {
    /// Those of `secret`.
    pub(super) fn of(secret: &[u8]) -> Self {
        Self::with(Algorithm::SHA1, secret)
    }

    /// Those of `secret` with another hash function.
    pub(super) fn with(algorithm: Algorithm, secret: &[u8]) -> Self {
        // With steps of one second, a second is a counter.
        Self(TOTP::new_unchecked(algorithm, DIGITS, 1, 1, secret.to_vec(), None, String::new()))
    }

    /// The code of a counter.
    pub(super) fn at(&self, counter: u64) -> Zeroizing<String> {
        Zeroizing::new(self.0.generate(counter))
    }

    /// The counter of `digits`, from `first` on: of one code among the next, or the second of two
    /// codes in a row.
    pub(super) fn find(&self, digits: &str, first: u64) -> Option<u64> {
        if digits.len() == DIGITS {
            return self.find_one(digits, first, AHEAD);
        }
        self.find_two(digits, first)
    }

    /// The counter of `code` among the `allowed` ones from `first` on. Takes the same time for any
    /// code of the right length, and for any number of counters that is allowed.
    pub(super) fn find_one(&self, code: &str, first: u64, allowed: u64) -> Option<u64> {
        self.search(first, AHEAD, |expected, at| {
            Choice::from(u8::from(at < allowed)) & expected.as_bytes().ct_eq(code.as_bytes())
        })
    }

    /// The counter of the second of two codes in a row. Takes the same time for any two.
    fn find_two(&self, codes: &str, first: u64) -> Option<u64> {
        let (one, two) = codes.split_at_checked(DIGITS)?;
        let mut was_one = Choice::from(0);
        self.search(first, FAR_AHEAD, |expected, _| {
            let is_second = was_one & expected.as_bytes().ct_eq(two.as_bytes());
            was_one = expected.as_bytes().ct_eq(one.as_bytes());
            is_second
        })
    }

    /// The first of `count` counters from `first` on of which `matches` says so.
    fn search(
        &self,
        first: u64,
        count: u64,
        mut matches: impl FnMut(&str, u64) -> Choice,
    ) -> Option<u64> {
        let (mut found, mut is_found) = (0, Choice::from(0));
        for at in 0..count {
            let counter = first.saturating_add(at);
            let is_match = matches(&self.at(counter), at);
            found.conditional_assign(&counter, is_match & !is_found);
            is_found |= is_match;
        }
        bool::from(is_found).then_some(found)
    }
}

#[cfg(test)]
#[path = "hotp_tests.rs"]
mod tests;
