//! Prints the effective configuration: every option, its value, where it comes from, and why.
//!
//! The output is itself a configuration file that means the same, except for preshared keys and
//! secrets inside addresses, which are never printed.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::credentials::mask_address;
use super::options::{self, Opt};
use super::types::{Config, Issuer, NumaChoice, Origin, Peer, SpinChoice, WorkerCount};
use super::units;
use super::values::show_keepalive;
use crate::keys;

impl Config {
    /// The effective configuration as text.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut out = String::new();
        for (section, about) in options::SECTIONS {
            if ["peer", "issuer"].contains(section) {
                continue;
            }
            let _ = writeln!(out, "# {about}\n[{section}]");
            let of_section = options::OPTIONS.iter().filter(|option| option.section == *section);
            for option in of_section {
                self.explain_option(&mut out, option);
            }
            out.push('\n');
        }
        for issuer in &self.issuers {
            explain_issuer(&mut out, issuer);
        }
        for peer in &self.peers {
            explain_peer(&mut out, peer);
        }
        out
    }

    fn explain_option(&self, out: &mut String, option: &Opt) {
        let origin = match self.origins.get(&(option.section, option.key)) {
            Some(Origin::Line(line)) => format!("line {line}"),
            Some(Origin::Flag) => "command line".to_owned(),
            None => "default".to_owned(),
        };
        let _ = writeln!(out, "# {} ({origin})", option.help);
        let _ = match self.value_of(option.section, option.key) {
            Some(value) => writeln!(out, "{} = {value}", option.key),
            None => writeln!(out, "# {} is not set", option.key),
        };
    }

    /// The value as it would be written; `None` if it is unset, or all that is allowed.
    pub(crate) fn value_of(&self, section: &str, key: &str) -> Option<String> {
        let quote = |text: &dyn std::fmt::Display| quoted(&text.to_string());
        let (interface, workers) = (&self.interface, &self.workers);
        let value = match (section, key) {
            ("interface", "name") => quote(&interface.name),
            ("interface", "listen_port") => interface.listen_port.to_string(),
            ("interface", "private_key_file") => quote(&interface.private_key_file.display()),
            ("interface", "mtu") => interface.mtu.to_string(),
            ("interface", "pools") => list(interface.pools()),
            ("interface", "addresses") => list(&interface.addresses),
            ("interface", "fwmark") => format!("{:#x}", interface.fwmark),
            ("exit", "masquerade") => self.exit.masquerade.to_string(),
            ("exit", "enable_forwarding") => self.exit.enable_forwarding.to_string(),
            ("exit", "mss_clamp") => self.exit.mss_clamp.to_string(),
            ("exit", "verify_checksums") => self.exit.verify_checksums.to_string(),
            ("clients", "endpoint") => quote(self.clients.endpoint.as_ref()?),
            ("clients", "allowed_ips") => list(&self.clients.allowed_ips),
            ("clients", "dns") => list(&self.clients.dns),
            ("clients", "keepalive") => quote(&show_keepalive(self.clients.keepalive_s)),
            ("limits", "peers_max") => self.limits.peers_max.to_string(),
            ("workers", "count") => match workers.count {
                WorkerCount::Auto => quote(&"auto"),
                WorkerCount::Exactly(count) => count.to_string(),
            },
            ("workers", "oversubscribe") => workers.oversubscribe.to_string(),
            ("workers", "cpus") => quote(workers.cpus.as_ref()?),
            ("workers", "numa") => match &workers.numa {
                NumaChoice::Auto => quote(&"auto"),
                NumaChoice::Off => quote(&"off"),
                NumaChoice::Nodes(nodes) => quote(nodes),
            },
            ("workers", "control_cpu") => workers.control_cpu?.to_string(),
            ("workers", "driver") => quote(&workers.driver.word()),
            ("workers", "steering") => quote(&workers.steering.word()),
            ("workers", "spin_us") => match workers.spin_us {
                SpinChoice::Auto => quote(&"auto"),
                SpinChoice::Micros(us) => us.to_string(),
            },
            ("workers", "sandbox") => quote(&workers.sandbox.word()),
            ("workers", "zero_copy") => quote(&workers.zero_copy.word()),
            ("workers", "without") => list(workers.without.words()),
            ("memory", "session_heaps") => quote(&self.memory.session_heaps.word()),
            ("stats", "socket") => quote(&self.stats.socket.display()),
            _ => return self.service_value_of(section, key),
        };
        Some(value)
    }

    fn service_value_of(&self, section: &str, key: &str) -> Option<String> {
        let quote = |text: &dyn std::fmt::Display| quoted(&text.to_string());
        let rate = |bits: Option<u64>| bits.map(|bits| quoted(&units::show_rate(bits)));
        let (limits, api, sign_in) = (&self.limits, &self.api, &self.sign_in);
        let value = match (section, key) {
            ("limits", "rate_up") => rate(limits.rate_up_bps)?,
            ("limits", "rate_down") => rate(limits.rate_down_bps)?,
            ("limits", "sessions_max") => limits.admission.sessions.to_string(),
            ("limits", "sessions_per_source") => limits.admission.per_source.to_string(),
            ("limits", "half_open_max") => limits.admission.half_open.to_string(),
            ("limits", "handshakes_per_source") => limits.handshakes_per_source.to_string(),
            ("store", "url") => quote(&self.store.shown()),
            ("api", "socket") => match &api.socket {
                Some(path) => quote(&path.display()),
                None => quote(&"off"),
            },
            ("api", "listen") => list(&api.listen),
            ("api", "certificate_file") => quote(&api.certificate_file.as_ref()?.display()),
            ("api", "key_file") => quote(&api.key_file.as_ref()?.display()),
            ("api", "url") => quote(api.url.as_ref()?),
            ("sign_in", "certificate_authorities") => {
                quote(&sign_in.certificate_authorities.as_ref()?.display())
            }
            ("sign_in", "revocation_lists") => paths(&sign_in.revocation_lists),
            ("sign_in", "revocation") => quote(&sign_in.revocation.word()),
            ("sign_in", "ocsp") => quote(&sign_in.ocsp.word()),
            ("sign_in", "ocsp_responder") => quote(sign_in.ocsp_responder.as_ref()?),
            ("sign_in", "allow") => list(&sign_in.allow),
            ("sign_in", "deny") => list(&sign_in.deny),
            ("sign_in", "groups_from_credentials") => sign_in.groups_from_credentials.to_string(),
            ("metrics", "sessions_max") => self.metrics.sessions_max.to_string(),
            ("security", "core_dumps") => self.security.core_dumps.to_string(),
            ("security", "lock_memory") => self.security.lock_memory.to_string(),
            ("log", "level") => quote(&self.log.level.word()),
            ("log", "format") => quote(&self.log.format.word()),
            ("log", "file") => quote(&self.log.file.as_ref()?.display()),
            ("log", "connections") => quote(&self.log.connections.word()),
            ("log", "retention") => quote(&units::show_duration(self.log.retention)),
            _ => return None,
        };
        Some(value)
    }
}

fn explain_issuer(out: &mut String, issuer: &Issuer) {
    let _ = writeln!(out, "[[issuer]]\nname = {}", quoted(&issuer.name));
    let _ = writeln!(out, "issuer = {}", quoted(&issuer.issuer));
    let _ = writeln!(out, "audience = {}", quoted(&issuer.audience));
    let _ = writeln!(out, "algorithms = {}", list(&issuer.algorithms));
    let keys = mask_address(&issuer.keys).unwrap_or_else(|| issuer.keys.clone());
    let _ = writeln!(out, "keys = {}", quoted(&keys));
    let _ = writeln!(out, "user_claim = {}", quoted(&issuer.user_claim));
    if let Some(claim) = &issuer.groups_claim {
        let _ = writeln!(out, "groups_claim = {}", quoted(claim));
    }
    out.push('\n');
}

fn explain_peer(out: &mut String, peer: &Peer) {
    let _ = writeln!(out, "[[peer]] # line {}", peer.line);
    if !peer.name.is_empty() {
        let _ = writeln!(out, "name = {}", quoted(&peer.name));
    }
    let _ = writeln!(out, "public_key = {}", quoted(&keys::show_public(&peer.public)));
    if let Some(file) = &peer.preshared_file {
        let _ = writeln!(out, "preshared_key_file = {}", quoted(&file.display().to_string()));
    } else if peer.preshared.is_set() {
        let _ = writeln!(out, "# preshared_key is set and not shown");
    }
    let _ = writeln!(out, "allowed_ips = {}", list(&peer.allowed_ips));
    if let Some(endpoint) = peer.endpoint {
        let _ = writeln!(out, "endpoint = {}", quoted(&endpoint.to_string()));
    }
    let _ = writeln!(out, "keepalive = {}\n", quoted(&show_keepalive(peer.keepalive_s)));
}

fn paths(paths: &[PathBuf]) -> String {
    list(paths.iter().map(|path| path.display()))
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML string. Paths may hold anything, so TOML's own writer does it.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
