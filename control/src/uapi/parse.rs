//! Bytes of a client to requests, in pieces of any size.
//!
//! Nothing is kept but the line under construction and the steps understood so far, so memory is
//! bounded by [`LINE_BYTES_MAX`] and [`REQUEST_BYTES_MAX`]. After a bad line the rest of the
//! request is read and thrown away: the client gets its answer when it expects one, and may go on
//! with the next request.
//!
//! A request is, line by line: `get=1` and an empty line; or `set=1`, keys of the interface, then
//! for each peer `public_key` and its keys, and an empty line. This module must not know what a
//! request will do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PublicKey};
use zeroize::Zeroize;

use super::Errno;
use crate::plane::{Operation, Secret};

/// Bytes of one line. The longest that means anything is a key with its name (77).
pub const LINE_BYTES_MAX: usize = 1024;

/// Bytes of one request. `wg` writes about 350 bytes for a peer with two prefixes, so this holds
/// 190,000 peers, almost twice what a gateway is built for; what is understood of it takes at most
/// about five times the memory.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The state of the interface and all peers.
    Get,
    /// These steps, all or none.
    Set(Vec<Operation>),
    /// Something wrong: nothing happens, this is the answer, and the client may go on.
    Refused(Refused),
    /// Something wrong after which request boundaries are unknown: answer and hang up.
    HangUp(Refused),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the client is told.
    pub errno: Errno,
    /// What the log says. Never holds a value: it may be a key.
    pub why: &'static str,
}

/// The state between two pieces of input.
#[derive(Debug)]
pub struct Parser {
    /// Number of the interface with a name, for the zone of a link-local endpoint.
    zone_index: fn(&str) -> Option<u32>,
    state: State,
    line: Vec<u8>,
    operations: Vec<Operation>,
    /// Bytes of the request so far.
    bytes: usize,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first line of a request.
    Idle,
    /// After `get=1`.
    Get,
    /// In a `set`, before the first peer.
    Interface,
    /// In a `set`, after a `public_key`.
    Peer,
}

impl Parser {
    /// Before the first request. `zone_index` finds the number of an interface by its name.
    #[must_use]
    pub const fn new(zone_index: fn(&str) -> Option<u32>) -> Self {
        Self {
            zone_index,
            state: State::Idle,
            line: Vec::new(),
            operations: Vec::new(),
            bytes: 0,
            refused: None,
        }
    }

    /// Takes bytes up to the end of the first request that ends in `input`. Returns how many were
    /// taken, and the request; without one, everything was taken.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Option<Request>) {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..newline.unwrap_or(rest.len())];
            taken += piece.len() + usize::from(newline.is_some());
            self.bytes += piece.len() + usize::from(newline.is_some());
            if self.bytes > REQUEST_BYTES_MAX {
                let why = "Request larger than 64 MiB";
                return (taken, Some(self.hang_up(Refused { errno: Errno::TOO_BIG, why })));
            }
            if self.line.len() + piece.len() > LINE_BYTES_MAX {
                let why = "Line longer than 1024 bytes";
                return (taken, Some(self.hang_up(Refused { errno: Errno::IO, why })));
            }
            self.line.extend_from_slice(piece);
            if newline.is_some()
                && let Some(request) = self.end_line()
            {
                return (taken, Some(request));
            }
        }
        (taken, None)
    }

    /// The end of the input: `None` between two requests, a refusal inside of one.
    pub fn finish(&mut self) -> Option<Request> {
        let inside = self.state != State::Idle || !self.line.is_empty();
        let why = "Input ends inside a request";
        inside.then(|| self.hang_up(Refused { errno: Errno::PROTOCOL, why }))
    }

    /// Whether part of a request was read.
    #[must_use]
    pub fn is_inside_request(&self) -> bool {
        self.bytes > 0
    }

    fn end_line(&mut self) -> Option<Request> {
        let mut line = std::mem::take(&mut self.line);
        let request = self.take_line(&line);
        line.zeroize(); // It may have held a private key.
        self.line = line;
        if request.is_some() {
            self.reset();
        }
        request
    }

    fn take_line(&mut self, line: &[u8]) -> Option<Request> {
        match self.state {
            State::Idle => match line {
                b"get=1" => self.state = State::Get,
                b"set=1" => self.state = State::Interface,
                _ => {
                    let why = "Neither get=1 nor set=1";
                    return Some(Request::HangUp(Refused { errno: Errno::PROTOCOL, why }));
                }
            },
            State::Get if line.is_empty() => return Some(Request::Get),
            State::Get => {
                let why = "Something follows get=1";
                return Some(Request::HangUp(Refused { errno: Errno::INVALID, why }));
            }
            State::Interface | State::Peer if line.is_empty() => {
                return Some(self.refused.map_or_else(
                    || Request::Set(std::mem::take(&mut self.operations)),
                    Request::Refused,
                ));
            }
            State::Interface | State::Peer => {
                if self.refused.is_none()
                    && let Err(refused) = self.take_set_line(line)
                {
                    self.refused = Some(refused);
                    self.operations = Vec::new();
                }
            }
        }
        None
    }

    fn take_set_line(&mut self, line: &[u8]) -> Result<(), Refused> {
        let line = std::str::from_utf8(line).ok();
        let (key, value) = line
            .and_then(|line| line.split_once('='))
            .ok_or(Refused { errno: Errno::PROTOCOL, why: "Line is not key=value" })?;
        if key == "public_key" {
            let public = hex_key(value).ok_or(invalid("public_key is not 64 hex digits"))?;
            self.state = State::Peer;
            self.operations.push(Operation::Peer(PublicKey(public)));
            return Ok(());
        }
        let operation = if self.state == State::Peer {
            peer_line(key, value, self.zone_index)?
        } else {
            Some(interface_line(key, value)?)
        };
        self.operations.extend(operation);
        Ok(())
    }

    fn hang_up(&mut self, refused: Refused) -> Request {
        self.line.zeroize();
        self.reset();
        Request::HangUp(refused)
    }

    fn reset(&mut self) {
        self.state = State::Idle;
        self.line.clear();
        self.operations = Vec::new();
        self.bytes = 0;
        self.refused = None;
    }
}

fn interface_line(key: &str, value: &str) -> Result<Operation, Refused> {
    match key {
        "private_key" => hex_key(value)
            .map(|bytes| Operation::PrivateKey(Secret::new(bytes)))
            .ok_or(invalid("private_key is not 64 hex digits")),
        "listen_port" => number(value)
            .map(Operation::ListenPort)
            .ok_or(invalid("listen_port is not a number from 0 to 65535")),
        "fwmark" => {
            number(value).map(Operation::Fwmark).ok_or(invalid("fwmark is not a number below 2^32"))
        }
        "replace_peers" => only_true(value, Operation::ReplacePeers, "replace_peers is not true"),
        _ => Err(invalid("Unknown key of the interface")),
    }
}

/// `None` for a line that only has to be right.
fn peer_line(
    key: &str,
    value: &str,
    zone_index: fn(&str) -> Option<u32>,
) -> Result<Option<Operation>, Refused> {
    let operation = match key {
        "update_only" => only_true(value, Operation::UpdateOnly, "update_only is not true")?,
        "remove" => only_true(value, Operation::Remove, "remove is not true")?,
        "preshared_key" => hex_key(value)
            .map(|bytes| Operation::Preshared(PresharedKey(bytes)))
            .ok_or(invalid("preshared_key is not 64 hex digits"))?,
        "endpoint" => endpoint(value, zone_index)
            .map(Operation::Endpoint)
            .ok_or(invalid("endpoint is not address:port"))?,
        "persistent_keepalive_interval" => number(value)
            .map(Operation::Keepalive)
            .ok_or(invalid("persistent_keepalive_interval is not a number from 0 to 65535"))?,
        "replace_allowed_ips" => {
            let why = "replace_allowed_ips is not true";
            only_true(value, Operation::ReplaceAllowedIps, why)?
        }
        "allowed_ip" => match value.strip_prefix('-') {
            Some(value) => prefix(value).map(Operation::RemoveAllowedIp),
            None => prefix(value).map(Operation::AllowedIp),
        }
        .ok_or(invalid("allowed_ip is not address/length"))?,
        "protocol_version" if value == "1" => return Ok(None),
        "protocol_version" => return Err(invalid("protocol_version is not 1")),
        _ => return Err(invalid("Unknown key of a peer")),
    };
    Ok(Some(operation))
}

const fn invalid(why: &'static str) -> Refused {
    Refused { errno: Errno::INVALID, why }
}

fn only_true(value: &str, operation: Operation, why: &'static str) -> Result<Operation, Refused> {
    if value == "true" { Ok(operation) } else { Err(invalid(why)) }
}

/// 64 hexadecimal digits of either case. The time taken does not depend on their values, only on
/// whether all are digits.
fn hex_key(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut key = [0; 32];
    let mut bad = 0;
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (nibble(pair[0]), nibble(pair[1]));
        bad |= (high | low) & 0x80;
        *byte = (high << 4) | (low & 0x0f);
    }
    (bad == 0).then_some(key)
}

/// The value of a hexadecimal digit, or 0x80, without a branch or a table.
fn nibble(digit: u8) -> u8 {
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    let is_decimal = u8::from(decimal < 10).wrapping_neg();
    let is_letter = u8::from(letter < 6).wrapping_neg();
    (decimal & is_decimal)
        | (letter.wrapping_add(10) & is_letter)
        | (0x80 & !(is_decimal | is_letter))
}

/// A decimal number without sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `address:port`, an IPv6 address in brackets, with the number or name of its zone after `%` where
/// it has one.
fn endpoint(text: &str, zone_index: fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    if let Ok(endpoint) = text.parse() {
        return Some(endpoint);
    }
    // `wg` writes the zone of a link-local address by name.
    let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = zone_index(zone)?;
    Some(SocketAddr::V6(SocketAddrV6::new(address, number(port)?, 0, scope)))
}

/// `address/length`; bits beyond the length are cleared.
fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = number(length)?;
    let bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    (u32::from(length) <= bits).then(|| text.parse().ok())?
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
