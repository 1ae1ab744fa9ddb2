//! The honest session: one client whose numbered datagrams make a round trip at a stated rate, and
//! what happened to them.

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Invariant, Settings, float, must};
use crate::fleet::far::FarEnd;
use crate::fleet::{Driven, Fleet, Grounds, Load, Roster, hurry_this_thread};
use crate::order::OrderReport;
use crate::report::Figure;

/// Seed of all keys of all scenarios.
pub(super) const SEED: u64 = 0x5eed;

/// Datagrams per second of an honest session, and bytes of each (inner IP packet).
pub(super) const PER_S: u64 = 2_000;
pub(super) const SIZE: usize = 256;

/// Limit for one first handshake, repetitions included.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Honest clients are numbered from here, away from all others.
const FIRST: u32 = 3 << 20;

/// An honest client with a session and its destination.
pub(super) struct Honest {
    fleet: Fleet,
    far: FarEnd,
}

/// What became of its datagrams.
pub(super) struct Kept {
    pub(super) driven: Driven,
    /// What reached the destination.
    pub(super) there: OrderReport,
}

impl Honest {
    /// Connects it.
    pub(super) fn connect(grounds: &Grounds, settings: &Settings) -> Result<Self> {
        let roster = Roster { first: FIRST, ..Roster::new(SEED, 1) };
        let mut fleet = grounds.fleet(roster)?;
        let shaken = fleet.shake(0..1, 1, HANDSHAKE_LIMIT)?;
        ensure!(shaken.completed == 1, "The honest client got no session: {}", grounds.said());
        let (dst, cpu) = (&grounds.line.dst, settings.ends_cpu());
        let far = FarEnd::start_in_a_hurry(dst, grounds.far(), cpu)?;
        Ok(Self { fleet, far })
    }

    pub(super) fn public(&self) -> ringway_proto::crypto::PublicKey {
        self.fleet.public(0)
    }

    /// Sends and receives for `period`, on the calling thread.
    pub(super) fn talk(&mut self, period: Duration) -> Result<Driven> {
        let load = Load {
            clients: 0..1,
            to: self.far.at(),
            size: SIZE,
            batch: 1,
            per_s: Some(PER_S),
            echo: true,
            period,
        };
        self.fleet.drive(&load)
    }

    /// Talks alone for `period` and starts anew with a fresh destination.
    pub(super) fn alone(
        grounds: &Grounds,
        settings: &Settings,
        period: Duration,
    ) -> Result<(Self, Kept)> {
        let mut honest = Self::connect(grounds, settings)?;
        let driven = honest.talk(period)?;
        let Self { fleet, far } = honest;
        let there = far.stop()?;
        let (dst, cpu) = (&grounds.line.dst, settings.ends_cpu());
        let far = FarEnd::start_in_a_hurry(dst, grounds.far(), cpu)?;
        Ok((Self { fleet, far }, Kept { driven, there }))
    }

    /// Talks for `period` on a thread of its own while `work` runs; both must have ended.
    pub(super) fn beside<T>(
        mut self,
        period: Duration,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Kept)> {
        std::thread::scope(|scope| {
            let talking: ScopedJoinHandle<'_, Result<Kept>> = scope.spawn(move || {
                hurry_this_thread();
                let driven = self.talk(period)?;
                Ok(Kept { driven, there: self.far.stop()? })
            });
            let done = work();
            let kept = talking.join().map_err(|_| anyhow!("The honest session panicked"))?;
            Ok((done?, kept.context("The honest session")?))
        })
    }
}

impl Kept {
    pub(super) fn lost_there(&self) -> u64 {
        self.driven.sent.saturating_sub(self.there.arrived)
    }

    pub(super) fn lost_back(&self) -> u64 {
        self.there.arrived.saturating_sub(self.driven.back.arrived)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost_there() + self.lost_back()
    }

    pub(super) fn late(&self) -> u64 {
        self.there.late + self.driven.back.late
    }

    pub(super) fn percentile_us(&self, share: f64) -> f64 {
        self.driven.trips.as_ref().map_or(f64::NAN, |trips| trips.percentile_us(share))
    }

    /// Nothing was lost, repeated or out of order.
    pub(super) fn unharmed(&self, when: &str) -> Vec<Invariant> {
        let duplicates = self.there.duplicates + self.driven.back.duplicates;
        vec![
            must(self.driven.sent > 0, format!("{when}: the honest session sent something")),
            must(
                self.lost() == 0,
                format!(
                    "{when}: no honest datagram is lost ({} of {} on the way there, {} back)",
                    self.lost_there(),
                    self.driven.sent,
                    self.lost_back()
                ),
            ),
            must(self.late() == 0, format!("{when}: order is kept ({} late)", self.late())),
            must(duplicates == 0, format!("{when}: nothing arrives twice ({duplicates})")),
        ]
    }

    /// Its figures.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let gap = self.there.gap_max.max(self.driven.back.gap_max);
        vec![
            Figure::told("honest sent", float(self.driven.sent)),
            Figure::lower("honest lost", float(self.lost())),
            Figure::lower("honest late", float(self.late())),
            Figure::told("p50 µs", self.percentile_us(0.5)),
            Figure::lower("p99 µs", self.percentile_us(0.99)),
            Figure::told("p99.9 µs", self.percentile_us(0.999)),
            Figure::told("longest gap ms", gap.as_secs_f64() * 1e3),
        ]
    }
}
