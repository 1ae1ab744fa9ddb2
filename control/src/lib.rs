//! The control thread of Ringway, and the program around it.
//!
//! Configuration, keys, peers on disk, the local exit and the checks of the machine on one side;
//! the plane (a pure state machine), the running gateway and its sockets on the other. Control
//! decides and tells the cores by small commands; it may stop and traffic goes on. Nothing here
//! runs on a core.

#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod auth;
pub mod cli;
pub mod client_io;
pub mod config;
pub mod configs;
pub mod daemon;
pub mod directory;
pub mod doctor;
pub mod events;
pub mod exit;
pub mod failure;
pub mod gateway;
pub mod harden;
pub mod import;
pub mod keys;
pub mod listen;
pub mod logs;
pub mod manager;
pub mod peers;
pub mod people;
pub mod place;
pub mod plane;
pub mod ready;
pub mod reports;
pub mod run;
pub mod service;
pub mod stats;
pub mod store;
pub mod uapi;
pub mod upgrade;
pub mod watch;

#[cfg(test)]
mod authority;
#[cfg(test)]
mod scratch;
