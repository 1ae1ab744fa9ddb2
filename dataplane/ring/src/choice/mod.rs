//! Which driver runs, and why.
//!
//! Asked for by name, a driver is taken as it is: what is missing then is said when it is made.
//! Left to us, it is io_uring where the kernel has it and allows it, unless `measure` finds it
//! slower here. The answer is a plain value with a sentence, for the log, for `ringway doctor` and
//! for figures. This module must not know who runs the driver.

mod measure;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::features::{Features, NoUring};

pub use measure::{Cost, Measured};

/// How much dearer io_uring may be before it is left: 10 per cent of CPU time per datagram, taken
/// over both regimes. Less is within what a measurement of some milliseconds tells, and the ring
/// gains where it is not measured: one wait covers everything a core does.
pub const MARGIN_PERCENT: u64 = 10;

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// The better one.
    #[default]
    Auto,
    /// io_uring, or nothing.
    Uring,
    /// epoll, whatever the kernel has.
    Epoll,
}

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// [`UringDriver`](crate::UringDriver).
    Uring,
    /// [`EpollDriver`](crate::EpollDriver).
    Epoll,
}

impl DriverKind {
    /// Its name in options and figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The driver that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which it is.
    pub kind: DriverKind,
    /// Why, as one sentence without a full stop.
    pub why: String,
    /// What both cost here, if that was looked at.
    pub measured: Option<Measured>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.word(), self.why)
    }
}

/// Chooses a driver. With [`DriverChoice::Auto`] on a kernel with io_uring, both are measured on
/// the calling thread over loopback, which takes about 20 ms.
#[must_use]
pub fn choose(choice: DriverChoice, features: &Features) -> Choice {
    let plain = |kind, why: String| Choice { kind, why, measured: None };
    match choice {
        DriverChoice::Uring => plain(DriverKind::Uring, "it was asked for".into()),
        DriverChoice::Epoll => plain(DriverKind::Epoll, "it was asked for".into()),
        DriverChoice::Auto => match &features.uring {
            Err(NoUring(why)) => plain(DriverKind::Epoll, why.clone()),
            Ok(uring) if !uring.receive_multishot => plain(
                DriverKind::Epoll,
                "the io_uring of this kernel cannot receive without being asked for each datagram \
                 (Linux 6.0 can)"
                    .into(),
            ),
            Ok(_) => match measure::measure(features) {
                Ok(measured) => judge(measured),
                Err(error) => unmeasured(&error),
            },
        },
    }
}

fn judge(measured: Measured) -> Choice {
    let (kind, why) = if measured.is_uring_slower_by(MARGIN_PERCENT) {
        (
            DriverKind::Epoll,
            format!("io_uring is more than {MARGIN_PERCENT} % slower here: {measured}"),
        )
    } else {
        (DriverKind::Uring, measured.to_string())
    };
    Choice { kind, why, measured: Some(measured) }
}

/// Nothing is known about speed; but whether a ring could be made is.
fn unmeasured(error: &measure::Unmeasured) -> Choice {
    let kind = match error {
        measure::Unmeasured::NoRing(_) => DriverKind::Epoll,
        measure::Unmeasured::NoLoopback(_) => DriverKind::Uring,
    };
    Choice { kind, why: error.to_string(), measured: None }
}
