//! The fourth step: the certificates between the one by which a device came in and the authority
//! that is trusted, so that the revocation of each can end that access.
//!
//! What there was before has none of them until the access is renewed.

pub(super) const SQL: &str = "
CREATE TABLE access_authorities (
    device_id {text} NOT NULL REFERENCES access_certificates (device_id) ON DELETE CASCADE,
    place {int} NOT NULL, issuer {blob} NOT NULL, serial {blob} NOT NULL,
    PRIMARY KEY (device_id, place)){table};
";
