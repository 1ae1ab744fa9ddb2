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
        let domain = match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        };
        let fd = match sys::udp_socket(domain) {
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

    pub(super) fn set_options(
        self,
        fd: BorrowedFd<'_>,
        options: &UdpOptions,
    ) -> Result<(), (&'static str, io::Error)> {
        let set = |what, level, name, value| {
            sys::set_option(fd, level, name, value).map_err(|error| (what, error))
        };
        match self {
            Self::V4 => {
                let level = libc::IPPROTO_IP;
                set("packet info", level, libc::IP_PKTINFO, 1)?;
                set("congestion bits", level, libc::IP_RECVTOS, 1)?;
                let discover = match options.path_mtu {
                    PathMtu::Fragment => libc::IP_PMTUDISC_DONT,
                    PathMtu::Discover => libc::IP_PMTUDISC_WANT,
                    PathMtu::Refuse => libc::IP_PMTUDISC_DO,
                    PathMtu::Probe => libc::IP_PMTUDISC_PROBE,
                };
                set("path MTU", level, libc::IP_MTU_DISCOVER, discover)?;
            }
            Self::V6 => {
                let level = libc::IPPROTO_IPV6;
                // Cannot be changed any more once the socket is bound.
                if sys::option(fd, level, libc::IPV6_V6ONLY).ok() != Some(1) {
                    set("IPv6 only", level, libc::IPV6_V6ONLY, 1)?;
                }
                set("packet info", level, libc::IPV6_RECVPKTINFO, 1)?;
                set("congestion bits", level, libc::IPV6_RECVTCLASS, 1)?;
                // There is no don't-fragment bit; the sender fragments, to what it learned.
                let discover = match options.path_mtu {
                    PathMtu::Fragment | PathMtu::Discover => libc::IPV6_PMTUDISC_WANT,
                    PathMtu::Refuse => libc::IPV6_PMTUDISC_DO,
                    PathMtu::Probe => libc::IPV6_PMTUDISC_PROBE,
                };
                set("path MTU", level, libc::IPV6_MTU_DISCOVER, discover)?;
            }
        }
        set("count of drops", libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        let bytes = c_int::try_from(options.buffer_bytes).unwrap_or(c_int::MAX);
        for (forced, asked) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Forced needs CAP_NET_ADMIN; without it the system's limit (net.core.rmem_max)
            // applies.
            if sys::set_option(fd, libc::SOL_SOCKET, forced, bytes).is_err() {
                set("buffer size", libc::SOL_SOCKET, asked, bytes)?;
            }
        }
        Ok(())
    }
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
