//! Numbered datagrams of several sessions: what came late, twice, or not at all.
//!
//! The rate is one that every server can carry, so that a loss says something; TCP hides lossless
//! reordering, this does not.

use anyhow::{Result, anyhow, ensure};
use std::net::SocketAddrV4;

use super::crowd::{Crowd, FAR, SEED};
use super::{Settings, to_float};
use crate::fleet::far::{FarEnd, blast};
use crate::fleet::{Fleet, Load, Roster, pin_this_thread};
use crate::iperf::Direction;
use crate::order::OrderReport;
use crate::programs::Program;
use crate::report::Figure;

const SESSIONS: u32 = 8;
const BYTES: usize = 1_360;
const BATCH: usize = 16;
const PER_S: u64 = 50_000;

/// Inner port of the clients; nobody listens there but the fleet.
const PORT: u16 = 7_000;

pub(super) fn measure(
    server: Program,
    settings: &Settings,
    direction: Direction,
) -> Result<Vec<Figure>> {
    let crowd = Crowd::start(server, settings)?;
    let (fleet, _) = crowd.connected(Roster::new(SEED, SESSIONS))?;
    let (sent, report) = match direction {
        Direction::Up => up(&crowd, settings, fleet),
        Direction::Down => down(&crowd, settings, fleet),
    }?;
    ensure!(report.arrived > 0, "Nothing arrived");
    let lost = to_float(sent.saturating_sub(report.arrived));
    Ok(vec![
        Figure::lower("late", to_float(report.late)),
        Figure::lower("doubles", to_float(report.duplicates)),
        Figure::told("arrived", to_float(report.arrived)),
        Figure::told("lost %", 100.0 * lost / to_float(sent.max(1))),
        Figure::told("longest gap ms", report.gap_max.as_secs_f64() * 1e3),
    ])
}

fn up(crowd: &Crowd, settings: &Settings, mut fleet: Fleet) -> Result<(u64, OrderReport)> {
    let far = FarEnd::start_in_a_hurry(&crowd.line.dst, FAR, Some(0))?;
    let load = Load {
        clients: 0..SESSIONS,
        to: FAR,
        size: BYTES,
        batch: BATCH,
        per_s: Some(PER_S),
        echo: false,
        period: settings.whole(),
    };
    let driven = fleet.drive(&load)?;
    Ok((driven.sent, far.stop()?))
}

fn down(crowd: &Crowd, settings: &Settings, mut fleet: Fleet) -> Result<(u64, OrderReport)> {
    let to: Vec<SocketAddrV4> =
        (0..SESSIONS).map(|number| SocketAddrV4::new(fleet.roster().inner(number), PORT)).collect();
    let (dst, period) = (&crowd.line.dst, settings.whole());
    std::thread::scope(|scope| {
        let blasting = scope.spawn(move || {
            pin_this_thread(Some(0))?;
            blast(dst, FAR, &to, (BYTES - 28, BATCH), Some(PER_S), period)
        });
        let report = fleet.listen(period)?;
        let sent = blasting.join().map_err(|_| anyhow!("The far end panicked"))??;
        Ok((sent, report))
    })
}
