//! The sixth step: sessions that live, so that those of a gateway that was killed get an end.
//!
//! Sessions that lived when this step was made are not in it: the log has their beginnings only.

pub(super) const SQL: &str = "
CREATE TABLE gateways (
    name {text} PRIMARY KEY, noted_at {int} NOT NULL, last_session {int} NOT NULL){table};

CREATE TABLE open_sessions (
    gateway {text} NOT NULL, session {int} NOT NULL, user_id {text} NOT NULL,
    device_id {text} NOT NULL, since {int} NOT NULL, endpoint {text}, up_bytes {int} NOT NULL,
    down_bytes {int} NOT NULL, PRIMARY KEY (gateway, session)){table};
CREATE INDEX open_sessions_user ON open_sessions (user_id);
";
