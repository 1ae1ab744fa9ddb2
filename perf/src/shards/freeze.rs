//! The control thread stands still beside traffic: what the cores do, they do without it.
//!
//! The thread is stopped by a tracer, not by a signal, which would stop the whole process. While it
//! stands, the honest session goes on, others shake hands for the first time and again, and all of
//! them move to another address.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::honest::{Honest, SEED};
use super::{Outcome, Settings, must};
use crate::fleet::{Fleet, Grounds, Roster, Shaken};
use crate::report::Figure;

/// Limit for handshakes while control stands still.
const LIMIT: Duration = Duration::from_secs(10);

/// A thread that was stopped; it goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(thread: u32) -> Result<Self> {
        let thread = Pid::from_raw(i32::try_from(thread)?);
        ptrace::seize(thread, ptrace::Options::empty()).context("Tracing the control thread")?;
        let stopped = Self(thread);
        ptrace::interrupt(thread).context("Stopping the control thread")?;
        let status = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        let is_stopped = matches!(status, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..));
        ensure!(is_stopped, "The control thread did not stop: {status:?}");
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _gone = ptrace::detach(self.0, None);
    }
}

/// What clients did while control stood still.
struct Meanwhile {
    first: Shaken,
    again: Shaken,
    roamed: Shaken,
    stood: Duration,
}

pub(super) fn run(settings: &Settings) -> Result<Vec<Outcome>> {
    let grounds = settings.grounds()?;
    let frozen = Duration::from_secs(settings.size.pick(10, 60));
    let others = grounds.fleet(Roster::new(SEED, settings.size.pick(50, 1_000)))?;
    let honest = Honest::connect(&grounds, settings)?;
    let before = grounds.stats.settled()?;
    let (meanwhile, kept) = honest.beside(frozen, || stand_still(&grounds, others, frozen))?;
    // Also says that control is awake again.
    let after = grounds.stats.settled()?;

    let Meanwhile { first, again, roamed, stood } = meanwhile;
    let moved = after.total("roamed") - before.total("roamed");
    let mut figures = vec![
        Figure::told("stood still s", stood.as_secs_f64()),
        Figure::told("handshakes", f64::from(first.completed + again.completed + roamed.completed)),
        Figure::told("roamed", super::float(moved)),
    ];
    figures.extend(kept.figures());
    let mut invariants = kept.unharmed("while control stands still");
    for (what, shaken) in [("first", &first), ("second", &again), ("roamed", &roamed)] {
        let failed = shaken.failed;
        invariants.push(must(failed == 0, format!("{what} handshakes complete ({failed} do not)")));
    }
    invariants.push(must(
        moved >= u64::from(roamed.completed),
        format!("the gateway follows all who move ({moved})"),
    ));
    Ok(vec![Outcome { variant: settings.variant("control stopped"), figures, invariants }])
}

fn stand_still(grounds: &Grounds, mut others: Fleet, period: Duration) -> Result<Meanwhile> {
    let stopped = Stopped::stop(grounds.pid())?;
    let start = Instant::now();
    let all = 0..others.roster().count;
    let first = others.shake(all.clone(), 32, LIMIT)?;
    others.hold(Duration::from_millis(200))?;
    others.forget();
    let again = others.shake(all.clone(), 32, LIMIT)?;
    others.hold(Duration::from_millis(200))?;
    others.forget();
    others.roam();
    let roamed = others.shake(all, 32, LIMIT)?;
    if let Some(left) = period.checked_sub(start.elapsed()) {
        others.hold(left)?;
    }
    let stood = start.elapsed();
    drop(stopped);
    Ok(Meanwhile { first, again, roamed, stood })
}
