//! What one core receives from and sends through.

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::family::{Family, bound_port};
use super::{INITIATIONS_BUFFER_BYTES, ListenError, UdpOptions, other, patiently};
use crate::sys;

/// Sockets of one bank of one core, IPv4 first; either may be missing.
pub(super) type Bank = [Option<OwnedFd>; 2];

/// The sockets of one core. Closed when dropped.
#[derive(Debug)]
pub struct UdpSockets {
    data: Bank,
    initiations: Bank,
    port: u16,
    gro: bool,
    /// What each socket dropped before these were made, in the order of `raw`.
    dropped_before: [u32; 4],
}

impl UdpSockets {
    /// Opens and binds the data bank alone: what arrives comes to it, whatever it is.
    ///
    /// # Errors
    /// [`ListenError`]. A missing IPv6 is no error as long as IPv4 is there.
    pub fn bind(options: &UdpOptions) -> Result<Self, ListenError> {
        patiently(options.port, || Self::bind_once(options))
    }

    fn bind_once(options: &UdpOptions) -> Result<Self, ListenError> {
        let mut port = options.port;
        let ipv6 = match options.ipv6 {
            Some(address) => Family::V6.open(SocketAddr::from((address, port)), options)?,
            None => None,
        };
        if let Some(fd) = &ipv6 {
            port = bound_port(fd)?;
        }
        let ipv4 = match options.ipv4 {
            Some(address) => Family::V4.open(SocketAddr::from((address, port)), options)?,
            None => None,
        };
        if let Some(fd) = &ipv4 {
            port = bound_port(fd)?;
        }
        if ipv4.is_none() && ipv6.is_none() {
            return Err(ListenError::NoFamily);
        }
        let sockets = Self::made([ipv4, ipv6], [None, None], port, options.gro);
        if options.mark != 0 {
            sockets.set_mark(options.mark)?;
        }
        Ok(sockets)
    }

    /// Takes sockets that were opened elsewhere (handed over by another process, which may go on
    /// with them) and gives them only what they lack. Both banks are IPv4 first, as
    /// [`UdpSockets::descriptors`] and [`UdpSockets::initiations`] give them; without a second
    /// bank, pass `[None, None]`.
    ///
    /// # Errors
    /// [`ListenError::Other`] if they are not UDP sockets of the right family.
    pub fn adopt(
        data: [Option<OwnedFd>; 2],
        initiations: [Option<OwnedFd>; 2],
        options: &UdpOptions,
    ) -> Result<Self, ListenError> {
        let bounded = UdpOptions { buffer_bytes: INITIATIONS_BUFFER_BYTES, ..options.clone() };
        let mut port = 0;
        for (bank, options) in [(&data, options), (&initiations, &bounded)] {
            for (family, fd) in [Family::V4, Family::V6].into_iter().zip(bank) {
                let Some(fd) = fd else { continue };
                family.complete(fd.as_fd(), options).map_err(|(what, e)| other(what, e))?;
                port = bound_port(fd)?;
            }
        }
        Ok(Self::made(data, initiations, port, options.gro))
    }

    pub(super) fn made(data: Bank, initiations: Bank, port: u16, gro: bool) -> Self {
        let mut sockets = Self { data, initiations, port, gro: false, dropped_before: [0; 4] };
        sockets.gro = sockets.set_gro(gro) && gro;
        let [[ipv4, ipv6], [more_ipv4, more_ipv6]] = [sockets.descriptors(), sockets.initiations()];
        sockets.dropped_before = [ipv4, ipv6, more_ipv4, more_ipv6]
            .map(|fd| fd.and_then(|fd| sys::dropped(fd).ok()).unwrap_or(0));
        sockets
    }

    /// Second descriptors of the same sockets.
    ///
    /// # Errors
    /// If the process has too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let second = |bank: &Bank| -> io::Result<Bank> {
            let [ipv4, ipv6] = bank;
            let fd = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
            Ok([fd(ipv4)?, fd(ipv6)?])
        };
        Ok(Self {
            data: second(&self.data)?,
            initiations: second(&self.initiations)?,
            port: self.port,
            gro: self.gro,
            dropped_before: self.dropped_before,
        })
    }

    /// The port of all sockets.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the IPv4 socket is there.
    #[must_use]
    pub const fn has_ipv4(&self) -> bool {
        self.data[0].is_some()
    }

    /// Whether the IPv6 socket is there.
    #[must_use]
    pub const fn has_ipv6(&self) -> bool {
        self.data[1].is_some()
    }

    /// Whether there is a bank of its own for initiations.
    #[must_use]
    pub const fn has_initiations(&self) -> bool {
        self.initiations[0].is_some() || self.initiations[1].is_some()
    }

    /// Whether datagrams that arrive together are received together (UDP_GRO).
    #[must_use]
    pub const fn has_gro(&self) -> bool {
        self.gro
    }

    /// Descriptors of the data bank, IPv4 first, for sending, receiving and handing over.
    #[must_use]
    pub fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        borrowed(&self.data)
    }

    /// Descriptors of the bank of initiations, IPv4 first, for receiving and handing over. Nothing
    /// is sent through them.
    #[must_use]
    pub fn initiations(&self) -> [Option<BorrowedFd<'_>>; 2] {
        borrowed(&self.initiations)
    }

    /// Changes the mark of everything sent from now on.
    ///
    /// # Errors
    /// [`ListenError::Mark`] without CAP_NET_ADMIN.
    pub fn set_mark(&self, mark: u32) -> Result<(), ListenError> {
        for fd in self.descriptors().into_iter().flatten() {
            sys::set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, mark as c_int).map_err(
                |error| match error.raw_os_error() {
                    Some(libc::EPERM) => ListenError::Mark { mark },
                    _ => other("mark", error),
                },
            )?;
        }
        Ok(())
    }

    /// Kernel buffer for received data that was granted, in bytes (the kernel counts its own
    /// overhead too).
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> usize {
        let fd = self.descriptors().into_iter().flatten().next();
        let size = fd.and_then(|fd| sys::option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).ok());
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
    }

    /// All descriptors: data of IPv4 and IPv6, initiations of IPv4 and IPv6.
    pub(crate) fn raw(&self) -> [Option<RawFd>; 4] {
        let ([ipv4, ipv6], [more_ipv4, more_ipv6]) = (raw(&self.data), raw(&self.initiations));
        [ipv4, ipv6, more_ipv4, more_ipv6]
    }

    /// Datagrams that each socket had dropped before, in the same order.
    pub(crate) const fn dropped_before(&self) -> [u32; 4] {
        self.dropped_before
    }

    /// Switches UDP_GRO on or off: it is the socket's, whichever process has it. Returns whether
    /// the kernel did as it was told.
    pub fn set_gro(&self, on: bool) -> bool {
        let fds = self.descriptors().into_iter().chain(self.initiations()).flatten();
        // Each, also after one that refused.
        let set = |fd| sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, on.into()).is_ok();
        fds.filter(|fd| !set(*fd)).count() == 0
    }
}

fn borrowed(bank: &Bank) -> [Option<BorrowedFd<'_>>; 2] {
    bank.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd))
}

fn raw(bank: &Bank) -> [Option<RawFd>; 2] {
    bank.each_ref().map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd))
}
