//! What only a ring can do or get wrong.

use std::net::ToSocketAddrs;
use std::time::Duration;

use super::loopback::{datagrams, loopback};
use super::net::{in_own_network, ip, set_address, set_up};
use super::{SMALL, config, listening, pattern, receive, train, tun, turn_until};
use crate::backend::Backend;
use crate::driver::{Driver, Received, VNET_HEADER_BYTES, Wait};
use crate::listen::{UdpOptions, UdpSockets};
use crate::ring::RingMode;
use crate::tun::{TunOptions, TunQueue};
use crate::uring::UringDriver;
use crate::zerocopy::ZeroCopyMode;

#[test]
fn an_idle_turn_that_may_not_wait_makes_no_call() {
    let (mut driver, _) = listening::<UringDriver>(SMALL);
    driver.turn(Wait::No).unwrap();
    let before = driver.stats().enters;
    for _ in 0..100 {
        driver.turn(Wait::No).unwrap();
    }
    assert_eq!(driver.stats().enters, before);
}

#[test]
fn lesser_modes_of_older_kernels_work_the_same() {
    for mode in [RingMode::Cooperative, RingMode::Plain] {
        let (config, _pools) = config(SMALL);
        let mut driver = UringDriver::with_mode(config, mode).unwrap();
        assert_eq!(driver.mode(), mode);
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        let own = ("127.0.0.1", sockets.port()).to_socket_addrs().unwrap().next().unwrap();
        driver.set_sockets(Some(sockets)).unwrap();
        for _ in 0..50 {
            let train = train(&mut driver, 3000, 1000, own);
            driver.send(train);
            let Received::Outside(outside) = receive(&mut driver) else {
                panic!("not from outside")
            };
            assert_eq!((outside.len, outside.stride), (3000, 1000));
        }
        assert_eq!(driver.set_sockets(None).unwrap().unwrap().port(), own.port());
        let options = UdpOptions { port: own.port(), ..Default::default() };
        driver.set_sockets(Some(UdpSockets::bind(&options).unwrap())).unwrap();
        let train = train(&mut driver, 10, 10, own);
        driver.send(train);
        receive(&mut driver);
        driver.shutdown().unwrap();
    }
}

#[test]
fn zero_copy_is_given_up_on_a_path_that_copies() {
    for (mode, sent) in [(ZeroCopyMode::On, 6), (ZeroCopyMode::Auto, 2), (ZeroCopyMode::Off, 0)] {
        let (mut config, _pools) = config(SMALL);
        config.zero_copy = mode;
        let mut sender = UringDriver::make(config).unwrap();
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        sender.set_sockets(Some(sockets)).unwrap();
        let (mut receiver, port) = listening::<UringDriver>(SMALL);
        for _ in 0..3 {
            // Two at once: the second is sent before the first is reported.
            for _ in 0..2 {
                let train = train(&mut sender, 46 * 1420, 1420, loopback(false, port));
                sender.send(train);
            }
            let small = train(&mut sender, 1420, 1420, loopback(false, port));
            sender.send(small);
            sender.turn(Wait::No).unwrap();
            let all = datagrams(&mut receiver, (46 * 2 + 1) * 1420);
            assert!(all[..46].concat().iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
            turn_until(&mut sender, |_| true);
        }
        let stats = *sender.stats();
        assert_eq!((stats.zero_copy_sent, stats.zero_copy_copied), (sent, sent), "{mode:?}");
        assert_eq!(stats.zero_copy_demoted, u64::from(mode != ZeroCopyMode::Off), "{mode:?}");
        assert_eq!(stats.train_buffers_free, u64::from(SMALL.trains));
        assert_eq!(stats.train_refused.total(), 0);
        sender.shutdown().unwrap();
    }
}

#[test]
fn privileged_zero_copy_is_kept_on_a_path_that_does_not_copy() {
    in_own_network(|| {
        // An ifb device takes pages as they are and drops them; where there is none, nothing is
        // shown by this test.
        if !ip("link add sink type ifb") {
            return;
        }
        assert!(ip("address add 10.99.0.1/24 dev sink"));
        assert!(ip("link set sink up"));
        assert!(ip("neighbour add 10.99.0.2 lladdr 02:00:00:00:00:01 dev sink"));
        let (mut config, _pools) = config(SMALL);
        config.zero_copy = ZeroCopyMode::Auto;
        let mut sender = UringDriver::make(config).unwrap();
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        sender.set_sockets(Some(sockets)).unwrap();
        for _ in 0..100 {
            let train = train(&mut sender, 46 * 1420, 1420, "10.99.0.2:9".parse().unwrap());
            sender.send(train);
            sender.turn(Wait::No).unwrap();
            while sender.stats().train_buffers_free < u64::from(SMALL.trains) {
                sender.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
            }
        }
        let stats = *sender.stats();
        assert_eq!((stats.zero_copy_sent, stats.zero_copy_copied), (100, 0));
        assert_eq!(stats.train_refused.total(), 0);
    });
}

#[test]
fn privileged_without_multishot_reads_packets_come_in_order_too() {
    in_own_network(|| {
        let (mut config, _pools) = config(SMALL);
        if let Ok(uring) = &mut config.features.uring {
            uring.read_multishot = false;
        }
        let mut driver = UringDriver::make(config).unwrap();
        let queue = TunQueue::open(&TunOptions::named("rwt0")).unwrap();
        set_address(queue.name(), tun::OURS);
        set_up(queue.name());
        driver.set_tun(Some(queue)).unwrap();
        driver.turn(Wait::No).unwrap();
        let (socket, _) = tun::bound();
        for round in 0..4u32 {
            for n in 0..40u32 {
                let number = round * 40 + n;
                socket.send_to(&number.to_be_bytes(), (tun::PEER, 4444)).unwrap();
            }
            for n in 0..40u32 {
                let inside = udp_from_kernel_strict(&mut driver);
                assert_eq!(inside, round * 40 + n);
            }
        }
    });
}

/// The number in the next UDP packet to the peer.
fn udp_from_kernel_strict(driver: &mut UringDriver) -> u32 {
    loop {
        let received = driver.next();
        let Some(Received::Inside(inside)) = received else {
            driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
            continue;
        };
        let ip = &inside.buf[inside.start + VNET_HEADER_BYTES..inside.start + inside.len];
        if ip[0] >> 4 == 4 && ip[9] == 17 && ip.len() == 32 {
            return u32::from_be_bytes(*ip[28..].first_chunk().unwrap());
        }
    }
}
