//! How often a descriptor failed in a row, and when it is given up.

/// Failures in a row after which receiving is given up. Each costs one call, so a handful of
/// hiccups (memory pressure, an interface that goes down and up) is ridden out and a dead
/// descriptor does not become a busy loop.
pub(crate) const FAILURES_MAX: u32 = 16;

/// The recent past of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failures {
    in_a_row: u32,
    broken: Option<i32>,
}

impl Failures {
    pub(crate) const fn new() -> Self {
        Self { in_a_row: 0, broken: None }
    }

    pub(crate) const fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    pub(crate) const fn failed(&mut self, errno: i32) {
        self.in_a_row += 1;
        if self.in_a_row >= FAILURES_MAX {
            self.broken = Some(errno);
        }
    }

    /// Why it was given up, as an error number.
    pub(crate) const fn broken(&self) -> Option<i32> {
        self.broken
    }

    /// A new descriptor, or a new try: past failures no longer count.
    pub(crate) const fn reset(&mut self) {
        *self = Self::new();
    }
}
