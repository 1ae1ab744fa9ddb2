//! The directory against a real store in a scratch folder.

use crate::directory::surroundings::Surroundings;
use crate::store::records::{Pool, PoolId, Timestamp};

/// A pool, not yet in any store; an empty prefix is none.
pub(in crate::directory) fn pool(name: &str, net4: &str, net6: &str) -> Pool {
    let net = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Pool {
        id: PoolId::fresh(),
        name: name.to_owned(),
        net4: net(net4),
        net6: net(net6),
        range4: None,
        random: false,
        created_at: Timestamp(0),
        version: 1,
    }
}

/// What a small configuration says.
pub(in crate::directory) fn surroundings() -> Surroundings {
    let address = |text: &str, prefix| crate::config::InterfaceAddress {
        address: text.parse().unwrap(),
        prefix,
    };
    Surroundings {
        gateway: ringway_proto::crypto::PublicKey([1; 32]),
        addresses: vec![address("10.77.0.1", 16), address("fd00:77::1", 48)],
        pool4: Some("10.77.0.0/24".parse().unwrap()),
        pool6: Some("fd00:77::/64".parse().unwrap()),
        peers_max: 100,
        peers: Vec::new(),
        mtu: 1420,
        endpoint: Some("vpn.example.org:51820".to_owned()),
        allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        dns: vec!["9.9.9.9".parse().unwrap()],
        keepalive_s: 25,
        portal: Some("https://vpn.example.org".to_owned()),
    }
}
