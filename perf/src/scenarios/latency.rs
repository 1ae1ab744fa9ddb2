//! Round trips of one byte through an otherwise idle gateway.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Busy, Settings, own_tool};
use crate::programs::Program;
use crate::report::Figure;
use crate::rr::Transport;
use crate::topology::{Line, Place};
use crate::wait::wait_until;

const PORT: u16 = 9_001;

pub(super) fn measure(
    server: Program,
    settings: &Settings,
    transport: Transport,
) -> Result<Vec<Figure>> {
    let site = Line::new(1500)?.connect(settings.plan(server))?;
    site.await_traffic(settings.inside)?;

    let ends = site.plan.pinning.ends;
    let at = SocketAddr::new(Place::Destination.address(settings.inside), PORT);
    let _answers =
        own_tool(&format!("rr-serve {at}"))?.within(site.line.dst.name()).on_cpus(ends).spawn()?;
    let udp = if transport == Transport::Udp { "--udp" } else { "" };
    let ask = |seconds: u32| {
        let asked = own_tool(&format!("rr {at} {udp} --seconds {seconds}"))?
            .within(site.line.cli.name())
            .on_cpus(ends);
        asked.output(Duration::from_secs(u64::from(seconds) + 20))
    };
    wait_until("the answering end", Duration::from_secs(10), || ask(0).ok())?;
    let gateway = Busy::since_now(site.gateway.tunnel.pid());
    let trips: Value = serde_json::from_str(&ask(settings.measured_s)?)?;
    let gateway = gateway.used();
    let number = |name: &str| trips[name].as_f64().with_context(|| format!("rr told no {name}"));
    Ok(vec![
        Figure::lower("p50 µs", number("p50_us")?),
        Figure::lower("p99 µs", number("p99_us")?),
        Figure::told("round trips", number("count")?),
        Figure::told("core used", gateway.cores()),
    ])
}
