//! Peers on disk: their inner addresses, their entries in the configuration, their client files.
//!
//! Everything here works on files and text; the running gateway learns of a change by a reload,
//! which is the caller's business.

pub mod client;
pub mod edit;
pub mod file;
pub mod ipam;
pub mod qr;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey, Random};
use zeroize::Zeroizing;

use crate::config::{Config, Overrides, Peer};
use crate::failure::{Failure, Status};
use crate::keys;
use client::ClientFile;
use edit::Entry;
use file::Locked;

/// What the operator asks for with `peer add`.
#[derive(Clone, Debug, Default)]
pub struct AddRequest {
    /// What to call the peer.
    pub name: String,
    /// `HOST:PORT` of this gateway; else the configuration's, else a guess.
    pub endpoint: Option<String>,
    /// What the client sends into the tunnel, instead of the configuration's choice.
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Seconds between keepalives, instead of the configuration's choice.
    pub keepalive_s: Option<u16>,
    /// The client's public key, if the client keeps its private key.
    pub public_key: Option<PublicKey>,
    /// Addresses that devices of users lease: they are not free, though the file does not say so.
    pub leased: Vec<IpNet>,
}

/// A peer that has been added to the file.
#[derive(Debug)]
pub struct Added {
    /// For the client.
    pub client: ClientFile,
    /// What the operator should know, line by line.
    pub notes: Vec<String>,
    /// The configuration with the new peer.
    pub config: Config,
    /// What was done to the file.
    pub change: Change,
}

/// What was done to the file, to be taken back if the gateway does not want it.
#[derive(Debug)]
pub struct Change {
    before: Zeroizing<String>,
    after: Zeroizing<String>,
}

impl Change {
    /// Writes the file at `path` as it was before, unless somebody has changed it since; says
    /// whether it did.
    ///
    /// # Errors
    /// A file that cannot be read or written; it keeps the change then.
    pub fn take_back(self, path: &Path) -> Result<bool, Failure> {
        let file = Locked::open(path)?;
        if file.text() != *self.after {
            return Ok(false);
        }
        file.replace(&self.before).map(|()| true)
    }

    /// Does it.
    fn make(file: Locked, after: Zeroizing<String>) -> Result<Self, Failure> {
        let before = Zeroizing::new(file.text().to_owned());
        file.replace(&after)?;
        Ok(Self { before, after })
    }
}

/// Adds a peer to the file at `path`: draws its keys, finds its addresses, writes the file.
///
/// # Errors
/// A name or key that exists, a full pool, a file that is wrong or cannot be written. The file is
/// as before then.
pub fn add(path: &Path, request: AddRequest, random: &mut dyn Random) -> Result<Added, Failure> {
    let file = Locked::open(path)?;
    let before = parse(&file, file.text())?;
    refuse_known(&before, &request)?;
    let mut notes = Vec::new();
    let key_file = keys::load_or_make_private(&before.interface.private_key_file, random)?;
    if key_file.made {
        let path = before.interface.private_key_file.display();
        notes.push(format!("Made the gateway's private key {path}"));
    }
    let gateway = key_file.private.public();
    let endpoint = endpoint(&before, request.endpoint, &mut notes)?;
    let of_peers = before.peers.iter().flat_map(|peer| peer.allowed_ips.iter().copied());
    let taken: Vec<IpNet> = of_peers.chain(request.leased.iter().copied()).collect();
    let addresses = ipam::allocate(&before.interface, &taken)
        .map_err(|error| Failure::new(Status::Config, error.to_string()))?;
    let (private, public, preshared) = draw_keys(request.public_key, random);
    if public == gateway {
        let message = "The public key is the gateway's own: give the client's";
        return Err(Failure::new(Status::Usage, message));
    }
    let entry = Entry {
        name: request.name.clone(),
        public,
        preshared: preshared.clone(),
        allowed_ips: addresses.clone(),
    };
    let text = Zeroizing::new(edit::add(file.text(), &entry)?);
    let config = parse(&file, &text)?;
    let client = ClientFile {
        name: request.name,
        private,
        addresses,
        dns: config.clients.dns.clone(),
        mtu: config.interface.mtu,
        gateway,
        preshared,
        allowed_ips: request.allowed_ips.unwrap_or_else(|| config.clients.allowed_ips.clone()),
        endpoint,
        keepalive_s: request.keepalive_s.unwrap_or(config.clients.keepalive_s),
    };
    let change = Change::make(file, text)?;
    Ok(Added { client, notes, config, change })
}

/// A peer that has been removed from the file.
#[derive(Debug)]
pub struct Removed {
    /// As it was.
    pub peer: Peer,
    /// The configuration without it.
    pub config: Config,
    /// What was done to the file.
    pub change: Change,
}

/// Removes the peer with this name or public key from the file at `path`.
///
/// # Errors
/// No such peer, a file that is wrong or cannot be written.
pub fn remove(path: &Path, name_or_key: &str) -> Result<Removed, Failure> {
    let file = Locked::open(path)?;
    let before = parse(&file, file.text())?;
    let key = keys::parse_public(name_or_key).ok();
    let is_it = |peer: &&Peer| Some(peer.public) == key || peer.name == name_or_key;
    let Some(peer) = before.peers.iter().find(is_it).cloned() else {
        let message = format!(
            "{} has no peer with the name or key \"{name_or_key}\": \"ringway peer list\" shows \
             all",
            file.path().display()
        );
        return Err(Failure::new(Status::Usage, message));
    };
    let text = edit::remove(file.text(), &peer.public)?.unwrap_or_else(|| file.text().to_owned());
    let text = Zeroizing::new(text);
    let config = parse(&file, &text)?;
    let change = Change::make(file, text)?;
    Ok(Removed { peer, config, change })
}

/// All peers as a table.
#[must_use]
pub fn list(config: &Config) -> String {
    let width = config.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0).max(4);
    let mut out = format!("{:width$}  {:44}  ALLOWED IPS\n", "NAME", "PUBLIC KEY");
    for peer in &config.peers {
        let nets: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        let name = if peer.name.is_empty() { "-" } else { &peer.name };
        let key = keys::show_public(&peer.public);
        out.push_str(format!("{name:width$}  {key}  {}", nets.join(", ")).trim_end());
        out.push('\n');
    }
    out
}

fn parse(file: &Locked, text: &str) -> Result<Config, Failure> {
    let path = file.path();
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.display().to_string();
    Ok(Config::parse(text, &name, folder, &Overrides::default())?)
}

fn refuse_known(config: &Config, request: &AddRequest) -> Result<(), Failure> {
    let known = |peer: &&Peer| {
        peer.name == request.name || request.public_key.is_some_and(|key| key == peer.public)
    };
    if let Some(peer) = config.peers.iter().find(known) {
        let what = if peer.name == request.name { "name" } else { "public key" };
        let message = format!(
            "A peer with this {what} exists already (line {} of the configuration): choose \
             another, or remove it first with \"ringway peer remove {}\"",
            peer.line,
            if peer.name.is_empty() { keys::show_public(&peer.public) } else { peer.name.clone() }
        );
        return Err(Failure::new(Status::Usage, message));
    }
    if config.peers.len() >= config.limits.peers_max as usize {
        let message = format!(
            "There are {} peers and peers_max is {}: remove one, or raise it in [limits]",
            config.peers.len(),
            config.limits.peers_max
        );
        return Err(Failure::new(Status::Config, message));
    }
    Ok(())
}

/// The client's keys. A preshared key is made only together with the private key: both travel in
/// the same file, and a client that keeps its private key could not learn the other one otherwise.
fn draw_keys(
    public_key: Option<PublicKey>,
    random: &mut dyn Random,
) -> (Option<PrivateKey>, PublicKey, PresharedKey) {
    match public_key {
        Some(public) => (None, public, PresharedKey::default()),
        None => {
            let private = PrivateKey::generate(random);
            let public = private.public();
            (Some(private), public, keys::generate_preshared(random))
        }
    }
}

/// Where the client finds the gateway.
fn endpoint(
    config: &Config,
    asked: Option<String>,
    notes: &mut Vec<String>,
) -> Result<String, Failure> {
    if let Some(endpoint) = asked.or_else(|| config.clients.endpoint.clone()) {
        return Ok(endpoint);
    }
    let Some(endpoint) = guessed_endpoint(config.interface.listen_port) else {
        let message = "This host has no address that leads outside, so the client's endpoint \
                       cannot be guessed: give --endpoint HOST:PORT, or write endpoint in \
                       [clients]";
        return Err(Failure::new(Status::Usage, message));
    };
    notes.push(format!(
        "warning: guessed that clients reach this gateway at {endpoint}; if not, remove the peer \
         and give --endpoint HOST:PORT, or write endpoint in [clients]"
    ));
    Ok(endpoint)
}

/// Where clients probably reach a gateway on this host that listens on `port`.
pub(crate) fn guessed_endpoint(port: u16) -> Option<String> {
    outward_address().map(|address| SocketAddr::new(address, port).to_string())
}

/// The address that this host would send from to the Internet. Connecting a UDP socket asks the
/// routing table and sends nothing; the targets are addresses for documentation (RFC 5737, 3849).
fn outward_address() -> Option<IpAddr> {
    let from = |local: &str, to: &str| {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(to).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_loopback() && !address.is_unspecified()).then_some(address)
    };
    from("0.0.0.0:0", "192.0.2.1:9").or_else(|| from("[::]:0", "[2001:db8::1]:9"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SystemRandom;
    use crate::scratch::Scratch;
    use std::fs;
    use std::path::PathBuf;

    fn gateway(folder: &Scratch, text: &str) -> PathBuf {
        let path = folder.path().join("ringway.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn request(name: &str) -> AddRequest {
        let endpoint = Some("vpn.example.org:51820".to_owned());
        AddRequest { name: name.to_owned(), endpoint, ..AddRequest::default() }
    }

    #[test]
    fn an_added_peer_is_in_the_file_and_its_client_fits_to_it() {
        let folder = Scratch::new("peer_add");
        let path = gateway(&folder, "[clients]\ndns = [\"9.9.9.9\"] # quad\n");
        let added = add(&path, request("phone"), &mut SystemRandom).unwrap();
        let config = Config::load(&path, &Overrides::default()).unwrap();
        let peer = &config.peers[0];
        assert_eq!(peer.name, "phone");
        assert_eq!(peer.public, added.client.private.as_ref().unwrap().public());
        assert_eq!(peer.preshared, added.client.preshared);
        assert!(peer.preshared.is_set());
        assert_eq!(peer.allowed_ips, added.client.addresses);
        assert_eq!(added.client.dns.len(), 1);
        let key = keys::read_private(&folder.path().join("private.key")).unwrap();
        assert_eq!(added.client.gateway, key.private.public());
        assert!(fs::read_to_string(&path).unwrap().contains("# quad"));
    }

    #[test]
    fn a_peer_of_the_file_gets_no_address_that_a_user_leases() {
        let folder = Scratch::new("peer_add_leased");
        let path = gateway(&folder, "[interface]\npools = [\"10.9.0.0/24\"]\n");
        let leased = vec!["10.9.0.2/32".parse().unwrap(), "10.9.0.3/32".parse().unwrap()];
        let added = add(&path, AddRequest { leased, ..request("a") }, &mut SystemRandom).unwrap();
        assert_eq!(added.client.addresses, ["10.9.0.4/32".parse().unwrap()]);
    }

    #[test]
    fn a_client_that_keeps_its_key_gets_a_file_without_secrets() {
        let folder = Scratch::new("peer_add_public");
        let path = gateway(&folder, "");
        let mut request = request("laptop");
        request.public_key = Some(PublicKey([7; 32]));
        request.keepalive_s = Some(25);
        let added = add(&path, request, &mut SystemRandom).unwrap();
        let text = added.client.text();
        assert!(!text.contains("\nPrivateKey") && !text.contains("PresharedKey"), "{}", *text);
        assert!(text.contains("PersistentKeepalive = 25\n"));
    }

    #[test]
    fn a_name_or_key_that_exists_is_refused_and_the_file_stays() {
        let folder = Scratch::new("peer_add_twice");
        let path = gateway(&folder, "");
        let mut first = request("a");
        first.public_key = Some(PublicKey([7; 32]));
        add(&path, first.clone(), &mut SystemRandom).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        let same_name = add(&path, request("a"), &mut SystemRandom).unwrap_err();
        first.name = "b".to_owned();
        let same_key = add(&path, first, &mut SystemRandom).unwrap_err();
        assert!(same_name.message.contains("this name exists"), "{same_name}");
        assert!(same_key.message.contains("this public key exists"), "{same_key}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn the_last_place_of_a_pool_is_followed_by_a_refusal() {
        let folder = Scratch::new("peer_add_full");
        let path = gateway(&folder, "[interface]\npools = [\"10.9.0.0/30\"]\n");
        add(&path, request("a"), &mut SystemRandom).unwrap();
        let failure = add(&path, request("b"), &mut SystemRandom).unwrap_err();
        assert!(failure.message.contains("peers_max is 1"), "{failure}");
    }

    #[test]
    fn a_peer_is_removed_by_name_or_by_key() {
        let folder = Scratch::new("peer_remove");
        let path = gateway(&folder, "# head\n");
        for name in ["a", "b"] {
            add(&path, request(name), &mut SystemRandom).unwrap();
        }
        let Removed { peer, config, .. } = remove(&path, "a").unwrap();
        assert_eq!((peer.name.as_str(), config.peers.len()), ("a", 1));
        let key = keys::show_public(&config.peers[0].public);
        remove(&path, &key).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), "# head");
        assert_eq!(remove(&path, "a").unwrap_err().status, Status::Usage);
    }

    #[test]
    fn a_change_is_taken_back_only_if_nobody_has_changed_the_file_since() {
        let folder = Scratch::new("peer_take_back");
        let path = gateway(&folder, "# mine\n");
        let first = add(&path, request("a"), &mut SystemRandom).unwrap();
        let with_a = fs::read_to_string(&path).unwrap();
        let second = add(&path, request("b"), &mut SystemRandom).unwrap();
        let with_b = fs::read_to_string(&path).unwrap();
        assert_eq!(first.change.take_back(&path), Ok(false));
        assert_eq!(fs::read_to_string(&path).unwrap(), with_b);
        assert_eq!(second.change.take_back(&path), Ok(true));
        assert_eq!(fs::read_to_string(&path).unwrap(), with_a);
        assert_eq!(remove(&path, "a").unwrap().change.take_back(&path), Ok(true));
        assert_eq!(fs::read_to_string(&path).unwrap(), with_a);
    }

    #[test]
    fn an_address_that_became_free_is_given_again() {
        let folder = Scratch::new("peer_reuse");
        let path = gateway(&folder, "");
        let first = add(&path, request("a"), &mut SystemRandom).unwrap().client.addresses;
        add(&path, request("b"), &mut SystemRandom).unwrap();
        remove(&path, "a").unwrap();
        let again = add(&path, request("c"), &mut SystemRandom).unwrap().client.addresses;
        assert_eq!(first, again);
    }

    #[test]
    fn the_list_has_a_line_per_peer() {
        let folder = Scratch::new("peer_list");
        let path = gateway(&folder, "");
        let added = add(&path, request("phone"), &mut SystemRandom).unwrap();
        let listed = list(&added.config);
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("NAME   PUBLIC KEY"));
        assert!(lines[1].starts_with("phone  ") && lines[1].contains("10.77.0.2/32"), "{listed}");
    }
}
