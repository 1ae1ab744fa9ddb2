//! The commands of the service as an operator meets them: the built binary against a real API
//! server over a Unix socket and over HTTPS, with a real directory in SQLite.
//!
//! Only the cores are not real: sessions, metrics and health are what a test says they are.

#![allow(clippy::unwrap_used, reason = "tests")]

mod doors;
mod gateway;
mod people;
mod rules;
mod running;
mod top;
mod versions;
