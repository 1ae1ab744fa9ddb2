//! The two banks of a core: data in front, a flood of initiations behind it and bounded.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::{SMALL, driver, turn_until};
use crate::backend::Backend;
use crate::driver::{Received, Wait};
use crate::listen::{UdpGroup, UdpOptions};
use crate::steer::{Owner, Rule, Steering};

on_each_driver! {
    both_banks_are_received_from_in_both_families_and_data_comes_first,
    a_flood_of_initiations_is_dropped_in_its_own_socket_and_costs_data_nothing,
    sockets_of_both_banks_are_let_go_when_they_are_replaced,
    a_flood_in_one_family_leaves_the_other_through,
}

/// Datagrams that begin with `D` are data of the only core.
fn steering() -> Steering {
    let rule = Rule { first_word: 0x4444_4444, bytes_min: 8, bytes_max: 65_535, index_at: 4 };
    Steering { rules: vec![rule], owner: Owner { cores: 1, core_bits: 0, secret: 0 } }
}

/// A driver with both banks.
fn banked<B: Backend>() -> (B, u16) {
    let mut driver = driver::<B>(SMALL);
    let group = UdpGroup::open(&UdpOptions::default(), 1, Some(&steering())).unwrap();
    assert!(group.steered, "{:?}", group.refusal);
    let port = group.sockets[0].port();
    driver.set_sockets(group.sockets.into_iter().next()).unwrap();
    driver.turn(Wait::No).unwrap();
    (driver, port)
}

fn first_byte(received: &Received) -> u8 {
    match received {
        Received::Outside(outside) => outside.buf[outside.start],
        Received::Inside(inside) => panic!("{inside:?}"),
    }
}

fn sender(received: &Received) -> SocketAddr {
    match received {
        Received::Outside(outside) => outside.from,
        Received::Inside(inside) => panic!("{inside:?}"),
    }
}

fn both_banks_are_received_from_in_both_families_and_data_comes_first<B: Backend>() {
    for local in ["127.0.0.1", "::1"] {
        let (mut driver, port) = banked::<B>();
        let Ok(client) = UdpSocket::bind((local, 0)) else { continue };
        for _ in 0..3 {
            client.send_to(b"initiation", (local, port)).unwrap();
        }
        client.send_to(b"DDDDdata", (local, port)).unwrap();
        let mut marks = Vec::new();
        // All have arrived before the next turn looks: loopback delivers in the call.
        turn_until(&mut driver, |received| {
            marks.extend(received.as_ref().map(first_byte));
            marks.len() == 4
        });
        assert_eq!(marks, b"Diii");
        let stats = driver.stats();
        assert_eq!((stats.outside_datagrams, stats.initiations_datagrams), (4, 3));
        assert_eq!(stats.initiations_buffers_free, u64::from(SMALL.initiations));
    }
}

fn a_flood_of_initiations_is_dropped_in_its_own_socket_and_costs_data_nothing<B: Backend>() {
    const FLOOD: u64 = 20_000;
    const DATA: u64 = 500;
    let (mut driver, port) = banked::<B>();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = ("127.0.0.1", port);
    let (mut data, mut initiations) = (0, 0);
    for n in 0..FLOOD {
        client.send_to(&[b'i'; 148], to).unwrap();
        if n % (FLOOD / DATA) == 0 {
            client.send_to(b"DDDDdata", to).unwrap();
        }
        // The core is slower than the flood.
        if n % 512 == 0 {
            driver.turn(Wait::No).unwrap();
            let mut in_turn = 0;
            while let Some(received) = driver.next() {
                match first_byte(&received) {
                    b'D' => data += 1,
                    _ => in_turn += 1,
                }
            }
            assert!(in_turn <= u64::from(SMALL.initiations), "{in_turn} in one turn");
            initiations += in_turn;
        }
    }
    // The next that arrives after the flood tells what was lost.
    turn_until(&mut driver, |received| {
        match received.as_ref().map(first_byte) {
            Some(b'D') => data += 1,
            Some(_) => initiations += 1,
            None if data == DATA => return true,
            None => {}
        }
        false
    });
    // A turn may be without any because it learned that the pool was used up.
    let mut empty_turns = 0;
    while empty_turns < 4 {
        driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
        let in_turn = std::iter::from_fn(|| driver.next()).count() as u64;
        empty_turns = if in_turn == 0 { empty_turns + 1 } else { 0 };
        initiations += in_turn;
    }
    let mut seen_last = false;
    client.send_to(b"last", to).unwrap();
    turn_until(&mut driver, |received| {
        match received.as_ref().map(first_byte) {
            Some(b'l') => seen_last = true,
            Some(_) => initiations += 1,
            None => {}
        }
        seen_last
    });
    let stats = driver.stats();
    assert_eq!(stats.outside_dropped, 0, "no data was lost");
    assert_eq!(stats.outside_no_buffer, 0);
    assert!(stats.initiations_dropped > 0);
    assert_eq!(stats.initiations_dropped + initiations, FLOOD, "every one is accounted for");
}

fn sockets_of_both_banks_are_let_go_when_they_are_replaced<B: Backend>() {
    let (mut driver, port) = banked::<B>();
    let old = driver.set_sockets(None).unwrap().unwrap();
    assert!(old.has_initiations());
    drop(old);
    let options = UdpOptions { port, ..UdpOptions::default() };
    let group = UdpGroup::open(&options, 1, Some(&steering())).unwrap();
    driver.set_sockets(group.sockets.into_iter().next()).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"initiation", ("127.0.0.1", port)).unwrap();
    turn_until(&mut driver, |received| received.is_some());
    driver.shutdown().unwrap();
}

fn a_flood_in_one_family_leaves_the_other_through<B: Backend>() {
    for payload in [b"DDDDdata", b"initiate"] {
        for (flooded, other) in [("127.0.0.1", "::1"), ("::1", "127.0.0.1")] {
            let (mut driver, port) = banked::<B>();
            let Ok(quiet) = UdpSocket::bind((other, 0)) else { continue };
            let Ok(client) = UdpSocket::bind((flooded, 0)) else { continue };
            // Enough that the flooded socket is never empty.
            for _ in 0..300 {
                client.send_to(payload, (flooded, port)).unwrap();
            }
            quiet.send_to(payload, (other, port)).unwrap();
            let from_quiet = Some(quiet.local_addr().unwrap());
            let mut turns = 0;
            turn_until(&mut driver, |received| {
                turns += u32::from(received.is_none());
                received.map(|received| sender(&received)) == from_quiet
            });
            assert!(turns <= 4, "it waited {turns} turns behind a flood by {flooded}");
        }
    }
}
