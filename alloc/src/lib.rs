//! Who owns which bytes.
//!
//! Fixed packet buffers in a region of the core's node ([`arena`]), generation-checked slabs
//! ([`slab`]), variable memory of sessions under a budget ([`heap`]) and the guard that proves the
//! packet path allocates nothing ([`guard`]); and how memory forgets ([`forget`]).
//!
//! This crate must not know packets, protocols or rings.

pub mod arena;
pub mod forget;
pub mod guard;
pub mod heap;
pub mod slab;

pub use arena::{Arena, Buf, Hold};
