//! Where an inner packet may go, and in what shape.
//!
//! Each direction is one function: [`to_exit`] for what came out of a tunnel, [`to_client`] for
//! what is about to enter one. They change packets in place or refuse them; [`answer`] turns a
//! refusal into the ICMP message that a host expects. Policy is an immutable snapshot ([`Policy`]),
//! time is an argument.
//!
//! This crate must not know tunnels, keys, sockets or peers; what it needs to know about the path
//! to a peer is one number, which [`PathMtu`] learns.

#![forbid(unsafe_code)]

pub mod ecn;
pub mod icmp;
pub mod mss;
pub mod path_mtu;
mod policy;
pub mod qos;

use ringway_proto::ip::Packet;
use ringway_proto::{DropReason, Instant};

pub use icmp::{ANSWER_BYTES_MAX, Allowance};
pub use path_mtu::{Learnt, PathMtu};
pub use policy::Policy;

/// What happened to inner packets: plain integers, one set per core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP handshake packets whose maximum segment size was reduced.
    pub mss_clamped: u64,
    /// Packets that were marked as having met congestion outside.
    pub congestion_marked: u64,
}

/// What came out of a tunnel, on its way to an exit. `packet` is what `view` was parsed from;
/// `outer_ecn` are the congestion bits of the datagram that carried it, `mtu` the largest packet
/// that the path back to the client takes.
///
/// # Errors
/// Why it may not go. (Nothing refuses yet: filters and routes will.)
#[inline]
pub fn to_exit(
    packet: &mut [u8],
    view: &Packet,
    outer_ecn: u8,
    mtu: u16,
    policy: &Policy,
    counters: &mut Counters,
) -> Result<(), DropReason> {
    if ecn::decapsulate(packet, outer_ecn) {
        counters.congestion_marked += 1;
    }
    if policy.clamp_mss && mss::clamp(packet, view, mtu) {
        counters.mss_clamped += 1;
    }
    Ok(())
}

/// What is about to enter a tunnel, one packet after segmentation, its checksums complete. `mtu` is
/// the largest packet that the path to the client takes.
#[inline]
pub fn to_client(
    packet: &mut [u8],
    view: &Packet,
    mtu: u16,
    policy: &Policy,
    counters: &mut Counters,
) {
    if policy.clamp_mss && mss::clamp(packet, view, mtu) {
        counters.mss_clamped += 1;
    }
}

/// Whether packets of at most `len` bytes fit the path to a client.
///
/// # Errors
/// [`DropReason::InsideTooBig`], which [`answer`] turns into the message that makes the sender use
/// smaller ones.
#[inline]
pub const fn fits(len: usize, mtu: u16) -> Result<(), DropReason> {
    if len <= mtu as usize { Ok(()) } else { Err(DropReason::InsideTooBig) }
}

/// Writes the ICMP message that tells the sender of `packet` why it was dropped, if there is one,
/// policy wants it, the standards permit it and the `allowance` is not used up. Returns its length.
///
/// `mtu` is what the path takes; it is told where the packet was too big. What `out` holds beyond
/// the message is untouched; [`ANSWER_BYTES_MAX`] is room enough for all, with less the message
/// quotes less.
pub fn answer(
    packet: &[u8],
    reason: DropReason,
    mtu: u16,
    policy: &Policy,
    allowance: &mut Allowance,
    now: Instant,
    out: &mut [u8],
) -> Option<usize> {
    if !policy.answer_icmp {
        return None;
    }
    let error = icmp::Error::of(reason, mtu)?;
    let view = Packet::parse(packet).ok()?;
    if !icmp::may_answer(packet, &view) || !allowance.take(now) {
        return None;
    }
    // From where the packet was going. The kernel takes a packet that comes out of a TUN with an
    // address of this very host for a forgery, and drops it before any route is asked.
    icmp::write_error(error, packet, &view, None, out)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
