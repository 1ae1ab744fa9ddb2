//! Addresses, MTU and state of the gateway's interface, and the networks it must not take over:
//! through netlink, without a child process.

use std::collections::HashMap;
use std::fmt;
use std::fs;

use futures_util::StreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkAttribute;
use ringway_proto::allowed_ips::IpNet;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::{Error, Handle, LinkUnspec};

use crate::config::InterfaceAddress;
use crate::failure::{Failure, Status};

/// Whether there is an interface of this name in our namespace.
#[must_use]
pub fn exists(name: &str) -> bool {
    let any = std::net::UdpSocket::bind("0.0.0.0:0");
    any.is_ok_and(|any| rustix::net::netdevice::name_to_index(&any, name).is_ok())
}

/// Gives the interface its MTU and addresses and takes it up. The pools are then routed to it by
/// its addresses. Must run on a tokio runtime with I/O.
///
/// Nothing has to be undone: it all goes with the interface.
///
/// # Errors
/// No permission, an address that the host has already, or what the kernel says.
pub async fn configure(
    name: &str,
    mtu: u16,
    addresses: &[InterfaceAddress],
) -> Result<(), Failure> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| silent(&error))?;
    let driver = tokio::spawn(connection);
    let configured = configure_by(&handle, name, mtu, addresses).await;
    driver.abort();
    configured
}

/// A network of the host that a pool overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The pool.
    pub pool: IpNet,
    /// The network.
    pub net: IpNet,
    /// The interface that is in that network; empty if its name is not known.
    pub interface: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, net, interface } = self;
        write!(f, "the pool {pool} overlaps the network {net} of the interface {interface}")
    }
}

/// Networks that this host is in already and that a pool would take over: traffic for them would go
/// to the clients. `own` is the gateway's interface. Must run on a tokio runtime with I/O.
///
/// # Errors
/// What the kernel says.
pub async fn conflicts(own: &str, pools: &[IpNet]) -> Result<Vec<Conflict>, Failure> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| silent(&error))?;
    let driver = tokio::spawn(connection);
    let found = conflicts_by(&handle, own, pools).await;
    driver.abort();
    found
}

async fn conflicts_by(
    handle: &Handle,
    own: &str,
    pools: &[IpNet],
) -> Result<Vec<Conflict>, Failure> {
    let mut found = Vec::new();
    let mut links = Box::pin(handle.link().get().execute());
    let mut names = HashMap::new();
    while let Some(link) = links.next().await {
        let link = link.map_err(|error| silent(&error))?;
        let name = link.attributes.iter().find_map(|attribute| {
            let LinkAttribute::IfName(name) = attribute else { return None };
            Some(name.clone())
        });
        names.insert(link.header.index, name.unwrap_or_default());
    }
    let mut addresses = Box::pin(handle.address().get().execute());
    while let Some(message) = addresses.next().await {
        let message = message.map_err(|error| silent(&error))?;
        let interface = names.get(&message.header.index).cloned().unwrap_or_default();
        let Some(net) = network(&message).filter(|_| interface != own) else { continue };
        let overlapping = pools
            .iter()
            .filter(|pool| pool.contains(net.address()) || net.contains(pool.address()));
        let conflict = |pool: &IpNet| Conflict { pool: *pool, net, interface: interface.clone() };
        found.extend(overlapping.map(conflict));
    }
    Ok(found)
}

/// The network that an address makes its interface part of. On a link to one neighbour that is the
/// neighbour's, which netlink calls the address, and the own one is called local.
fn network(message: &AddressMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Address(address) = attribute else { return None };
        Some(*address)
    })?;
    IpNet::new(address, message.header.prefix_len)
}

fn silent(error: &dyn fmt::Display) -> Failure {
    let message = format!("Cannot talk to the kernel about interfaces ({error})");
    Failure::new(Status::Unsupported, message)
}

async fn configure_by(
    handle: &Handle,
    name: &str,
    mtu: u16,
    addresses: &[InterfaceAddress],
) -> Result<(), Failure> {
    let mut links = Box::pin(handle.link().get().match_name(name).execute());
    let link = links.next().await.unwrap_or(Err(Error::RequestFailed));
    let index = link.map_err(|error| refused(name, "be found", &error))?.header.index;
    // A tunnel has no neighbours, so the link-local address that the kernel would add is only
    // noise. A kernel without IPv6 has no such switch.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
    let set_mtu = LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).build();
    let done = handle.link().set(set_mtu).execute().await;
    done.map_err(|error| refused(name, &format!("take MTU {mtu}"), &error))?;
    for own in addresses {
        let done = handle.address().add(index, own.address, own.prefix).execute().await;
        done.map_err(|error| refused(name, &format!("take the address {own}"), &error))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let done = handle.link().set(up).execute().await;
    done.map_err(|error| refused(name, "go up", &error))
}

fn refused(name: &str, what: &str, error: &Error) -> Failure {
    let code = match error {
        Error::NetlinkError(ErrorMessage { code: Some(code), .. }) => -code.get(),
        Error::NetlinkError(_)
        | Error::UnexpectedMessage(_)
        | Error::RequestFailed
        | Error::NamespaceError(_)
        | Error::InvalidHardwareAddress(_)
        | Error::InvalidIp(_)
        | Error::InvalidAddress(..)
        | Error::InvalidNla(_) => 0,
    };
    let (status, hint) = match code {
        libc::EPERM => (
            Status::Unsupported,
            "the capability CAP_NET_ADMIN is missing: run as root or by the systemd unit"
                .to_owned(),
        ),
        // What IPv6 answers where it is switched off.
        libc::EACCES => (
            Status::Config,
            "IPv6 is switched off on this host: leave its pool out of pools in [interface], or \
             sysctl -w net.ipv6.conf.default.disable_ipv6=0"
                .to_owned(),
        ),
        libc::EEXIST => (
            Status::Config,
            "it has that address already: choose other pools or addresses in [interface]"
                .to_owned(),
        ),
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => (
            Status::Unsupported,
            "the kernel has that protocol switched off: leave its pool out of [interface]"
                .to_owned(),
        ),
        0 => (Status::Unsupported, error.to_string()),
        code => (Status::Unsupported, std::io::Error::from_raw_os_error(code).to_string()),
    };
    Failure::new(status, format!("The interface {name} cannot {what}: {hint}"))
}
