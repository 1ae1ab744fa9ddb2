//! A fleet as a command: clients by the thousand against any gateway, from the namespace that the
//! command was started in.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use ringway_proto::crypto::PublicKey;
use serde_json::json;

use ringway_perf::fleet::{Fleet, Load, Roster};

/// Limit for the handshakes of all.
const SHAKE_LIMIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct FleetArgs {
    /// Address of the gateway.
    #[arg(long)]
    to: SocketAddrV4,
    /// Public key of the gateway.
    #[arg(long)]
    gateway: String,
    /// How many clients, at most 1,048,576.
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Seed of their keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients that share a source address.
    #[arg(long, default_value_t = 1)]
    per_source: u32,
    /// Print their `[Peer]` sections for the gateway and end.
    #[arg(long)]
    peers: bool,
    /// Handshakes under way at a time.
    #[arg(long, default_value_t = 128)]
    at_once: u32,
    /// Where to send numbered datagrams inside; the far end may be `ringway-perf order-receive`.
    #[arg(long)]
    to_inner: Option<SocketAddrV4>,
    /// Datagrams per second of all clients together.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Bytes of an inner packet, IP header included.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Persistent keepalive of every client in seconds, 0 for none.
    #[arg(long, default_value_t = 25)]
    keepalive: u16,
    /// Seconds to send, or to hold the sessions.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn run(args: &FleetArgs) -> Result<()> {
    let per_source = args.per_source.max(1);
    let roster = Roster { per_source, ..Roster::new(args.seed, args.clients.min(1 << 20)) };
    if args.peers {
        for number in 0..roster.count {
            let public = BASE64_STANDARD.encode(roster.private(number).public().0);
            let inner = roster.inner(number);
            println!("[Peer]\nPublicKey = {public}\nAllowedIPs = {inner}/32");
        }
        return Ok(());
    }
    let key = BASE64_STANDARD.decode(&args.gateway).context("The gateway's key is not base64")?;
    let key = key.try_into().map_err(|_| anyhow!("The gateway's key is not 32 bytes long"))?;
    let mut fleet = Fleet::enlist_here(roster, PublicKey(key), args.to)?;
    let shaken = fleet.shake(0..roster.count, args.at_once.max(1), SHAKE_LIMIT)?;
    println!(
        "{}",
        json!({
            "completed": shaken.completed,
            "failed": shaken.failed,
            "retries": shaken.retries,
            "cookies": shaken.cookies,
            "per_s": shaken.per_second(),
            "p50_ms": shaken.percentile_ms(0.5).ok(),
            "p99_ms": shaken.percentile_ms(0.99).ok(),
            "max_ms": shaken.percentile_ms(1.0).ok(),
        })
    );
    if args.keepalive > 0 {
        fleet.keep_alive(0..roster.count, args.keepalive)?;
    }
    let period = Duration::from_secs(args.seconds);
    let Some(to) = args.to_inner else { return fleet.hold(period) };
    let per_s = Some(args.rate.max(1));
    let clients = 0..roster.count;
    let load = Load { clients, to, size: args.size, batch: 1, per_s, echo: false, period };
    let driven = fleet.drive(&load)?;
    println!("{}", json!({ "sent": driven.sent, "seconds": driven.wall.as_secs_f64() }));
    Ok(())
}
