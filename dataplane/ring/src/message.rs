//! Everything the kernel is told about a train, or a part of it, besides the bytes: where to, where
//! from, how to cut it, which class.
//!
//! This file must not know rings or sockets, nor when a message is sent.

use std::net::IpAddr;

use crate::addr::Name;
use crate::cmsg::ControlOut;
use crate::driver::{Local, Train};
use crate::stats::DriverStats;
use crate::sys;

/// Name and control messages of one send.
#[derive(Debug)]
pub(crate) struct Message {
    name: Name,
    name_bytes: usize,
    control: ControlOut,
}

impl Message {
    pub(crate) fn new() -> Self {
        Self { name: Name::default(), name_bytes: 0, control: ControlOut::new() }
    }

    /// Says where `train` goes, that it comes from `from`, and that the kernel cuts the bytes into
    /// datagrams of `segment` bytes, if it is to cut at all.
    pub(crate) fn describe(&mut self, train: &Train, segment: Option<usize>, from: Option<Local>) {
        self.name_bytes = self.name.set(&train.to);
        let control = &mut self.control;
        control.clear();
        if let Some(bytes) = segment {
            control.segment(bytes as u16);
        }
        let ipv6 = train.to.is_ipv6();
        if let Some(from) = from.filter(|from| matches!(from.address, IpAddr::V6(_)) == ipv6) {
            control.source(from);
        }
        let class = train.dscp << 2 | train.ecn.0 & 0b11;
        if class != 0 {
            control.traffic_class(ipv6, class);
        }
    }

    /// A header that refers to this description and to `vector`. Both must stay where they are for
    /// as long as the kernel may read the header.
    pub(crate) fn header(&mut self, vector: *mut libc::iovec) -> libc::msghdr {
        let mut header = sys::empty_message();
        header.msg_name = (&raw mut self.name).cast();
        header.msg_namelen = self.name_bytes as libc::socklen_t;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        let control_bytes = self.control.len();
        header.msg_controllen = control_bytes as _;
        header.msg_control = match control_bytes {
            0 => std::ptr::null_mut(),
            _ => self.control.bytes_mut().cast(),
        };
        header
    }
}

/// Datagrams in a train.
pub(crate) fn datagrams(train: &Train) -> usize {
    train.len.div_ceil(train.segment_bytes)
}

/// Counts a train that is about to leave.
#[inline]
pub(crate) fn count(train: &Train, datagrams: usize, stats: &mut DriverStats) {
    stats.trains += 1;
    stats.train_datagrams += datagrams as u64;
    stats.train_bytes += train.len as u64;
    stats.train_batch.record(datagrams);
}

/// Whether a refusal may come from a source address that is no longer ours, or no longer leads
/// there.
pub(crate) const fn is_lost_source(errno: i32) -> bool {
    matches!(errno, libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::ENODEV)
}
