//! The fifth step: one-time passwords that go by a counter (RFC 4226) beside those that go by time.
//!
//! What there was before goes by time. The column of the last time step holds for those that go by
//! a counter how many are used up.

pub(super) const SQL: &str = "
ALTER TABLE users ADD COLUMN totp_kind {text} NOT NULL DEFAULT 'time';
";
