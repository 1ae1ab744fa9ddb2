//! One function at a time.
//!
//! Two kinds of figures, never mixed. [`cases`] are counted in instructions under valgrind: the
//! same on every machine, so they gate changes ([`callgrind`], [`baseline`]). `time.rs` (the same
//! cases), `aead` and [`echo`] measure time and gate nothing, but for ratios within a run of
//! `aead`.
//!
//! This crate must not be needed by any other.

pub mod baseline;
pub mod callgrind;
pub mod cases;
pub mod echo;
