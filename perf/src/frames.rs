//! Whole Ethernet frames out of memory, many per system call.
//!
//! A sender that has to be faster than a gateway cannot afford a route and a socket per datagram,
//! and trains of UDP segmentation have one source and one destination. Frames that lie ready in
//! memory have any, and leave with the cost of a copy.

use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use ringway_proto::ip::checksum;

use crate::netns::Netns;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// Frames per system call.
const BATCH_MAX: usize = 64;

/// Frames of equal length, one behind the other.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    stride: usize,
    /// All frames begin alike.
    ethernet: [u8; ETHERNET_BYTES],
}

/// A socket that puts frames on one interface and takes none.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    interface: LinkAddr,
    neighbour: [u8; 6],
}

impl Frames {
    /// The IP packets within, to be filled in; their headers need a checksum afterwards.
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let ethernet = self.ethernet;
        self.bytes.chunks_exact_mut(self.stride).map(move |frame| {
            let (header, packet) = frame.split_at_mut(ETHERNET_BYTES);
            header.copy_from_slice(&ethernet);
            packet
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }
}

impl FrameSocket {
    /// Opens it on an interface of `netns`, whose other end is an interface of `neighbour`.
    ///
    /// # Errors
    /// Without the privilege for raw sockets, or when there is no such interface.
    pub fn open(netns: &Netns, interface: &str, neighbour: (&Netns, &str)) -> Result<Self> {
        let (socket, interface) = netns.inside(|| {
            let own = link_address(interface)?;
            let kind = (AddressFamily::Packet, SockType::Raw);
            // No protocol: such a socket receives nothing.
            let socket = socket(kind.0, kind.1, SockFlag::empty(), None)
                .context("Sending frames needs a packet socket (CAP_NET_RAW)")?;
            bind(socket.as_raw_fd(), &own)?;
            Ok::<_, anyhow::Error>((socket, own))
        })??;
        let other = neighbour.0.inside(|| link_address(neighbour.1))??;
        let neighbour = other.addr().context("The neighbour has no address")?;
        Ok(Self { socket, interface, neighbour })
    }

    /// Room for `count` frames with an IP packet of `packet_bytes` each.
    ///
    /// # Errors
    /// When the interface has no address.
    pub fn frames(&self, count: usize, packet_bytes: usize) -> Result<Frames> {
        let own = self.interface.addr().context("The interface has no address")?;
        let mut ethernet = [0; ETHERNET_BYTES];
        ethernet[..6].copy_from_slice(&self.neighbour);
        ethernet[6..12].copy_from_slice(&own);
        ethernet[12..].copy_from_slice(&[0x08, 0x00]);
        let stride = ETHERNET_BYTES + packet_bytes;
        Ok(Frames { bytes: vec![0; stride * count], stride, ethernet })
    }

    /// Sends some of the frames, the first and how many, until all have left or `stop` says so, and
    /// returns how many left.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than a full queue.
    pub fn send(
        &self,
        frames: &Frames,
        (first, count): (usize, usize),
        stop: impl Fn() -> bool,
    ) -> Result<u64> {
        let bytes = frames.bytes.get(first * frames.stride..).unwrap_or_default();
        let bytes = bytes.get(..count * frames.stride).unwrap_or(bytes);
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH_MAX, None);
        let mut sent = 0;
        for batch in bytes.chunks(frames.stride * BATCH_MAX) {
            if stop() {
                break;
            }
            let slices: Vec<[IoSlice<'_>; 1]> =
                batch.chunks_exact(frames.stride).map(|frame| [IoSlice::new(frame)]).collect();
            let nobody = vec![None; slices.len()];
            let fd = self.socket.as_raw_fd();
            match sendmmsg(fd, &mut headers, &slices, &nobody, [], MsgFlags::empty()) {
                // What is left of a batch is lost, as behind a full queue.
                Ok(results) => sent += results.count() as u64,
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error).context("Sending frames"),
            }
        }
        Ok(sent)
    }
}

/// Brings the checksum of an IPv4 header without options up to date.
pub fn sum_ipv4_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum::sum(&packet[..20]).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// The link-layer address of an interface in the namespace of the calling thread.
fn link_address(interface: &str) -> Result<LinkAddr> {
    getifaddrs()?
        .filter(|one| one.interface_name == interface)
        .find_map(|one| one.address?.as_link_addr().copied())
        .with_context(|| format!("There is no interface {interface}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_proto::ip::Ipv4;

    #[test]
    fn frames_begin_alike_and_have_their_packets_behind_that() {
        let ethernet = [7; ETHERNET_BYTES];
        let stride = ETHERNET_BYTES + 20;
        let mut frames = Frames { bytes: vec![0; 3 * stride], stride, ethernet };
        assert_eq!(frames.count(), 3);
        frames.packets().for_each(|packet| packet.fill(9));
        assert!(frames.bytes.chunks(stride).all(|frame| frame[..14] == [7; 14]));
        assert_eq!(frames.bytes.iter().filter(|byte| **byte == 9).count(), 60);
    }

    #[test]
    fn a_header_with_another_address_gets_another_checksum() {
        let mut packet = [0; 28];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 1, 2]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        sum_ipv4_header(&mut packet);
        assert!(Ipv4::parse(&packet).is_ok_and(|header| header.checksum_holds()));
    }
}
