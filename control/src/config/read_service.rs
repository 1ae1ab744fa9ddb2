//! Reads what is around the tunnels: store, API, sign-in, issuers, metrics, log.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use ringway_proto::limits::HANDSHAKES_PER_SOURCE_SECOND;
use ringway_proto::wireguard::AdmissionLimits;
use toml::Spanned;

use super::options;
use super::raw::{
    RawApi, RawIssuer, RawLimits, RawLog, RawMetrics, RawSecurity, RawSignIn, RawStore, Scalar,
    Value,
};
use super::read::{Places, Reader, not_one_of_them, span, values_only};
use super::types::{
    Api, ConnectionLog, Interface, Issuer, Limits, Log, LogFormat, LogLevel, Metrics, Ocsp,
    Revocation, SignIn, StoreChoice,
};
use super::{units, values};
use crate::harden;
use crate::peers::ipam;

/// The longest that connections may be kept, and the shortest.
const RETENTION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(86_400)..=Duration::from_secs(3_650 * 86_400);

/// Bytes of a Unix socket's path that the kernel takes.
const SOCKET_BYTES_MAX: usize = 107;

/// Characters of a responder's address.
const RESPONDER_MAX: usize = 1024;

impl Reader<'_> {
    pub(super) fn limits(
        &mut self,
        raw: &RawLimits,
        interface: &Interface,
        places: &mut Places,
    ) -> Limits {
        const SECTION: &str = "limits";
        places.peers_max = raw.peers_max.as_ref().map(Spanned::span);
        let peers_max = self.value(SECTION, "peers_max", &raw.peers_max, |value| {
            values::integer(value, 1..=1_000_000)
        });
        let mut count = |key: &'static str, value: &Value, most: i64| {
            self.value(SECTION, key, value, |value| values::integer(value, 1..=most))
        };
        let sessions = count("sessions_max", &raw.sessions_max, 1_000_000);
        let per_source = count("sessions_per_source", &raw.sessions_per_source, 1_000_000);
        let half_open = count("half_open_max", &raw.half_open_max, 1_000_000);
        let handshakes = count("handshakes_per_source", &raw.handshakes_per_source, 100_000);
        let usual = AdmissionLimits::default();
        Limits {
            peers_max: peers_max.unwrap_or_else(|| ipam::capacity(interface)),
            rate_up_bps: self.value(SECTION, "rate_up", &raw.rate_up, rate),
            rate_down_bps: self.value(SECTION, "rate_down", &raw.rate_down, rate),
            admission: AdmissionLimits {
                per_source: per_source.unwrap_or(usual.per_source),
                sessions: sessions.unwrap_or(usual.sessions),
                half_open: half_open.unwrap_or(usual.half_open),
            },
            handshakes_per_source: handshakes.unwrap_or(HANDSHAKES_PER_SOURCE_SECOND),
        }
    }

    pub(super) fn store(&mut self, raw: &RawStore) -> StoreChoice {
        let url = self.value("store", "url", &raw.url, |value| match values::text(value)? {
            "off" => Ok(StoreChoice::Off),
            url if url.starts_with("postgresql://") || url.starts_with("postgres://") => {
                Ok(StoreChoice::Postgresql(url.to_owned()))
            }
            url => match url.strip_prefix("sqlite:") {
                Some("") => Err("names no file".to_owned()),
                Some(file) if file.contains('\0') => Err("contains a zero byte".to_owned()),
                Some(file) => Ok(StoreChoice::Sqlite(file.into())),
                None => Err("is no store".to_owned()),
            },
        });
        url.unwrap_or_else(|| StoreChoice::Sqlite("ringway.db".into()))
    }

    pub(super) fn api(&mut self, raw: &RawApi, interface: &str, folder: &Path) -> Api {
        const SECTION: &str = "api";
        let socket = self.value(SECTION, "socket", &raw.socket, |value| {
            if values::text(value)? == "off" { Ok(None) } else { socket_path(value).map(Some) }
        });
        let listen = self.list(SECTION, "listen", &raw.listen, values::endpoint);
        let certificate =
            self.value(SECTION, "certificate_file", &raw.certificate_file, values::path);
        let key = self.value(SECTION, "key_file", &raw.key_file, values::path);
        let url = self.value(SECTION, "url", &raw.url, |value| web_address(values::text(value)?));
        match (&raw.certificate_file, &raw.key_file) {
            (Some(at), None) => {
                self.refuse(&at.span(), "certificate_file without key_file: write both".to_owned());
            }
            (None, Some(at)) => {
                self.refuse(&at.span(), "key_file without certificate_file: write both".to_owned());
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        let listen = listen.unwrap_or_default();
        for (address, at) in &listen {
            if raw.certificate_file.is_none() && !address.ip().is_loopback() {
                let message = format!(
                    "the API would be open to others on {address} without encryption: add \
                     certificate_file and key_file, or listen on 127.0.0.1"
                );
                self.refuse(at, message);
            }
        }
        let mut addresses: Vec<SocketAddr> = values_only(listen);
        addresses.sort_unstable();
        addresses.dedup();
        Api {
            socket: socket.unwrap_or_else(|| Some(format!("/run/ringway/{interface}.api").into())),
            listen: addresses,
            certificate_file: certificate.map(|file| folder.join(file)),
            key_file: key.map(|file| folder.join(file)),
            url,
        }
    }

    pub(super) fn sign_in(&mut self, raw: &RawSignIn, folder: &Path) -> SignIn {
        const SECTION: &str = "sign_in";
        let authorities = self.value(
            SECTION,
            "certificate_authorities",
            &raw.certificate_authorities,
            values::path,
        );
        let lists = self.list(SECTION, "revocation_lists", &raw.revocation_lists, values::path);
        let revocation = self.value(SECTION, "revocation", &raw.revocation, |value| {
            Revocation::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        let ocsp = self.value(SECTION, "ocsp", &raw.ocsp, |value| {
            Ocsp::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        let ocsp_responder = self.value(SECTION, "ocsp_responder", &raw.ocsp_responder, |value| {
            responder(values::text(value)?)
        });
        let allow = self.list(SECTION, "allow", &raw.allow, values::net);
        let deny = self.list(SECTION, "deny", &raw.deny, values::net);
        let groups = &raw.groups_from_credentials;
        let groups = self.value(SECTION, "groups_from_credentials", groups, values::flag);
        if authorities.is_none()
            && let Some(at) = &raw.revocation_lists
        {
            let message = "revocation_lists without certificate_authorities say nothing: name who \
                           signs the certificates too";
            self.warn(&at.span(), message.to_owned());
        }
        if let Some(at) = &raw.ocsp
            && authorities.is_none()
            && ocsp.is_some_and(|ocsp| ocsp != Ocsp::Off)
        {
            let message = "ocsp without certificate_authorities asks nobody: name who signs the \
                           certificates too";
            self.warn(&at.span(), message.to_owned());
        }
        if let Some(at) = &raw.ocsp_responder
            && ocsp.is_none_or(|ocsp| ocsp == Ocsp::Off)
        {
            let message = "ocsp_responder is asked nothing while ocsp is \"off\": write \
                           ocsp = \"strict\" or \"warn\" too";
            self.warn(&at.span(), message.to_owned());
        }
        let in_folder = |files: Option<Vec<(std::path::PathBuf, Range<usize>)>>| {
            values_only(files.unwrap_or_default())
                .into_iter()
                .map(|file| folder.join(file))
                .collect()
        };
        SignIn {
            certificate_authorities: authorities.map(|file| folder.join(file)),
            revocation_lists: in_folder(lists),
            revocation: revocation.unwrap_or(Revocation::Strict),
            ocsp: ocsp.unwrap_or(Ocsp::Off),
            ocsp_responder,
            allow: values_only(allow.unwrap_or_default()),
            deny: values_only(deny.unwrap_or_default()),
            groups_from_credentials: groups.unwrap_or(false),
        }
    }

    pub(super) fn issuers(&mut self, raw: &[Spanned<RawIssuer>], folder: &Path) -> Vec<Issuer> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(raw.len());
        for spanned in raw {
            let Some(issuer) = self.issuer(spanned, folder) else { continue };
            if issuers.iter().any(|other| other.name == issuer.name) {
                let at = span(&spanned.get_ref().name);
                let message = format!("there are two issuers \"{}\": rename one", issuer.name);
                self.refuse(&at, message);
            }
            issuers.push(issuer);
        }
        issuers
    }

    fn issuer(&mut self, spanned: &Spanned<RawIssuer>, folder: &Path) -> Option<Issuer> {
        const SECTION: &str = "issuer";
        let raw = spanned.get_ref();
        let all = [&raw.name, &raw.issuer, &raw.audience, &raw.algorithms, &raw.keys];
        let start = all
            .into_iter()
            .flatten()
            .map(Spanned::span)
            .min_by_key(|span| span.start)
            .unwrap_or_else(|| spanned.span());
        for (key, value) in
            ["name", "issuer", "audience", "algorithms", "keys"].into_iter().zip(all)
        {
            if value.is_none() {
                let wants = options::find(SECTION, key).map_or("", |option| option.wants);
                self.refuse(&start, format!("the issuer has no {key}: write {wants}"));
            }
        }
        let name =
            self.value(SECTION, "name", &raw.name, |value| values::peer_name(values::text(value)?));
        let issuer = self.value(SECTION, "issuer", &raw.issuer, word);
        let audience = self.value(SECTION, "audience", &raw.audience, word);
        let algorithms = self.list(SECTION, "algorithms", &raw.algorithms, |value| {
            let word = values::text(value)?;
            let known = Issuer::ALGORITHMS.contains(&word);
            known.then(|| word.to_owned()).ok_or_else(not_one_of_them)
        });
        let keys = self.value(SECTION, "keys", &raw.keys, |value| {
            let text = values::text(value)?;
            if text.contains("://") {
                key_address(text)
            } else {
                values::path(value).map(|file| folder.join(file).display().to_string())
            }
        });
        let user_claim = self.value(SECTION, "user_claim", &raw.user_claim, word);
        let groups_claim = self.value(SECTION, "groups_claim", &raw.groups_claim, word);
        let algorithms = values_only(algorithms?);
        if algorithms.is_empty() {
            self.refuse(
                &span(&raw.algorithms),
                "algorithms is empty: write at least one".to_owned(),
            );
        }
        Some(Issuer {
            name: name?,
            issuer: issuer?,
            audience: audience?,
            algorithms,
            keys: keys?,
            user_claim: user_claim.unwrap_or_else(|| "sub".to_owned()),
            groups_claim,
        })
    }

    pub(super) fn metrics(&mut self, raw: &RawMetrics) -> Metrics {
        let sessions_max = self.value("metrics", "sessions_max", &raw.sessions_max, |value| {
            values::integer(value, 0..=10_000)
        });
        Metrics { sessions_max: sessions_max.unwrap_or(0) }
    }

    pub(super) fn security(&mut self, raw: &RawSecurity) -> harden::Settings {
        const SECTION: &str = "security";
        let core_dumps = self.value(SECTION, "core_dumps", &raw.core_dumps, values::flag);
        let lock_memory = self.value(SECTION, "lock_memory", &raw.lock_memory, values::flag);
        harden::Settings {
            core_dumps: core_dumps.unwrap_or(false),
            lock_memory: lock_memory.unwrap_or(false),
        }
    }

    pub(super) fn log(&mut self, raw: &RawLog) -> Log {
        const SECTION: &str = "log";
        let level = self.value(SECTION, "level", &raw.level, |value| {
            LogLevel::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        let format = self.value(SECTION, "format", &raw.format, |value| {
            LogFormat::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        let file = self.value(SECTION, "file", &raw.file, values::path);
        let connections = self.value(SECTION, "connections", &raw.connections, |value| {
            ConnectionLog::from_word(values::text(value)?).ok_or_else(not_one_of_them)
        });
        let retention = self.value(SECTION, "retention", &raw.retention, |value| {
            let time = units::duration(values::text(value)?)
                .map_err(|error| format!("is no time: {error}"))?;
            if RETENTION.contains(&time) { Ok(time) } else { Err("is out of range".to_owned()) }
        });
        Log {
            level: level.unwrap_or(LogLevel::Info),
            format: format.unwrap_or(LogFormat::Text),
            file,
            connections: connections.unwrap_or(ConnectionLog::Full),
            retention: retention.unwrap_or(Duration::from_secs(30 * 86_400)),
        }
    }
}

fn rate(value: &Scalar) -> Result<u64, String> {
    if let Scalar::Integer(number) = value {
        return Err(format!("has no unit: \"{number}mbit\" if you mean megabits per second"));
    }
    match units::rate_bits_per_s(values::text(value)?) {
        Ok(0..8_000) => Err("is less than 8kbit, on which nothing works".to_owned()),
        Ok(rate) => Ok(rate),
        Err(error) => Err(format!("is no rate: {error}")),
    }
}

/// The absolute path of a Unix socket.
pub(super) fn socket_path(value: &Scalar) -> Result<std::path::PathBuf, String> {
    let path = values::path(value)?;
    match path.as_os_str().len() {
        _ if !path.is_absolute() => Err("does not begin with a slash".to_owned()),
        bytes if bytes > SOCKET_BYTES_MAX => {
            Err(format!("is longer than the {SOCKET_BYTES_MAX} bytes that the kernel allows"))
        }
        _ => Ok(path),
    }
}

fn word(value: &Scalar) -> Result<String, String> {
    match values::text(value)? {
        "" => Err("is empty".to_owned()),
        text if text.len() > 256 => Err("is longer than 256 bytes".to_owned()),
        text if text.chars().any(char::is_control) => Err("has control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// `https://HOST[:PORT][/PATH]`, or `http://` for this machine; no slash at the end.
fn web_address(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err("begins neither with https:// nor with http://".to_owned());
    };
    let host = rest.split('/').next().unwrap_or_default();
    let plain = rest.chars().all(|c| c.is_ascii_graphic() && !"\"'<>\\^`{|}@#?".contains(c));
    if host.is_empty() || !plain {
        return Err("is no address".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Who may be asked about certificates. Answers are signed, so nothing has to be encrypted.
fn responder(text: &str) -> Result<String, String> {
    let address = web_address(text)?;
    if !address.starts_with("http://") {
        return Err("does not begin with http://".to_owned());
    }
    if address.len() > RESPONDER_MAX || reqwest::Url::parse(&address).is_err() {
        return Err("is no address".to_owned());
    }
    Ok(address)
}

/// Where keys may be fetched from: encrypted, or from this machine.
fn key_address(text: &str) -> Result<String, String> {
    let address = web_address(text)?;
    let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
    let is_local = local.iter().any(|begin| {
        address
            .strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    if address.starts_with("https://") || is_local {
        Ok(address)
    } else {
        Err("would fetch keys without encryption".to_owned())
    }
}
