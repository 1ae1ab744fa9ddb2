//! What a single value means: from text to a checked type, or why not.
//!
//! Also the parsers of start-up flags, so that a flag and a key accept the same words. Errors say
//! why only; what to write instead comes from the table of options.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ringway_numa::CpuList;
use ringway_proto::allowed_ips::IpNet;

use super::fast_paths::FastPaths;
use super::raw::Scalar;
use super::types::{
    DriverChoice, InterfaceAddress, NumaChoice, SandboxChoice, SpinChoice, SteeringChoice,
    WorkerCount, ZeroCopyChoice,
};
use super::units;

/// Most workers; the receiver index has bits for as many cores.
const WORKERS_MAX: u16 = 1024;

/// Longest time that a worker may look for work before it sleeps, in microseconds: a wake-up costs
/// some tens, so more than a thousand only burns power.
const SPIN_US_MAX: u16 = 1000;

/// `--workers`: a number from 1 to 1024, or `auto`.
///
/// # Errors
/// Anything else, as text.
pub fn worker_count(text: &str) -> Result<WorkerCount, String> {
    if text == "auto" {
        return Ok(WorkerCount::Auto);
    }
    match text.parse() {
        Ok(count @ 1..=WORKERS_MAX) => Ok(WorkerCount::Exactly(count)),
        _ => Err(format!("is neither \"auto\" nor a number from 1 to {WORKERS_MAX}")),
    }
}

/// `--spin-us`: a number of microseconds from 0 to 1000, or `auto`.
///
/// # Errors
/// Anything else, as text.
pub fn spin_us(text: &str) -> Result<SpinChoice, String> {
    if text == "auto" {
        return Ok(SpinChoice::Auto);
    }
    match text.parse() {
        Ok(us @ 0..=SPIN_US_MAX) => Ok(SpinChoice::Micros(us)),
        _ => Err(format!("is neither \"auto\" nor a number from 0 to {SPIN_US_MAX}")),
    }
}

/// `--numa`: `auto`, `off`, or node numbers.
///
/// # Errors
/// Anything else, as text.
pub fn numa(text: &str) -> Result<NumaChoice, String> {
    match text {
        "auto" => Ok(NumaChoice::Auto),
        "off" => Ok(NumaChoice::Off),
        list => number_list(list).map(NumaChoice::Nodes),
    }
}

/// `--driver`: `auto`, `uring` or `epoll`.
///
/// # Errors
/// Anything else, as text.
pub fn driver(text: &str) -> Result<DriverChoice, String> {
    DriverChoice::from_word(text).ok_or_else(|| "is not a driver".to_owned())
}

/// `--steering`: `auto` or `off`.
///
/// # Errors
/// Anything else, as text.
pub fn steering(text: &str) -> Result<SteeringChoice, String> {
    SteeringChoice::from_word(text).ok_or_else(|| "is neither".to_owned())
}

/// `--sandbox`: `on` or `off`.
///
/// # Errors
/// Anything else, as text.
pub fn sandbox(text: &str) -> Result<SandboxChoice, String> {
    SandboxChoice::from_word(text).ok_or_else(|| "is neither".to_owned())
}

/// `--zero-copy`: `off`, `auto` or `on`.
///
/// # Errors
/// Anything else, as text.
pub fn zero_copy(text: &str) -> Result<ZeroCopyChoice, String> {
    ZeroCopyChoice::from_word(text).ok_or_else(|| "is none of the words".to_owned())
}

/// `--without`: names of fast paths, separated by commas, or `none`.
///
/// # Errors
/// Anything else, as text.
pub fn without(text: &str) -> Result<FastPaths, String> {
    FastPaths::from_words(text)
}

/// A list of CPUs or nodes as the kernel writes it: `0-3,8`. Its order is kept.
///
/// # Errors
/// Anything else, as text.
pub fn number_list(text: &str) -> Result<CpuList, String> {
    match text.parse::<CpuList>() {
        Ok(list) if list.is_empty() => Err("is empty".to_owned()),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("is no list ({error})")),
    }
}

/// Whether `name` can be a network interface and part of a firewall table's name.
///
/// # Errors
/// Why not, as text.
pub fn interface_name(name: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 15 {
        Err(format!("has {} characters, the kernel allows 1 to 15", name.chars().count()))
    } else if !name.bytes().all(legal) || name.starts_with(['.', '-']) {
        Err("has characters that an interface name may not have there".to_owned())
    } else if name == "lo" {
        Err("is the interface by which this host talks to itself".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// Whether `name` can name a peer.
///
/// # Errors
/// Why not, as text.
pub fn peer_name(name: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    if name.is_empty() || name.len() > 64 {
        Err(format!("has {} characters", name.chars().count()))
    } else if !name.bytes().all(legal) || name.starts_with('-') {
        Err("has characters that a peer's name may not have there".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// `HOST:PORT` with a name or an address; IPv6 addresses in brackets.
///
/// # Errors
/// Why not, as text.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("has no port".to_owned());
    };
    if !matches!(port.parse::<u16>(), Ok(1..)) || port.starts_with('+') {
        return Err(format!("has \"{port}\" where a port from 1 to 65535 belongs"));
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None if host.contains(':') => return Err("is an IPv6 address without brackets".to_owned()),
        None => is_host_name(host),
    };
    if valid { Ok(text.to_owned()) } else { Err(format!("has \"{host}\", which is no host")) }
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}

pub(super) fn text(value: &Scalar) -> Result<&str, String> {
    match value {
        Scalar::Text(text) => Ok(text),
        Scalar::Flag(_) | Scalar::Integer(_) | Scalar::List(_) | Scalar::Other => {
            Err("is not a text in quotes".to_owned())
        }
    }
}

pub(super) fn flag(value: &Scalar) -> Result<bool, String> {
    match value {
        Scalar::Flag(flag) => Ok(*flag),
        Scalar::Text(_) | Scalar::Integer(_) | Scalar::List(_) | Scalar::Other => {
            Err("is neither true nor false".to_owned())
        }
    }
}

/// A whole number within a range.
pub(super) fn integer<T: TryFrom<i64>>(
    value: &Scalar,
    range: std::ops::RangeInclusive<i64>,
) -> Result<T, String> {
    let Scalar::Integer(number) = value else {
        return Err("is not a whole number (without quotes)".to_owned());
    };
    let inside = range.contains(number).then(|| T::try_from(*number).ok()).flatten();
    inside.ok_or_else(|| "is out of range".to_owned())
}

/// Whole seconds as a keepalive interval, or off.
pub(super) fn keepalive(value: &Scalar) -> Result<u16, String> {
    if let Scalar::Integer(seconds) = value {
        return Err(format!("has no unit: \"{seconds}s\" if you mean seconds"));
    }
    keepalive_text(text(value)?)
}

/// `--keepalive`, and the key of the same name: `"25s"` or `"off"`.
///
/// # Errors
/// Anything else, as text.
pub fn keepalive_text(text: &str) -> Result<u16, String> {
    if text == "off" {
        return Ok(0);
    }
    let interval = units::duration(text).map_err(|error| format!("is no interval: {error}"))?;
    let whole = interval.subsec_nanos() == 0;
    match u16::try_from(interval.as_secs()) {
        Ok(seconds @ 1..) if whole => Ok(seconds),
        _ => Err("is not between 1s and 65535s in whole seconds".to_owned()),
    }
}

/// Writes a keepalive interval as [`keepalive_text`] reads it.
#[must_use]
pub fn show_keepalive(seconds: u16) -> String {
    if seconds == 0 { "off".to_owned() } else { format!("{seconds}s") }
}

pub(super) fn path(value: &Scalar) -> Result<PathBuf, String> {
    match text(value)? {
        "" => Err("is empty".to_owned()),
        text if text.contains('\0') => Err("contains a zero byte".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

pub(super) fn worker_count_value(value: &Scalar) -> Result<WorkerCount, String> {
    if let Scalar::Integer(count) = value {
        return worker_count(&count.to_string());
    }
    worker_count(text(value)?)
}

pub(super) fn spin_us_value(value: &Scalar) -> Result<SpinChoice, String> {
    if let Scalar::Integer(us) = value {
        return spin_us(&us.to_string());
    }
    spin_us(text(value)?)
}

/// A prefix whose host bits are zero. `10.77.0.5/24` is refused, as it may have been meant
/// either way.
pub(super) fn net(value: &Scalar) -> Result<IpNet, String> {
    let text = text(value)?;
    let net: IpNet = text.parse().map_err(|error| format!("is no prefix ({error})"))?;
    let address = text.split('/').next().unwrap_or_default().parse::<IpAddr>();
    if address.is_ok_and(|address| address != net.address()) {
        return Err(format!("has bits beyond its prefix: \"{net}\" is the whole prefix"));
    }
    Ok(net)
}

/// An address of the interface, with the prefix it stands in.
pub(super) fn interface_address(value: &Scalar) -> Result<InterfaceAddress, String> {
    let text = text(value)?;
    let Some((address, _)) = text.split_once('/') else {
        return Err("has no prefix length".to_owned());
    };
    let net: IpNet = text.parse().map_err(|error| format!("is no prefix ({error})"))?;
    let address = address.parse().map_err(|_| "is not an IP address".to_owned())?;
    Ok(InterfaceAddress { address, prefix: net.prefix() })
}

pub(super) fn ip_address(value: &Scalar) -> Result<IpAddr, String> {
    text(value)?.parse().map_err(|_| "is not an IP address".to_owned())
}

/// Where a peer is: an address and a port. Names are refused, as nothing would follow a change.
pub(super) fn endpoint(value: &Scalar) -> Result<SocketAddr, String> {
    let text = text(value)?;
    match text.parse::<SocketAddr>() {
        Ok(endpoint) if endpoint.port() == 0 => Err("has port 0".to_owned()),
        Ok(endpoint) => Ok(endpoint),
        Err(_) if host_and_port(text).is_ok() => Err("is a name, not an address".to_owned()),
        Err(_) => Err("is not an address with a port".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_numbers_keep_the_order_of_the_operator() {
        assert_eq!(number_list("4-6,0").map(|list| list.as_slice().to_vec()), Ok(vec![4, 5, 6, 0]));
        for bad in ["", "a", "3-1", "1,", "-1", "+1", "1-2-3", "99999999"] {
            assert!(number_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_of_this_gateway_may_be_names_or_addresses() {
        for good in ["vpn.example.org:51820", "192.0.2.1:1", "[2001:db8::1]:51820", "localhost:5"] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in [
            "vpn.example.org",
            "a:0",
            "a:70000",
            "2001:db8::1:5",
            "[1.2.3.4]:5",
            "-a:5",
            "a b:5",
            ":5",
            "a:+5",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel_and_the_firewall() {
        assert!(interface_name("ringway0").is_ok());
        assert!(interface_name("wg-a.b_c").is_ok());
        for bad in ["", "a/b", "a b", ".", "..", "sixteen-letters-", "a;b", "-a", "é"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
            let _ = (number_list(&text), host_and_port(&text), numa(&text), keepalive_text(&text));
            let value = Scalar::Text(text);
            let _ = (net(&value), interface_address(&value), endpoint(&value), path(&value));
        }
    }
}
