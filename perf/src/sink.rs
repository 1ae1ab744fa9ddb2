//! Counting datagrams that arrived, without reading them.
//!
//! A socket that nobody reads fills up and then drops: the kernel's drop counter of that socket
//! counts every datagram delivered, and no receiver competes with the sender for the processor.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, RcvBufForce},
};

use crate::netns::Netns;

/// A bound socket that is never read, in the namespace it was made in.
#[derive(Debug)]
pub struct Sink<'a> {
    netns: &'a Netns,
    _socket: UdpSocket,
    local: SocketAddr,
}

impl<'a> Sink<'a> {
    /// Binds `local` inside `netns` with the smallest receive buffer the kernel grants.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn bind(netns: &'a Netns, local: SocketAddr) -> Result<Self> {
        let socket = netns
            .inside(|| UdpSocket::bind(local))?
            .with_context(|| format!("Binding the sink to {local}"))?;
        setsockopt(&socket, RcvBuf, &0).context("Shrinking the sink's buffer")?;
        Ok(Self { netns, local: socket.local_addr()?, _socket: socket })
    }

    /// Where it is bound.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that arrived so far, the few that still fill the buffer excepted.
    ///
    /// # Errors
    /// When the kernel does not list the socket.
    pub fn arrived(&self) -> Result<u64> {
        drops_of_port(self.netns, self.local.port())
    }
}

/// A socket bound to `local` inside `netns` that keeps what arrives while a busy machine lets its
/// reader wait.
///
/// # Errors
/// When the port is taken, or without the privilege to exceed the kernel's buffer limit.
pub fn roomy_receiver(netns: &Netns, local: SocketAddr) -> Result<UdpSocket> {
    const BUFFER_BYTES: usize = 16 << 20;
    let socket = netns.inside(|| UdpSocket::bind(local))??;
    setsockopt(&socket, RcvBufForce, &BUFFER_BYTES).context("Enlarging a receive buffer")?;
    Ok(socket)
}

/// The drop counter of the UDP socket bound to `port` in `netns`.
///
/// # Errors
/// When there is none.
pub fn drops_of_port(netns: &Netns, port: u16) -> Result<u64> {
    let tables = netns.inside(|| {
        ["udp", "udp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
    })?;
    let mut sum = None;
    for table in tables {
        for drops in parse_drops(&table?, port) {
            sum = Some(sum.unwrap_or(0) + drops);
        }
    }
    sum.with_context(|| format!("No UDP socket on port {port} in {}", netns.name()))
}

fn parse_drops(table: &str, port: u16) -> impl Iterator<Item = u64> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !fields.get(1)?.ends_with(&wanted) {
            return None;
        }
        fields.last()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_of_the_line_with_the_port_is_the_drop_counter() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
                     timeout inode ref pointer drops\n\
                     1: 0100007F:1F90 00000000:0000 07 0:0 00:0 0 0 0 15 2 0000 4711\n\
                     2: 0100007F:1F91 00000000:0000 07 0:0 00:0 0 0 0 16 2 0000 1\n";
        assert_eq!(parse_drops(table, 8080).collect::<Vec<_>>(), [4711]);
    }
}
