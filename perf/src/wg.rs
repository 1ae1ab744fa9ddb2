//! Keys and configuration text in the form the stock `wg` tool reads, and what `wg show` says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process::{Launch, scratch};

/// A Curve25519 key pair in WireGuard's base64.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The secret half.
    pub private: String,
    /// What peers know.
    pub public: String,
}

impl KeyPair {
    /// A fresh pair, made by `wg genkey`.
    ///
    /// # Errors
    /// When `wg` is missing.
    pub fn generate() -> Result<Self> {
        let line = Launch::new("sh")
            .args(["-c", "k=$(wg genkey) && echo $k $(echo $k | wg pubkey)"])
            .run()
            .context("Making a key needs the wg command of wireguard-tools")?;
        let (private, public) = line.trim().split_once(' ').context("wg printed no key pair")?;
        Ok(Self { private: private.to_owned(), public: public.to_owned() })
    }
}

/// A fresh preshared key, made by `wg genpsk`.
///
/// # Errors
/// When `wg` is missing.
pub fn preshared_key() -> Result<String> {
    Ok(Launch::new("wg").arg("genpsk").run()?.trim().to_owned())
}

/// One `[Peer]` section.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its public key.
    pub public: String,
    /// Preshared key, if any.
    pub preshared: Option<String>,
    /// Prefixes it may use.
    pub allowed_ips: Vec<String>,
    /// Where it is, if known beforehand.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive, seconds.
    pub keepalive_s: Option<u16>,
}

/// A configuration for `wg setconf`.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Private key.
    pub private: String,
    /// UDP port; any when `None`.
    pub listen_port: Option<u16>,
    /// Firewall mark of what it sends.
    pub fwmark: Option<u32>,
    /// Its peers.
    pub peers: Vec<Peer>,
}

impl Config {
    /// The text `wg setconf` reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("[Interface]\nPrivateKey = {}\n", self.private);
        let mut line = |key: &str, value: String| {
            text.push_str(key);
            text.push_str(" = ");
            text.push_str(&value);
            text.push('\n');
        };
        self.listen_port.into_iter().for_each(|port| line("ListenPort", port.to_string()));
        self.fwmark.into_iter().for_each(|mark| line("FwMark", mark.to_string()));
        for peer in &self.peers {
            text.push_str("[Peer]\n");
            let mut line = |key: &str, value: &str| {
                text.push_str(&format!("{key} = {value}\n"));
            };
            line("PublicKey", &peer.public);
            peer.preshared.iter().for_each(|key| line("PresharedKey", key));
            if !peer.allowed_ips.is_empty() {
                line("AllowedIPs", &peer.allowed_ips.join(", "));
            }
            peer.endpoint.iter().for_each(|at| line("Endpoint", &at.to_string()));
            peer.keepalive_s.iter().for_each(|s| line("PersistentKeepalive", &s.to_string()));
        }
        text
    }
}

/// Applies a configuration to an interface, replacing what was there.
///
/// # Errors
/// With the message of `wg`.
pub fn setconf(netns: &str, interface: &str, config: &Config) -> Result<()> {
    setconf_text(netns, interface, &config.text())
}

/// As [`setconf`], with text from elsewhere.
///
/// # Errors
/// With the message of `wg`.
pub fn setconf_text(netns: &str, interface: &str, text: &str) -> Result<()> {
    let path = scratch()?.join(format!("{interface}.conf"));
    std::fs::write(&path, text)?;
    let done = wg(netns).args(["setconf", interface]).arg(&path).run().map(drop);
    std::fs::remove_file(&path)?;
    done
}

/// Changes some settings: the words that follow `wg set INTERFACE`.
///
/// # Errors
/// With the message of `wg`.
pub fn set(netns: &str, interface: &str, words: &str) -> Result<()> {
    wg(netns).args(["set", interface]).words(words).run().map(drop)
}

/// What an interface says about one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its public key.
    pub public: String,
    /// Where it was last heard.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the epoch of the last handshake; 0 for never.
    pub handshake_s: u64,
    /// Bytes received from it, as `wg` counts them.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// The peers of an interface, from `wg show INTERFACE dump`.
///
/// # Errors
/// When the interface does not answer.
pub fn peers(netns: &str, interface: &str) -> Result<Vec<PeerStatus>> {
    let dump = wg(netns).args(["show", interface, "dump"]).output(Duration::from_secs(5))?;
    Ok(dump.lines().skip(1).filter_map(parse_peer).collect())
}

fn parse_peer(line: &str) -> Option<PeerStatus> {
    // public-key preshared-key endpoint allowed-ips latest-handshake rx tx keepalive
    let fields: Vec<&str> = line.split('\t').collect();
    Some(PeerStatus {
        public: (*fields.first()?).to_owned(),
        endpoint: fields.get(2)?.parse().ok(),
        handshake_s: fields.get(4)?.parse().ok()?,
        rx_bytes: fields.get(5)?.parse().ok()?,
        tx_bytes: fields.get(6)?.parse().ok()?,
    })
}

fn wg(netns: &str) -> Launch {
    Launch::new("wg").within(netns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_configuration_is_written_as_wg_reads_it() {
        let peer = Peer {
            public: "P".into(),
            preshared: Some("S".into()),
            allowed_ips: vec!["10.0.0.2/32".into(), "fd00::2/128".into()],
            endpoint: Some("[fd00::1]:7".parse().unwrap()),
            keepalive_s: Some(25),
        };
        let config =
            Config { private: "K".into(), listen_port: Some(7), fwmark: None, peers: vec![peer] };
        assert_eq!(
            config.text(),
            "[Interface]\nPrivateKey = K\nListenPort = 7\n[Peer]\nPublicKey = P\nPresharedKey = S\n\
             AllowedIPs = 10.0.0.2/32, fd00::2/128\nEndpoint = [fd00::1]:7\nPersistentKeepalive = 25\n"
        );
    }

    #[test]
    fn a_line_of_the_dump_is_read_into_its_fields() {
        let peer = parse_peer("K=\t(none)\t[fd00::1]:9\t10.0.0.2/32\t17\t3\t4\toff").unwrap();
        assert_eq!((peer.handshake_s, peer.rx_bytes, peer.tx_bytes), (17, 3, 4));
        assert_eq!(peer.endpoint, Some("[fd00::1]:9".parse().unwrap()));
        assert!(parse_peer("K=\t(none)").is_none());
    }
}
