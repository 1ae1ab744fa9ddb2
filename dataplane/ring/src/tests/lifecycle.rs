//! Starting, replacing, waking, running out, and ending.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{SMALL, config, driver, listening, receive, train, turn_until};
use crate::backend::Backend;
use crate::clock;
use crate::driver::{Received, Wait};
use crate::error::RingError;
use crate::listen::{UdpOptions, UdpSockets};

on_each_driver! {
    another_thread_ends_the_wait_again_and_again,
    a_wake_before_the_wait_is_not_lost,
    a_wait_ends_at_its_limit,
    sockets_are_replaced_under_traffic_on_the_same_port,
    what_was_received_before_a_replacement_is_still_handed_out,
    shutdown_with_operations_in_flight_gives_every_buffer_back,
    a_received_buffer_outlives_the_driver,
    drivers_come_and_go_on_one_thread_without_leaking_descriptors,
    without_descriptors_the_error_names_the_limit_and_the_remedy,
}

fn wake(fd: OwnedFd) {
    use std::io::Write;
    let mut file = std::fs::File::from(fd);
    file.write_all(&1u64.to_ne_bytes()).unwrap();
}

fn another_thread_ends_the_wait_again_and_again<B: Backend>() {
    let mut driver = driver::<B>(SMALL);
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

fn a_wake_before_the_wait_is_not_lost<B: Backend>() {
    let mut driver = driver::<B>(SMALL);
    wake(driver.waker_fd().try_clone_to_owned().unwrap());
    driver.turn(Wait::Forever).unwrap();
    turn_until(&mut driver, |_| true);
    assert_eq!(driver.stats().wakes, 1);
}

fn a_wait_ends_at_its_limit<B: Backend>() {
    let mut driver = driver::<B>(SMALL);
    driver.turn(Wait::No).unwrap();
    // Rings that were closed on this thread may interrupt a wait, as signals may.
    let waits_ns = (0..5).map(|_| {
        let begin = clock::boot_ns();
        driver.turn(Wait::AtMost(Duration::from_millis(20))).unwrap();
        clock::boot_ns() - begin
    });
    let longest_ns = waits_ns.max().unwrap();
    assert!((19_000_000..2_000_000_000).contains(&longest_ns), "{longest_ns}");
}

fn sockets_are_replaced_under_traffic_on_the_same_port<B: Backend>() {
    let (mut driver, port) = listening::<B>(SMALL);
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

fn what_was_received_before_a_replacement_is_still_handed_out<B: Backend>() {
    let (mut driver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"early", ("127.0.0.1", port)).unwrap();
    driver.turn(Wait::AtMost(Duration::from_secs(5))).unwrap();
    drop(driver.set_sockets(None).unwrap());
    let Received::Outside(outside) = receive(&mut driver) else { panic!("not from outside") };
    assert_eq!(&outside.buf[outside.start..][..outside.len], b"early");
}

fn shutdown_with_operations_in_flight_gives_every_buffer_back<B: Backend>() {
    let (config, pools) = config(SMALL);
    let mut driver = B::make(config).unwrap();
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

fn a_received_buffer_outlives_the_driver<B: Backend>() {
    let (mut driver, port) = listening::<B>(SMALL);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"keep me", ("127.0.0.1", port)).unwrap();
    let Received::Outside(outside) = receive(&mut driver) else { panic!("not from outside") };
    drop(driver);
    assert_eq!(&outside.buf[outside.start..][..outside.len], b"keep me");
}

fn drivers_come_and_go_on_one_thread_without_leaking_descriptors<B: Backend>() {
    drop(listening::<B>(SMALL));
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..10 {
        drop(listening::<B>(SMALL));
    }
    // Other tests open descriptors at the same time; ten drivers would leave at least forty.
    assert!(count() < before + 40);
}

fn without_descriptors_the_error_names_the_limit_and_the_remedy<B: Backend>() {
    const CHILD: &str = "RINGWAY_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "without_descriptors_the_error_names_the_limit_and_the_remedy";
        let name = format!("tests::lifecycle::on_{}::{name}", B::KIND.word());
        let own = std::env::current_exe().unwrap();
        let status =
            std::process::Command::new(own).args(["--exact", &name]).env(CHILD, "1").output();
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
    let result = B::make(config).map(drop);
    match result {
        // One descriptor is enough for the driver's own, none is left for the counter.
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(error, RingError::Descriptors { .. }), "{text}");
            assert!(text.contains("LimitNOFILE"), "{text}");
        }
        Ok(()) => panic!("a driver without descriptors"),
    }
    spare.take();
}
