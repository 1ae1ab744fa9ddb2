//! Who is not let in, and what is not let through.
//!
//! ```text
//!   cli: client (wrong key, wrong preshared key, foreign inner source) ── gw: gateway ── dst
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use ringway_perf::topology::{Family, Line, Plan, Site};
use ringway_perf::wait::wait_for;
use ringway_perf::wg::{Config, KeyPair, preshared_key};

use crate::setup::{LATER, destination_at, gateway, settled, site, stock_client};

/// Bytes of two initiations: the client has tried, waited 5 s and tried again.
const TWO_INITIATIONS: u64 = 2 * 148;

/// A site whose client starts with a wrong configuration.
fn misconfigured(edit: impl FnOnce(&mut Config)) -> Site {
    Line::new(1500).unwrap().connect_with(Plan::new(gateway(), stock_client()), edit).unwrap()
}

/// Makes the client want to send, and waits until it has tried twice without success.
fn assert_shut_out(site: &Site) {
    let knock = site.line.cli.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    knock.send_to(b"knock", destination_at(Family::V4, 9)).unwrap();
    let before = site.client.peers().unwrap()[0].tx_bytes;
    let tried = || {
        let peer = &site.client.peers().unwrap()[0];
        assert_eq!(peer.handshake_s, 0, "the client was let in");
        peer.tx_bytes >= before + TWO_INITIATIONS
    };
    wait_for("two initiations of the client", LATER, tried).unwrap();
    for peer in site.gateway.tunnel.peers().unwrap() {
        assert_eq!(peer.handshake_s, 0, "the gateway believes in a session");
    }
}

#[test]
fn privileged_a_client_with_the_wrong_gateway_key_is_not_answered() {
    let wrong = KeyPair::generate().unwrap().public;
    let site = misconfigured(|client| client.peers[0].public = wrong);
    assert_shut_out(&site);
    assert_eq!(site.client.peers().unwrap()[0].rx_bytes, 0, "the first MAC was wrong");

    site.client.configure(&site.client_config()).unwrap();
    site.await_traffic(Family::V4).unwrap();
}

#[test]
fn privileged_an_unknown_client_is_not_answered() {
    let stranger = KeyPair::generate().unwrap().private;
    let site = misconfigured(|client| client.private = stranger);
    assert_shut_out(&site);
    assert_eq!(site.client.peers().unwrap()[0].rx_bytes, 0);

    site.client.configure(&site.client_config()).unwrap();
    site.await_traffic(Family::V4).unwrap();
}

#[test]
fn privileged_both_sides_need_the_same_preshared_key() {
    let (right, wrong) = (preshared_key().unwrap(), preshared_key().unwrap());
    let site = misconfigured(|client| client.peers[0].preshared = Some(wrong));
    assert_shut_out(&site); // the gateway has none

    let mut ours = site.gateway.config();
    ours.peers[0].preshared = Some(right.clone());
    site.gateway.tunnel.configure(&ours).unwrap();
    assert_shut_out(&site); // and now another

    let mut theirs = site.client_config();

    theirs.peers[0].preshared = Some(right);
    site.client.configure(&theirs).unwrap();
    site.await_traffic(Family::V4).unwrap();
}

/// A peer that speaks for an address it was not given is not heard; right after, it is heard under
/// its own.
#[test]
fn privileged_a_spoofed_inner_source_does_not_get_out() {
    let site = site();
    let interface = site.client.interface();
    site.line.cli.address(interface, &["10.91.9.77/24", "fd91:9::77/64"]).unwrap();
    let own = [
        (Family::V4, "10.91.9.2:0", "10.91.9.77:0"),
        (Family::V6, "[fd91:9::2]:0", "[fd91:9::77]:0"),
    ];
    for (inside, own, foreign) in own {
        let to = destination_at(inside, 7002);
        let receiver = site.line.dst.inside(|| UdpSocket::bind(to)).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for (from, text) in [(foreign, b"foreign"), (own, b"our own")] {
            let sender = site.line.cli.inside(|| UdpSocket::bind(from)).unwrap().unwrap();
            for _ in 0..10 {
                sender.send_to(text, to).unwrap();
            }
        }
        let mut bytes = [0; 16];
        for _ in 0..10 {
            let (length, from) = receiver.recv_from(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"our own", "{from} was let out");
        }
    }
}

/// Noise of every kind at the gateway's port makes no state and no harm.
#[test]
fn privileged_noise_at_the_port_does_not_disturb_a_session() {
    let site = site();
    let socket = site.line.cli.inside(|| UdpSocket::bind("10.91.1.2:0")).unwrap().unwrap();
    socket.connect("10.91.1.1:51820").unwrap();
    let mut random = ringway_perf::emulator::SplitMix::new(7);
    for length in (0..1_400).step_by(7) {
        for kind in [0_u8, 1, 2, 3, 4, 5, 255] {
            let mut noise: Vec<u8> =
                (0..length).map(|_| random.next_u64().to_le_bytes()[0]).collect();
            if let Some(head) = noise.first_chunk_mut::<4>() {
                *head = [kind, 0, 0, u8::from(length % 2 == 0)];
            }
            socket.send(&noise).unwrap();
        }
    }
    assert_eq!(site.gateway.tunnel.peers().unwrap().len(), 1);
    let handshake = settled(&site.gateway.tunnel);
    site.await_traffic(Family::V4).unwrap();
    site.await_traffic(Family::V6).unwrap();
    assert_eq!(site.gateway.tunnel.peers().unwrap()[0].handshake_s, handshake);
}
