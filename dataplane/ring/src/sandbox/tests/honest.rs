//! What a worker does in its sandbox: everything it did before.

#![allow(unsafe_code, reason = "the ends of a process are system calls")]

use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;

use ringway_alloc::heap::{HeapPolicy, ShardHeap};

use super::attacks::{carry, config, echo, worker_driver};
use crate::backend::Backend;
use crate::driver::Driver;
use crate::epoll::EpollDriver;
use crate::listen::{UdpOptions, UdpSockets};
use crate::ring::RingMode;
use crate::sandbox;
use crate::uring::UringDriver;
use crate::zerocopy::ZeroCopyMode;

/// Runs on a thread of its own: a sandbox is for good.
fn on_its_own_thread(work: impl FnOnce() + Send) {
    let ended = std::thread::scope(|threads| threads.spawn(work).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn sockets_that_control_opened_replace_those_of_a_worker() {
    replace_sockets::<UringDriver>();
    replace_sockets::<EpollDriver>();
}

fn replace_sockets<B: Backend>() {
    let (to_worker, new_sockets) = mpsc::channel::<UdpSockets>();
    let work = move || {
        let mut driver: B = worker_driver(true);
        for sockets in new_sockets {
            echo(&mut driver);
            let port = driver.set_sockets(Some(sockets)).unwrap().unwrap().port();
            echo(&mut driver);
            assert_ne!(driver.sockets().unwrap().port(), port);
            driver.set_receiving(false).unwrap();
            driver.set_receiving(true).unwrap();
            echo(&mut driver);
        }
        driver.shutdown().unwrap();
    };
    std::thread::scope(|threads| {
        let worker = threads.spawn(work);
        for _ in 0..3 {
            to_worker.send(UdpSockets::bind(&UdpOptions::default()).unwrap()).unwrap();
        }
        drop(to_worker);
        worker.join().unwrap();
    });
}

#[test]
fn another_thread_wakes_a_worker_and_a_worker_wakes_another_thread() {
    wake_and_be_woken::<UringDriver>();
    wake_and_be_woken::<EpollDriver>();
}

fn wake_and_be_woken<B: Backend>() {
    let theirs = crate::sys::event_fd().unwrap();
    on_its_own_thread(|| {
        let mut driver = B::make(config()).unwrap();
        let own = driver.waker_fd().try_clone_to_owned().unwrap();
        let mut theirs_again = std::fs::File::from(theirs.as_fd().try_clone_to_owned().unwrap());
        let mut foreign = std::fs::File::from(crate::sys::event_fd().unwrap());
        let waker = std::thread::spawn(move || {
            std::fs::File::from(own).write_all(&1_u64.to_ne_bytes()).unwrap();
        });
        assert!(sandbox::enter(&mut driver, &[theirs_again.as_fd()]).is_complete());
        while driver.stats().wakes == 0 {
            driver.turn(crate::Wait::Forever).unwrap();
        }
        theirs_again.write_all(&1_u64.to_ne_bytes()).unwrap();
        assert!(foreign.write_all(&1_u64.to_ne_bytes()).is_err(), "it was not told of this one");
        waker.join().unwrap();
    });
}

#[test]
fn sends_without_copying_and_sends_one_by_one_go_on() {
    on_its_own_thread(|| {
        let mut config = config();
        config.zero_copy = ZeroCopyMode::On;
        // More datagrams than one send may be cut into: they leave by sendmmsg.
        config.features.udp_segments_max = 4;
        let mut driver = UringDriver::make(config).unwrap();
        let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
        driver.set_sockets(Some(sockets)).unwrap();
        assert!(sandbox::enter(&mut driver, &[]).is_complete());
        carry(&mut driver, 60_000, 20_000);
        carry(&mut driver, 6000, 500);
        assert!(driver.stats().zero_copy_sent > 0);
        assert_eq!(driver.stats().train_refused.total(), 0);
        driver.shutdown().unwrap();
    });
}

/// As after a takeover: set up without receiving, begun later.
#[test]
fn a_worker_that_begins_without_receiving_is_boxed_all_the_same() {
    on_its_own_thread(|| {
        let mut driver = UringDriver::make(config()).unwrap();
        driver.set_receiving(false).unwrap();
        driver.set_sockets(Some(UdpSockets::bind(&UdpOptions::default()).unwrap())).unwrap();
        assert!(sandbox::enter(&mut driver, &[]).is_complete());
        driver.set_receiving(true).unwrap();
        echo(&mut driver);
    });
}

#[test]
fn memory_is_had_and_given_back() {
    on_its_own_thread(|| {
        let mut driver: UringDriver = worker_driver(true);
        for round in 0..3 {
            let small: Vec<Box<[u8; 100]>> = (0..50_000).map(|_| Box::new([round; 100])).collect();
            let mut large = vec![round; 64 << 20];
            large.extend_from_slice(&small[49_999][..]);
            large.resize(128 << 20, round);
            assert_eq!(large.last(), Some(&round));
        }
        drop(ShardHeap::new(HeapPolicy::Always));
        echo(&mut driver);
    });
}

#[test]
fn older_rings_are_restricted_as_far_as_they_can() {
    for mode in [RingMode::Cooperative, RingMode::Plain] {
        on_its_own_thread(|| {
            let mut driver = UringDriver::with_mode(config(), mode).unwrap();
            let sockets = UdpSockets::bind(&UdpOptions::default()).unwrap();
            driver.set_sockets(Some(sockets)).unwrap();
            assert!(sandbox::enter(&mut driver, &[]).is_complete());
            echo(&mut driver);
            driver.shutdown().unwrap();
        });
    }
}

#[test]
fn a_rehearsal_leaves_the_caller_free_and_finds_everything_here() {
    let sandbox = sandbox::rehearse();
    assert!(sandbox.is_complete(), "{:?}", sandbox.gaps().collect::<Vec<_>>());
    assert!(sandbox.to_string().starts_with("landlock "), "{sandbox}");
    drop(UdpSocket::bind("127.0.0.1:0").unwrap());
    drop(std::fs::File::open("/etc/passwd").unwrap());
}

/// Runs this test binary again with `how` a worker ends; its exit and what it said.
fn end_a_process(how: &str) -> (std::process::ExitStatus, String) {
    let own = std::env::current_exe().unwrap();
    let name = "sandbox::tests::honest::last_words_of_a_process";
    let output = Command::new(own)
        .args(["--exact", name, "--nocapture"])
        .env("RINGWAY_TEST_END", how)
        .env("RUST_BACKTRACE", "full")
        // The address sanitizer would catch the fault, and look for leaks at the exit.
        .env("ASAN_OPTIONS", "handle_segv=0:detect_leaks=0")
        .output()
        .unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The child's part of the tests below; nothing when it is run by itself.
#[test]
fn last_words_of_a_process() {
    let Ok(how) = std::env::var("RINGWAY_TEST_END") else { return };
    let worker = std::thread::spawn(move || {
        let _driver: UringDriver = worker_driver(true);
        match how.as_str() {
            "panic" => panic!("these are the last words"),
            "abort" => std::process::abort(),
            "fault" => {
                // SAFETY: none: this is the fault that is wanted, and the process ends by it.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
            }
            _ => std::process::exit(7),
        }
    });
    assert!(worker.join().is_err());
    std::process::exit(9);
}

#[test]
fn a_panic_in_a_worker_says_its_last_words_and_ends_only_its_thread() {
    let (status, said) = end_a_process("panic");
    assert_eq!(status.code(), Some(9), "{said}");
    assert!(said.contains("these are the last words"), "{said}");
}

#[test]
fn a_worker_can_abort_fault_and_exit() {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(end_a_process("abort").0.signal(), Some(libc::SIGABRT));
    assert_eq!(end_a_process("fault").0.signal(), Some(libc::SIGSEGV));
    assert_eq!(end_a_process("exit").0.code(), Some(7));
}
