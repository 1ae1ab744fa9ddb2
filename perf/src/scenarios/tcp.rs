//! TCP streams through a stock client: as fast as they go, and one that is paced.

use anyhow::Result;

use super::path::Path;
use super::{Busy, Settings, to_float};
use crate::cpu::resident_bytes_of_family;
use crate::iperf::{Amount, Direction, Run, Server};
use crate::programs::Program;
use crate::report::Figure;
use crate::topology::{Pinning, Place};

pub(super) fn measure(
    server: Program,
    settings: &Settings,
    streams: u32,
    direction: Direction,
    rate_limit: Option<u64>,
) -> Result<Vec<Figure>> {
    let path = Path::open(server, settings)?;
    let to = Place::Destination.address(settings.inside);
    let ends = Pinning::MEASURE.ends;
    let iperf = Server::start(&path.line().dst, to, 5201, ends)?;
    let (omitted_s, measured_s) = (settings.omitted_s, settings.measured_s);
    let amount = Amount::Seconds { omitted_s, measured_s };
    let run = Run { streams, direction, amount, rate_limit };

    let pid = path.server_pid();
    let (gateway, client) = (Busy::since_now(pid), Busy::since_now(path.client_pid()));
    let carried = iperf.run(&path.line().cli, run, ends)?;
    let (gateway, client) = (gateway.used(), client.used());
    let gigabytes = carried.bytes / 1e9;
    let rate = carried.bits_per_second / 1e9;
    Ok(vec![
        match rate_limit {
            None => Figure::higher("Gbit/s", rate),
            Some(_) => Figure::told("Gbit/s", rate),
        },
        Figure::lower("CPU-s/GB", gateway.cpu_s / gigabytes),
        Figure::told("core used", gateway.cores()),
        Figure::told("client CPU-s/GB", client.cpu_s / gigabytes),
        Figure::lower("retransmits", to_float(carried.retransmits)),
        Figure::lower("RSS after MB", to_float(resident_bytes_of_family(pid)) / 1e6),
    ])
}
