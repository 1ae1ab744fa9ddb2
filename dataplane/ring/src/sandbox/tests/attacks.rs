//! The thread of a worker, what is prepared for its attacks, and the judgement.

#![allow(unsafe_code, reason = "attacks are system calls")]

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::addr::Name;
use crate::backend::{Backend, DriverConfig};
use crate::driver::{Ecn, Received, Train, Wait};
use crate::features::Features;
use crate::listen::{UdpOptions, UdpSockets};
use crate::pools::{PoolSizes, Pools};
use crate::sandbox;
use crate::zerocopy::ZeroCopyMode;

/// What an attacker may find in the process: things that were opened before.
pub(super) struct Loot {
    /// A TCP socket of nobody.
    pub(super) stream: OwnedFd,
    /// Somebody who would accept a connection, and where.
    pub(super) listener: TcpListener,
    pub(super) address: Name,
    /// A file with content.
    pub(super) file: File,
    /// Both ends of two pipes; the first has bytes in it.
    pub(super) full: [OwnedFd; 2],
    pub(super) empty: [OwnedFd; 2],
    /// Another ring.
    pub(super) ring: OwnedFd,
    /// Another process, and a word in its memory.
    pub(super) victim: Victim,
}

impl Loot {
    fn new() -> Self {
        let full = pipe();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut address = Name::default();
        address.set(&listener.local_addr().unwrap());
        File::from(full[1].try_clone().unwrap()).write_all(&[7; 64]).unwrap();
        Self {
            stream: tcp_socket(),
            listener,
            address,
            file: File::open("/proc/self/exe").unwrap(),
            full,
            empty: pipe(),
            ring: ring(),
            victim: Victim::new(),
        }
    }
}

/// A process that does nothing until it is killed. It was forked, so what lies here lies there.
pub(super) struct Victim {
    pub(super) process: libc::pid_t,
    pub(super) word: Box<u64>,
}

impl Victim {
    fn new() -> Self {
        let word = Box::new(0x5ec7e7);
        // SAFETY: the child makes system calls only.
        let process = unsafe { libc::fork() };
        if process == 0 {
            // It must not hold other tests' sockets.
            let _ = call(libc::SYS_close_range, &[0, u32::MAX as usize, 0]);
            loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            }
        }
        assert!(process > 0);
        Self { process, word }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody else waits for.
        unsafe { libc::kill(self.process, libc::SIGKILL) };
        // SAFETY: as above; the status is not asked for.
        unsafe { libc::waitpid(self.process, std::ptr::null_mut(), 0) };
    }
}

/// Runs `attack` on a thread made like a worker's, in its sandbox or not. Afterwards the driver
/// must still move datagrams.
pub(super) fn on_a_worker<B: Backend>(boxed: bool, attack: impl FnOnce(&mut B, &Loot) + Send) {
    // The thread that attacks is not the one that cleans up.
    let loot = Loot::new();
    let work = || {
        let mut driver = worker_driver(boxed);
        attack(&mut driver, &loot);
        echo(&mut driver);
        driver.shutdown().unwrap();
    };
    let ended = std::thread::scope(|threads| threads.spawn(work).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// A driver with sockets, set up as `worker::start` does it.
pub(super) fn worker_driver<B: Backend>(boxed: bool) -> B {
    let mut driver = B::make(config()).unwrap();
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    driver.set_sockets(Some(sockets)).unwrap();
    if boxed {
        let sandbox = sandbox::enter(&mut driver, &[]);
        assert!(sandbox.is_complete(), "{:?}", sandbox.gaps().collect::<Vec<_>>());
    }
    driver
}

/// What a worker's driver is made of, with few buffers.
pub(super) fn config() -> DriverConfig {
    let sizes = PoolSizes { outside: 16, inside: 16, trains: 16, ..PoolSizes::default() };
    DriverConfig {
        pools: Pools::new(sizes).unwrap(),
        features: Features::probe(),
        zero_copy: ZeroCopyMode::Off,
        waker: None,
    }
}

/// The driver sends to itself and receives it.
pub(super) fn echo(driver: &mut impl Backend) {
    for (len, segment) in [(100, 100), (3000, 1000)] {
        carry(driver, len, segment);
    }
}

/// The driver sends itself a train and receives all of it.
pub(super) fn carry(driver: &mut impl Backend, len: usize, segment_bytes: usize) {
    let to = ([127, 0, 0, 1], driver.sockets().unwrap().port()).into();
    let buf = driver.reserve_train().unwrap();
    driver.send(Train { buf, len, segment_bytes, to, from: None, ecn: Ecn(0), dscp: 0 });
    let mut left = len;
    for _ in 0..500 {
        driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
        while let Some(Received::Outside(outside)) = driver.next() {
            left -= outside.len;
        }
        if left == 0 {
            return;
        }
    }
    panic!("{left} of {len} bytes did not come: {:?} {:?}", driver.health(), driver.stats());
}

/// Whether what was tried succeeded as it must without a sandbox, or was refused as it must be in
/// it.
pub(super) fn judge(boxed: bool, name: &str, outcome: &io::Result<()>) {
    match (boxed, outcome) {
        (false, Ok(())) => {}
        (false, Err(error)) => panic!("{name} proves nothing, it fails anyway: {error}"),
        (true, Ok(())) => panic!("{name} succeeded in the sandbox"),
        (true, Err(error)) => {
            let errno = error.raw_os_error();
            let refused = matches!(errno, Some(libc::EPERM | libc::EACCES));
            assert!(refused, "{name} failed for another reason: {error}");
        }
    }
}

/// A system call with up to six arguments.
pub(super) fn call(number: i64, arguments: &[usize]) -> io::Result<i64> {
    let at = |n: usize| arguments.get(n).copied().unwrap_or(0);
    // SAFETY: attacks pass numbers, descriptors and pointers to what outlives the call.
    let done = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// A descriptor as an argument.
pub(super) fn arg(fd: &impl AsRawFd) -> usize {
    fd.as_raw_fd() as usize
}

/// Closes what an attack without a sandbox opened.
pub(super) fn close(fd: i64) {
    call(libc::SYS_close, &[fd as usize]).unwrap();
}

fn tcp_socket() -> OwnedFd {
    let fd = call(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0]);
    owned(fd.unwrap() as RawFd)
}

fn pipe() -> [OwnedFd; 2] {
    let mut ends = [-1; 2];
    call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, libc::O_CLOEXEC as usize]).unwrap();
    ends.map(owned)
}

fn ring() -> OwnedFd {
    let mut parameters = [0_u32; 30];
    let fd = call(libc::SYS_io_uring_setup, &[4, parameters.as_mut_ptr() as usize]);
    owned(fd.unwrap() as RawFd)
}

fn owned(fd: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor was just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
