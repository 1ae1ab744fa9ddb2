//! One UDP socket of one family: opened, given its options, bound.

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{ListenError, PathMtu, UdpOptions, other};
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Opens and binds one socket; `Ok(None)` if this machine does not have the family.
    pub(super) fn open(
        self,
        address: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Option<OwnedFd>, ListenError> {
        let Some(fd) = self.socket(options)? else { return Ok(None) };
        if options.shared {
            share(fd.as_fd())?;
        }
        Ok(self.bind(&fd, address)?.then_some(fd))
    }

    /// Makes one socket with its options; `Ok(None)` if this machine does not have the family.
    pub(super) fn socket(self, options: &UdpOptions) -> Result<Option<OwnedFd>, ListenError> {
        let fd = match sys::udp_socket(self.domain()) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            Err(error) => return Err(other("socket", error)),
        };
        self.set_options(fd.as_fd(), options).map_err(|(what, e)| other(what, e))?;
        Ok(Some(fd))
    }

    /// Binds a socket; `Ok(false)` if this machine has no address of the family.
    pub(super) fn bind(self, fd: &OwnedFd, address: SocketAddr) -> Result<bool, ListenError> {
        match sys::bind(fd.as_fd(), &address) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EADDRINUSE) => {
                    Err(ListenError::Busy { port: address.port(), family: self.name() })
                }
                Some(libc::EACCES) => Err(ListenError::Privileged { port: address.port() }),
                Some(libc::EADDRNOTAVAIL) if address.ip().is_unspecified() => Ok(false),
                Some(libc::EADDRNOTAVAIL) => Err(ListenError::NotOurs { address }),
                _ => Err(other("bind", error)),
            },
        }
    }

    /// Gives a new socket its options.
    fn set_options(
        self,
        fd: BorrowedFd<'_>,
        options: &UdpOptions,
    ) -> Result<(), (&'static str, io::Error)> {
        // Cannot be changed any more once the socket is bound.
        if self == Self::V6 {
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)
                .map_err(|error| ("IPv6 only", error))?;
        }
        for (what, level, name, value) in self.options(options) {
            sys::set_option(fd, level, name, value).map_err(|error| (what, error))?;
        }
        for Buffer { forced, asked } in BUFFERS {
            // Forced needs CAP_NET_ADMIN; without it the system's limit (net.core.rmem_max)
            // applies.
            let bytes = buffer_bytes(options);
            if sys::set_option(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
                sys::set_option(fd, libc::SOL_SOCKET, asked, bytes)
                    .map_err(|error| ("buffer size", error))?;
            }
        }
        Ok(())
    }

    /// Gives a socket that another process made, and may go on with, what it lacks. What is as it
    /// should be is not touched, and nothing gets smaller.
    pub(super) fn complete(
        self,
        fd: BorrowedFd<'_>,
        options: &UdpOptions,
    ) -> Result<(), (&'static str, io::Error)> {
        let is = |name| sys::option(fd, libc::SOL_SOCKET, name).map_err(|error| ("kind", error));
        if (is(libc::SO_DOMAIN)?, is(libc::SO_PROTOCOL)?) != (self.domain(), libc::IPPROTO_UDP) {
            return Err(("kind", io::Error::from_raw_os_error(libc::EPROTOTYPE)));
        }
        for (what, level, name, value) in self.options(options) {
            if sys::option(fd, level, name).ok() != Some(value) {
                sys::set_option(fd, level, name, value).map_err(|error| (what, error))?;
            }
        }
        for Buffer { forced, asked } in BUFFERS {
            let (bytes, has) = (buffer_bytes(options), sys::option(fd, libc::SOL_SOCKET, asked));
            // The kernel says twice what it was asked for.
            if has.is_ok_and(|has| has / 2 < bytes) {
                // Without CAP_NET_ADMIN it stays as it is: asking could make it smaller.
                let _ = sys::set_option(fd, libc::SOL_SOCKET, forced, bytes);
            }
        }
        Ok(())
    }

    const fn domain(self) -> c_int {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }
    }

    /// What every socket is asked for: what it is, level, name and value.
    const fn options(self, options: &UdpOptions) -> [(&'static str, c_int, c_int, c_int); 4] {
        let drops = ("count of drops", libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        match self {
            Self::V4 => {
                let level = libc::IPPROTO_IP;
                let discover = match options.path_mtu {
                    PathMtu::Fragment => libc::IP_PMTUDISC_DONT,
                    PathMtu::Discover => libc::IP_PMTUDISC_WANT,
                    PathMtu::Refuse => libc::IP_PMTUDISC_DO,
                    PathMtu::Probe => libc::IP_PMTUDISC_PROBE,
                };
                [
                    ("packet info", level, libc::IP_PKTINFO, 1),
                    ("congestion bits", level, libc::IP_RECVTOS, 1),
                    ("path MTU", level, libc::IP_MTU_DISCOVER, discover),
                    drops,
                ]
            }
            Self::V6 => {
                let level = libc::IPPROTO_IPV6;
                // There is no don't-fragment bit; the sender fragments, to what it learned.
                let discover = match options.path_mtu {
                    PathMtu::Fragment | PathMtu::Discover => libc::IPV6_PMTUDISC_WANT,
                    PathMtu::Refuse => libc::IPV6_PMTUDISC_DO,
                    PathMtu::Probe => libc::IPV6_PMTUDISC_PROBE,
                };
                [
                    ("packet info", level, libc::IPV6_RECVPKTINFO, 1),
                    ("congestion bits", level, libc::IPV6_RECVTCLASS, 1),
                    ("path MTU", level, libc::IPV6_MTU_DISCOVER, discover),
                    drops,
                ]
            }
        }
    }
}

/// The two options that set the size of a buffer.
struct Buffer {
    forced: c_int,
    asked: c_int,
}

const BUFFERS: [Buffer; 2] = [
    Buffer { forced: libc::SO_RCVBUFFORCE, asked: libc::SO_RCVBUF },
    Buffer { forced: libc::SO_SNDBUFFORCE, asked: libc::SO_SNDBUF },
];

fn buffer_bytes(options: &UdpOptions) -> c_int {
    c_int::try_from(options.buffer_bytes).unwrap_or(c_int::MAX)
}

/// Lets other sockets of this user that do the same bind the port too.
pub(super) fn share(fd: BorrowedFd<'_>) -> Result<(), ListenError> {
    sys::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
        .map_err(|error| other("shared port", error))
}

/// The port a socket is bound to.
pub(super) fn bound_port(fd: &OwnedFd) -> Result<u16, ListenError> {
    sys::bound_address(fd.as_fd()).map(|a| a.port()).map_err(|e| other("bound address", e))
}
