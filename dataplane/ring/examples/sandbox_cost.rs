//! What a system call costs in a worker's sandbox, and without: nanoseconds per call, the best of
//! many short rounds.
//!
//! `cargo run --release -p ringway-ring --example sandbox_cost`
//!
//! Figures go to standard error, the only place that a worker may write to.

#![allow(unsafe_code, reason = "bare system calls are what is measured")]

use std::os::fd::RawFd;

use ringway_ring::{Backend, DriverConfig, EpollDriver, UdpOptions, UdpSockets, UringDriver};
use ringway_ring::{PoolSizes, Pools, clock, sandbox};

const CALLS: u32 = 2_000;
const ROUNDS: u32 = 1_000;

fn main() {
    for boxed in [false, true] {
        let thread = move || {
            let driver: UringDriver = driver(boxed);
            let ring = driver.ring_fd().unwrap_or(-1);
            let enter = || call(libc::SYS_io_uring_enter, [ring, 0, 0, 0, 0, 0]);
            report(boxed, "io_uring_enter", enter);
            report(boxed, "getpid", || call(libc::SYS_getpid, [0; 6]));
        };
        run(thread);
    }
    for boxed in [false, true] {
        let thread = move || {
            let driver: EpollDriver = driver(boxed);
            let socket = driver.sockets().map_or(-1, raw);
            report(boxed, "recvmmsg", || call(libc::SYS_recvmmsg, [socket, 0, 0, 64, 0, 0]));
            let wake = std::os::fd::AsRawFd::as_raw_fd(&driver.waker_fd());
            report(boxed, "read", || call(libc::SYS_read, [wake, 0, 0, 0, 0, 0]));
        };
        run(thread);
    }
}

fn run(thread: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(thread).join() {
        std::panic::resume_unwind(panic);
    }
}

fn driver<D: Backend>(boxed: bool) -> D {
    let sizes = PoolSizes { outside: 16, inside: 16, trains: 16, ..PoolSizes::default() };
    let pools = Pools::new(sizes).expect("memory");
    let config = DriverConfig { pools, ..DriverConfig::new().expect("memory") };
    let mut driver = D::make(config).expect("a driver");
    let sockets = UdpSockets::bind(&UdpOptions::default()).expect("sockets");
    driver.set_sockets(Some(sockets)).expect("sockets");
    if boxed {
        let sandbox = sandbox::enter(&mut driver, &[]);
        assert!(sandbox.is_complete(), "{sandbox}");
    } else {
        driver.turn(ringway_ring::Wait::No).expect("a turn");
    }
    driver
}

fn raw(sockets: &UdpSockets) -> RawFd {
    let [ipv4, ipv6] = sockets.descriptors();
    ipv4.or(ipv6).map_or(-1, |fd| std::os::fd::AsRawFd::as_raw_fd(&fd))
}

fn report(boxed: bool, name: &str, call: impl Fn()) {
    let round = |_| {
        let begin = clock::boot_ns();
        (0..CALLS).for_each(|_| call());
        (clock::boot_ns() - begin) as f64 / f64::from(CALLS)
    };
    let best = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    eprintln!("{name:<15} {} {best:6.1} ns", if boxed { "sandbox" } else { "free   " });
}

fn call(number: i64, words: [i32; 6]) {
    let [a, b, c, d, e, f] = words.map(i64::from);
    // SAFETY: the calls that are measured write to no memory: counts and pointers are zero.
    unsafe { libc::syscall(number, a, b, c, d, e, f) };
}
