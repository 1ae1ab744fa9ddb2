//! Peers on disk: their inner addresses, their entries in the configuration, their client files.
//!
//! Everything here works on files and text; the running gateway learns of a change by a reload.

pub mod ipam;
