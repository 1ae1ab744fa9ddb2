//! Addresses, MTU and state of the gateway's interface, through netlink and without a child
//! process.

use std::fs;

use futures_util::StreamExt as _;
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::{Error, Handle, LinkUnspec};

use crate::config::InterfaceAddress;
use crate::failure::{Failure, Status};

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
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| {
        let message = format!("Cannot talk to the kernel about interfaces ({error})");
        Failure::new(Status::Unsupported, message)
    })?;
    let driver = tokio::spawn(connection);
    let configured = configure_by(&handle, name, mtu, addresses).await;
    driver.abort();
    configured
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
        libc::EPERM | libc::EACCES => (
            Status::Unsupported,
            "the capability CAP_NET_ADMIN is missing: run as root or by the systemd unit"
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
