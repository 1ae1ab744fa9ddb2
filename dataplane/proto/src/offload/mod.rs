//! Super-packets: what the TUN hands over instead of many packets, and what it takes instead of
//! many.
//!
//! [`segment`] cuts a TCP or UDP super-packet into the packets it stands for, [`coalesce`] joins
//! packets of one flow into a super-packet, [`virtio`] is the header that says which is which. All
//! three are pure: buffers, rings and flows that are open at one time belong to the caller.

pub mod coalesce;
pub mod segment;
pub mod virtio;

#[cfg(test)]
mod tests;

pub use coalesce::{Candidate, Class, FlowKey, Group};
pub use segment::Segments;
pub use virtio::{GsoType, VnetHeader};
