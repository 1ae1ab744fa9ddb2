//! TCP streams through a stock client.

use anyhow::Result;

use super::{Busy, Settings, to_float};
use crate::cpu::resident_bytes_of;
use crate::iperf::{Amount, Direction, Run, Server};
use crate::programs::Program;
use crate::report::Figure;
use crate::topology::{Line, Place};

pub(super) fn measure(
    server: Program,
    settings: &Settings,
    streams: u32,
    direction: Direction,
) -> Result<Vec<Figure>> {
    let site = Line::new(1500)?.connect(settings.plan(server))?;
    site.await_traffic(settings.inside)?;

    let to = Place::Destination.address(settings.inside);
    let ends = site.plan.pinning.ends;
    let iperf = Server::start(&site.line.dst, to, 5201, ends)?;
    let (omitted_s, measured_s) = (settings.omitted_s, settings.measured_s);
    let amount = Amount::Seconds { omitted_s, measured_s };
    let run = Run { streams, direction, amount, rate_limit: None };

    let pid = site.gateway.tunnel.pid();
    let (gateway, client) = (Busy::since_now(pid), Busy::since_now(site.client.pid()));
    let carried = iperf.run(&site.line.cli, run, ends)?;
    let (gateway, client) = (gateway.used(), client.used());
    let gigabytes = carried.bytes / 1e9;
    Ok(vec![
        Figure::higher("Gbit/s", carried.bits_per_second / 1e9),
        Figure::lower("CPU-s/GB", gateway.cpu_s / gigabytes),
        Figure::told("core used", gateway.cores()),
        Figure::told("client CPU-s/GB", client.cpu_s / gigabytes),
        Figure::lower("retransmits", to_float(carried.retransmits)),
        Figure::lower("RSS after MB", to_float(resident_bytes_of(pid)) / 1e6),
    ])
}
