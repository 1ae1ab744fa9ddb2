//! How bytes move.
//!
//! A shard sees the world through [`Driver`]: received datagrams and TUN packets come out of it as
//! owned buffers, trains and TUN writes go into it by reference. The io_uring driver
//! ([`UringDriver`]) is one implementation; the simulated world is another.
//!
//! Reading order: [`driver`] (the seam for a shard), [`backend`] (the seam for the thread around
//! it), [`uring`] (one turn), `ready` (what waits for the shard, data before initiations),
//! `inbound`, `send` and `write` (what comes in and what leaves), `ring` and `provided` (queues and
//! receive buffers), then [`epoll`] (the same without a ring). What is opened: [`listen`] (the
//! sockets of all cores), [`tun`] and [`steer`] (which core gets what). What this kernel can do and
//! may: [`features`], [`choice`] and [`sandbox`].
//!
//! This crate must not know what the bytes mean.

mod addr;
pub mod backend;
pub mod choice;
pub mod clock;
pub mod cmsg;
mod cut;
pub mod driver;
pub mod epoll;
pub mod error;
mod failures;
pub mod features;
mod gather;
mod inbound;
pub mod listen;
mod message;
mod op;
mod paths;
pub mod pools;
mod provided;
mod ready;
mod ring;
pub mod sandbox;
mod send;
pub mod stats;
pub mod steer;
mod sys;
pub mod tun;
pub mod tun_view;
pub mod udp;
pub mod uring;
mod wake;
mod write;
pub mod zerocopy;

pub use backend::{Backend, DriverConfig, Health};
pub use choice::{Choice, DriverChoice, DriverKind, choose};
pub use driver::{Driver, Ecn, Inside, Local, Outside, Piece, Received, Train, TunWrite, Wait};
pub use epoll::EpollDriver;
pub use error::RingError;
pub use features::Features;
pub use listen::{ListenError, UdpGroup, UdpOptions, UdpSockets};
pub use pools::{BUFFER_BYTES, PoolSizes, Pools};
pub use ring::RingMode;
pub use sandbox::Sandbox;
pub use stats::DriverStats;
pub use steer::{Steering, TunSteering, TunSteeringError};
pub use tun::{TunError, TunOffloads, TunOptions, TunQueue};
pub use tun_view::{TunState, TunView};
pub use uring::UringDriver;
pub use zerocopy::ZeroCopyMode;

#[cfg(test)]
mod tests;
