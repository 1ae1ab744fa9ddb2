//! What the operator wants done with inner packets, and how many sessions there may be.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringway_proto::limits::HANDSHAKES_PER_SOURCE_SECOND;
use ringway_proto::wireguard::AdmissionLimits;

/// An immutable snapshot: control hands it over whole, and gets the old one back.
///
/// It has its cache lines to itself: cores read it for every packet, and control, which made it,
/// goes on writing what lies beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(128))]
pub struct Policy {
    /// Reduce the maximum segment size in TCP handshakes to what the path takes.
    pub clamp_mss: bool,
    /// Largest inner packet, in bytes: the MTU of the TUN, and where every path starts.
    pub inner_mtu: u16,
    /// Tell senders inside why their packets are dropped.
    pub answer_icmp: bool,
    /// Merge packets of a flow into super-packets for the TUN.
    pub merge: bool,
    /// Verify the transport checksum of a packet before it is merged with others; without, the
    /// tunnel's tag is taken as proof, and merging hides what was broken before.
    pub verify_inner_checksum: bool,
    /// Our own inner IPv4 address, from which we answer; without it, answers seem to come from the
    /// destination.
    pub address_v4: Option<Ipv4Addr>,
    /// Our own inner IPv6 address.
    pub address_v6: Option<Ipv6Addr>,
    /// Take no new sessions; those that live are renewed.
    pub draining: bool,
    /// How many sessions the whole gateway takes while it is under load.
    pub admission: AdmissionLimits,
    /// Handshakes per second that each source may ask for while the gateway is under load, at least
    /// 1.
    pub handshakes_per_source: u32,
}

impl Policy {
    /// WireGuard's usual MTU: 1500 less 80 bytes of IPv6, UDP, header and tag.
    pub const INNER_MTU: u16 = 1420;
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            clamp_mss: true,
            inner_mtu: Self::INNER_MTU,
            answer_icmp: true,
            merge: true,
            verify_inner_checksum: true,
            address_v4: None,
            address_v6: None,
            draining: false,
            admission: AdmissionLimits::default(),
            handshakes_per_source: HANDSHAKES_PER_SOURCE_SECOND,
        }
    }
}
