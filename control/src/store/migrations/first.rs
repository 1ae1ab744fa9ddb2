//! The first step: everything that a store began with.
//!
//! Identifiers and addresses are text, moments milliseconds since the Unix epoch, truth values 0
//! and 1, and what nothing searches for is JSON. Names of indexes are known to `constraints.rs`.

use super::super::db::{Db, first_policy};
use super::super::error::StoreError;
use super::super::records::Timestamp;

pub(super) const SQL: &str = "
CREATE TABLE counters (name {text} PRIMARY KEY, value {int} NOT NULL){table};
INSERT INTO counters (name, value) VALUES
    ('revision', 0), ('changes_trimmed', 0), ('connections', 0), ('audit', 0);

CREATE TABLE changes (
    kind {text} NOT NULL, id {text} NOT NULL, revision {int} NOT NULL,
    PRIMARY KEY (kind, id)){table};
CREATE UNIQUE INDEX changes_revision ON changes (revision);

CREATE TABLE pools (
    id {text} PRIMARY KEY, name {text} NOT NULL, net4 {text}, net6 {text}, range4 {text},
    is_random {int} NOT NULL, created_at {int} NOT NULL, version {int} NOT NULL){table};
CREATE UNIQUE INDEX pools_name ON pools (name);

CREATE TABLE policies (
    id {text} PRIMARY KEY, name {text} NOT NULL, pool_id {text} REFERENCES pools (id),
    body {text} NOT NULL, created_at {int} NOT NULL, version {int} NOT NULL){table};
CREATE UNIQUE INDEX policies_name ON policies (name);
CREATE INDEX policies_pool ON policies (pool_id);

CREATE TABLE groups (
    id {text} PRIMARY KEY, name {text} NOT NULL, policy_id {text} REFERENCES policies (id),
    rate {text} NOT NULL, created_at {int} NOT NULL, version {int} NOT NULL){table};
CREATE UNIQUE INDEX groups_name ON groups (name);
CREATE INDEX groups_policy ON groups (policy_id);

CREATE TABLE users (
    id {text} PRIMARY KEY, name {text} NOT NULL, display_name {text} NOT NULL,
    group_id {text} REFERENCES groups (id), policy_id {text} REFERENCES policies (id),
    role {text}, state {text} NOT NULL, expires_at {int}, rate {text}, quota {text},
    password_hash {text}, totp_secret {blob}, totp_last_step {int} NOT NULL,
    created_at {int} NOT NULL, version {int} NOT NULL){table};
CREATE UNIQUE INDEX users_name ON users (name);
CREATE INDEX users_group ON users (group_id);
CREATE INDEX users_policy ON users (policy_id);

CREATE TABLE devices (
    id {text} PRIMARY KEY, user_id {text} NOT NULL REFERENCES users (id), name {text} NOT NULL,
    public_key {blob} NOT NULL, key_origin {text} NOT NULL, enabled {int} NOT NULL,
    access_from {int}, access_until {int}, last_seen {int}, created_at {int} NOT NULL,
    version {int} NOT NULL, preshared {blob}){table};
CREATE UNIQUE INDEX devices_name ON devices (user_id, name);
CREATE UNIQUE INDEX devices_key ON devices (public_key);

CREATE TABLE leases (
    device_id {text} PRIMARY KEY REFERENCES devices (id),
    pool_id {text} NOT NULL REFERENCES pools (id), address4 {text}, address6 {text},
    is_static {int} NOT NULL, created_at {int} NOT NULL){table};
CREATE UNIQUE INDEX leases_address4 ON leases (address4);
CREATE UNIQUE INDEX leases_address6 ON leases (address6);
CREATE INDEX leases_pool ON leases (pool_id);

CREATE TABLE tokens (
    id {text} PRIMARY KEY, user_id {text} NOT NULL REFERENCES users (id), name {text} NOT NULL,
    scopes {text} NOT NULL, expires_at {int}, last_used_at {int}, created_at {int} NOT NULL,
    secret_hash {blob} NOT NULL){table};
CREATE UNIQUE INDEX tokens_secret ON tokens (secret_hash);
CREATE INDEX tokens_user ON tokens (user_id);

CREATE TABLE enrolments (
    id {text} PRIMARY KEY, user_id {text} NOT NULL REFERENCES users (id),
    device_name {text} NOT NULL, expires_at {int} NOT NULL, used_by {text},
    created_at {int} NOT NULL, secret_hash {blob} NOT NULL){table};
CREATE UNIQUE INDEX enrolments_secret ON enrolments (secret_hash);
CREATE INDEX enrolments_user ON enrolments (user_id);

CREATE TABLE usage (
    user_id {text} NOT NULL, device_id {text} NOT NULL, day {int} NOT NULL,
    up_bytes {int} NOT NULL, down_bytes {int} NOT NULL, up_packets {int} NOT NULL,
    down_packets {int} NOT NULL, PRIMARY KEY (device_id, day)){table};
CREATE INDEX usage_user ON usage (user_id, day);
CREATE INDEX usage_day ON usage (day);

CREATE TABLE usage_marks (
    page {text} NOT NULL, epoch {int} NOT NULL, slot {int} NOT NULL, tag {int} NOT NULL,
    seen0 {int} NOT NULL, seen1 {int} NOT NULL, seen2 {int} NOT NULL, seen3 {int} NOT NULL,
    PRIMARY KEY (page, epoch, slot)){table};

CREATE TABLE connections (
    sequence {int} PRIMARY KEY, at {int} NOT NULL, user_id {text} NOT NULL,
    device_id {text} NOT NULL, event {text} NOT NULL, endpoint {text}, reason {text},
    duration_s {int}, up_bytes {int} NOT NULL, down_bytes {int} NOT NULL){table};
CREATE INDEX connections_user ON connections (user_id, sequence);
CREATE INDEX connections_at ON connections (at);

CREATE TABLE audit (
    sequence {int} PRIMARY KEY, at {int} NOT NULL, action {text} NOT NULL, salt {blob},
    actor {text}, object {text}, detail {text}, digest {blob} NOT NULL,
    hash {blob} NOT NULL){table};

CREATE TABLE erased (user_id {text} PRIMARY KEY, at {int} NOT NULL){table};

CREATE TABLE configs (
    version {int} PRIMARY KEY, at {int} NOT NULL, actor {text} NOT NULL, body {text} NOT NULL,
    hash {text} NOT NULL){table};

CREATE TABLE bans (
    subject {text} PRIMARY KEY, until {int} NOT NULL, score {int} NOT NULL,
    reason {text} NOT NULL){table};

CREATE TABLE settings (name {text} PRIMARY KEY, value {blob} NOT NULL){table};
";

pub(super) fn fill(db: &mut Db<'_>, now: Timestamp) -> Result<(), StoreError> {
    db.insert_policy(&first_policy(now))
}
