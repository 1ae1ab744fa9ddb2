//! The state of the gateway as the configuration protocol writes it.
//!
//! Text is appended to a buffer that the caller sends and empties between two calls, so that an
//! answer of any size needs little memory. Buffers may hold keys: the caller erases them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::command::PeerStatus;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::Errno;
use crate::plane::Peer;

/// The lines about the interface. What is zero is left out, as wireguard-go does.
pub fn interface(out: &mut String, private: Option<&PrivateKey>, port: u16, fwmark: u32) {
    if let Some(private) = private {
        key(out, "private_key", &Zeroizing::new(private.to_bytes()));
    }
    if port != 0 {
        number(out, "listen_port", port.into());
    }
    if fwmark != 0 {
        number(out, "fwmark", fwmark.into());
    }
}

/// The lines about one peer, except its prefixes.
pub fn peer(out: &mut String, public: &PublicKey, peer: &Peer, status: &PeerStatus) {
    key(out, "public_key", &public.0);
    key(out, "preshared_key", &peer.preshared.0);
    line(out, "protocol_version", format_args!("1"));
    if let Some(endpoint) = status.endpoint {
        line(out, "endpoint", format_args!("{}", canonical(endpoint)));
    }
    let handshake = status.last_handshake.unwrap_or(Duration::ZERO);
    number(out, "last_handshake_time_sec", handshake.as_secs());
    number(out, "last_handshake_time_nsec", handshake.subsec_nanos().into());
    number(out, "tx_bytes", status.tx_bytes);
    number(out, "rx_bytes", status.rx_bytes);
    number(out, "persistent_keepalive_interval", peer.keepalive_s.into());
}

/// The line of one prefix of the peer written last.
pub fn allowed_ip(out: &mut String, net: &IpNet) {
    line(out, "allowed_ip", format_args!("{net}"));
}

/// The end of an answer.
pub fn end(out: &mut String, errno: Errno) {
    line(out, "errno", format_args!("{}", errno.0));
    out.push('\n');
}

/// An IPv4 address that an IPv6 socket reported is written as what it is.
#[must_use]
pub fn canonical(endpoint: SocketAddr) -> SocketAddr {
    match endpoint {
        SocketAddr::V4(_) => endpoint,
        SocketAddr::V6(v6) => {
            v6.ip().to_ipv4_mapped().map_or(endpoint, |v4| SocketAddr::from((v4, v6.port())))
        }
    }
}

fn number(out: &mut String, name: &str, value: u64) {
    line(out, name, format_args!("{value}"));
}

fn key(out: &mut String, name: &str, bytes: &[u8; 32]) {
    out.push_str(name);
    out.push('=');
    for byte in bytes {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 0x0f));
    }
    out.push('\n');
}

/// A hexadecimal digit in lower case, without a table: the value may be part of a key.
const fn digit(value: u8) -> char {
    let past_nine = (9_u8.wrapping_sub(value) >> 7) * (b'a' - b'0' - 10);
    (b'0' + value + past_nine) as char
}

fn line(out: &mut String, name: &str, value: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name}={value}");
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
