//! Traffic that has nothing to do with what operators and people do meanwhile: an honest session
//! whose numbered datagrams make a round trip, and if wanted a stream of 0.4 Gbit/s of another one.
//!
//! Senders and far ends go before everything ordinary on their processor, so that what is lost or
//! late was lost or late at the gateway, not at these ends. How long the gateway's worker had to
//! wait for its processor is told: a machine that has other things to do loses datagrams by that
//! alone.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::house::{House, SEED, ends_cpu};
use crate::fleet::far::FarEnd;
use crate::fleet::{Driven, Fleet, Load, Roster, hurry_this_thread};
use crate::order::OrderReport;
use crate::outcomes::{Invariant, float, must};
use crate::report::Figure;

/// The honest session: datagrams per second, and bytes of each (inner IP packet).
const HONEST: (u64, usize) = (2_000, 256);

/// The stream: 0.4 Gbit/s of inner packets.
const STREAM: (u64, usize) = (35_714, 1_400);

/// Datagrams of the stream that leave together.
const STREAM_BATCH: usize = 32;

/// Clients of traffic are numbered from here, away from all others.
const FIRST: u32 = 160_000;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Both sessions.
pub(super) struct Traffic {
    honest: Fleet,
    stream: Fleet,
}

/// What became of the datagrams.
pub(super) struct Kept {
    honest: (Driven, OrderReport),
    stream: Option<(Driven, OrderReport)>,
    /// Initiations that both sent meanwhile.
    initiations: u64,
    /// That the gateway's worker had to wait for its processor.
    waited_s: f64,
}

impl Traffic {
    /// Makes their users and connects them.
    pub(super) fn connect(house: &House) -> Result<Self> {
        let roster = Roster { first: FIRST, ..Roster::new(SEED, 1) };
        let honest = house.connected("honest", roster)?;
        let stream = house.connected("stream", roster.after(1))?;
        Ok(Self { honest, stream })
    }

    /// Sends for `period` while `work` runs; both must have ended.
    pub(super) fn beside<T>(
        &mut self,
        house: &House,
        with_stream: bool,
        period: Duration,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Kept)> {
        for fleet in [&mut self.honest, &mut self.stream] {
            if fleet.live() == 0 {
                let shaken = fleet.shake(0..1, 1, HANDSHAKE_LIMIT)?;
                ensure!(shaken.completed == 1, "No session for traffic: {}", house.said());
            }
        }
        let (before, waited_s) = (self.initiations(), house.worker_waited_s());
        let honest_far = far(house, 9_010)?;
        let stream_far = far(house, 9_011)?;
        let honest_load = load(HONEST, &honest_far, 1, true, period);
        let stream_load = load(STREAM, &stream_far, STREAM_BATCH, false, period);
        let (honest, stream) = (&mut self.honest, &mut self.stream);
        let (done, honest, stream) = std::thread::scope(|scope| {
            let honest = scope.spawn(move || drive(honest, &honest_load));
            let stream = with_stream.then(|| scope.spawn(move || drive(stream, &stream_load)));
            let done = work();
            (done, join(honest), stream.map(join).transpose())
        });
        let honest = (honest?, honest_far.stop()?);
        let stream_there = stream_far.stop()?;
        let stream = stream?.map(|driven| (driven, stream_there));
        let initiations = self.initiations() - before;
        let waited_s = house.worker_waited_s() - waited_s;
        Ok((done?, Kept { honest, stream, initiations, waited_s }))
    }

    fn initiations(&self) -> u64 {
        self.honest.initiations(&(0..1)) + self.stream.initiations(&(0..1))
    }
}

impl Kept {
    /// Of the honest session, both ways.
    pub(super) fn honest_lost(&self) -> u64 {
        let (driven, there) = &self.honest;
        driven.sent.saturating_sub(driven.back.arrived).max(driven.sent - there.arrived)
    }

    pub(super) fn stream_lost(&self) -> u64 {
        self.stream.as_ref().map_or(0, |(driven, there)| driven.sent - there.arrived)
    }

    pub(super) fn p99_us(&self) -> f64 {
        self.honest.0.trips.as_ref().map_or(f64::NAN, |trips| trips.percentile_us(0.99))
    }

    pub(super) fn figures(&self) -> Vec<Figure> {
        let (driven, there) = &self.honest;
        let p50 = driven.trips.as_ref().map_or(f64::NAN, |trips| trips.percentile_us(0.5));
        let gap = there.gap_max.max(driven.back.gap_max);
        let mut figures = vec![
            Figure::told("honest sent", float(driven.sent)),
            Figure::lower("honest lost", float(self.honest_lost())),
            Figure::told("trip p50 µs", p50),
            Figure::lower("trip p99 µs", self.p99_us()),
            Figure::told("longest gap ms", gap.as_secs_f64() * 1e3),
            Figure::lower("initiations", float(self.initiations)),
            Figure::told("worker waited for its CPU, ms", self.waited_s * 1e3),
        ];
        if let Some((driven, _)) = &self.stream {
            figures.push(Figure::told("stream sent", float(driven.sent)));
            figures.push(Figure::lower("stream lost", float(self.stream_lost())));
        }
        figures
    }

    /// Nothing was lost, and nobody had to shake hands again.
    pub(super) fn unharmed(&self, when: &str) -> Vec<Invariant> {
        let sent = self.honest.0.sent;
        let lost = self.honest_lost();
        let waited = format!("the worker waited {:.1} ms for its CPU", self.waited_s * 1e3);
        let says = format!("{when}: no honest datagram is lost ({lost} of {sent}; {waited})");
        let mut all = vec![
            must(sent > 0, format!("{when}: the honest session sent something")),
            must(lost == 0, says),
            must(
                self.initiations == 0,
                format!("{when}: no handshake is repeated ({} are)", self.initiations),
            ),
        ];
        if let Some((driven, _)) = &self.stream {
            let lost = self.stream_lost();
            let says =
                format!("{when}: the stream loses nothing ({lost} of {}; {waited})", driven.sent);
            all.push(must(lost == 0, says));
        }
        all
    }
}

fn far(house: &House, port: u16) -> Result<FarEnd> {
    let at = SocketAddrV4::new(Ipv4Addr::new(10, 91, 2, 2), port);
    FarEnd::start_in_a_hurry(&house.line.dst, at, ends_cpu())
}

fn load(
    (per_s, size): (u64, usize),
    far: &FarEnd,
    batch: usize,
    echo: bool,
    period: Duration,
) -> Load {
    Load { clients: 0..1, to: far.at(), size, batch, per_s: Some(per_s), echo, period }
}

fn drive(fleet: &mut Fleet, load: &Load) -> Result<Driven> {
    hurry_this_thread();
    fleet.drive(load)
}

fn join(thread: ScopedJoinHandle<'_, Result<Driven>>) -> Result<Driven> {
    let driven = thread.join().map_err(|_| anyhow!("Whoever sends traffic panicked"))?;
    driven.context("Traffic")
}
