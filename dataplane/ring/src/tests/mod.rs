//! The drivers against this kernel: loopback, private network namespaces, real TUNs.
//!
//! What a shard relies on is the same for every driver, so every driver goes through the same
//! tests; `uring` has what only a ring can do or get wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

/// Runs these functions, which are generic over the driver, as tests of every driver.
macro_rules! on_each_driver {
    ($($name:ident,)+) => {
        mod on_uring {
            $(#[test] fn $name() { super::$name::<crate::uring::UringDriver>(); })+
        }
        mod on_epoll {
            $(#[test] fn $name() { super::$name::<crate::epoll::EpollDriver>(); })+
        }
    };
}

mod banks;
mod epoll;
mod lifecycle;
mod loopback;
pub(crate) mod net;
mod plain;
mod tun;
mod uring;

use std::time::Duration;

use crate::backend::{Backend, DriverConfig};
use crate::driver::{Ecn, Received, Train, Wait};
use crate::features::Features;
use crate::listen::{UdpOptions, UdpSockets};
use crate::pools::{PoolSizes, Pools};
use crate::zerocopy::ZeroCopyMode;
use std::net::SocketAddr;

/// Pools that are quickly made and quickly exhausted.
const SMALL: PoolSizes =
    PoolSizes { outside: 16, initiations: 4, inside: 16, trains: 16, tun_writes: 8 };

fn config(sizes: PoolSizes) -> (DriverConfig, Pools) {
    let pools = Pools::new(sizes).unwrap();
    let config = DriverConfig {
        pools: pools.clone(),
        features: Features::probe(),
        zero_copy: ZeroCopyMode::Off,
        waker: None,
    };
    (config, pools)
}

fn driver<B: Backend>(sizes: PoolSizes) -> B {
    B::make(config(sizes).0).unwrap()
}

/// A driver with sockets of both families on a free port.
fn listening<B: Backend>(sizes: PoolSizes) -> (B, u16) {
    let mut driver: B = driver(sizes);
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    let port = sockets.port();
    driver.set_sockets(Some(sockets)).unwrap();
    driver.turn(Wait::No).unwrap();
    (driver, port)
}

/// Turns until `take` has seen enough; five seconds at most.
fn turn_until<B: Backend>(driver: &mut B, mut take: impl FnMut(Option<Received>) -> bool) {
    for _ in 0..500 {
        driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
        let mut more = true;
        while more {
            let received = driver.next();
            more = received.is_some();
            if take(received) {
                return;
            }
        }
    }
    panic!("it did not come: {:?} {:?}", driver.health(), driver.stats());
}

/// The next thing received.
fn receive<B: Backend>(driver: &mut B) -> Received {
    let mut result = None;
    turn_until(driver, |received| {
        result = received;
        result.is_some()
    });
    result.unwrap()
}

/// A train of `len` bytes, each telling its position, so that order and cuts show.
fn train<B: Backend>(driver: &mut B, len: usize, segment_bytes: usize, to: SocketAddr) -> Train {
    let mut buf = driver.reserve_train().unwrap();
    for (at, byte) in buf[..len].iter_mut().enumerate() {
        *byte = pattern(at);
    }
    Train { buf, len, segment_bytes, to, from: None, ecn: Ecn(0), dscp: 0 }
}

fn pattern(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}
