//! The service for people on a real gateway: records through the API, traffic by stock clients.
//!
//! ```text
//!   cli:  stock client ─┐
//!   more: stock clients ┴ gw: ringway run, its API on a Unix socket ── dst
//! ```
//!
//! The wire and the clients say what was carried; what the store, the API and the metrics say is
//! compared with that. Bounds are such that a busy machine keeps them: states are waited for, and
//! rates are measured over what a receiver got in the time that it took.

mod api;
mod browser;
mod capture;
mod database;
mod edits;
mod ends;
mod enrol_page;
mod exposure;
mod floods;
mod flows;
mod house;
mod leases;
mod logged;
mod outages;
mod quotas;
mod rates;
mod reported;
mod story;
mod traces;
mod upgrades;
