//! The few system calls that neither std nor io-uring wraps, each behind a safe signature.
//!
//! This file must not know what they are used for: policy and error texts live with the callers.

#![allow(unsafe_code, reason = "this file is the door to the C library")]

use std::ffi::{c_int, c_ulong};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::addr::Name;

/// A non-blocking, close-on-exec UDP socket of the given address family.
pub(crate) fn udp_socket(domain: c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(domain, kind, 0) };
    owned(fd)
}

/// A non-blocking, close-on-exec event counter.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    owned(fd)
}

/// Sets a socket option whose value is an `int`.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    checked(done)
}

/// Attaches a classic BPF program: as a filter of the socket, or as the chooser of its group.
pub(crate) fn attach_program(
    fd: BorrowedFd<'_>,
    name: c_int,
    instructions: &[libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).unwrap_or(u16::MAX),
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the program describes `instructions`, which the kernel copies and does not write to;
    // pointer and length describe the program; all outlive the call.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    checked(done)
}

/// Datagrams that a socket refused so far, mostly because its buffer was full. Wraps around.
pub(crate) fn dropped(fd: BorrowedFd<'_>) -> io::Result<u32> {
    /// Words of SO_MEMINFO, and which of them counts drops.
    const WORDS: usize = 9;
    const DROPS: usize = 8;
    let mut words = [0u32; WORDS];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call; `len` says how much may be
    // written.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    checked(done).map(|()| words[DROPS])
}

/// Reads a socket option whose value is an `int`.
pub(crate) fn option(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call; `len` says how much may be
    // written.
    let done = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    checked(done).map(|()| value)
}

/// Binds a socket.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let mut name = Name::default();
    let len = name.set(address) as libc::socklen_t;
    // SAFETY: pointer and length describe `name`, which outlives the call.
    let done = unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), len) };
    checked(done)
}

/// The address a socket is bound to.
pub(crate) fn bound_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut name = Name::default();
    let mut len = size_of::<Name>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call; `len` says how much may be
    // written.
    let done = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &raw mut len) };
    checked(done)?;
    name.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// An `ioctl` whose argument is a pointer to `argument`.
///
/// The caller names a request that reads or writes exactly a `T`; this is why it is not public.
pub(crate) fn ioctl<T>(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: &mut T,
) -> io::Result<()> {
    let argument: *mut T = argument;
    // SAFETY: the pointer is valid for reads and writes of a `T`, which is what `request` is for.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    checked(done)
}

/// An `ioctl` whose argument is a number.
pub(crate) fn ioctl_number(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    number: c_ulong,
) -> io::Result<()> {
    // SAFETY: the argument is a number; no memory is touched.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, number) };
    checked(done)
}

/// A message header that describes nothing.
pub(crate) const fn empty_message() -> libc::msghdr {
    // SAFETY: lengths and pointers of plain data, for which zero is valid.
    unsafe { mem::zeroed() }
}

// The calls that packets take go to the kernel directly. The C library lets a thread be cancelled
// in each of them, and says so before and after by a locked instruction; nobody cancels a worker.

/// How much a call did, or what the kernel said.
fn many(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sends several messages without blocking; how many went out before the first refusal.
///
/// # Safety
/// Every header must describe memory that is valid for the length of the call.
pub(crate) unsafe fn send_many(
    fd: BorrowedFd<'_>,
    messages: &mut [libc::mmsghdr],
) -> io::Result<usize> {
    // SAFETY: pointer and count describe `messages`; what they refer to is the caller's promise.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as u32,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    many(sent)
}

/// Receives several messages without blocking; how many there were.
///
/// # Safety
/// Every header must describe memory that is valid and nobody else's for the length of the call.
pub(crate) unsafe fn receive_many(
    fd: BorrowedFd<'_>,
    messages: &mut [libc::mmsghdr],
) -> io::Result<usize> {
    // SAFETY: pointer and count describe `messages`; what they refer to is the caller's promise.
    let received = unsafe {
        libc::syscall(
            libc::SYS_recvmmsg,
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as u32,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut::<libc::timespec>(),
        )
    };
    many(received)
}

/// Reads into `bytes`; how many were read.
pub(crate) fn read(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `bytes`, which outlives the call.
    let read =
        unsafe { libc::syscall(libc::SYS_read, fd.as_raw_fd(), bytes.as_mut_ptr(), bytes.len()) };
    many(read)
}

/// Writes what `vectors` describe as one.
///
/// # Safety
/// Every vector must describe memory that is valid for the length of the call.
pub(crate) unsafe fn write_vectors(
    fd: BorrowedFd<'_>,
    vectors: &[libc::iovec],
) -> io::Result<usize> {
    // SAFETY: pointer and count describe `vectors`; what they refer to is the caller's promise.
    let written =
        unsafe { libc::syscall(libc::SYS_writev, fd.as_raw_fd(), vectors.as_ptr(), vectors.len()) };
    many(written)
}

/// A close-on-exec epoll instance.
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    owned(fd)
}

/// Adds, changes or removes what an epoll instance watches.
pub(crate) fn epoll_control(
    epoll: BorrowedFd<'_>,
    operation: c_int,
    fd: RawFd,
    mut event: libc::epoll_event,
) -> io::Result<()> {
    // SAFETY: the pointer is to a local that outlives the call.
    let done = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) };
    checked(done)
}

/// Waits for events, at most so many milliseconds (-1: for ever); how many there are.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    limit_ms: c_int,
) -> io::Result<usize> {
    // SAFETY: pointer and count describe `events`, which outlives the call; no mask of signals is
    // given.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait, // the older call is not on every architecture
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as c_int,
            limit_ms,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    many(count)
}

/// As [`epoll_wait`], with a limit in nanoseconds (`epoll_pwait2`, 5.11).
pub(crate) fn epoll_wait_at_most(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    limit: Duration,
) -> io::Result<usize> {
    let limit = timespec(limit);
    // SAFETY: pointers and count describe `events` and a local, which outlive the call; no mask of
    // signals is given.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as c_int,
            &raw const limit,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    many(count)
}

/// Waits until there is something to read, at most so long.
pub(crate) fn poll_input(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = timespec(limit);
    // SAFETY: the pointers are to locals that outlive the call; no mask of signals is given.
    let count = unsafe { libc::ppoll(&raw mut entry, 1, &raw const limit, std::ptr::null()) };
    many(count.into()).map(drop)
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: time.subsec_nanos() as _,
    }
}

/// Whether the file accepts writes that promise never to wait (`RWF_NOWAIT`). Writes one byte,
/// which a TUN refuses as too short for its header whatever the answer is.
pub(crate) fn accepts_nowait_writes(tun: BorrowedFd<'_>) -> bool {
    let byte = [0u8; 1];
    let vector = libc::iovec { iov_base: byte.as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: the vector describes `byte`; both outlive the call, and a write only reads from it.
    let written =
        unsafe { libc::pwritev2(tun.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT) };
    written >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP)
}

/// Index of a network interface, 0 if there is none of that name.
pub(crate) fn interface_index(name: &std::ffi::CStr) -> u32 {
    // SAFETY: `name` is a terminated string that outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// An all-zero interface request carrying a name, or `None` if the name is too long or empty.
pub(crate) fn interface_request(name: &str) -> Option<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.as_bytes().contains(&0) {
        return None;
    }
    // SAFETY: every field of the request, and of its union, is plain data for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    Some(request)
}

/// Reads the flags out of an interface request that the kernel filled with flags.
pub(crate) fn request_flags(request: &libc::ifreq) -> libc::c_short {
    // SAFETY: a union of plain data that was zeroed at construction: any field can be read.
    unsafe { request.ifr_ifru.ifru_flags }
}

/// Release string of the running kernel, such as `6.18.44`.
pub(crate) fn kernel_release() -> String {
    // SAFETY: the structure is an array of characters, for which zero is valid.
    let mut names: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a local that outlives the call.
    unsafe { libc::uname(&raw mut names) };
    names.release.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect()
}

fn owned(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made by the kernel for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(done: c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
