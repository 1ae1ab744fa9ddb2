//! Starting, replacing, waking, running out, and ending.

use std::net::{ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{SMALL, config, driver, listening, receive, train, turn_until};
use crate::clock;
use crate::driver::{Driver, Received, Wait};
use crate::error::RingError;
use crate::listen::{UdpOptions, UdpSockets};
use crate::ring::RingMode;
use crate::uring::UringDriver;

fn wake(fd: OwnedFd) {
    use std::io::Write;
    let mut file = std::fs::File::from(fd);
    file.write_all(&1u64.to_ne_bytes()).unwrap();
}

#[test]
fn another_thread_ends_the_wait_again_and_again() {
    let mut driver = driver(SMALL);
    for round in 1..=20 {
        let fd = driver.waker_fd().try_clone_to_owned().unwrap();
        let other = std::thread::spawn(move || wake(fd));
        driver.turn(Wait::Forever).unwrap();
        other.join().unwrap();
        while driver.stats().wakes < round {
            driver.turn(Wait::AtMost(Duration::from_millis(10))).unwrap();
        }
        assert!(driver.next().is_none());
    }
}

#[test]
fn a_wake_before_the_wait_is_not_lost() {
    let mut driver = driver(SMALL);
    wake(driver.waker_fd().try_clone_to_owned().unwrap());
    driver.turn(Wait::Forever).unwrap();
    turn_until(&mut driver, |_| true);
    assert_eq!(driver.stats().wakes, 1);
}

#[test]
fn a_wait_ends_at_its_limit() {
    let mut driver = driver(SMALL);
    driver.turn(Wait::No).unwrap();
    let begin = clock::boot_ns();
    driver.turn(Wait::AtMost(Duration::from_millis(20))).unwrap();
    let waited_ns = clock::boot_ns() - begin;
    assert!((19_000_000..2_000_000_000).contains(&waited_ns), "{waited_ns}");
}

#[test]
fn an_idle_turn_that_may_not_wait_makes_no_call() {
    let (mut driver, _) = listening(SMALL);
    driver.turn(Wait::No).unwrap();
    let before = driver.stats().enters;
    for _ in 0..100 {
        driver.turn(Wait::No).unwrap();
    }
    assert_eq!(driver.stats().enters, before);
}

#[test]
fn sockets_are_replaced_under_traffic_on_the_same_port() {
    let (mut driver, port) = listening(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    let mut received = 0;
    for n in 0..30u8 {
        // Refused while the port is closed: that is what the client sees, and it goes on.
        let _ = client.send(&[n; 100]);
        let _ = client.send(&[n; 100]);
        driver.turn(Wait::No).unwrap();
        if n % 3 == 2 {
            let old = driver.set_sockets(None).unwrap();
            assert_eq!(old.unwrap().port(), port);
            let options = UdpOptions { port, ..Default::default() };
            let new = UdpSockets::bind(&options).unwrap();
            assert!(driver.set_sockets(Some(new)).unwrap().is_none());
        }
        while let Some(Received::Outside(outside)) = driver.next() {
            assert_eq!(outside.len % 100, 0);
            received += outside.len / 100;
        }
    }
    assert!(received > 0);
    let mut last = false;
    for _ in 0..3 {
        let _ = client.send(b"the last");
    }
    turn_until(&mut driver, |received| {
        if let Some(Received::Outside(outside)) = received {
            last |= outside.buf[outside.start..].starts_with(b"the last");
        }
        last
    });
    assert_eq!(driver.health(), Default::default());
}

#[test]
fn what_was_received_before_a_replacement_is_still_handed_out() {
    let (mut driver, port) = listening(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"early", ("127.0.0.1", port)).unwrap();
    driver.turn(Wait::AtMost(Duration::from_secs(5))).unwrap();
    drop(driver.set_sockets(None).unwrap());
    let Received::Outside(outside) = receive(&mut driver) else { panic!("not from outside") };
    assert_eq!(&outside.buf[outside.start..][..outside.len], b"early");
}

#[test]
fn shutdown_with_operations_in_flight_gives_every_buffer_back() {
    let (config, pools) = config(SMALL);
    let mut driver = UringDriver::new(config).unwrap();
    let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
    let port = sockets.port();
    driver.set_sockets(Some(sockets)).unwrap();
    driver.turn(Wait::No).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..10 {
        client.send_to(&[1; 50], ("127.0.0.1", port)).unwrap();
        let train = train(&mut driver, 50, 50, client.local_addr().unwrap());
        driver.send(train);
    }
    let held = driver.next();
    driver.shutdown().unwrap();
    driver.shutdown().unwrap();
    assert!(driver.turn(Wait::No).is_err());
    drop(held);
    drop(driver);
    for (arena, count) in [
        (&pools.outside, SMALL.outside),
        (&pools.inside, SMALL.inside),
        (&pools.trains, SMALL.trains),
    ] {
        assert_eq!(arena.free(), count as usize);
    }
    // Nothing holds the port either.
    UdpSocket::bind(("127.0.0.1", port)).unwrap();
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
fn a_received_buffer_outlives_the_driver() {
    let (mut driver, port) = listening(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"keep me", ("127.0.0.1", port)).unwrap();
    let Received::Outside(outside) = receive(&mut driver) else { panic!("not from outside") };
    drop(driver);
    assert_eq!(&outside.buf[outside.start..][..outside.len], b"keep me");
}

#[test]
fn drivers_come_and_go_on_one_thread_without_leaking_descriptors() {
    drop(listening(SMALL));
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..10 {
        drop(listening(SMALL));
    }
    // Other tests open descriptors at the same time; ten drivers would leave at least forty.
    assert!(count() < before + 40);
}

#[test]
fn without_descriptors_the_error_names_the_limit_and_the_remedy() {
    const CHILD: &str = "RINGWAY_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "tests::lifecycle::without_descriptors_the_error_names_the_limit_and_the_remedy";
        let own = std::env::current_exe().unwrap();
        let status =
            std::process::Command::new(own).args(["--exact", name]).env(CHILD, "1").output();
        let output = status.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let (config, _pools) = config(SMALL);
    let mut taken = Vec::new();
    let zero = std::fs::File::open("/dev/zero").unwrap();
    while let Ok(fd) = zero.as_fd().try_clone_to_owned() {
        taken.push(fd);
    }
    // Reading the limit takes a descriptor, too.
    let mut spare = taken.pop();
    let result = UringDriver::new(config).map(drop);
    match result {
        // One descriptor is enough for the ring, none is left for the counter.
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(error, RingError::Descriptors { .. }), "{text}");
            assert!(text.contains("LimitNOFILE"), "{text}");
        }
        Ok(()) => panic!("a driver without descriptors"),
    }
    spare.take();
}
