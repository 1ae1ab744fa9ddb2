//! What is kept of who connects from where: everything for a while, or nothing.
//!
//! In the mode `no-log` no address of a client is kept: not in log lines at any level, not in
//! events, records, metrics or the audit log. [`Privacy`] answers for every place that could keep
//! or show one; [`Redact`] is the type of an address on its way to such a place, and [`Scrub`] is
//! the last gate before the log, which lets no address through whoever wrote it. Pure.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway_proto::allowed_ips::IpNet;
use serde::{Serialize, Serializer};

use crate::store::ids::Timestamp;

/// What stands where an address is not kept.
pub const NOT_KEPT: &str = "not-kept";

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Days for which connections are kept unless the operator says otherwise: what most operators may
/// keep without a reason of their own, and enough to look into a complaint.
pub const RETENTION_DAYS_DEFAULT: u32 = 30;

/// Most days: ten years.
pub const RETENTION_DAYS_MAX: u32 = 3650;

/// Whether addresses of clients are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Who connected, when, from where.
    #[default]
    Full,
    /// No address of a client, anywhere.
    NoLog,
}

impl Mode {
    /// All of them, in the order of the manual.
    pub const ALL: [Self; 2] = [Self::Full, Self::NoLog];

    /// The word in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoLog => "no-log",
        }
    }
}

/// What may be kept and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// Whether addresses are kept.
    pub mode: Mode,
    /// In the mode `no-log`: whether whoever administers the gateway sees where a client is while
    /// its session lives.
    pub show_live: bool,
    /// Days after which an entry of the connection log is purged; 0 for never.
    pub retention_days: u32,
}

impl Default for Privacy {
    fn default() -> Self {
        Self { mode: Mode::Full, show_live: false, retention_days: RETENTION_DAYS_DEFAULT }
    }
}

impl Privacy {
    /// What may be kept of where a client is: in records, events, the audit log.
    #[must_use]
    pub fn keep<T>(&self, address: T) -> Option<T> {
        (self.mode == Mode::Full).then_some(address)
    }

    /// What may be shown of where a client with a live session is, to be forgotten at once.
    #[must_use]
    pub fn show<T>(&self, address: T) -> Option<T> {
        (self.mode == Mode::Full || self.show_live).then_some(address)
    }

    /// When a device was last seen, as far as that may be kept: an address is not the only trace.
    #[must_use]
    pub fn keep_seen(&self, at: Timestamp) -> Option<Timestamp> {
        self.keep(at)
    }

    /// An address as it is written in this mode.
    #[must_use]
    pub fn redact<T>(&self, address: T) -> Redact<T> {
        Redact(self.keep(address))
    }

    /// Entries of the connection log from before this moment are purged.
    #[must_use]
    pub const fn purge_before(&self, now: Timestamp) -> Option<Timestamp> {
        match self.retention_days {
            0 => None,
            days => Some(now.plus_ms(-(days as i64) * DAY_MS)),
        }
    }
}

/// An address that shows itself only if it may be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Redact<T>(Option<T>);

impl<T> Redact<T> {
    /// The address, if it may be kept.
    pub fn into_kept(self) -> Option<T> {
        self.0
    }
}

impl<T: fmt::Display> fmt::Display for Redact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str(NOT_KEPT),
        }
    }
}

impl<T: fmt::Display> fmt::Debug for Redact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Serialize> Serialize for Redact<T> {
    /// Absent (`null`) if it is not kept.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Takes addresses out of text.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    mode: Mode,
    own: Vec<IpNet>,
}

impl Scrub {
    /// In the mode `no-log`, lets only addresses in `own` through, beside those that are nobody's:
    /// the gateway's own, its pools.
    #[must_use]
    pub const fn new(mode: Mode, own: Vec<IpNet>) -> Self {
        Self { mode, own }
    }

    /// The mode.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// `text` without addresses of clients.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.mode == Mode::Full || !text.contains(['.', ':', ',']) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        while at < text.len() {
            match self.address_at(text, at) {
                Some(end) => {
                    out.push_str(&text[copied..at]);
                    out.push_str(NOT_KEPT);
                    (copied, at) = (end, end);
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    /// The end of the address of a client that begins at `start`, if one does.
    fn address_at(&self, text: &str, start: usize) -> Option<usize> {
        let first = *text.as_bytes().get(start)?;
        if !(first.is_ascii_hexdigit() || first == b':') {
            return None;
        }
        let before = text[..start].chars().next_back();
        let (end, address) = octets_at(text, start, before)
            .or_else(|| v6_at(text, start, before))
            .or_else(|| v4_at(text, start, before))?;
        let ours = self.own.iter().any(|net| net.contains(address));
        (!ours && !is_nobodys(address)).then_some(end)
    }
}

/// Loopback and "any" say nothing about anybody.
fn is_nobodys(address: IpAddr) -> bool {
    address.to_canonical().is_loopback() || address.to_canonical().is_unspecified()
}

/// `192.0.2.1`, also glued to letters, but not in the middle of a number.
fn v4_at(text: &str, start: usize, before: Option<char>) -> Option<(usize, IpAddr)> {
    if before.is_some_and(|c| c.is_ascii_digit()) {
        return None;
    }
    let run = run(text, start, |byte| byte.is_ascii_digit() || byte == b'.');
    longest(run, 7, 15, |candidate| candidate.parse::<Ipv4Addr>().ok().map(IpAddr::V4))
        .map(|(length, address)| (start + length, address))
}

/// `2001:db8::1`, not glued to letters: paths of modules look like addresses otherwise.
fn v6_at(text: &str, start: usize, before: Option<char>) -> Option<(usize, IpAddr)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if before.is_some_and(|c| is_word(c) || c == ':') {
        return None;
    }
    let run = run(text, start, |byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
    let whole = |candidate: &str| {
        let after = text[start + candidate.len()..].chars().next();
        let address = candidate.parse::<Ipv6Addr>().ok()?;
        (!after.is_some_and(is_word)).then_some(IpAddr::V6(address))
    };
    longest(run, 2, 45, whole).map(|(length, address)| (start + length, address))
}

/// `192, 0, 2, 1`, as arrays of bytes are written.
fn octets_at(text: &str, start: usize, before: Option<char>) -> Option<(usize, IpAddr)> {
    if before.is_some_and(|c| c.is_ascii_digit()) {
        return None;
    }
    let run = run(text, start, |byte| byte.is_ascii_digit() || byte == b',' || byte == b' ');
    let mut octets = [0; 4];
    let mut end = 0;
    for (at, part) in run.split(", ").take(4).enumerate() {
        octets[at] = part.trim_end_matches([',', ' ']).parse().ok()?;
        end += part.len() + 2;
        if at == 3 {
            let trailing = part.len() - part.trim_end_matches([',', ' ']).len();
            return Some((start + end - 2 - trailing, IpAddr::from(octets)));
        }
    }
    None
}

fn run(text: &str, start: usize, belongs: impl Fn(u8) -> bool) -> &str {
    let length = text.as_bytes()[start..].iter().take_while(|byte| belongs(**byte)).count();
    &text[start..start + length]
}

/// The longest beginning of `run` that is an address.
fn longest(
    run: &str,
    min: usize,
    max: usize,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Option<(usize, IpAddr)> {
    let lengths = (min..=max.min(run.len())).rev();
    lengths.into_iter().find_map(|length| Some((length, read(&run[..length])?)))
}

/// The part of an endpoint that says where somebody is.
#[must_use]
pub fn canonical_ip(endpoint: SocketAddr) -> IpAddr {
    endpoint.ip().to_canonical()
}

#[cfg(test)]
#[path = "privacy_tests.rs"]
mod tests;
