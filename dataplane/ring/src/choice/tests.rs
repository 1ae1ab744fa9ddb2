//! The choice under everything that a kernel, an operator or a filter may say.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompFilter};

use super::*;
use crate::features::UringFeatures;
use crate::ring::RingMode;

fn features(uring: Result<UringFeatures, NoUring>) -> Features {
    Features {
        kernel: "6.18.0".into(),
        uring,
        uring_disabled: None,
        udp_gro: true,
        udp_segments_max: 64,
        tun: Err("not asked".into()),
    }
}

const WHOLE: UringFeatures = UringFeatures {
    mode: RingMode::Deferred,
    receive_multishot: true,
    read_multishot: true,
    send_zero_copy: true,
};

fn measured(uring: [u64; 2], epoll: [u64; 2]) -> Measured {
    let cost = |[single_ns, merged_ns]: [u64; 2]| Cost { single_ns, merged_ns };
    Measured { uring: cost(uring), epoll: cost(epoll) }
}

#[test]
fn what_is_asked_for_by_name_is_taken_whatever_the_kernel_has() {
    let none = features(Err(NoUring("it is switched off".into())));
    for (choice, kind) in
        [(DriverChoice::Uring, DriverKind::Uring), (DriverChoice::Epoll, DriverKind::Epoll)]
    {
        for features in [&none, &features(Ok(WHOLE))] {
            let chosen = choose(choice, features);
            assert_eq!(chosen.kind, kind);
            assert_eq!(chosen.why, "it was asked for");
            assert_eq!(chosen.measured, None);
        }
    }
}

#[test]
fn without_io_uring_the_reason_is_handed_on() {
    let chosen = choose(DriverChoice::Auto, &features(Err(NoUring("it is switched off".into()))));
    assert_eq!(chosen.to_string(), "epoll: it is switched off");
    let old = UringFeatures { receive_multishot: false, ..WHOLE };
    let chosen = choose(DriverChoice::Auto, &features(Ok(old)));
    assert_eq!(chosen.kind, DriverKind::Epoll);
    assert!(chosen.why.contains("Linux 6.0"), "{chosen}");
}

#[test]
fn io_uring_is_left_only_when_it_is_slower_by_more_than_the_margin() {
    for (uring, epoll, kind) in [
        ([1000, 100], [1000, 100], DriverKind::Uring),
        ([1100, 110], [1000, 100], DriverKind::Uring),
        ([1111, 111], [1000, 100], DriverKind::Epoll),
        // Slow in one regime and fast in the other.
        ([1500, 75], [1000, 100], DriverKind::Uring),
        ([1500, 100], [1000, 100], DriverKind::Epoll),
        ([1000, 150], [1000, 100], DriverKind::Epoll),
        ([u64::MAX, u64::MAX >> 16], [1, 1], DriverKind::Epoll),
    ] {
        let chosen = judge(measured(uring, epoll));
        assert_eq!(chosen.kind, kind, "{uring:?} {epoll:?}");
        assert_eq!(chosen.measured, Some(measured(uring, epoll)));
        assert!(chosen.why.contains(&format!("{} ns", uring[0])), "{chosen}");
    }
}

#[test]
fn both_drivers_are_measured_where_both_run() {
    let features = Features::probe();
    if !features.has_driver() {
        return;
    }
    let chosen = choose(DriverChoice::Auto, &features);
    let measured = chosen.measured.unwrap();
    for cost in [measured.uring, measured.epoll] {
        // What merging saves is far beyond any noise.
        assert!(cost.merged_ns < cost.single_ns, "{chosen}");
        assert!((10..1_000_000).contains(&cost.single_ns), "{chosen}");
    }
}

#[test]
fn under_a_filter_that_forbids_rings_the_epoll_driver_is_chosen_and_runs() {
    for (errno, told) in [(libc::EPERM, "seccomp profile"), (libc::ENOSYS, "CONFIG_IO_URING")] {
        // Filters stay with a thread, and this one ends.
        let filtered = std::thread::spawn(move || {
            forbid(libc::SYS_io_uring_setup, errno);
            let features = Features::probe();
            assert!(!features.has_driver());
            let chosen = choose(DriverChoice::Auto, &features);
            assert_eq!(chosen.kind, DriverKind::Epoll);
            let switched_off = features.uring_disabled.is_some_and(|setting| setting > 0);
            assert!(chosen.why.contains(told) || switched_off, "{chosen}");
            assert!(!chosen.why.contains('\n'), "{chosen}");
            measure::echoes_once::<crate::EpollDriver>(&features);
        });
        filtered.join().unwrap();
    }
}

/// Makes a system call fail on the calling thread, for good.
fn forbid(call: i64, errno: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
