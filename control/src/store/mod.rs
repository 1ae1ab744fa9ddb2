//! Durable records: users, devices, leases, usage, audit, and who changed what.

pub mod ids;
pub mod records;
