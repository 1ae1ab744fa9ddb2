//! Private networks for tests: a thread moves into a namespace where only loopback exists.

#![allow(unsafe_code, reason = "entering a namespace and addressing interfaces are system calls")]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use crate::sys;

/// Runs `test` on a thread in a network namespace of its own, with loopback up.
pub(crate) fn in_own_network(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        enter_own_network();
        test();
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Moves the calling thread into a new network namespace; what it has open stays where it is.
pub(crate) fn enter_own_network() {
    // SAFETY: no pointers; only this thread moves.
    let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(moved, 0, "needs CAP_SYS_ADMIN: run this test as root");
    set_up("lo");
}

/// Keeps the calling thread on its CPU: what a qdisc lets go later is delivered where it was
/// queued, and two CPUs would deliver in any order.
pub(super) fn stay_on_this_cpu() {
    // SAFETY: no pointers.
    let cpu = unsafe { libc::sched_getcpu() };
    let mut set = [0_u64; 16];
    set[cpu as usize / 64] = 1 << (cpu % 64);
    // SAFETY: pointer and size describe `set`, which outlives the call.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) };
    assert_eq!(done, 0);
}

/// Runs `ip` with these words; whether it succeeded.
pub(crate) fn ip(words: &str) -> bool {
    let output = std::process::Command::new("ip").args(words.split(' ')).output();
    output.unwrap().status.success()
}

/// Brings an interface up.
pub(crate) fn set_up(name: &str) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mut request = sys::interface_request(name).unwrap();
    sys::ioctl(socket.as_fd(), libc::SIOCGIFFLAGS as libc::Ioctl, &mut request).unwrap();
    request.ifr_ifru.ifru_flags =
        sys::request_flags(&request) | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    sys::ioctl(socket.as_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &mut request).unwrap();
}

/// Sets the MTU of an interface.
pub(crate) fn set_mtu(name: &str, bytes: i32) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mut request = sys::interface_request(name).unwrap();
    request.ifr_ifru.ifru_mtu = bytes;
    sys::ioctl(socket.as_fd(), libc::SIOCSIFMTU as libc::Ioctl, &mut request).unwrap();
}

/// Gives an interface an IPv4 address with a prefix of 24 bits.
pub(crate) fn set_address(name: &str, address: Ipv4Addr) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for (request_code, ip) in
        [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0))]
    {
        let mut request = sys::interface_request(name).unwrap();
        let mut raw = [0i8; 14];
        for (slot, byte) in raw[2..6].iter_mut().zip(ip.octets()) {
            *slot = byte as i8;
        }
        request.ifr_ifru.ifru_addr =
            libc::sockaddr { sa_family: libc::AF_INET as u16, sa_data: raw };
        sys::ioctl(socket.as_fd(), request_code as libc::Ioctl, &mut request).unwrap();
    }
}
