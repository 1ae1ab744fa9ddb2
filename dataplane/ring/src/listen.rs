//! The UDP sockets of one core: one per family on the same port, with every option the driver
//! relies on.
//!
//! A system without IPv6 gets the IPv4 socket only. Errors name the port, say who may hold it and
//! what to do. This file must not know rings.

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::sys;

/// Bytes of kernel buffer asked for per socket and direction: 5 ms of 10 Gbit/s, which is what a
/// core that is busy with a burst of handshakes may be late.
pub const SOCKET_BUFFER_BYTES: usize = 7 << 20;

/// Ports tried when any free port will do but must be free in both families.
const FREE_PORT_TRIES: usize = 32;

/// How often, and after which pause, a busy port is tried again: a ring that was just closed lets
/// go of its sockets some milliseconds later. A quarter of a second in all.
const BUSY_TRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What a sender does about the size of its datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathMtu {
    /// Never set the don't-fragment bit (IPv4): routers on the way may fragment.
    #[default]
    Fragment,
    /// Leave it to the system: the bit is set and the kernel fragments to what it learned.
    Discover,
    /// Set the bit, refuse what is longer than what the kernel learned.
    Refuse,
    /// Set the bit, ignore what the kernel learned (a prober that learns by itself).
    Probe,
}

/// How to open the sockets.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Port of both sockets; 0 for any that is free in both families.
    pub port: u16,
    /// Address of the IPv4 socket, `None` for no such socket.
    pub ipv4: Option<Ipv4Addr>,
    /// Address of the IPv6 socket, `None` for no such socket.
    pub ipv6: Option<Ipv6Addr>,
    /// Several sockets may share the port, one per core (SO_REUSEPORT).
    pub shared: bool,
    /// Mark of every packet sent (SO_MARK), 0 for none.
    pub mark: u32,
    /// What to do about datagrams longer than the path.
    pub path_mtu: PathMtu,
    /// Kernel buffer per direction, in bytes.
    pub buffer_bytes: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            port: 0,
            ipv4: Some(Ipv4Addr::UNSPECIFIED),
            ipv6: Some(Ipv6Addr::UNSPECIFIED),
            shared: false,
            mark: 0,
            path_mtu: PathMtu::default(),
            buffer_bytes: SOCKET_BUFFER_BYTES,
        }
    }
}

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody has the port.
    #[error(
        "UDP port {port} ({family}) is in use; find who has it with `ss -ulpn 'sport = :{port}'`, \
         stop it or choose another port"
    )]
    Busy {
        /// The port.
        port: u16,
        /// IPv4 or IPv6.
        family: &'static str,
    },
    /// Ports below the limit need a privilege.
    #[error(
        "UDP port {port} needs CAP_NET_BIND_SERVICE; grant it, choose a port above \
         net.ipv4.ip_unprivileged_port_start, or run as root"
    )]
    Privileged {
        /// The port.
        port: u16,
    },
    /// The address is not one of this machine's.
    #[error("{address} is not an address of this machine; see `ip address`")]
    NotOurs {
        /// The address.
        address: SocketAddr,
    },
    /// Neither family can be used.
    #[error("Neither IPv4 nor IPv6 can be used for UDP on this machine")]
    NoFamily,
    /// A mark needs a privilege.
    #[error("Setting the mark {mark:#x} needs CAP_NET_ADMIN; grant it or leave the mark out")]
    Mark {
        /// The mark.
        mark: u32,
    },
    /// Anything else.
    #[error("Cannot open the UDP socket: {what}: {source}")]
    Other {
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The sockets of one core. Closed when dropped.
#[derive(Debug)]
pub struct UdpSockets {
    ipv4: Option<OwnedFd>,
    ipv6: Option<OwnedFd>,
    port: u16,
    gro: bool,
}

impl UdpSockets {
    /// Opens and binds the sockets.
    ///
    /// # Errors
    /// [`ListenError`]. A missing IPv6 is no error as long as IPv4 is there.
    pub fn bind(options: &UdpOptions) -> Result<Self, ListenError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::bind_once(options) {
                Err(ListenError::Busy { .. }) if options.port == 0 && tries < FREE_PORT_TRIES => {}
                Err(ListenError::Busy { .. }) if options.port != 0 && tries < BUSY_TRIES => {
                    std::thread::sleep(BUSY_PAUSE);
                }
                result => return result,
            }
        }
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
        let mut sockets = Self { ipv4, ipv6, port, gro: false };
        sockets.gro = sockets.enable_gro();
        if options.mark != 0 {
            sockets.set_mark(options.mark)?;
        }
        Ok(sockets)
    }

    /// Takes sockets that were opened elsewhere (handed over by another process) and sets their
    /// options.
    ///
    /// # Errors
    /// [`ListenError::Other`] if they are not UDP sockets of the right family.
    pub fn adopt(
        ipv4: Option<OwnedFd>,
        ipv6: Option<OwnedFd>,
        options: &UdpOptions,
    ) -> Result<Self, ListenError> {
        let mut port = 0;
        for (family, fd) in [(Family::V4, &ipv4), (Family::V6, &ipv6)] {
            let Some(fd) = fd else { continue };
            family.set_options(fd.as_fd(), options).map_err(|(what, e)| other(what, e))?;
            port = bound_port(fd)?;
        }
        let mut sockets = Self { ipv4, ipv6, port, gro: false };
        sockets.gro = sockets.enable_gro();
        Ok(sockets)
    }

    /// The port of both sockets.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the IPv4 socket is there.
    #[must_use]
    pub const fn has_ipv4(&self) -> bool {
        self.ipv4.is_some()
    }

    /// Whether the IPv6 socket is there.
    #[must_use]
    pub const fn has_ipv6(&self) -> bool {
        self.ipv6.is_some()
    }

    /// Whether datagrams that arrive together are received together (UDP_GRO).
    #[must_use]
    pub const fn has_gro(&self) -> bool {
        self.gro
    }

    /// The sockets' descriptors, IPv4 first, for attaching a steering program or handing them over.
    #[must_use]
    pub fn descriptors(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [self.ipv4.as_ref().map(AsFd::as_fd), self.ipv6.as_ref().map(AsFd::as_fd)]
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

    /// Kernel buffer for received datagrams that was granted, in bytes (the kernel counts its own
    /// overhead too).
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> usize {
        let fd = self.descriptors().into_iter().flatten().next();
        let size = fd.and_then(|fd| sys::option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF).ok());
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
    }

    pub(crate) fn raw(&self) -> [Option<RawFd>; 2] {
        [self.ipv4.as_ref().map(AsRawFd::as_raw_fd), self.ipv6.as_ref().map(AsRawFd::as_raw_fd)]
    }

    fn enable_gro(&self) -> bool {
        let mut fds = self.descriptors().into_iter().flatten();
        fds.all(|fd| sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok())
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
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

    /// Opens one socket; `Ok(None)` if this machine does not have the family.
    fn open(
        self,
        address: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Option<OwnedFd>, ListenError> {
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
        if options.shared {
            sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
                .map_err(|error| other("shared port", error))?;
        }
        match sys::bind(fd.as_fd(), &address) {
            Ok(()) => Ok(Some(fd)),
            Err(error) => match error.raw_os_error() {
                Some(libc::EADDRINUSE) => {
                    Err(ListenError::Busy { port: address.port(), family: self.name() })
                }
                Some(libc::EACCES) => Err(ListenError::Privileged { port: address.port() }),
                Some(libc::EADDRNOTAVAIL) if address.ip().is_unspecified() => Ok(None),
                Some(libc::EADDRNOTAVAIL) => Err(ListenError::NotOurs { address }),
                _ => Err(other("bind", error)),
            },
        }
    }

    fn set_options(
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

fn bound_port(fd: &OwnedFd) -> Result<u16, ListenError> {
    sys::bound_address(fd.as_fd()).map(|a| a.port()).map_err(|e| other("bound address", e))
}

const fn other(what: &'static str, source: io::Error) -> ListenError {
    ListenError::Other { what, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_families_get_the_same_free_port() {
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        assert!(sockets.has_ipv4());
        let ports: Vec<u16> = sockets
            .descriptors()
            .into_iter()
            .flatten()
            .map(|fd| sys::bound_address(fd).unwrap().port())
            .collect();
        assert!(ports.iter().all(|port| *port == sockets.port()), "{ports:?}");
        assert_ne!(sockets.port(), 0);
    }

    #[test]
    fn bound_sockets_can_be_taken_over() {
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        let [ipv4, ipv6] =
            sockets.descriptors().map(|fd| fd.map(|fd| fd.try_clone_to_owned().unwrap()));
        let second = UdpSockets::adopt(ipv4, ipv6, &UdpOptions::default()).unwrap();
        assert_eq!(second.port(), sockets.port());
        assert_eq!(second.has_ipv6(), sockets.has_ipv6());
    }

    #[test]
    fn a_busy_port_is_named_with_the_command_that_finds_its_holder() {
        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let options = UdpOptions { port, ipv6: None, ..Default::default() };
        let error = UdpSockets::bind(&options).unwrap_err().to_string();
        assert!(error.contains(&format!("UDP port {port} (IPv4) is in use")), "{error}");
        assert!(error.contains(&format!("ss -ulpn 'sport = :{port}'")), "{error}");
    }

    #[test]
    fn a_port_that_is_free_in_one_family_only_is_not_taken() {
        // The second bind of the pair must fail and the error must name the family that is busy.
        let options = UdpOptions { ipv4: None, ..Default::default() };
        let Ok(holder) = UdpSockets::bind(&options) else { return };
        let both = UdpOptions { port: holder.port(), ..Default::default() };
        let error = UdpSockets::bind(&both).unwrap_err();
        assert!(matches!(error, ListenError::Busy { family: "IPv6", .. }), "{error}");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let address = Ipv4Addr::new(192, 0, 2, 77);
        let options = UdpOptions { ipv4: Some(address), ipv6: None, ..Default::default() };
        let error = UdpSockets::bind(&options).unwrap_err();
        assert!(error.to_string().contains("192.0.2.77"), "{error}");
    }

    #[test]
    fn shared_ports_can_be_bound_twice() {
        let mut options = UdpOptions { shared: true, ..Default::default() };
        let first = UdpSockets::bind(&options).unwrap();
        options.port = first.port();
        assert_eq!(UdpSockets::bind(&options).unwrap().port(), first.port());
    }

    #[test]
    fn the_options_the_driver_relies_on_are_set() {
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        let [ipv4, ipv6] = sockets.descriptors();
        let ipv4 = ipv4.unwrap();
        let get = |fd, level, name| sys::option(fd, level, name).unwrap();
        assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DONT);
        assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_PKTINFO), 1);
        assert_eq!(get(ipv4, libc::IPPROTO_IP, libc::IP_RECVTOS), 1);
        assert_eq!(get(ipv4, libc::SOL_UDP, libc::UDP_GRO), 1);
        if let Some(ipv6) = ipv6 {
            assert_eq!(get(ipv6, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), 1);
            assert_eq!(get(ipv6, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1);
        }
        assert!(sockets.receive_buffer_bytes() > 0);
    }

    #[test]
    fn privileged_the_mark_can_be_changed_at_run_time() {
        let options = UdpOptions { mark: 7, ..Default::default() };
        let sockets = UdpSockets::bind(&options).unwrap();
        let mark = |fd| sys::option(fd, libc::SOL_SOCKET, libc::SO_MARK).unwrap();
        assert!(sockets.descriptors().into_iter().flatten().all(|fd| mark(fd) == 7));
        sockets.set_mark(0x9000_0001).unwrap();
        assert!(
            sockets.descriptors().into_iter().flatten().all(|fd| mark(fd) as u32 == 0x9000_0001)
        );
    }
}
