//! iperf3 for TCP streams, read through its JSON.
//!
//! UDP by iperf3 is not offered: its receiver starves beside an unlimited sender on the same core
//! and then reports losses nobody had. Datagrams are counted by [`crate::sink`] instead.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait::wait_for;

/// Allowance beyond the asked time for connecting and for the last results.
const SLACK: Duration = Duration::from_secs(20);

/// Which way the bytes flow, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server: the gateway decrypts.
    Up,
    /// Server to client: the gateway encrypts.
    Down,
}

impl Direction {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How much a run sends.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// For so many seconds, after `omitted_s` seconds that do not count.
    Seconds {
        /// Warm-up.
        omitted_s: u32,
        /// Measured.
        measured_s: u32,
    },
    /// So many bytes.
    Bytes(u64),
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Parallel TCP streams.
    pub streams: u32,
    /// Which way.
    pub direction: Direction,
    /// How much.
    pub amount: Amount,
    /// Bits per second per stream; `None` as fast as it goes.
    pub rate_limit: Option<u64>,
}

/// What a run carried.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Goodput of the measured part, bits per second.
    pub bits_per_second: f64,
    /// Bytes carried in all, the omitted part included; what processor time is divided by.
    pub bytes: f64,
    /// TCP retransmits of the sender, if it told.
    pub retransmits: u64,
}

/// An iperf3 server; ended when dropped.
#[derive(Debug)]
pub struct Server {
    _process: Process,
    address: IpAddr,
    port: u16,
}

impl Server {
    /// Starts one in `netns` on `address` and waits until it listens.
    ///
    /// # Errors
    /// When iperf3 is missing or the port is taken.
    pub fn start(netns: &Netns, address: IpAddr, port: u16, cpus: Option<&str>) -> Result<Self> {
        let mut process = netns
            .launch("iperf3")
            .args(["-s", "-B", &address.to_string(), "-p", &port.to_string()])
            .on_cpus(cpus)
            .spawn()?;
        wait_for("iperf3 to listen", SLACK, || {
            process.ended().is_some() || listens(process.pid(), port)
        })?;
        if process.ended().is_some() {
            anyhow::bail!("iperf3 server ended: {}{}", process.errors(), process.output());
        }
        Ok(Self { _process: process, address, port })
    }

    /// The client side of `run`, to be run in `netns`.
    #[must_use]
    pub fn client(&self, netns: &Netns, run: Run, cpus: Option<&str>) -> Launch {
        let mut launch = netns
            .launch("iperf3")
            .args(["-J", "-c", &self.address.to_string(), "-p", &self.port.to_string()])
            .args(["-P", &run.streams.to_string(), "--connect-timeout", "5000"])
            // The machine's default may be bbr, whose pacing shrinks GSO batches.
            .args(["-C", "cubic"])
            .on_cpus(cpus);
        if run.direction == Direction::Down {
            launch = launch.arg("-R");
        }
        if let Some(rate) = run.rate_limit {
            launch = launch.args(["-b", &rate.to_string()]);
        }
        match run.amount {
            Amount::Seconds { omitted_s, measured_s } => {
                launch.args(["-O", &omitted_s.to_string(), "-t", &measured_s.to_string()])
            }
            Amount::Bytes(bytes) => launch.args(["-n", &bytes.to_string()]),
        }
    }

    /// Runs a client in `netns` to its end.
    ///
    /// # Errors
    /// When it cannot connect, or hangs.
    pub fn run(&self, netns: &Netns, run: Run, cpus: Option<&str>) -> Result<Carried> {
        let limit = match run.amount {
            Amount::Seconds { omitted_s, measured_s } => {
                Duration::from_secs(u64::from(omitted_s + measured_s)) + SLACK
            }
            Amount::Bytes(_) => 3 * SLACK,
        };
        read(&self.client(netns, run, cpus).output(limit)?)
    }
}

/// Reads iperf3's JSON.
///
/// # Errors
/// When it reports an error or lacks a figure.
pub fn read(json: &str) -> Result<Carried> {
    let report: Value = serde_json::from_str(json).context("iperf3 printed no JSON")?;
    if let Some(error) = report["error"].as_str() {
        anyhow::bail!("iperf3: {error}");
    }
    let end = &report["end"];
    let bits_per_second = end["sum_received"]["bits_per_second"].as_f64();
    let bytes = report["intervals"]
        .as_array()
        .map(|all| all.iter().filter_map(|one| one["sum"]["bytes"].as_f64()).sum::<f64>());
    Ok(Carried {
        bits_per_second: bits_per_second.context("iperf3 reported no rate")?,
        bytes: bytes.context("iperf3 reported no intervals")?,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or_default(),
    })
}

/// Whether some socket listens on `port` in the network namespace of `pid`.
fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&wanted))
                && fields.get(3) == Some(&LISTEN)
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn bytes_count_the_omitted_second_and_the_rate_does_not() {
        let json = r#"{"intervals":[{"sum":{"bytes":100,"omitted":true}},{"sum":{"bytes":300}}],
            "end":{"sum_sent":{"retransmits":5},"sum_received":{"bits_per_second":2400.0}}}"#;
        let carried = read(json).unwrap();
        assert!((carried.bytes - 400.0).abs() < f64::EPSILON);
        assert!((carried.bits_per_second - 2400.0).abs() < f64::EPSILON);
        assert_eq!(carried.retransmits, 5);
    }

    #[test]
    fn an_error_of_iperf_is_an_error_here() {
        let error = read(r#"{"error":"unable to connect"}"#).unwrap_err();
        assert!(error.to_string().contains("unable to connect"));
    }
}
