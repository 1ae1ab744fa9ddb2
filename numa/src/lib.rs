//! Where threads and memory live.
//!
//! Reads the machine's topology, binds a thread to a CPU and makes mappings on the node of that
//! CPU. This crate must not know what the memory is used for.

pub mod region;

pub use region::Region;
