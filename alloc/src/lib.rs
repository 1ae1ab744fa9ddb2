//! Who owns which bytes.
//!
//! Fixed packet buffers in a region of the core's node ([`arena`]), generation-checked slabs
//! ([`slab`]), one mimalloc heap per session or shard ([`heap`]) and the guard that proves the
//! packet path allocates nothing ([`guard`]).
//!
//! This crate must not know packets, protocols or rings.

pub mod arena;

pub use arena::{Arena, Buf, Hold};
