//! Control messages: what the kernel says about a received datagram, and what we ask of it for a
//! sent one.
//!
//! Layout of each message (64-bit): length (8 bytes, header included), level (4), type (4), data,
//! padding to 8. Both directions work on plain bytes; a malformed buffer yields fewer facts, never
//! a panic. This file must not know rings or sockets.

use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::driver::{Ecn, Local};

/// Room for control messages of a received datagram: segment size (24), packet info (40 for IPv6),
/// traffic class (24), drops (24) make 112; the rest is reserve, and makes the payload begin where
/// its ciphertext is 64-byte aligned.
pub(crate) const CONTROL_IN_BYTES: usize = 128;

/// Room for control messages of a sent train: segment size (24), packet info (40), traffic class
/// (24).
pub(crate) const CONTROL_OUT_BYTES: usize = 88;

const ALIGN: usize = size_of::<usize>();
const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const LEVEL_AT: usize = HEADER_BYTES - 8;
const KIND_AT: usize = HEADER_BYTES - 4;

/// What the kernel said about a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlIn {
    /// Bytes of each datagram if several were merged (UDP_GRO).
    pub segment_bytes: Option<usize>,
    /// Where it came to.
    pub to: Option<Local>,
    /// Congestion bits of its header.
    pub ecn: Ecn,
    /// How many datagrams its socket had dropped before it, if any (SO_RXQ_OVFL). Wraps around.
    pub dropped: Option<u32>,
}

/// Reads control messages. Unknown ones are skipped; at the first malformed one reading stops.
#[must_use]
#[inline]
pub fn parse(control: &[u8]) -> ControlIn {
    let mut facts = ControlIn::default();
    let mut rest = control;
    while let Some((level, kind, data, next)) = split_first(rest) {
        apply(&mut facts, level, kind, data);
        rest = next;
    }
    facts
}

fn apply(facts: &mut ControlIn, level: c_int, kind: c_int, data: &[u8]) {
    match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let size = data.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes));
            facts.segment_bytes =
                size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        }
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // in_pktinfo: interface, address to reply from, address in the header.
            if let Some(info) = data.first_chunk::<12>() {
                let interface = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                let address = Ipv4Addr::new(info[8], info[9], info[10], info[11]);
                facts.to = Some(Local { address: IpAddr::V4(address), interface });
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // in6_pktinfo: address, interface.
            if let (Some(address), Some(last)) = (data.first_chunk::<16>(), data.get(16..20)) {
                let interface = last.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
                let address = Ipv6Addr::from(*address);
                facts.to = Some(Local { address: IpAddr::V6(address), interface });
            }
        }
        // IPv4 delivers one byte, IPv6 an int; the low byte comes first only on little-endian
        // machines.
        (libc::IPPROTO_IP, libc::IP_TOS) => {
            if let Some(tos) = data.first() {
                facts.ecn = Ecn(tos & 0b11);
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            if let Some(class) = data.first_chunk() {
                facts.ecn = Ecn((c_int::from_ne_bytes(*class) & 0b11) as u8);
            }
        }
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
            facts.dropped = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        }
        _ => {}
    }
}

/// Level, type and data of the first message, and what follows it.
#[inline]
fn split_first(control: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let header: &[u8; HEADER_BYTES] = control.first_chunk()?;
    let len = usize::from_ne_bytes(*header.first_chunk()?);
    if len < HEADER_BYTES || len > control.len() {
        return None;
    }
    let level = c_int::from_ne_bytes(*header[LEVEL_AT..].first_chunk()?);
    let kind = c_int::from_ne_bytes(*header[KIND_AT..].first_chunk()?);
    let next = len.checked_next_multiple_of(ALIGN)?.min(control.len());
    Some((level, kind, &control[HEADER_BYTES..len], &control[next..]))
}

/// Control messages of a train, in memory that stays where it is while the kernel reads it.
#[derive(Debug)]
#[repr(C, align(8))]
pub(crate) struct ControlOut {
    bytes: [u8; CONTROL_OUT_BYTES],
    len: usize,
}

impl ControlOut {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; CONTROL_OUT_BYTES], len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn bytes_mut(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    #[cfg(test)]
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Forgets all messages.
    pub(crate) const fn clear(&mut self) {
        self.len = 0;
    }

    /// Asks for segmentation into datagrams of `bytes`.
    pub(crate) fn segment(&mut self, bytes: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
    }

    /// Asks for a source address. The interface is named for link-local addresses only: naming it
    /// always would make the kernel assume the destination on that link when no route leads out of
    /// it.
    pub(crate) fn source(&mut self, from: Local) {
        match from.address {
            IpAddr::V4(v4) => {
                let mut info = [0u8; 12];
                info[4..8].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(v6) => {
                let mut info = [0u8; 20];
                info[..16].copy_from_slice(&v6.octets());
                if v6.is_unicast_link_local() {
                    info[16..].copy_from_slice(&from.interface.to_ne_bytes());
                }
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Asks for a traffic class: code point in the upper six bits, congestion bits in the lower
    /// two.
    pub(crate) fn traffic_class(&mut self, ipv6: bool, class: u8) {
        let class = c_int::from(class).to_ne_bytes();
        if ipv6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &class);
        }
    }

    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let len = HEADER_BYTES + data.len();
        let end = self.len + len.next_multiple_of(ALIGN);
        assert!(end <= CONTROL_OUT_BYTES);
        let message = &mut self.bytes[self.len..end];
        message[..ALIGN].copy_from_slice(&len.to_ne_bytes());
        message[LEVEL_AT..KIND_AT].copy_from_slice(&level.to_ne_bytes());
        message[KIND_AT..HEADER_BYTES].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_BYTES..len].copy_from_slice(data);
        message[len..].fill(0);
        self.len = end;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn message(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let mut out = (HEADER_BYTES + data.len()).to_ne_bytes().to_vec();
        out.extend(level.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let v4 = |interface: i32, to: [u8; 4]| {
            let mut info = interface.to_ne_bytes().to_vec();
            info.extend([9, 9, 9, 9]);
            info.extend(to);
            message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
        };
        let v6 = |interface: u32, to: Ipv6Addr| {
            let mut info = to.octets().to_vec();
            info.extend(interface.to_ne_bytes());
            message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
        };
        let gro = |size: i32| message(libc::SOL_UDP, libc::UDP_GRO, &size.to_ne_bytes());
        let local =
            |address: &str, interface| Some(Local { address: address.parse().unwrap(), interface });
        let drops = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9_u32.to_ne_bytes());
        let table: [(Vec<u8>, ControlIn); 9] = [
            (vec![], ControlIn::default()),
            (drops, ControlIn { dropped: Some(9), ..Default::default() }),
            (gro(1420), ControlIn { segment_bytes: Some(1420), ..Default::default() }),
            (gro(0), ControlIn::default()),
            (gro(-1), ControlIn::default()),
            (
                [v4(3, [192, 0, 2, 7]), message(0, libc::IP_TOS, &[0xbb])].concat(),
                ControlIn { to: local("192.0.2.7", 3), ecn: Ecn(3), ..Default::default() },
            ),
            (
                [v6(7, "2001:db8::1".parse().unwrap()), gro(9)].concat(),
                ControlIn {
                    to: local("2001:db8::1", 7),
                    segment_bytes: Some(9),
                    ..Default::default()
                },
            ),
            (
                message(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0x2e9_i32.to_ne_bytes()),
                ControlIn { ecn: Ecn(1), ..Default::default() },
            ),
            (
                [message(1, 77, &[1, 2, 3]), gro(64)].concat(),
                ControlIn { segment_bytes: Some(64), ..Default::default() },
            ),
        ];
        for (bytes, expected) in table {
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_cut_buffer_yields_what_came_before_the_cut() {
        let gro = message(libc::SOL_UDP, libc::UDP_GRO, &100_i32.to_ne_bytes());
        let tos = message(libc::IPPROTO_IP, libc::IP_TOS, &[2]);
        let both = [gro.clone(), tos].concat();
        for len in 0..both.len() {
            let facts = parse(&both[..len]);
            let gro_complete = len >= HEADER_BYTES + 4;
            assert_eq!(facts.segment_bytes, gro_complete.then_some(100), "{len} bytes");
        }
    }

    #[test]
    fn lying_lengths_and_any_byte_pattern_end_in_silence() {
        for len in [0, 1, 15, 41, usize::MAX, usize::MAX - 7] {
            let mut bytes = message(libc::SOL_UDP, libc::UDP_GRO, &1_i32.to_ne_bytes());
            bytes[..ALIGN].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(parse(&bytes), ControlIn::default(), "{len}");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = [0u8; 96];
        for _ in 0..20_000 {
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8 & if state & (1 << 40) == 0 { 0x1f } else { 0xff };
            }
            bytes[1..8].fill(0);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_we_ask_fits_and_reads_back_as_messages() {
        let mut control = ControlOut::new();
        control.segment(1452);
        control.source(Local { address: "fe80::7".parse().unwrap(), interface: 4 });
        control.traffic_class(true, 0xb9);
        assert_eq!(control.len(), CONTROL_OUT_BYTES);
        let facts = parse(control.as_slice());
        assert_eq!(facts.to, Some(Local { address: "fe80::7".parse().unwrap(), interface: 4 }));
        assert_eq!(facts.ecn, Ecn(1));
        let (level, kind, data, _) = split_first(control.as_slice()).unwrap();
        assert_eq!((level, kind, data), (17, 103, 1452_u16.to_ne_bytes().as_slice()));

        control.clear();
        control.source(Local { address: "192.0.2.1".parse().unwrap(), interface: 4 });
        let (level, kind, data, rest) = split_first(control.as_slice()).unwrap();
        assert_eq!((level, kind), (0, 8));
        assert_eq!(data, [0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0]);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_global_source_does_not_pin_the_interface() {
        let mut control = ControlOut::new();
        control.source(Local { address: "2001:db8::7".parse().unwrap(), interface: 4 });
        assert_eq!(parse(control.as_slice()).to.unwrap().interface, 0);
    }
}
