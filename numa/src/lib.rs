//! Where threads and memory live.
//!
//! Reads the machine's topology ([`topology`]) and its network cards ([`nic`]), plans which worker
//! gets which CPU ([`plan`]), binds a thread ([`pin`]) and makes mappings on a node ([`region`]).
//! This crate must not know what the threads do and what the memory is used for.

pub mod list;
pub mod memory;
pub mod nic;
pub mod pin;
pub mod plan;
pub mod region;
pub mod topology;

pub use list::CpuList;
pub use plan::Plan;
pub use region::{Region, RegionOptions};
pub use topology::Topology;
