//! The file that a client loads: what `wg-quick` and the WireGuard applications read.

use std::fmt::Write as _;
use std::net::IpAddr;

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::keys;

/// Everything in a client's file.
#[derive(Debug)]
pub struct ClientFile {
    /// What the operator calls the client.
    pub name: String,
    /// The client's key, unless the client keeps it.
    pub private: Option<PrivateKey>,
    /// The client's inner addresses.
    pub addresses: Vec<IpNet>,
    /// DNS servers while connected.
    pub dns: Vec<IpAddr>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// The gateway's key.
    pub gateway: PublicKey,
    /// Second secret, if one is set.
    pub preshared: PresharedKey,
    /// What goes into the tunnel.
    pub allowed_ips: Vec<IpNet>,
    /// `HOST:PORT` of the gateway.
    pub endpoint: String,
    /// Seconds between keepalives, 0 for none.
    pub keepalive_s: u16,
}

impl ClientFile {
    /// The text of the file. It holds secrets and is erased when dropped.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        // Room for everything, so that no secret is left behind by a growing buffer.
        let mut text = Zeroizing::new(String::with_capacity(1024 + 64 * self.allowed_ips.len()));
        let out: &mut String = &mut text;
        let _ = writeln!(out, "# {}\n[Interface]", self.name);
        let _ = match &self.private {
            Some(private) => writeln!(out, "PrivateKey = {}", *keys::show_private(private)),
            None => writeln!(out, "# PrivateKey = the client's own, which this gateway never saw"),
        };
        let _ = writeln!(out, "Address = {}", joined(&self.addresses));
        if !self.dns.is_empty() {
            let _ = writeln!(out, "DNS = {}", joined(&self.dns));
        }
        let _ = writeln!(out, "MTU = {}\n\n[Peer]", self.mtu);
        let _ = writeln!(out, "PublicKey = {}", keys::show_public(&self.gateway));
        if self.preshared.is_set() {
            let _ = writeln!(out, "PresharedKey = {}", *keys::encode(&self.preshared.0));
        }
        let _ = writeln!(out, "AllowedIPs = {}", joined(&self.allowed_ips));
        let _ = writeln!(out, "Endpoint = {}", self.endpoint);
        if self.keepalive_s > 0 {
            let _ = writeln!(out, "PersistentKeepalive = {}", self.keepalive_s);
        }
        text
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ClientFile {
        ClientFile {
            name: "phone".to_owned(),
            private: Some(PrivateKey::from_bytes([1; 32])),
            addresses: vec!["10.77.0.2/32".parse().unwrap(), "fd00::2/128".parse().unwrap()],
            dns: vec!["9.9.9.9".parse().unwrap()],
            mtu: 1420,
            gateway: PublicKey([2; 32]),
            preshared: PresharedKey([3; 32]),
            allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
            endpoint: "vpn.example.org:51820".to_owned(),
            keepalive_s: 25,
        }
    }

    #[test]
    fn a_full_file_has_every_line_that_wg_quick_reads() {
        assert_eq!(
            *file().text(),
            "# phone\n\
             [Interface]\n\
             PrivateKey = AAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAUE=\n\
             Address = 10.77.0.2/32, fd00::2/128\n\
             DNS = 9.9.9.9\n\
             MTU = 1420\n\
             \n\
             [Peer]\n\
             PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\
             PresharedKey = AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\
             AllowedIPs = 0.0.0.0/0, ::/0\n\
             Endpoint = vpn.example.org:51820\n\
             PersistentKeepalive = 25\n"
        );
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let mut file = file();
        file.private = None;
        file.preshared = PresharedKey::default();
        file.dns.clear();
        file.keepalive_s = 0;
        assert_eq!(
            *file.text(),
            "# phone\n\
             [Interface]\n\
             # PrivateKey = the client's own, which this gateway never saw\n\
             Address = 10.77.0.2/32, fd00::2/128\n\
             MTU = 1420\n\
             \n\
             [Peer]\n\
             PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\
             AllowedIPs = 0.0.0.0/0, ::/0\n\
             Endpoint = vpn.example.org:51820\n"
        );
    }
}
