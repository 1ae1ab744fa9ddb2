//! The third step: gateways that share a store have a history of the configuration each.
//!
//! What was there before is of no gateway; the next one that enters a version takes it over.

pub(super) const SQL: &str = "
ALTER TABLE configs RENAME TO configs_before;
CREATE TABLE configs (
    gateway {text} NOT NULL, version {int} NOT NULL, at {int} NOT NULL, actor {text} NOT NULL,
    body {text} NOT NULL, hash {text} NOT NULL,
    CONSTRAINT configs_by_gateway PRIMARY KEY (gateway, version)){table};
INSERT INTO configs (gateway, version, at, actor, body, hash)
    SELECT '', version, at, actor, body, hash FROM configs_before;
DROP TABLE configs_before;
";
