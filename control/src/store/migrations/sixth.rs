//! The sixth step: sessions that live, by gateway, so that a log whose writer was killed gets its
//! ends, and the next process goes on with sessions that it takes over.
//!
//! Before it there are none: what lived then has no end in the log.

pub(super) const SQL: &str = "
CREATE TABLE open_sessions (
    gateway {text} NOT NULL, device_id {text} NOT NULL, user_id {text} NOT NULL,
    session {int} NOT NULL, since {int} NOT NULL, seen {int} NOT NULL, endpoint {text},
    up_bytes {int} NOT NULL, down_bytes {int} NOT NULL,
    CONSTRAINT open_sessions_by_gateway PRIMARY KEY (gateway, device_id)){table};
CREATE INDEX open_sessions_user ON open_sessions (user_id);
";
