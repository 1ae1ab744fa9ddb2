//! The configuration file as TOML gives it: keys known, values not yet understood.
//!
//! Every value keeps its place in the file, so that a refusal can point at it. Unknown keys are
//! errors here; what a value means is the business of `read.rs`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;
use zeroize::Zeroize as _;

/// A value with its place, if the key is there.
pub(super) type Value = Option<Spanned<Scalar>>;

/// A value before it is understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Flag(bool),
    Integer(i64),
    Text(String),
    List(Vec<Spanned<Self>>),
    /// A number with a fraction, or a date: no option wants one.
    Other,
}

macro_rules! sections {
    ($($(#[$attribute:meta])* $name:ident { $($key:ident,)* })*) => {$(
        $(#[$attribute])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name { $(pub(super) $key: Value,)* }

        #[cfg(test)]
        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];
        }
    )*};
}

sections! {
    RawInterface { name, listen_port, private_key_file, mtu, pools, addresses, fwmark, }
    RawExit { masquerade, enable_forwarding, mss_clamp, verify_checksums, }
    RawClients { endpoint, allowed_ips, dns, keepalive, }
    RawLimits {
        peers_max, rate_up, rate_down, sessions_max, sessions_per_source, half_open_max,
        handshakes_per_source,
    }
    RawWorkers {
        count, oversubscribe, cpus, numa, control_cpu, driver, steering, spin_us, sandbox,
        zero_copy, without,
    }
    RawMemory { session_heaps, }
    RawStats { socket, }
    RawStore { url, }
    RawApi { socket, listen, certificate_file, key_file, url, }
    RawSignIn {
        certificate_authorities, revocation_lists, revocation, ocsp, ocsp_responder, allow, deny,
        groups_from_credentials,
    }
    RawIssuer { name, issuer, audience, algorithms, keys, user_claim, groups_claim, }
    RawMetrics { sessions_max, }
    RawSecurity { core_dumps, lock_memory, }
    RawLog { level, format, file, connections, retention, }
    RawPeer {
        name, public_key, preshared_key, preshared_key_file, allowed_ips, endpoint, keepalive,
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFile {
    pub(super) interface: RawInterface,
    pub(super) exit: RawExit,
    pub(super) clients: RawClients,
    pub(super) limits: RawLimits,
    pub(super) workers: RawWorkers,
    pub(super) memory: RawMemory,
    pub(super) stats: RawStats,
    pub(super) store: RawStore,
    pub(super) api: RawApi,
    pub(super) sign_in: RawSignIn,
    pub(super) issuer: Vec<Spanned<RawIssuer>>,
    pub(super) metrics: RawMetrics,
    pub(super) security: RawSecurity,
    pub(super) log: RawLog,
    pub(super) peer: Vec<Spanned<RawPeer>>,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl Drop for Scalar {
    /// A text may be a key.
    fn drop(&mut self) {
        if let Self::Text(text) = self {
            text.zeroize();
        }
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, not a section")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(i64::try_from(value).map_or(Scalar::Other, Scalar::Integer))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Scalar::List(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::OPTIONS;

    #[test]
    fn every_key_that_is_read_is_an_explained_option_and_the_reverse() {
        let read = [
            ("interface", RawInterface::KEYS),
            ("exit", RawExit::KEYS),
            ("clients", RawClients::KEYS),
            ("limits", RawLimits::KEYS),
            ("workers", RawWorkers::KEYS),
            ("memory", RawMemory::KEYS),
            ("stats", RawStats::KEYS),
            ("store", RawStore::KEYS),
            ("api", RawApi::KEYS),
            ("sign_in", RawSignIn::KEYS),
            ("issuer", RawIssuer::KEYS),
            ("metrics", RawMetrics::KEYS),
            ("security", RawSecurity::KEYS),
            ("log", RawLog::KEYS),
            ("peer", RawPeer::KEYS),
        ];
        let read: Vec<(&str, &str)> = read
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
            .collect();
        let explained: Vec<(&str, &str)> =
            OPTIONS.iter().map(|option| (option.section, option.key)).collect();
        assert_eq!(read, explained);
    }
}
