//! Where threads and memory live.
//!
//! Reads the machine's topology and its network cards, plans which worker
//! gets which CPU, binds a thread ([`pin`]) and makes mappings on a node ([`region`]).
//! This crate must not know what the threads do and what the memory is used for.

pub mod list;
pub mod memory;
pub mod pin;
pub mod region;

pub use list::CpuList;
pub use region::{Region, RegionOptions};
