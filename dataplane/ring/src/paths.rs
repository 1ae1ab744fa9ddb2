//! What was learned about the way to a destination: whether the kernel segments for it, whether it
//! copies.
//!
//! A small table that may forget: a destination that falls on another's place replaces it and is
//! learned anew, at the price of one refused send. Nothing is looked up while nothing special is
//! known. This file must not know rings.

use std::net::IpAddr;

use ringway_alloc::forget;

use crate::zerocopy::PathZeroCopy;

/// Places in the table. Demoted paths are the exception; with fewer than a hundred of them
/// collisions are rare.
const PATHS: usize = 256;

/// Trains sent as single datagrams until segmentation is tried again, as routes may have changed. A
/// wrong try costs one refused call, so one in a thousand is nothing.
const RETRY_TRAINS: u32 = 1 << 10;

/// The same where trains were lost without a refusal. A wrong try costs a client some seconds until
/// that is noticed again, so it must be rare: at 1,000 trains a second once a minute.
const RETRY_TRAINS_LOST: u32 = 1 << 16;

/// Calls of [`Paths::forget`] after which a path that nobody looked up goes: a minute.
const UNUSED_MAX: u32 = 600;

/// The way to one destination address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    to: IpAddr,
    /// Longest segment that the kernel may be asked to cut, in bytes.
    segment_bytes_max: usize,
    trains_left: u32,
    /// How often [`Paths::forget`] was called since it was last looked up.
    unused: u32,
    pub(crate) zero_copy: PathZeroCopy,
}

impl Path {
    const fn new(to: IpAddr) -> Self {
        let zero_copy = PathZeroCopy::new();
        Self { to, segment_bytes_max: usize::MAX, trains_left: 0, unused: 0, zero_copy }
    }

    /// Whether the next train of such segments may be left to the kernel to cut.
    pub(crate) const fn segments(&mut self, segment_bytes: usize) -> bool {
        if segment_bytes <= self.segment_bytes_max {
            return true;
        }
        if self.trains_left == 0 {
            self.segment_bytes_max = usize::MAX;
            return true;
        }
        self.trains_left -= 1;
        false
    }

    /// Whether such segments were refused before.
    pub(crate) const fn is_demoted(&self, segment_bytes: usize) -> bool {
        segment_bytes > self.segment_bytes_max
    }

    /// Whether trains of some length go singly.
    const fn is_demoted_at_all(&self) -> bool {
        self.segment_bytes_max != usize::MAX
    }

    /// Trains do not arrive, though nobody refused them: nothing is left to the kernel to cut.
    pub(crate) const fn suspect(&mut self) {
        self.segment_bytes_max = 0;
        self.trains_left = RETRY_TRAINS_LOST;
    }

    /// The kernel refused to cut segments of this length: they may be too long for the path
    /// (EINVAL, on newer kernels EMSGSIZE), or nothing can be cut at all (EIO: no checksum offload
    /// on the way out).
    pub(crate) const fn demote(&mut self, segment_bytes: usize, errno: i32) {
        self.segment_bytes_max = if errno == libc::EIO { 0 } else { segment_bytes - 1 };
        self.trains_left = RETRY_TRAINS;
    }
}

/// What is known about all ways.
#[derive(Debug)]
pub(crate) struct Paths {
    places: Box<[Option<Path>]>,
    known: usize,
}

impl Paths {
    pub(crate) fn new() -> Self {
        Self { places: vec![None; PATHS].into_boxed_slice(), known: 0 }
    }

    /// What is known about the way to `to`, if anything.
    #[inline]
    pub(crate) fn known(&mut self, to: IpAddr) -> Option<&mut Path> {
        if self.known == 0 {
            return None;
        }
        let path = self.places[place(to)].as_mut().filter(|path| path.to == to)?;
        path.unused = 0;
        Some(path)
    }

    /// Drops what was not looked up for [`UNUSED_MAX`] calls.
    pub(crate) fn forget(&mut self) {
        if self.known == 0 {
            return;
        }
        for slot in &mut self.places {
            let Some(path) = slot else { continue };
            path.unused += 1;
            if path.unused > UNUSED_MAX {
                forget::wipe_value(slot, None);
                self.known -= 1;
            }
        }
    }

    /// Drops what is known about the way to `to`.
    pub(crate) fn remove(&mut self, to: IpAddr) {
        let slot = &mut self.places[place(to)];
        if slot.is_some_and(|path| path.to == to) {
            forget::wipe_value(slot, None);
            self.known -= 1;
        }
    }

    /// Paths on which trains go singly now.
    pub(crate) fn demoted(&self) -> usize {
        if self.known == 0 {
            return 0;
        }
        self.places.iter().flatten().filter(|path| path.is_demoted_at_all()).count()
    }

    /// The way to `to`, to be learned about.
    pub(crate) fn learn(&mut self, to: IpAddr) -> &mut Path {
        let slot = &mut self.places[place(to)];
        if slot.is_none() {
            self.known += 1;
        }
        if slot.as_ref().is_none_or(|path| path.to != to) {
            *slot = None;
        }
        let path = slot.get_or_insert_with(|| Path::new(to));
        path.unused = 0;
        path
    }
}

/// Which place an address falls on: a multiplication spreads the low bits, where addresses differ.
fn place(to: IpAddr) -> usize {
    let folded = match to {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PATHS.trailing_zeros())) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn nothing_is_known_until_something_is_learned() {
        let mut paths = Paths::new();
        assert!(paths.known(ip(1)).is_none());
        paths.learn(ip(1)).demote(1452, libc::EINVAL);
        assert!(paths.known(ip(1)).is_some());
        assert!(paths.known(ip(2)).is_none());
    }

    #[test]
    fn a_segment_too_long_demotes_only_segments_as_long() {
        let mut path = Path::new(ip(1));
        assert!(path.segments(1452));
        path.demote(1452, libc::EINVAL);
        assert!(!path.segments(1452));
        assert!(!path.segments(9000));
        assert!(path.segments(1451));
    }

    #[test]
    fn without_checksum_offload_nothing_is_segmented() {
        let mut path = Path::new(ip(1));
        path.demote(1452, libc::EIO);
        assert!(!path.segments(1));
    }

    #[test]
    fn segmentation_is_tried_again_after_a_while() {
        let mut path = Path::new(ip(1));
        path.demote(1452, libc::EINVAL);
        let refused = (0..RETRY_TRAINS).filter(|_| !path.segments(1452)).count();
        assert_eq!(refused, RETRY_TRAINS as usize);
        assert!(path.segments(1452));
    }

    #[test]
    fn where_trains_were_lost_they_are_tried_again_much_later() {
        let mut paths = Paths::new();
        paths.learn(ip(1)).suspect();
        paths.learn(ip(2)).demote(1452, libc::EINVAL);
        paths.learn(ip(3));
        assert_eq!(paths.demoted(), 2);
        let path = paths.learn(ip(1));
        for _ in 0..RETRY_TRAINS_LOST {
            assert!(!path.segments(1));
        }
        assert!(path.segments(1452));
        assert_eq!(paths.demoted(), 1);
    }

    #[test]
    fn what_is_unused_for_long_or_removed_is_learned_anew() {
        let mut paths = Paths::new();
        for last in 1..=3 {
            paths.learn(ip(last)).suspect();
        }
        paths.remove(ip(2));
        paths.remove(ip(9));
        assert!(paths.known(ip(2)).is_none());
        for _ in 0..UNUSED_MAX {
            paths.forget();
        }
        assert!(paths.known(ip(1)).is_some(), "and it is in use again");
        paths.forget();
        assert_eq!((paths.demoted(), paths.known), (1, 1));
        assert!(paths.known(ip(3)).is_none());
        for _ in 0..=UNUSED_MAX {
            paths.forget();
        }
        assert_eq!((paths.demoted(), paths.known), (0, 0));
    }

    #[test]
    fn colliding_destinations_replace_each_other_and_never_mix() {
        let mut paths = Paths::new();
        let all: Vec<IpAddr> = (0..2000u32).map(|n| IpAddr::from((n << 8).to_be_bytes())).collect();
        for to in &all {
            paths.learn(*to).demote(100, libc::EINVAL);
        }
        let known = all.iter().filter(|to| paths.known(**to).is_some()).count();
        assert!(known <= PATHS);
        assert!(known > PATHS / 2, "{known} of {PATHS} places used");
        assert!(all.iter().all(|to| paths.known(*to).is_none_or(|path| path.to == *to)));
    }
}
