//! Datagrams that are sealed beforehand and sent later, so that sealing does not slow the sender.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, anyhow};
use ringway_proto::wireguard::Plain;

use super::Fleet;
use super::drive::{HEADER_BYTES, OVERHEAD_BYTES, PORT};
use super::wire::{self, write_headers};
use crate::frames::{Frames, sum_ipv4_header};
use crate::inner;

/// Bytes of the IP packet that carries an inner packet of `size` bytes.
#[must_use]
pub fn carrier_bytes(size: usize) -> usize {
    wire::HEADERS_BYTES + size.next_multiple_of(16) + OVERHEAD_BYTES
}

impl Fleet {
    /// Fills `frames` with datagrams of the sessions in turn, beginning with client `first`, and
    /// returns whose turn is next. They must be sent before what else these clients send, within
    /// the life of their sessions. An inner packet has `size` bytes and goes to `to`.
    ///
    /// # Errors
    /// When a client has no session.
    pub fn seal_volley(
        &mut self,
        frames: &mut Frames,
        first: u32,
        size: usize,
        to: SocketAddrV4,
    ) -> Result<u32> {
        let mut number = first;
        for packet in frames.packets() {
            let from = SocketAddrV4::new(self.roster.inner(number), PORT);
            let plain = inner::udp_packet(from.into(), to.into(), size, true)?;
            let client = &mut self.clients[number as usize];
            let (headers, datagram) = packet
                .split_at_mut_checked(wire::HEADERS_BYTES)
                .context("Frames without room for headers")?;
            write_headers(headers, client.from(), self.wire.to(), 0, datagram.len());
            sum_ipv4_header(headers);
            let end = datagram.len() - (OVERHEAD_BYTES - HEADER_BYTES);
            let (text, padding) = datagram[HEADER_BYTES..end].split_at_mut(size);
            text.copy_from_slice(&plain);
            padding.fill(0);
            client
                .seal(&mut [Plain { bytes: datagram }], &self.world)
                .map_err(|reason| anyhow!("Client {number} cannot send: {reason:?}"))?;
            number = (number + 1) % self.roster.count;
        }
        Ok(number)
    }

    /// From now on what the gateway sends is counted by the drop counters of these ports, and read
    /// no more.
    ///
    /// # Errors
    /// When a socket refuses.
    pub fn only_count(&mut self) -> Result<Vec<u16>> {
        self.wire.deafen()
    }
}
