//! How bytes move.
//!
//! A shard sees the world through [`Driver`]: received datagrams and TUN packets come out of it as owned buffers, trains
//! and TUN writes go into it by reference. The io_uring driver is one implementation; the simulated world is another.
//!
//! This crate must not know what the bytes mean.

pub mod driver;

pub use driver::{Driver, Ecn, Inside, Local, Outside, Piece, Received, Train, TunWrite, Wait};
