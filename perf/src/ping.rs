//! One question: do echo requests come back?

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;
use crate::wait::wait_until;

/// Sends one echo request of `payload_bytes` and says whether the answer came within a second.
#[must_use]
pub fn once(netns: &Netns, to: IpAddr, payload_bytes: u16) -> bool {
    let size = payload_bytes.to_string();
    let ping = netns.launch("ping").args(["-n", "-c", "1", "-W", "1", "-s", &size]);
    ping.arg(to.to_string()).run().is_ok()
}

/// Sends `count` echo requests, 10 ms apart, and returns how many answers came.
///
/// # Errors
/// When ping prints no summary.
pub fn count(netns: &Netns, to: IpAddr, count: u32) -> Result<u32> {
    count_by(netns, None, to, count)
}

/// As [`count`], by this interface if one is named.
///
/// # Errors
/// When ping prints no summary.
pub fn count_by(netns: &Netns, interface: Option<&str>, to: IpAddr, count: u32) -> Result<u32> {
    let by = interface.map_or(String::new(), |interface| format!("-I {interface} "));
    let line = format!("ping -n -q -i 0.01 -W 2 {by}-c {count} {to} || true");
    let text = netns.launch("sh").args(["-c", &line]).output(Duration::from_secs(60))?;
    let answers = text.split(',').find_map(|part| part.trim().strip_suffix(" received"));
    answers
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| anyhow::anyhow!("No summary from ping: {text}"))
}

/// Pings until an answer comes.
///
/// # Errors
/// When none came within `limit`.
pub fn until_answered(netns: &Netns, to: IpAddr, limit: Duration) -> Result<()> {
    wait_until(&format!("an answer from {to} in {}", netns.name()), limit, || {
        once(netns, to, 56).then_some(())
    })
}
