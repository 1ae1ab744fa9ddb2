//! The UDP port: sockets of every core, with every option the driver relies on.
//!
//! Each core has a bank for data (one socket per family, on the same port) and may have a second,
//! bounded one for initiations, which is only received from. Reading order: [`UdpOptions`], `group`
//! (all cores' sockets), `sockets` (what one core has), `family` (how one socket is opened).
//!
//! A system without IPv6 gets the IPv4 sockets only. Errors name the port, say who may hold it and
//! what to do. This module must not know rings.

mod family;
mod group;
mod sockets;

pub(crate) use family::Family;
pub use group::UdpGroup;
pub use sockets::UdpSockets;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Bytes of kernel buffer asked for per socket and direction, of which the kernel grants twice as
/// many and spends about half on its own account: 13 ms of 10 Gbit/s. A core may be late by some
/// milliseconds (a burst of handshakes, another task, a virtual machine that stands still), and
/// what finds the buffer full is lost for everybody. It is no longer queue in ordinary times: an
/// overloaded core takes it in and throws away what is beyond a share.
pub const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// Bytes of kernel buffer of a socket for initiations. The kernel takes twice this and counts about
/// 800 bytes for a short datagram, so some 10,400 wait at most: all of ten thousand clients that
/// come at once, and under a flood what a core turns away in a thirtieth of a second. What finds it
/// full is dropped there, before it costs the core anything.
pub const INITIATIONS_BUFFER_BYTES: usize = 4 << 20;

/// Ports tried when any free port will do but must be free in both families.
const FREE_PORT_TRIES: usize = 32;

/// How often, and after which pause, a busy port is tried again: a ring that was just closed lets
/// go of its sockets some milliseconds later. A quarter of a second in all.
const BUSY_TRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What a sender does about the size of its datagrams.
///
/// Whatever it is, the sockets do not ask for errors of the network (IP_RECVERR stays off): such an
/// error ends receives and sends of the whole socket, and whoever can forge an ICMP message could
/// cause it. What the kernel learns of paths it learns without that; a sender that is refused
/// counts it ([`Refused::too_long`](crate::stats::Refused)).
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
    /// Others may bind the port too (SO_REUSEPORT). A [`UdpGroup`] does not need it: its sockets
    /// share the port with each other and with nobody else.
    pub shared: bool,
    /// Mark of every packet sent (SO_MARK), 0 for none.
    pub mark: u32,
    /// What to do about datagrams longer than the path.
    pub path_mtu: PathMtu,
    /// Kernel buffer per direction, in bytes.
    pub buffer_bytes: usize,
    /// Receive datagrams together that arrive together (UDP_GRO), where the kernel can.
    pub gro: bool,
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
            gro: true,
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

/// Opens by `once`, again for a while if the port is busy: on other ports if any will do.
fn patiently<T>(
    port: u16,
    mut once: impl FnMut() -> Result<T, ListenError>,
) -> Result<T, ListenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once() {
            Err(ListenError::Busy { .. }) if port == 0 && tries < FREE_PORT_TRIES => {}
            Err(ListenError::Busy { .. }) if port != 0 && tries < BUSY_TRIES => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

const fn other(what: &'static str, source: io::Error) -> ListenError {
    ListenError::Other { what, source }
}

#[cfg(test)]
mod tests;
