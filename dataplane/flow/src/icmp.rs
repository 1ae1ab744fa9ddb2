//! Tells hosts inside why their packets were dropped (RFC 792, RFC 1812 section 4.3, RFC 4443), and
//! asks them whether packets of a size arrive.
//!
//! Everything is written into the caller's buffer. What may not be answered never is: errors, parts
//! of packets, what was sent to many or by nobody. How often is bounded by an [`Allowance`].

use std::net::IpAddr;
use std::time::Duration;

use ringway_proto::ip::checksum::{self, Partial};
use ringway_proto::ip::{Fragment, Icmp, Ipv4, Ipv6, Packet, protocol, write_u16, write_u32};
use ringway_proto::{DropReason, Instant};

/// Bytes of the longest answer: an ICMPv6 error that fills the least IPv6 MTU. ICMPv4 errors end at
/// 576.
pub const ANSWER_BYTES_MAX: usize = IPV6_BYTES_MAX;

/// RFC 1812 section 4.3.2.3.
const IPV4_BYTES_MAX: usize = 576;
/// RFC 4443 section 2.4 (c).
const IPV6_BYTES_MAX: usize = 1280;
/// An error quotes at least this much after the IP header (RFC 792): the ports.
const QUOTED_TRANSPORT_MIN: usize = 8;
/// Precedence of errors (RFC 1812 section 4.3.2.5): internetwork control.
const ERROR_PRECEDENCE: u8 = 0xc0;
const HOPS: u8 = 64;

/// Why a packet was not delivered, as ICMP can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Fragmentation needed (IPv4) or packet too big (IPv6); how many bytes would fit.
    TooBig(u16),
    /// Nothing leads there: host unreachable (IPv4), no route (IPv6).
    NoRoute,
    /// Something leads there, but it does not answer: host unreachable, address unreachable.
    HostUnreachable,
    /// Policy forbids it: communication administratively prohibited.
    Prohibited,
}

impl Error {
    /// What to say about a dropped packet; `mtu` is what the path takes. `None` where a host
    /// expects no word.
    #[must_use]
    pub fn of(reason: DropReason, mtu: u16) -> Option<Self> {
        if reason == DropReason::InsideTooBig {
            Some(Self::TooBig(mtu))
        } else if reason == DropReason::InsideNoPeer {
            Some(Self::NoRoute)
        } else if matches!(reason, DropReason::InsideNoEndpoint | DropReason::StagedExpired) {
            Some(Self::HostUnreachable)
        } else {
            None
        }
    }

    /// Type, code, and the word that depends on them.
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::TooBig(mtu) => (Icmp::V4_UNREACHABLE, 4, mtu as u32),
            Self::NoRoute | Self::HostUnreachable => (Icmp::V4_UNREACHABLE, 1, 0),
            Self::Prohibited => (Icmp::V4_UNREACHABLE, 13, 0),
        }
    }

    const fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::TooBig(mtu) => (Icmp::V6_PACKET_TOO_BIG, 0, mtu as u32),
            Self::NoRoute => (Icmp::V6_UNREACHABLE, 0, 0),
            Self::HostUnreachable => (Icmp::V6_UNREACHABLE, 3, 0),
            Self::Prohibited => (Icmp::V6_UNREACHABLE, 1, 0),
        }
    }
}

/// Whether an error about `packet` may be sent at all (RFC 1122 section 3.2.2, RFC 4443 section 2.4
/// (e)).
#[must_use]
pub fn may_answer(packet: &[u8], view: &Packet) -> bool {
    if view.fragment() == Fragment::Later {
        return false;
    }
    let one_host = match (view.source(), view.destination()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // Class E, which contains the broadcast address, is nobody's.
            let nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast();
            let many = destination.is_multicast() || destination.is_broadcast();
            !nobody && source.octets()[0] < 240 && !many
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast();
            !nobody && !destination.is_multicast()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    let kind = packet.get(view.transport_offset());
    one_host
        && match view.protocol() {
            protocol::ICMP => kind.is_some_and(|kind| !Icmp::v4_is_error(*kind)),
            protocol::ICMPV6 => kind.is_some_and(|kind| !Icmp::v6_is_error(*kind)),
            _ => true,
        }
}

/// Writes an ICMP error about `packet` from `from` to its source and returns the length. Without
/// `from`, or if it is of the other family, it seems to come from where the packet was going: a
/// route leads there, so that no filter on reverse paths discards it. `None` if `out` is too short
/// to quote what RFC 792 wants.
pub fn write_error(
    error: Error,
    packet: &[u8],
    view: &Packet,
    from: Option<IpAddr>,
    out: &mut [u8],
) -> Option<usize> {
    let packet = packet.get(..view.total_len())?;
    let quoted_min = packet.len().min(view.transport_offset() + QUOTED_TRANSPORT_MIN);
    // Extension headers may be longer than any answer.
    let quoted_min = quoted_min.min(IPV4_BYTES_MAX - Ipv4::HEADER_MIN - Icmp::HEADER);
    let from = from.unwrap_or_else(|| view.destination());
    match (view.source(), from, view.destination()) {
        (IpAddr::V4(to), IpAddr::V4(from), _) | (IpAddr::V4(to), _, IpAddr::V4(from)) => {
            let start = Ipv4::HEADER_MIN + Icmp::HEADER;
            let total = out.len().min(IPV4_BYTES_MAX).min(start + packet.len());
            let out = out.get_mut(..total).filter(|out| out.len() >= start + quoted_min)?;
            out[start..].copy_from_slice(&packet[..total - start]);
            write_head(&mut out[Ipv4::HEADER_MIN..], error.v4());
            finish_v4(out, ERROR_PRECEDENCE, from.octets(), to.octets());
            Some(total)
        }
        (IpAddr::V6(to), IpAddr::V6(from), _) | (IpAddr::V6(to), _, IpAddr::V6(from)) => {
            let start = Ipv6::HEADER + Icmp::HEADER;
            let total = out.len().min(IPV6_BYTES_MAX).min(start + packet.len());
            let out = out.get_mut(..total).filter(|out| out.len() >= start + quoted_min)?;
            out[start..].copy_from_slice(&packet[..total - start]);
            write_head(&mut out[Ipv6::HEADER..], error.v6());
            finish_v6(out, ERROR_PRECEDENCE, from.octets(), to.octets());
            Some(total)
        }
        (IpAddr::V4(_), _, _) | (IpAddr::V6(_), _, _) => None,
    }
}

/// Fills all of `out` with an ICMP echo request that may not be fragmented. `false` if the
/// addresses are of different families or `out` is shorter than the headers or longer than a
/// packet.
#[must_use]
pub fn write_echo(
    from: IpAddr,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
    out: &mut [u8],
) -> bool {
    let word = u32::from(identifier) << 16 | u32::from(sequence);
    if out.len() > usize::from(u16::MAX) {
        return false;
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) if out.len() >= Ipv4::HEADER_MIN + Icmp::HEADER => {
            out[Ipv4::HEADER_MIN + Icmp::HEADER..].fill(0);
            write_head(&mut out[Ipv4::HEADER_MIN..], (Icmp::V4_ECHO_REQUEST, 0, word));
            finish_v4(out, 0, from.octets(), to.octets());
            true
        }
        (IpAddr::V6(from), IpAddr::V6(to)) if out.len() >= Ipv6::HEADER + Icmp::HEADER => {
            out[Ipv6::HEADER + Icmp::HEADER..].fill(0);
            write_head(&mut out[Ipv6::HEADER..], (Icmp::V6_ECHO_REQUEST, 0, word));
            finish_v6(out, 0, from.octets(), to.octets());
            true
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
    }
}

fn write_head(message: &mut [u8], (kind, code, word): (u8, u8, u32)) {
    message[..2].copy_from_slice(&[kind, code]);
    write_u16(message, Icmp::CHECKSUM_AT, 0);
    write_u32(message, 4, word);
}

fn finish_v4(out: &mut [u8], tos: u8, from: [u8; 4], to: [u8; 4]) {
    let len = out.len() as u16;
    let (ip, message) = out.split_at_mut(Ipv4::HEADER_MIN);
    // Identification 0 with "don't fragment": atomic (RFC 6864).
    ip[..12].copy_from_slice(&[0x45, tos, 0, 0, 0, 0, 0x40, 0, HOPS, protocol::ICMP, 0, 0]);
    write_u16(ip, 2, len);
    ip[12..16].copy_from_slice(&from);
    ip[16..20].copy_from_slice(&to);
    write_u16(ip, 10, checksum::sum(ip).finish());
    finish_message(message, Partial::ZERO);
}

fn finish_v6(out: &mut [u8], traffic_class: u8, from: [u8; 16], to: [u8; 16]) {
    let (ip, message) = out.split_at_mut(Ipv6::HEADER);
    ip[..4].copy_from_slice(&[0x60 | (traffic_class >> 4), traffic_class << 4, 0, 0]);
    write_u16(ip, 4, message.len() as u16);
    ip[6..8].copy_from_slice(&[protocol::ICMPV6, HOPS]);
    ip[8..24].copy_from_slice(&from);
    ip[24..40].copy_from_slice(&to);
    let pseudo = checksum::pseudo_of(ip, protocol::ICMPV6, message.len() as u32);
    finish_message(message, pseudo);
}

fn finish_message(message: &mut [u8], pseudo: Partial) {
    let sum = (pseudo + checksum::sum(message)).finish();
    write_u16(message, Icmp::CHECKSUM_AT, sum);
}

/// How many answers may still be sent: a token bucket, kept as the time at which it would be full.
#[derive(Clone, Debug)]
pub struct Allowance {
    period: Duration,
    depth: Duration,
    full_at: Instant,
}

impl Allowance {
    /// `per_second` answers on average, `burst` at once; both at least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let period = Duration::from_secs(1) / per_second.max(1);
        Self { period, depth: period * burst.max(1), full_at: Instant::ZERO }
    }

    /// Takes one, if there is one.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.period;
        let allowed = full_at.since(now) <= self.depth;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

impl Default for Allowance {
    /// One core's share:
    /// [`ICMP_ANSWERS_PER_SECOND`](ringway_proto::limits::ICMP_ANSWERS_PER_SECOND).
    fn default() -> Self {
        use ringway_proto::limits::{ICMP_ANSWERS_BURST, ICMP_ANSWERS_PER_SECOND};
        Self::new(ICMP_ANSWERS_PER_SECOND, ICMP_ANSWERS_BURST)
    }
}
