//! The filter on system calls: what a worker needs after its set-up, and nothing else.
//!
//! Calls are listed for what the program, the C library and the allocator do with them, in all the
//! variants that C libraries use for the same thing, and with their arguments where those matter.
//! Everything else fails with EPERM. A number newer than any that was known when this was written
//! fails with ENOSYS, as on an older kernel: a newer C library then falls back to the older call,
//! and so does a call of a foreign architecture (x32, i386). Nothing kills.
//!
//! Cost per call, on a virtual machine with kernel 6.18 (`examples/sandbox_cost`, 2026-11-20, best
//! of 1,000 rounds): an empty `io_uring_enter` 21 to 26 ns more than 100 to 106 ns, calls that are
//! allowed with any arguments up to 19 ns, `read` with its descriptor checked 18 to 30 ns.

#![allow(unsafe_code, reason = "installing a filter is a system call without a wrapper in std")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::Gap;
use crate::ring::REGISTERS;

/// Largest number of a system call in Linux 6.18 (`file_setattr`), the same on all architectures
/// with the common table.
const NEWEST_CALL: u32 = 469;

/// Calls of the newer futex family (6.7), not in the C library's headers yet.
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;

/// `IORING_ENTER_REGISTERED_RING`: the ring is named by a number that was registered before.
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// Wakers that are listed one by one; with more workers than that, the length of a write has to
/// do. A filter has at most 4,096 instructions, and each waker takes ten.
const WAKERS_LISTED_MAX: usize = 256;

/// Offsets in `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCHITECTURE: u32 = 4;

/// Descriptors that a worker's calls may name, where that is fixed for its life.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// The ring; without one, the calls of the epoll driver are allowed instead.
    pub(super) ring: Option<RawFd>,
    /// The TUN queue.
    pub(super) inside: Option<RawFd>,
    /// The eventfd that ends the worker's sleep.
    pub(super) own_waker: RawFd,
    /// The eventfds by which the worker ends the sleep of others.
    pub(super) wakers: Vec<RawFd>,
}

/// Filters the calls of the calling thread from now on.
pub(super) fn install(calls: &Calls) -> Result<(), Gap> {
    let program = compile(calls).map_err(|why| {
        let fix = "run on x86-64, ARM64 or RISC-V";
        Gap::new(format!("No filter can be made: {why}"), fix)
    })?;
    // Refusals are logged. The filter is not a defence against speculation: the processor's memory
    // speculation, which older kernels switch off for filtered threads, stays on.
    let flags = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let attempt = load(&program, flags).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => load(&program, 0), // before 4.17
        _ => Err(error),
    });
    attempt.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL) => {
            let fix = "run a kernel with CONFIG_SECCOMP_FILTER=y";
            Gap::new("The kernel does not filter system calls", fix)
        }
        _ => Gap::refused("System calls cannot be filtered", &error),
    })
}

fn load(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let (call, mode) = (libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the program is described by pointer and length, outlives the call and is only read.
    let done = unsafe { libc::syscall(call, mode, flags, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn compile(calls: &Calls) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = list(calls)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)?;
    let known = BpfProgram::try_from(filter)?;
    let enter = calls.ring.map(enter_first).unwrap_or_default();
    Ok([unknown_to_us(architecture).as_slice(), &enter, &known].concat())
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction: what to do, steps to skip if true and if false, with what.
const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// What goes first: a call that was not known when the list was made does not exist.
fn unknown_to_us(architecture: TargetArch) -> [sock_filter; 6] {
    // `AUDIT_ARCH_…`: the machine, 64 bits, little endian.
    let machine = 0xc000_0000
        | match architecture {
            TargetArch::x86_64 => 62,
            TargetArch::aarch64 => 183,
            TargetArch::riscv64 => 243,
        };
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    [
        step(LOAD, 0, 0, AT_ARCHITECTURE),
        step(EQUAL, 1, 0, machine),
        step(RETURN, 0, 0, missing),
        step(LOAD, 0, 0, AT_NUMBER),
        step(GREATER, 0, 1, NEWEST_CALL),
        step(RETURN, 0, 0, missing),
    ]
}

/// The call of every turn is looked for first, after its number was loaded: a list is searched from
/// its beginning, and this one would be near the end. What does not fit goes on to the list, which
/// does not have it.
fn enter_first(ring: RawFd) -> Vec<sock_filter> {
    vec![
        step(EQUAL, 0, 5, libc::SYS_io_uring_enter as u32),
        step(LOAD, 0, 0, at_argument(0)),
        step(EQUAL, 0, 3, ring as u32),
        step(LOAD, 0, 0, at_argument(3)),
        step(ANY_BIT, 1, 0, ENTER_REGISTERED_RING),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Offset of the lower half of an argument in `struct seccomp_data`, little endian.
const fn at_argument(number: u32) -> u32 {
    16 + 8 * number
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Refusal = seccompiler::BackendError;

fn list(calls: &Calls) -> Result<Rules, Refusal> {
    let mut list = List::default();
    threads(&mut list)?;
    memory(&mut list)?;
    descriptors(&mut list, calls)?;
    match calls.ring {
        Some(ring) => ring_calls(&mut list, ring)?,
        None => poll_calls(&mut list, calls)?,
    }
    Ok(list.0)
}

/// Waiting, time, randomness, and how a thread or the process ends.
fn threads(list: &mut List) -> Result<(), Refusal> {
    list.any(&[
        libc::SYS_futex,
        FUTEX_WAKE,
        FUTEX_WAIT,
        FUTEX_REQUEUE,
        libc::SYS_sched_yield,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_restart_syscall,
        // Where the clock cannot be read without a call.
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_getcpu,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        // A thread takes its signal stack and its list of locks down when it ends.
        libc::SYS_sigaltstack,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]);
    #[cfg(target_arch = "x86_64")]
    list.any(&[libc::SYS_time]);
    // abort() restores and raises one signal; std does the same with faults that it does not own.
    for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS] {
        list.when(libc::SYS_rt_sigaction, &[equal(0, signal)])?;
    }
    // Whether it was another thread that had the CPU.
    list.when(libc::SYS_getrusage, &[equal(0, libc::RUSAGE_THREAD)])?;
    let own = std::process::id() as i32;
    list.when(libc::SYS_tgkill, &[equal(0, own), equal(2, libc::SIGABRT)])
}

/// The allocators: memory is had, moved and given back, and never holds code or a file.
fn memory(list: &mut List) -> Result<(), Refusal> {
    list.any(&[libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk]);
    let no_code = masked(2, libc::PROT_EXEC, 0);
    let no_file = masked(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS);
    list.when(libc::SYS_mmap, &[no_code, no_file])?;
    list.when(libc::SYS_mprotect, &[no_code])?;
    // Names of mappings, for who reads /proc.
    list.when(libc::SYS_prctl, &[equal(0, libc::PR_SET_VMA)])
}

/// Sockets are replaced at run time: any may be closed. Only some can be written.
fn descriptors(list: &mut List, calls: &Calls) -> Result<(), Refusal> {
    list.any(&[libc::SYS_close]);
    for query in [libc::F_GETFD, libc::F_GETFL] {
        list.when(libc::SYS_fcntl, &[equal(1, query)])?;
    }
    // The last words of a panic.
    let last_words = libc::STDERR_FILENO;
    list.when(libc::SYS_writev, &[equal(0, last_words)])?;
    list.when(libc::SYS_write, &[equal(0, last_words)])?;
    let wake = equal(2, size_of::<u64>() as i32);
    if calls.wakers.len() > WAKERS_LISTED_MAX {
        list.when(libc::SYS_write, &[wake])?;
    }
    for fd in calls.wakers.iter().take(WAKERS_LISTED_MAX) {
        list.when(libc::SYS_write, &[equal(0, *fd), wake])?;
    }
    list.when(libc::SYS_read, &[equal(0, calls.own_waker)])
}

/// What the io_uring driver calls besides [`enter_first`]: sends that the ring could not do as a
/// whole, and registrations.
fn ring_calls(list: &mut List, ring: RawFd) -> Result<(), Refusal> {
    let own = equal(0, ring);
    for register in REGISTERS {
        list.when(libc::SYS_io_uring_register, &[own, equal(1, register.into())])?;
    }
    list.any(&[libc::SYS_sendmmsg]);
    Ok(())
}

/// What the epoll driver calls.
fn poll_calls(list: &mut List, calls: &Calls) -> Result<(), Refusal> {
    list.any(&[
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_epoll_ctl,
        libc::SYS_ppoll,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
    ]);
    #[cfg(target_arch = "x86_64")]
    list.any(&[libc::SYS_epoll_wait, libc::SYS_poll]);
    let Some(inside) = calls.inside else { return Ok(()) };
    let transfers = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_preadv2,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwritev2,
    ];
    transfers.into_iter().try_for_each(|call| list.when(call, &[equal(0, inside)]))
}

/// Rules by number of the call; none for a number means with any arguments.
#[derive(Default)]
struct List(Rules);

impl List {
    fn any(&mut self, calls: &[i64]) {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    /// Allows a call if all conditions hold; another rule for the same call is an alternative.
    fn when(&mut self, call: i64, conditions: &[Condition]) -> Result<(), Refusal> {
        let conditions = conditions.iter().map(|condition| condition.compile());
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }
}

/// The bits of `mask` in argument `at` are those of `value`.
#[derive(Clone, Copy)]
struct Condition {
    at: u8,
    mask: u32,
    value: u32,
}

impl Condition {
    /// The kernel reads 32 bits of all arguments that are looked at here.
    fn compile(self) -> Result<SeccompCondition, Refusal> {
        let operator = SeccompCmpOp::MaskedEq(self.mask.into());
        SeccompCondition::new(self.at, SeccompCmpArgLen::Dword, operator, self.value.into())
    }
}

const fn equal(at: u8, value: i32) -> Condition {
    Condition { at, mask: u32::MAX, value: value as u32 }
}

const fn masked(at: u8, mask: i32, value: i32) -> Condition {
    Condition { at, mask: mask as u32, value: value as u32 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_filter_fits_into_the_kernel_however_many_workers_there_are() {
        for (ring, wakers) in [(Some(3), 1), (None, 255), (Some(3), 256), (None, 1023)] {
            let wakers = (10..10 + wakers).collect();
            let calls = Calls { ring, inside: Some(4), own_waker: 5, wakers };
            let length = compile(&calls).unwrap().len();
            assert!(length <= 4096, "{length}");
        }
    }
}
