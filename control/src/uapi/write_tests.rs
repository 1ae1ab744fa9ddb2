#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::plane::{Operation, Plane, Secret};
use ringway_proto::crypto::PresharedKey;

fn status(public: PublicKey) -> PeerStatus {
    PeerStatus {
        endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
        last_handshake: Some(Duration::new(1_700_000_000, 5)),
        rx_bytes: 1,
        tx_bytes: 2,
        live: true,
        path_mtu: 1420,
        ..PeerStatus::unknown(public)
    }
}

#[test]
fn an_empty_gateway_says_nothing_of_itself() {
    let mut out = String::new();
    interface(&mut out, None, 0, 0);
    end(&mut out, Errno::OK);
    assert_eq!(out, "errno=0\n\n");
}

#[test]
fn a_gateway_and_a_peer_are_written_line_by_line() {
    let mut plane = Plane::new(1);
    let public = PublicKey([0xab; 32]);
    plane.apply([
        Operation::PrivateKey(Secret::new([0xff; 32])),
        Operation::Peer(public),
        Operation::Preshared(PresharedKey([0x01; 32])),
        Operation::Keepalive(25),
        Operation::AllowedIp("10.0.0.0/8".parse().unwrap()),
    ]);
    let mut out = String::new();
    interface(&mut out, plane.private(), 51820, 7);
    peer(&mut out, &public, plane.peer(&public).unwrap(), &status(public));
    for net in plane.peer(&public).unwrap().allowed_ips.iter() {
        allowed_ip(&mut out, net);
    }
    end(&mut out, Errno::INVALID);
    let expected = format!(
        "private_key=f8{}7f\nlisten_port=51820\nfwmark=7\npublic_key={}\npreshared_key={}\n\
         protocol_version=1\nendpoint=[2001:db8::1]:51820\nlast_handshake_time_sec=1700000000\n\
         last_handshake_time_nsec=5\ntx_bytes=2\nrx_bytes=1\npersistent_keepalive_interval=25\n\
         allowed_ip=10.0.0.0/8\nerrno=-22\n\n",
        "ff".repeat(30),
        "ab".repeat(32),
        "01".repeat(32),
    );
    assert_eq!(out, expected);
}

#[test]
fn a_mapped_address_is_written_as_the_address_it_is() {
    let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
    assert_eq!(canonical(mapped).to_string(), "192.0.2.1:7");
}

#[test]
fn all_digits_are_in_lower_case() {
    let digits: String = (0..16).map(digit).collect();
    assert_eq!(digits, "0123456789abcdef");
}
