//! Machines that are not x86-64: there is nothing to detect. Has the shape of `avx512`, and cannot
//! be reached because a [`Token`] cannot exist.

use crate::Packet;

/// Never made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {}

impl Token {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(crate) fn seal_one(self, _: &mut Packet<'_>) {
        match self {}
    }

    pub(crate) fn seal_group(self, _: &mut [Packet<'_>]) {
        match self {}
    }

    pub(crate) fn open_one(self, _: &mut Packet<'_>) {
        match self {}
    }

    pub(crate) fn open_group(self, _: &mut [Packet<'_>]) {
        match self {}
    }
}
