//! When a send may leave the bytes where they are.
//!
//! Zero copy pays only for large trains and only where the device takes the pages as they are;
//! loopback and veth copy anyway and cost more. So it is off unless asked for, and `Auto` learns
//! per path: the first large trains are sent with it, the kernel reports whether it copied, and one
//! copy ends it until it is probed again much later. This file is pure; it must not know rings.
//! Nothing here ever waits: a buffer is simply not free before its notification.

/// Whether sends may be zero copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopyMode {
    /// Never.
    #[default]
    Off,
    /// For large trains, on paths where a probe showed that the kernel does not copy.
    Auto,
    /// For large trains, everywhere (to measure).
    On,
}

/// Smallest train worth it, in bytes: at 4 KiB there was no gain, at 64 KiB two- to threefold.
pub const ZERO_COPY_BYTES_MIN: usize = 16 << 10;

/// Trains of a probe. They are in flight together, so that the answer does not take long, and few,
/// so that a copying path costs little.
const PROBE_TRAINS: u32 = 16;

/// Large trains on a refused path until it is probed again, as routes may have changed: at 5 Gbit/s
/// about 7 seconds.
const RETRY_TRAINS: u32 = 1 << 16;

/// What is known about one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathZeroCopy {
    Probing { sent: u32, kept: u32 },
    Kept,
    Refused { trains_left: u32 },
}

impl PathZeroCopy {
    pub(crate) const fn new() -> Self {
        Self::Probing { sent: 0, kept: 0 }
    }

    /// Whether the next train of `bytes` goes by zero copy.
    pub(crate) const fn choose(&mut self, mode: ZeroCopyMode, bytes: usize) -> bool {
        if bytes < ZERO_COPY_BYTES_MIN {
            return false;
        }
        match mode {
            ZeroCopyMode::Off => return false,
            ZeroCopyMode::On => return true,
            ZeroCopyMode::Auto => {}
        }
        match self {
            Self::Probing { sent, .. } if *sent < PROBE_TRAINS => {
                *sent += 1;
                true
            }
            Self::Probing { .. } => false,
            Self::Kept => true,
            Self::Refused { trains_left: 0 } => {
                *self = Self::Probing { sent: 1, kept: 0 };
                true
            }
            Self::Refused { trains_left } => {
                *trains_left -= 1;
                false
            }
        }
    }

    /// The kernel is done with a train and said whether it copied. True if this ended zero copy on
    /// the path.
    pub(crate) const fn notified(&mut self, copied: bool) -> bool {
        if copied {
            return self.refuse();
        }
        if let Self::Probing { kept, .. } = self {
            *kept += 1;
            if *kept >= PROBE_TRAINS {
                *self = Self::Kept;
            }
        }
        false
    }

    /// The kernel would not take a train this way (no lockable memory, no support). True if this
    /// ended zero copy.
    pub(crate) const fn refuse(&mut self) -> bool {
        let news = !matches!(self, Self::Refused { .. });
        *self = Self::Refused { trains_left: RETRY_TRAINS };
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 60_000;

    #[test]
    fn off_never_on_always_but_only_for_large_trains() {
        let mut path = PathZeroCopy::new();
        assert!(!path.choose(ZeroCopyMode::Off, LARGE));
        assert!(path.choose(ZeroCopyMode::On, LARGE));
        assert!(!path.choose(ZeroCopyMode::On, ZERO_COPY_BYTES_MIN - 1));
        assert!(!path.choose(ZeroCopyMode::Auto, ZERO_COPY_BYTES_MIN - 1));
        assert_eq!(path, PathZeroCopy::new(), "small trains teach nothing");
    }

    #[test]
    fn a_path_that_does_not_copy_is_kept_after_the_probe() {
        let mut path = PathZeroCopy::new();
        for _ in 0..PROBE_TRAINS {
            assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        }
        assert!(!path.choose(ZeroCopyMode::Auto, LARGE), "the verdict is not in yet");
        for _ in 0..PROBE_TRAINS {
            assert!(!path.notified(false));
        }
        assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        assert_eq!(path, PathZeroCopy::Kept);
    }

    #[test]
    fn one_copy_ends_it_and_is_reported_once() {
        let mut path = PathZeroCopy::new();
        assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        assert!(path.notified(true));
        assert!(!path.notified(true), "the second copy of the same probe is no news");
        assert!(!path.choose(ZeroCopyMode::Auto, LARGE));
    }

    #[test]
    fn a_late_good_notification_does_not_bring_a_refused_path_back() {
        let mut path = PathZeroCopy::new();
        assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        path.notified(true);
        for _ in 0..2 * PROBE_TRAINS {
            path.notified(false);
        }
        assert!(!path.choose(ZeroCopyMode::Auto, LARGE));
    }

    #[test]
    fn a_kept_path_is_given_up_when_the_route_begins_to_copy() {
        let mut path = PathZeroCopy::Kept;
        assert!(path.notified(true));
        assert!(!path.choose(ZeroCopyMode::Auto, LARGE));
    }

    #[test]
    fn a_refused_path_is_probed_again_much_later() {
        let mut path = PathZeroCopy::new();
        path.refuse();
        for _ in 0..RETRY_TRAINS {
            assert!(!path.choose(ZeroCopyMode::Auto, LARGE));
        }
        assert!(path.choose(ZeroCopyMode::Auto, LARGE));
        assert!(matches!(path, PathZeroCopy::Probing { sent: 1, kept: 0 }));
    }
}
