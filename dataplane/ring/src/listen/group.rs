//! The sockets of all cores on one port: opened together, in an order that steering relies on.
//!
//! The position of a socket in its group is the order of binding, and closing one moves the last
//! into its place: so a group is opened as a whole and never closed singly at run time. While it is
//! being opened its sockets take nothing, so that no datagram ends where it does not belong. The
//! first is bound alone, which fails if anybody else has the port; only then is it shared.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::family::{Family, bound_port, share};
use super::{INITIATIONS_BUFFER_BYTES, ListenError, UdpOptions, UdpSockets, other, patiently};
use crate::steer::{self, Steering};
use crate::sys;

/// The sockets of all cores on one port.
#[derive(Debug)]
pub struct UdpGroup {
    /// Sockets of each core, in order.
    pub sockets: Vec<UdpSockets>,
    /// Whether datagrams come to the core that owns them, and initiations to a bank of their own.
    /// Otherwise the kernel spreads datagrams by a hash of their addresses.
    pub steered: bool,
    /// Why the kernel refused to steer, if it was asked to and did.
    pub refusal: Option<io::Error>,
}

impl UdpGroup {
    /// Opens the sockets of `cores` cores, with two banks if there is a `steering`. Where the
    /// kernel refuses it, there are sockets all the same, of one bank.
    ///
    /// # Errors
    /// [`ListenError`]. A missing IPv6 is no error as long as IPv4 is there.
    ///
    /// # Panics
    /// If there are no cores, or not those of the steering, or it breaks its own rules.
    pub fn open(
        options: &UdpOptions,
        cores: u16,
        steering: Option<&Steering>,
    ) -> Result<Self, ListenError> {
        assert!(cores > 0);
        assert!(steering.is_none_or(|steering| steering.owner.cores == cores));
        patiently(options.port, || Self::open_once(options, cores, steering))
    }

    fn open_once(
        options: &UdpOptions,
        cores: u16,
        steering: Option<&Steering>,
    ) -> Result<Self, ListenError> {
        let mut port = options.port;
        let mut open = |family, address: Option<std::net::IpAddr>| {
            let Some(address) = address else { return Ok(None) };
            let members =
                Members::open(family, SocketAddr::from((address, port)), options, cores, steering)?;
            port = members.as_ref().map_or(port, |members| members.port);
            Ok(members)
        };
        let mut ipv6 = open(Family::V6, options.ipv6.map(Into::into))?;
        let mut ipv4 = open(Family::V4, options.ipv4.map(Into::into))?;
        let mut families = [ipv4.as_mut(), ipv6.as_mut()].into_iter().flatten().peekable();
        if families.peek().is_none() {
            return Err(ListenError::NoFamily);
        }
        let refusal = families.filter_map(|members| members.refusal.take()).next();
        for members in [&ipv4, &ipv6].into_iter().flatten() {
            members.take_part()?;
        }
        let [mut ipv4, mut ipv6] = [ipv4, ipv6].map(Members::by_core);
        let sockets = (0..cores).map(|_| {
            let ([v4, more_v4], [v6, more_v6]) = (ipv4(), ipv6());
            let sockets = UdpSockets::made([v4, v6], [more_v4, more_v6], port, options.gro);
            if options.mark != 0 {
                sockets.set_mark(options.mark)?;
            }
            Ok(sockets)
        });
        let sockets = sockets.collect::<Result<_, ListenError>>()?;
        Ok(Self { sockets, steered: steering.is_some() && refusal.is_none(), refusal })
    }
}

/// The group of one family: both banks in order of binding.
struct Members {
    data: Vec<OwnedFd>,
    initiations: Vec<OwnedFd>,
    port: u16,
    refusal: Option<io::Error>,
}

impl Members {
    /// Binds the sockets in order; they take nothing yet. `Ok(None)` if this machine does not have
    /// the family.
    fn open(
        family: Family,
        address: SocketAddr,
        options: &UdpOptions,
        cores: u16,
        steering: Option<&Steering>,
    ) -> Result<Option<Self>, ListenError> {
        let Some(first) = member(family, address, options, None)? else { return Ok(None) };
        let port = bound_port(&first)?;
        let address = SocketAddr::new(address.ip(), port);
        let mut bound = vec![first];
        let mut refusal = None;
        let mut wanted = usize::from(cores) * if steering.is_some() { 2 } else { 1 };
        let bounded = UdpOptions { buffer_bytes: INITIATIONS_BUFFER_BYTES, ..options.clone() };
        while bound.len() < wanted {
            let options = if bound.len() < usize::from(cores) { options } else { &bounded };
            let Some(next) = member(family, address, options, Some(&bound[0]))? else {
                return Err(other("socket", io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)));
            };
            bound.push(next);
            // The group exists as soon as there are two.
            if let (2, Some(steering)) = (bound.len(), steering) {
                let program = steer::program(steering, family);
                let name = libc::SO_ATTACH_REUSEPORT_CBPF;
                refusal = sys::attach_program(bound[0].as_fd(), name, &program).err();
                if refusal.is_some() {
                    wanted = cores.into();
                    bound.truncate(wanted);
                }
            }
        }
        let initiations = bound.split_off(cores.into());
        Ok(Some(Self { data: bound, initiations, port, refusal }))
    }

    /// Lets the sockets take what arrives.
    fn take_part(&self) -> Result<(), ListenError> {
        for fd in self.data.iter().chain(&self.initiations) {
            let opened = sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
            match opened {
                // It was never closed.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                opened => opened.map_err(|error| other("opening", error))?,
            }
        }
        Ok(())
    }

    /// Gives away data and initiations of one core after the other.
    fn by_core(members: Option<Self>) -> impl FnMut() -> [Option<OwnedFd>; 2] {
        let (data, initiations) =
            members.map_or_else(Default::default, |members| (members.data, members.initiations));
        let (mut data, mut initiations) = (data.into_iter(), initiations.into_iter());
        move || [data.next(), initiations.next()]
    }
}

/// A bound socket that takes nothing yet: the `first` of its group, or another. The first shares
/// the port only once it has it.
fn member(
    family: Family,
    address: SocketAddr,
    options: &UdpOptions,
    first: Option<&OwnedFd>,
) -> Result<Option<OwnedFd>, ListenError> {
    let Some(fd) = family.socket(options)? else { return Ok(None) };
    // Where this is refused, some datagrams of the first moment need handing over.
    let _refusal = sys::attach_program(fd.as_fd(), libc::SO_ATTACH_FILTER, &steer::NOTHING);
    if let Some(first) = first {
        share(first.as_fd())?;
        share(fd.as_fd())?;
    }
    Ok(family.bind(&fd, address)?.then_some(fd))
}
