//! Asking the API over and over from several threads, and how long the answers took.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::outcomes::float;
use crate::report::Figure;
use crate::rr::RoundTrips;

/// What came of it.
pub(super) struct Asked {
    /// How long each answer took.
    pub(super) took: RoundTrips,
    /// From the first question to the last answer.
    pub(super) wall: Duration,
}

/// When to stop.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// So long has passed.
    Passed(Duration),
    /// Each thread has asked so often.
    Asked(u64),
}

impl Asked {
    pub(super) fn per_s(&self) -> f64 {
        float(self.took.count() as u64) / self.wall.as_secs_f64().max(1e-9)
    }

    pub(super) fn ms(&self, share: f64) -> f64 {
        self.took.percentile_us(share) / 1e3
    }

    /// Rate and latencies.
    pub(super) fn figures(&self) -> Vec<Figure> {
        vec![
            Figure::higher("per s", self.per_s()),
            Figure::lower("p50 ms", self.ms(0.5)),
            Figure::lower("p99 ms", self.ms(0.99)),
            Figure::told("count", float(self.took.count() as u64)),
        ]
    }
}

/// Has `threads` ask by `ask(thread, turn)` until it is time; what fails ends it. Each thread
/// first makes what it asks with (`open`), which is not counted.
pub(super) fn ask<T: Send>(
    threads: u64,
    until: Until,
    open: impl Fn(u64) -> Result<T> + Sync,
    ask: impl Fn(&mut T, u64, u64) -> Result<()> + Sync,
) -> Result<Asked> {
    let tools = (0..threads).map(&open).collect::<Result<Vec<T>>>()?;
    let begun = Instant::now();
    let one = |thread: u64, mut tool: T| -> Result<Vec<Duration>> {
        let mut took = Vec::new();
        loop {
            let turn = took.len() as u64;
            let over = match until {
                Until::Passed(period) => begun.elapsed() >= period,
                Until::Asked(times) => turn >= times,
            };
            if over {
                return Ok(took);
            }
            let asked = Instant::now();
            ask(&mut tool, thread, turn)?;
            took.push(asked.elapsed());
        }
    };
    let one = &one;
    let took: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = tools
            .into_iter()
            .zip(0..)
            .map(|(tool, thread)| scope.spawn(move || one(thread, tool)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("Whoever asks panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let wall = begun.elapsed();
    let took = took.into_iter().collect::<Result<Vec<_>>>()?.concat();
    match RoundTrips::of(took) {
        Some(took) => Ok(Asked { took, wall }),
        None => bail!("Nothing was asked in {wall:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_thread_asks_as_often_as_told_and_a_failure_is_told() {
        let sum = AtomicU64::new(0);
        let add = |tool: &mut u64, _: u64, turn: u64| {
            sum.fetch_add(*tool * 100 + turn, Ordering::Relaxed);
            Ok(())
        };
        let asked = ask(3, Until::Asked(4), Ok, add).unwrap();
        assert_eq!(asked.took.count(), 12);
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 300 + 3 * 6);
        assert!(ask(2, Until::Asked(1), Ok, |_: &mut u64, _, _| bail!("no")).is_err());
        assert!(ask(1, Until::Asked(0), Ok, |_: &mut u64, _, _| Ok(())).is_err());
    }
}
