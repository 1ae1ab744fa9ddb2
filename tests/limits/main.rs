//! What a shard does at its limits: every reason for a drop, every pool that can run out, every
//! queue that can fill, and what control may do at the wrong moment.

#![allow(clippy::unwrap_used, reason = "tests")]

mod admission;
mod channels;
mod cores;
mod crowds;
mod drops;
mod fairness;
mod floods;
mod pools;
mod staging;
mod storm;
mod walks;
