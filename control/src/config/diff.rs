//! What a changed file changes.
//!
//! Peers come, go and change while the gateway runs; live sessions of untouched peers notice
//! nothing. Everything else needs a restart and is refused by name, so that a reload applies all of
//! a file or none of it.

use std::collections::HashMap;

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;

use super::types::{Config, Peer};
use crate::failure::{Failure, Status};

/// What to tell the cores. Apply removals first, then changes, then additions, so that a prefix
/// that moves from one peer to another ends with its new owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Peers that are gone.
    pub removed: Vec<PublicKey>,
    /// Peers that exist before and after, and differ.
    pub changed: Vec<PeerUpdate>,
    /// Peers that are new.
    pub added: Vec<Peer>,
}

impl Changes {
    /// Whether nothing that the cores know changes (names may).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.changed.is_empty() && self.added.is_empty()
    }
}

/// How one peer differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUpdate {
    /// The peer as it should be.
    pub peer: Peer,
    /// Its preshared key differs.
    pub preshared: bool,
    /// Its endpoint differs and is set. An endpoint that was taken out of the file stays as it is:
    /// the peer may have moved anyway.
    pub endpoint: bool,
    /// Its keepalive interval differs.
    pub keepalive: bool,
    /// Prefixes it gets.
    pub nets_added: Vec<IpNet>,
    /// Prefixes it loses.
    pub nets_removed: Vec<IpNet>,
}

/// Options that differ and cannot change while running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} cannot change while running, so nothing was changed: take it back, or restart the gateway",
    .options.join(", ")
)]
pub struct NeedsRestart {
    /// As `[section] key`, in the order of the manual.
    pub options: Vec<String>,
}

impl From<NeedsRestart> for Failure {
    fn from(error: NeedsRestart) -> Self {
        Self::new(Status::Refused, error.to_string())
    }
}

/// Compares two configurations.
///
/// # Errors
/// [`NeedsRestart`] if anything but peers and what only other commands read has changed.
pub fn diff(old: &Config, new: &Config) -> Result<Changes, NeedsRestart> {
    let options = needs_restart(old, new);
    if !options.is_empty() {
        return Err(NeedsRestart { options });
    }
    let before: HashMap<PublicKey, &Peer> =
        old.peers.iter().map(|peer| (peer.public, peer)).collect();
    let after: HashMap<PublicKey, &Peer> =
        new.peers.iter().map(|peer| (peer.public, peer)).collect();
    let mut changes = Changes::default();
    for peer in &old.peers {
        if !after.contains_key(&peer.public) {
            changes.removed.push(peer.public);
        }
    }
    for peer in &new.peers {
        match before.get(&peer.public) {
            None => changes.added.push(peer.clone()),
            Some(before) => changes.changed.extend(update(before, peer)),
        }
    }
    Ok(changes)
}

/// Sections with options that may change while the gateway runs and that differ.
#[must_use]
pub fn sections_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("[clients]", old.clients != new.clients),
        ("[limits]", old.limits != new.limits),
        ("[api]", old.api != new.api),
        ("[metrics]", old.metrics != new.metrics),
        ("[log]", old.log != new.log),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Options outside `[[peer]]` that differ, except what can change while running: `[clients]`,
/// `[limits]`, `[metrics]`, the address of the API in links, and how long connections are kept.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (&old.interface, &new.interface);
    let pools = a.pool4 != b.pool4 || a.pool6 != b.pool6;
    let differs = [
        ("interface", "name", a.name != b.name),
        ("interface", "listen_port", a.listen_port != b.listen_port),
        ("interface", "private_key_file", a.private_key_file != b.private_key_file),
        ("interface", "mtu", a.mtu != b.mtu),
        ("interface", "pools", pools),
        ("interface", "addresses", a.addresses != b.addresses && !pools),
        ("interface", "fwmark", a.fwmark != b.fwmark),
        ("exit", "masquerade", old.exit.masquerade != new.exit.masquerade),
        ("exit", "enable_forwarding", old.exit.enable_forwarding != new.exit.enable_forwarding),
        ("exit", "mss_clamp", old.exit.mss_clamp != new.exit.mss_clamp),
        ("exit", "verify_checksums", old.exit.verify_checksums != new.exit.verify_checksums),
        ("workers", "count", old.workers.count != new.workers.count),
        ("workers", "oversubscribe", old.workers.oversubscribe != new.workers.oversubscribe),
        ("workers", "cpus", old.workers.cpus != new.workers.cpus),
        ("workers", "numa", old.workers.numa != new.workers.numa),
        ("workers", "control_cpu", old.workers.control_cpu != new.workers.control_cpu),
        ("workers", "driver", old.workers.driver != new.workers.driver),
        ("workers", "steering", old.workers.steering != new.workers.steering),
        ("workers", "spin_us", old.workers.spin_us != new.workers.spin_us),
        ("workers", "sandbox", old.workers.sandbox != new.workers.sandbox),
        ("workers", "zero_copy", old.workers.zero_copy != new.workers.zero_copy),
        ("workers", "without", old.workers.without != new.workers.without),
        ("memory", "session_heaps", old.memory != new.memory),
        // A renamed interface is named above already.
        ("stats", "socket", old.stats != new.stats && a.name == b.name),
    ];
    let differs = differs.into_iter().chain(service_needs_restart(old, new, a.name == b.name));
    let changed = differs.filter(|(_, _, differs)| *differs);
    changed.map(|(section, key, _)| format!("[{section}] {key}")).collect()
}

/// As [`needs_restart`], for what is around the tunnels. A renamed interface has another socket of
/// the API, and is named above already.
fn service_needs_restart(
    old: &Config,
    new: &Config,
    same_name: bool,
) -> [(&'static str, &'static str, bool); 20] {
    let (a, b) = (&old.api, &new.api);
    let (c, d) = (&old.sign_in, &new.sign_in);
    [
        ("store", "url", old.store != new.store),
        ("api", "socket", a.socket != b.socket && same_name),
        ("api", "listen", a.listen != b.listen),
        ("api", "certificate_file", a.certificate_file != b.certificate_file),
        ("api", "key_file", a.key_file != b.key_file),
        (
            "sign_in",
            "certificate_authorities",
            c.certificate_authorities != d.certificate_authorities,
        ),
        ("sign_in", "revocation_lists", c.revocation_lists != d.revocation_lists),
        ("sign_in", "revocation", c.revocation != d.revocation),
        ("sign_in", "ocsp", c.ocsp != d.ocsp),
        ("sign_in", "ocsp_responder", c.ocsp_responder != d.ocsp_responder),
        ("sign_in", "allow", c.allow != d.allow),
        ("sign_in", "deny", c.deny != d.deny),
        (
            "sign_in",
            "groups_from_credentials",
            c.groups_from_credentials != d.groups_from_credentials,
        ),
        ("issuer", "name", old.issuers != new.issuers),
        ("security", "core_dumps", old.security.core_dumps != new.security.core_dumps),
        ("security", "lock_memory", old.security.lock_memory != new.security.lock_memory),
        ("log", "level", old.log.level != new.log.level),
        ("log", "format", old.log.format != new.log.format),
        ("log", "file", old.log.file != new.log.file),
        ("log", "connections", old.log.connections != new.log.connections),
    ]
}

fn update(before: &Peer, after: &Peer) -> Option<PeerUpdate> {
    let only_in = |these: &[IpNet], those: &[IpNet]| -> Vec<IpNet> {
        these.iter().filter(|net| !those.contains(net)).copied().collect()
    };
    let update = PeerUpdate {
        peer: after.clone(),
        preshared: before.preshared != after.preshared,
        endpoint: before.endpoint != after.endpoint && after.endpoint.is_some(),
        keepalive: before.keepalive_s != after.keepalive_s,
        nets_added: only_in(&after.allowed_ips, &before.allowed_ips),
        nets_removed: only_in(&before.allowed_ips, &after.allowed_ips),
    };
    let nets = !update.nets_added.is_empty() || !update.nets_removed.is_empty();
    (update.preshared || update.endpoint || update.keepalive || nets).then_some(update)
}
