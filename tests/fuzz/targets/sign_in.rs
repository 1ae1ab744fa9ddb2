//! What clients present when they sign in: access tokens, key sets of their issuers, certificates.

use ringway_control::auth::certificate::days_left;
use ringway_control::auth::token::{KEYS_MAX, KeySet, Parsed, SET_BYTES_MAX, TOKEN_BYTES_MAX};
use ringway_control::auth::{Secret, Ticket};

/// A token is read within its bounds or refused; a ticket is read as it was written.
pub(crate) fn a_token_is_read_or_refused(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(parsed) = Parsed::read(&Secret::new(text)) {
        assert!(text.len() <= TOKEN_BYTES_MAX);
        assert_eq!(text.matches('.').count(), 2);
        let _ = parsed.issuer();
    }
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string(), text.to_ascii_lowercase());
    }
}

/// A key set that is taken is not empty and within its bounds.
pub(crate) fn a_key_set_is_bounded(bytes: &[u8]) {
    if let Ok(set) = KeySet::parse(bytes) {
        assert!(bytes.len() <= SET_BYTES_MAX && !set.is_empty());
        assert!(set.len() + set.left_out.len() <= KEYS_MAX);
    }
}

/// What says when it ends says the same at another time.
pub(crate) fn a_certificate_ends_when_it_ends(bytes: &[u8]) {
    let at = |ms| days_left(&bytes.into(), ringway_control::store::records::Timestamp(ms));
    if let (Some(now), Some(tomorrow)) = (at(0), at(86_400_000)) {
        assert!(now == tomorrow + 1 || now.unsigned_abs() > 100_000_000);
    }
}
