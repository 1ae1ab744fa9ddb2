//! What only the epoll driver does: it keeps what a full socket does not take.

use std::time::Duration;

use super::net::{in_own_network, set_mtu, stay_on_this_cpu};
use super::{SMALL, driver, listening, loopback::loopback, pattern, train};
use crate::backend::Backend;
use crate::driver::{Driver, Received, Wait};
use crate::epoll::EpollDriver;
use crate::listen::{UdpOptions, UdpSockets};
use crate::pools::PoolSizes;

/// Makes everything that leaves by loopback far slower than any build of the driver is, so that it
/// fills the buffer of its socket.
fn slow_loopback() {
    stay_on_this_cpu();
    set_mtu("lo", 1500);
    let words = "qdisc add dev lo root tbf rate 40mbit burst 20kb latency 10s";
    let done = std::process::Command::new("tc").args(words.split(' ')).status().unwrap();
    assert!(done.success());
}

/// A driver whose sockets hold about two trains.
fn narrow() -> EpollDriver {
    let mut sender = driver::<EpollDriver>(SMALL);
    let options = UdpOptions { buffer_bytes: 16 << 10, ..UdpOptions::default() };
    sender.set_sockets(Some(UdpSockets::bind(&options).unwrap())).unwrap();
    sender
}

#[test]
fn privileged_what_a_full_socket_does_not_take_waits_in_order_and_nothing_is_lost() {
    in_own_network(|| {
        slow_loopback();
        let mut sender = narrow();
        let (mut receiver, port) = listening::<EpollDriver>(PoolSizes { outside: 64, ..SMALL });
        let to = loopback(false, port);
        const TRAINS: u32 = 100;
        let (mut sent, mut blocked_turns, mut seen) = (0, 0, Vec::new());
        for _ in 0..10_000 {
            while sent < TRAINS && sender.stats().train_buffers_free > 0 {
                // Trains that the kernel cuts, and others that we must cut.
                let segment = if sent % 3 == 2 { 1_900 } else { 1_000 };
                let mut train = train(&mut sender, 9_500, segment, to);
                train.buf[..4].copy_from_slice(&sent.to_be_bytes());
                sender.send(train);
                sent += 1;
            }
            sender.turn(Wait::AtMost(Duration::from_millis(1))).unwrap();
            let free = sender.stats().train_buffers_free;
            blocked_turns += u32::from(free < u64::from(SMALL.trains));
            receiver.turn(Wait::No).unwrap();
            while let Some(Received::Outside(outside)) = receiver.next() {
                let bytes = &outside.buf[outside.start..][..outside.len];
                seen.extend(bytes.chunks(outside.stride).map(<[u8]>::to_vec));
            }
            if seen.iter().map(Vec::len).sum::<usize>() == 9_500 * TRAINS as usize {
                break;
            }
        }
        assert_eq!(sent, TRAINS);
        let all = seen.concat();
        assert_eq!(all.len(), 9_500 * TRAINS as usize, "{:?}", sender.stats());
        for (number, bytes) in (0..).zip(all.chunks(9_500)) {
            assert_eq!(bytes[..4], u32::to_be_bytes(number));
            assert!((4..9_500).all(|at| bytes[at] == pattern(at)));
        }
        let stats = *sender.stats();
        assert!(blocked_turns > 0, "the socket was never full");
        assert_eq!(stats.train_refused.total(), 0, "{stats:?}");
        assert_eq!(stats.train_buffers_free, u64::from(SMALL.trains));
        // Between two reports of room nothing is tried.
        assert!(stats.enters < 10 * u64::from(TRAINS) + 4 * u64::from(blocked_turns), "{stats:?}");
    });
}

#[test]
fn privileged_what_waits_for_room_is_counted_when_its_sockets_go() {
    in_own_network(|| {
        slow_loopback();
        let mut sender = narrow();
        for _ in 0..SMALL.trains {
            let train = train(&mut sender, 60_000, 1_000, loopback(false, 9));
            sender.send(train);
        }
        sender.turn(Wait::No).unwrap();
        let waiting = u64::from(SMALL.trains) - sender.stats().train_buffers_free;
        assert!(waiting > 0);
        sender.set_sockets(None).unwrap();
        assert_eq!(sender.stats().train_refused.full, waiting);
        assert_eq!(sender.stats().train_buffers_free, u64::from(SMALL.trains));
    });
}
