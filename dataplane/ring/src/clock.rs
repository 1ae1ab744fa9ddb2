//! The kernel's clocks and its entropy, for the loop around a shard. Protocol code gets both as
//! arguments.

#![allow(unsafe_code, reason = "kernel calls without a safe wrapper in std")]

use std::time::Duration;

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`). A vDSO call of about 25 ns.
#[must_use]
pub fn boot_ns() -> u64 {
    let time = read(libc::CLOCK_BOOTTIME);
    time.as_nanos() as u64
}

/// CPU time of the calling thread in nanoseconds (`CLOCK_THREAD_CPUTIME_ID`). A system call.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID).as_nanos() as u64
}

/// How often the calling thread has had to leave the CPU to another one (`ru_nivcsw`); `None` if
/// the kernel does not say. A system call.
#[must_use]
pub fn preemptions() -> Option<u64> {
    // SAFETY: all zeros is a valid answer.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the answer.
    let status = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    (status == 0).then(|| usage.ru_nivcsw.cast_unsigned())
}

/// Time since the Unix epoch. May jump.
#[must_use]
pub fn wall() -> Duration {
    read(libc::CLOCK_REALTIME)
}

/// Fills `out` with random bytes of the kernel.
///
/// # Panics
/// If the kernel has no entropy source: there is nothing safe to go on with.
pub fn random(out: &mut [u8]) {
    let mut filled = 0;
    while filled < out.len() {
        let rest = &mut out[filled..];
        // SAFETY: `rest` is writable for its length; flags 0 blocks only before the pool was first
        // seeded.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if got > 0 {
            filled += got as usize;
            continue;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "getrandom failed: {error}");
    }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let status = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(status, 0, "the clock {clock} exists on every kernel that has io_uring");
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back_and_randomness_differs() {
        let first = boot_ns();
        assert!(boot_ns() >= first);
        let (mut a, mut b) = ([0; 32], [0; 32]);
        random(&mut a);
        random(&mut b);
        assert_ne!(a, b);
    }
}
