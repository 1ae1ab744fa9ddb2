//! What this kernel can do, found out by asking it once at start.
//!
//! The result is a plain value with a one-line text, for the start-up message and for `ringway
//! doctor`. Nothing here leaves a trace: no interface is made, no packet leaves the machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use io_uring::{IoUring, Probe, opcode};

use crate::error::{RingError, uring_switch};
use crate::ring::{Ring, RingMode};
use crate::sys;
use crate::tun;

/// Datagrams of a train that every kernel with UDP_SEGMENT accepts.
const SEGMENTS_EVERYWHERE: usize = 64;

/// Datagrams of a train that newer kernels accept (6.9).
const SEGMENTS_NEWER: usize = 128;

/// What io_uring offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringFeatures {
    /// How completions are run.
    pub mode: RingMode,
    /// Receives that go on by themselves, with names and control messages (6.0).
    pub receive_multishot: bool,
    /// Reads of the TUN that go on by themselves (6.7).
    pub read_multishot: bool,
    /// Sends that leave the bytes where they are, with control messages (6.1).
    pub send_zero_copy: bool,
}

/// Why there is no io_uring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoUring(pub String);

/// What this kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Release of the kernel, such as `6.18.44`.
    pub kernel: String,
    /// io_uring, or why there is none.
    pub uring: Result<UringFeatures, NoUring>,
    /// Value of `kernel.io_uring_disabled`, if the kernel has it: 0 allowed, 1 for members of a
    /// group, 2 nobody.
    pub uring_disabled: Option<u32>,
    /// Datagrams that arrive together can be received together.
    pub udp_gro: bool,
    /// Datagrams that one send can be cut into; 1 if the kernel does not cut.
    pub udp_segments_max: usize,
    /// The TUN driver has a virtio header and several queues; or why it cannot be used.
    pub tun: Result<TunFeatures, String>,
}

/// What the TUN driver offers. Which offloads it takes is only known for an open queue
/// ([`TunQueue::offloads`](crate::tun::TunQueue::offloads)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunFeatures {
    /// Super-packets and checksum offload.
    pub vnet_header: bool,
    /// One queue per core.
    pub multi_queue: bool,
}

impl Features {
    /// Asks the kernel.
    #[must_use]
    pub fn probe() -> Self {
        // Not bound to loopback: that may be down (a fresh namespace).
        let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let udp = any.or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).ok();
        Self {
            kernel: sys::kernel_release(),
            uring: probe_uring().map_err(|error| NoUring(error.to_string())),
            uring_disabled: uring_switch(),
            udp_gro: udp.as_ref().is_some_and(|socket| {
                sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok()
            }),
            udp_segments_max: udp.as_ref().map_or(1, probe_segments),
            tun: tun::driver_features().map_err(|error| error.to_string()).map(|bits| {
                TunFeatures {
                    vnet_header: bits & libc::IFF_VNET_HDR as u32 != 0,
                    multi_queue: bits & libc::IFF_MULTI_QUEUE as u32 != 0,
                }
            }),
        }
    }

    /// Whether the io_uring driver can run here.
    #[must_use]
    pub fn has_driver(&self) -> bool {
        self.uring.as_ref().is_ok_and(|uring| uring.receive_multishot)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}; ", self.kernel)?;
        match &self.uring {
            Ok(uring) => write!(f, "{uring}")?,
            Err(NoUring(why)) => write!(f, "no io_uring: {why}")?,
        }
        write!(f, "; udp {}", if self.udp_gro { "gro" } else { "no gro" })?;
        match self.udp_segments_max {
            0 | 1 => write!(f, ", no segmentation")?,
            max => write!(f, ", {max} segments")?,
        }
        match &self.tun {
            Ok(tun) => write!(
                f,
                "; tun {}{}",
                if tun.vnet_header { "virtio header" } else { "no virtio header" },
                if tun.multi_queue { ", multi-queue" } else { "" },
            ),
            Err(why) => write!(f, "; no tun: {why}"),
        }
    }
}

impl fmt::Display for UringFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            RingMode::Deferred => "io_uring (deferred task work)",
            RingMode::Cooperative => "io_uring (cooperative task work)",
            RingMode::Plain => "io_uring (plain)",
        })?;
        let lacking = [
            (self.receive_multishot, "multishot receive"),
            (self.read_multishot, "multishot read"),
            (self.send_zero_copy, "zero-copy send"),
        ];
        for (there, name) in lacking {
            write!(f, ", {}{name}", if there { "" } else { "no " })?;
        }
        Ok(())
    }
}

fn probe_uring() -> Result<UringFeatures, RingError> {
    let mode = Ring::new(RingMode::Deferred, 8, 32)?.mode();
    let uring = IoUring::new(8).map_err(RingError::setup)?;
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe).map_err(RingError::setup)?;
    let has = |code: u8| probe.is_supported(code);
    Ok(UringFeatures {
        mode,
        // The flag itself cannot be asked for; it came with the same release as the zero-copy send.
        receive_multishot: has(opcode::SendZc::CODE),
        read_multishot: has(opcode::ReadMulti::CODE),
        send_zero_copy: has(opcode::SendMsgZc::CODE),
    })
}

/// Sends a train to itself and sees how many datagrams the kernel cuts.
fn probe_segments(socket: &UdpSocket) -> usize {
    let fd = socket.as_fd();
    if sys::set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 1).is_err() {
        return 1;
    }
    let Ok(own) = socket.local_addr() else { return SEGMENTS_EVERYWHERE };
    let loopback = if own.is_ipv4() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::V6(Ipv6Addr::LOCALHOST)
    };
    let own = SocketAddr::new(loopback, own.port());
    if accepts(fd, own, SEGMENTS_NEWER) { SEGMENTS_NEWER } else { SEGMENTS_EVERYWHERE }
}

fn accepts(fd: BorrowedFd<'_>, to: SocketAddr, segments: usize) -> bool {
    let bytes = [0u8; SEGMENTS_NEWER];
    let socket = fd.try_clone_to_owned().map(UdpSocket::from);
    socket.and_then(|socket| socket.send_to(&bytes[..segments], to)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_described_in_one_line() {
        let features = Features::probe();
        let line = features.to_string();
        assert!(!line.contains('\n'));
        assert!(line.starts_with("kernel "), "{line}");
        assert!(features.udp_segments_max >= 1);
        if features.has_driver() {
            assert!(line.contains("multishot receive"), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_its_reason() {
        let features = Features {
            kernel: "5.4.0".into(),
            uring: Err(NoUring("it is switched off".into())),
            uring_disabled: Some(2),
            udp_gro: false,
            udp_segments_max: 1,
            tun: Err("there is no /dev/net/tun".into()),
        };
        assert_eq!(
            features.to_string(),
            "kernel 5.4.0; no io_uring: it is switched off; udp no gro, no segmentation; \
             no tun: there is no /dev/net/tun"
        );
        assert!(!features.has_driver());
    }
}
