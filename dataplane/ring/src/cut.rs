//! Who cuts a train into datagrams: the kernel, or we.
//!
//! A train the kernel will not cut is sent again as single datagrams, and its path is remembered;
//! later trains on that path take this way directly, until the kernel is tried again. This file
//! must not know how anything is sent.

use std::net::IpAddr;

use crate::driver::Train;
use crate::message;
use crate::paths::Paths;
use crate::stats::DriverStats;
use crate::zerocopy::PathZeroCopy;

/// What was learned about cutting, and about every path.
#[derive(Debug)]
pub(crate) struct Cutter {
    paths: Paths,
    segments_max: usize,
}

impl Cutter {
    /// For a kernel that cuts a train into at most `segments_max` datagrams.
    pub(crate) fn new(segments_max: usize) -> Self {
        Self { paths: Paths::new(), segments_max: segments_max.max(1) }
    }

    /// Whether the kernel may be asked to cut the next train, which has `datagrams`. To be asked
    /// once per train: on a demoted path this counts down to the next try.
    pub(crate) fn may_cut(&mut self, train: &Train, datagrams: usize) -> bool {
        if datagrams > self.segments_max {
            return false;
        }
        match self.paths.known(train.to.ip()) {
            Some(path) => path.segments(train.segment_bytes),
            None => true,
        }
    }

    /// Whether cutting such a train was refused on its path.
    pub(crate) fn is_demoted(&mut self, train: &Train) -> bool {
        let path = self.paths.known(train.to.ip());
        path.is_some_and(|path| path.is_demoted(train.segment_bytes))
    }

    /// Datagrams per message of a train that does not leave as one: one, or as many as the kernel
    /// cuts.
    pub(crate) fn together(&mut self, train: &Train) -> usize {
        if self.is_demoted(train) { 1 } else { self.segments_max.min(message::datagrams(train)) }
    }

    /// The kernel refused a train. Learns from it and says whether single datagrams may get
    /// through: they are refused for other reasons than trains.
    pub(crate) fn refused(&mut self, train: &Train, errno: i32, stats: &mut DriverStats) -> bool {
        let uncut = matches!(errno, libc::EINVAL | libc::EMSGSIZE | libc::EIO);
        if message::datagrams(train) == 1 || !uncut {
            return false;
        }
        let path = self.paths.learn(train.to.ip());
        // Other trains of the same turn may have said so already.
        stats.segmentation_demoted += u64::from(!path.is_demoted(train.segment_bytes));
        path.demote(train.segment_bytes, errno);
        true
    }

    /// Trains to `to` are lost without being refused: they go as single datagrams for a while.
    pub(crate) fn suspect(&mut self, to: IpAddr, stats: &mut DriverStats) {
        let path = self.paths.learn(to);
        stats.segmentation_demoted += u64::from(!path.is_demoted(1));
        path.suspect();
    }

    /// Forgets paths that nothing went on for a while.
    pub(crate) fn forget(&mut self) {
        self.paths.forget();
    }

    /// Forgets the way to `to`.
    pub(crate) fn forget_path(&mut self, to: IpAddr) {
        self.paths.remove(to);
    }

    /// Paths on which trains go as single datagrams now.
    pub(crate) fn demoted(&self) -> usize {
        self.paths.demoted()
    }

    /// What is known about zero copy on the way to `to`.
    pub(crate) fn zero_copy(&mut self, to: IpAddr) -> &mut PathZeroCopy {
        &mut self.paths.learn(to).zero_copy
    }
}
