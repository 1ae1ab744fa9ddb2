//! Resident memory with many configured peers and no traffic.

use std::time::Duration;

use anyhow::Result;

use super::{Busy, Settings, to_float};
use crate::cpu::resident_bytes_of;
use crate::programs::Program;
use crate::report::Figure;
use crate::topology::Line;
use crate::wg::Peer;

pub(super) fn measure(server: Program, settings: &Settings, peers: u32) -> Result<Vec<Figure>> {
    let line = Line::new(1500)?;
    let gateway = line.serve(&settings.plan(server))?;
    let pid = gateway.tunnel.pid();
    let empty = resident_bytes_of(pid);

    let mut config = gateway.config();
    config.peers = (0..peers).map(peer).collect();
    let busy = Busy::since_now(pid);
    gateway.tunnel.configure(&config)?;
    let configured = busy.used();
    // What is measured is the state after the daemon came to rest.
    std::thread::sleep(Duration::from_secs(3));
    let full = resident_bytes_of(pid);
    let idle = Busy::since_now(pid);
    std::thread::sleep(Duration::from_secs(3));

    let growth = to_float(full.saturating_sub(empty));
    Ok(vec![
        Figure::told("RSS of one peer MB", to_float(empty) / 1e6),
        Figure::told("RSS MB", to_float(full) / 1e6),
        Figure::lower("kB per peer", growth / f64::from(peers) / 1e3),
        Figure::lower("setconf s", configured.wall_s),
        Figure::told("idle core %", idle.used().cores() * 100.0),
    ])
}

/// A peer with a key made from its number: any 32 bytes are a public key.
fn peer(number: u32) -> Peer {
    use base64::Engine as _;
    let mut key = [9; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let [_, high, middle, low] = number.to_be_bytes();
    Peer {
        public: base64::prelude::BASE64_STANDARD.encode(key),
        allowed_ips: vec![format!("10.{high}.{middle}.{low}/32")],
        ..Peer::default()
    }
}
