//! The second step: by which client certificate a device came in, so that its revocation can end
//! that access.

pub(super) const SQL: &str = "
CREATE TABLE access_certificates (
    device_id {text} PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    issuer {blob} NOT NULL, serial {blob} NOT NULL){table};
";
