//! Attacks by system call.

#![allow(unsafe_code, reason = "attacks are system calls")]

use std::io;

use super::attacks::{Loot, arg, call, close, judge, on_a_worker};
use crate::epoll::EpollDriver;
use crate::uring::UringDriver;

type Attack = (&'static str, fn(&Loot) -> io::Result<()>);

const PAGE: usize = 4096;

/// Opening and reading files.
const FILES: &[Attack] = &[
    #[cfg(target_arch = "x86_64")]
    ("open", |_| opened(call(libc::SYS_open, &[text(c"/etc/passwd"), 0]))),
    ("openat of a file", |_| opened(open_at(c"/etc/passwd", libc::O_RDONLY))),
    ("openat of a folder", |_| opened(open_at(c"/proc/self", libc::O_RDONLY | libc::O_DIRECTORY))),
    ("openat of a path", |_| opened(open_at(c"/", libc::O_PATH))),
    ("openat that creates", |_| opened(open_at(c"/tmp", libc::O_TMPFILE | libc::O_RDWR))),
    ("openat2", |_| {
        let how = [0_u64; 3];
        let path = text(c"/etc/passwd");
        opened(call(libc::SYS_openat2, &[HERE, path, how.as_ptr() as usize, size_of_val(&how)]))
    }),
    ("memfd_create", |_| opened(call(libc::SYS_memfd_create, &[text(c"x"), 0]))),
    ("readlink", |_| {
        let mut target = [0_u8; 64];
        let room = target.as_mut_ptr() as usize;
        done(call(libc::SYS_readlinkat, &[HERE, text(c"/proc/self/exe"), room, 64]))
    }),
    ("stat of a path", |_| {
        let mut status = [0_u64; 64];
        let room = status.as_mut_ptr() as usize;
        done(call(libc::SYS_newfstatat, &[HERE, text(c"/etc/passwd"), room, 0]))
    }),
    ("read of another's file", |loot| {
        let mut byte = [0_u8; 1];
        done(call(libc::SYS_read, &[arg(&loot.file), byte.as_mut_ptr() as usize, 1]))
    }),
    ("pread of another's file", |loot| {
        let mut byte = [0_u8; 1];
        done(call(libc::SYS_pread64, &[arg(&loot.file), byte.as_mut_ptr() as usize, 1, 0]))
    }),
    ("write to another's pipe", |loot| {
        done(call(libc::SYS_write, &[arg(&loot.empty[1]), c"x".as_ptr() as usize, 1]))
    }),
    ("splice", |loot| {
        let (from, to) = (arg(&loot.full[0]), arg(&loot.empty[1]));
        done(call(libc::SYS_splice, &[from, 0, to, 0, 1, 0]))
    }),
    ("map a file", |loot| {
        let arguments = [0, PAGE, libc::PROT_READ as usize, libc::MAP_PRIVATE as usize];
        mapped(call(libc::SYS_mmap, &[&arguments[..], &[arg(&loot.file), 0]].concat()))
    }),
    ("dup", |loot| opened(call(libc::SYS_dup, &[arg(&loot.file)]))),
    ("fcntl that duplicates", |loot| {
        opened(call(libc::SYS_fcntl, &[arg(&loot.file), libc::F_DUPFD_CLOEXEC as usize, 0]))
    }),
    ("ioctl", |loot| {
        let mut waiting = 0_i32;
        let room = &raw mut waiting as usize;
        done(call(libc::SYS_ioctl, &[arg(&loot.full[0]), libc::FIONREAD as usize, room]))
    }),
];

/// Making and using sockets.
const SOCKETS: &[Attack] = &[
    ("socket", |_| {
        opened(call(libc::SYS_socket, &[libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0]))
    }),
    ("socket of netlink", |_| {
        opened(call(libc::SYS_socket, &[libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0]))
    }),
    ("socketpair", |_| {
        let mut ends = [0_i32; 2];
        let room = ends.as_mut_ptr() as usize;
        let arguments = [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, room];
        done(call(libc::SYS_socketpair, &arguments))?;
        ends.into_iter().for_each(|end| close(end.into()));
        Ok(())
    }),
    ("listen", |loot| done(call(libc::SYS_listen, &[arg(&loot.listener), 7]))),
    ("setsockopt", |loot| {
        let one = 1_i32;
        let level = libc::SOL_SOCKET as usize;
        let value = [libc::SO_KEEPALIVE as usize, &raw const one as usize, 4];
        done(call(libc::SYS_setsockopt, &[arg(&loot.stream), level, value[0], value[1], value[2]]))
    }),
    ("connect", |loot| {
        let address = &raw const loot.address as usize;
        done(call(libc::SYS_connect, &[arg(&loot.stream), address, 16]))
    }),
    ("sendto", |loot| {
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as usize;
        done(call(libc::SYS_sendto, &[arg(&loot.stream), text(c"x"), 1, flags, 0, 0]))
    }),
    ("accept", |loot| {
        opened(call(libc::SYS_accept4, &[arg(&loot.listener), 0, 0, libc::SOCK_CLOEXEC as usize]))
    }),
];

/// Code, threads and other processes.
const PROCESSES: &[Attack] = &[
    ("fork", |_| {
        let child = call(libc::SYS_clone, &[libc::SIGCHLD as usize, 0, 0, 0, 0])?;
        if child == 0 {
            // SAFETY: the child ends at once.
            unsafe { libc::_exit(0) };
        }
        wait_for(child)
    }),
    ("a thread", |_| {
        let thread = std::thread::Builder::new().spawn(|| ())?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    }),
    ("execve", |_| {
        let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
        let list = arguments.as_ptr() as usize;
        let run = || call(libc::SYS_execve, &[text(c"/bin/true"), list, 0]);
        match call(libc::SYS_clone, &[libc::SIGCHLD as usize, 0, 0, 0, 0]) {
            Ok(0) => {
                let _ = run();
                // SAFETY: the child ends at once.
                unsafe { libc::_exit(1) };
            }
            Ok(child) => wait_for(child),
            Err(_) => done(run()),
        }
    }),
    ("ptrace", |loot| {
        const SEIZE: usize = 0x4206;
        done(call(libc::SYS_ptrace, &[SEIZE, loot.victim.process as usize, 0, 0]))
    }),
    ("kill", |loot| done(call(libc::SYS_kill, &[loot.victim.process as usize, 0]))),
    ("tgkill", |loot| {
        let victim = loot.victim.process as usize;
        done(call(libc::SYS_tgkill, &[victim, victim, libc::SIGABRT as usize]))
    }),
    ("pidfd_open", |loot| opened(call(libc::SYS_pidfd_open, &[loot.victim.process as usize, 0]))),
    ("another's memory", |loot| {
        let mut word = 0_u64;
        let here = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
        let there: *const u64 = &*loot.victim.word;
        let there = libc::iovec { iov_base: there.cast_mut().cast(), iov_len: 8 };
        let (here, there) = (&raw const here as usize, &raw const there as usize);
        let process = loot.victim.process as usize;
        done(call(libc::SYS_process_vm_readv, &[process, here, 1, there, 1, 0]))?;
        assert_eq!(word, *loot.victim.word);
        Ok(())
    }),
    ("mprotect to code", |_| {
        let memory = anonymous(libc::PROT_READ)?;
        let code = (libc::PROT_READ | libc::PROT_EXEC) as usize;
        let outcome = done(call(libc::SYS_mprotect, &[memory, PAGE, code]));
        call(libc::SYS_munmap, &[memory, PAGE])?;
        outcome
    }),
    ("mmap of code", |_| mapped(anonymous(libc::PROT_EXEC).map(|at| at as i64))),
];

/// Other parts of the kernel.
const KERNEL: &[Attack] = &[
    ("a second ring", |_| {
        let mut parameters = [0_u32; 30];
        let room = parameters.as_mut_ptr() as usize;
        opened(call(libc::SYS_io_uring_setup, &[4, room]))
    }),
    ("another's ring", |loot| {
        done(call(libc::SYS_io_uring_enter, &[arg(&loot.ring), 0, 0, 0, 0, 0]))
    }),
    ("registering with another's ring", |loot| {
        done(call(libc::SYS_io_uring_register, &[arg(&loot.ring), 9, 0, 0]))
    }),
    ("bpf", |_| {
        // BPF_MAP_CREATE: an array of one entry.
        let attributes: [u32; 18] =
            [[2, 4, 4, 1].as_slice(), &[0; 14]].concat().try_into().unwrap();
        opened(call(libc::SYS_bpf, &[0, attributes.as_ptr() as usize, size_of_val(&attributes)]))
    }),
    ("perf_event_open", |_| {
        let mut attributes = [0_u32; 16];
        attributes[0] = 1; // software
        attributes[1] = 64;
        let room = attributes.as_ptr() as usize;
        opened(call(libc::SYS_perf_event_open, &[room, 0, usize::MAX, usize::MAX, 0]))
    }),
    ("inotify", |_| opened(call(libc::SYS_inotify_init1, &[0]))),
    ("a new namespace", |_| done(call(libc::SYS_unshare, &[libc::CLONE_NEWUTS as usize]))),
    ("another scheduling", |_| {
        done(call(libc::SYS_setpriority, &[libc::PRIO_PROCESS as usize, 0, 0]))
    }),
    ("another user", |_| done(call(libc::SYS_setresuid, &[usize::MAX, usize::MAX, usize::MAX]))),
    ("prctl", |_| done(call(libc::SYS_prctl, &[libc::PR_SET_NAME as usize, text(c"nobody")]))),
];

const HERE: usize = libc::AT_FDCWD as usize;

#[test]
fn privileged_without_a_sandbox_every_attack_succeeds() {
    on_a_worker::<UringDriver>(false, |_, loot| attack(false, loot));
}

#[test]
fn a_hijacked_worker_is_refused_every_call_and_traffic_goes_on() {
    on_a_worker::<UringDriver>(true, |_, loot| attack(true, loot));
    on_a_worker::<EpollDriver>(true, |_, loot| attack(true, loot));
}

fn attack(boxed: bool, loot: &Loot) {
    for (name, attempt) in [FILES, SOCKETS, PROCESSES, KERNEL].concat() {
        judge(boxed, name, &attempt(loot));
    }
}

/// Without the filter the other parts still hold what is theirs.
#[test]
fn landlock_alone_keeps_files_tcp_and_signals_out_of_reach() {
    use crate::sandbox::{landlock, privileges};
    on_a_worker::<UringDriver>(false, |_, loot| {
        privileges::drop_capabilities().unwrap();
        privileges::forbid_new().unwrap();
        let version = landlock::restrict().unwrap();
        judge(true, "openat", &opened(open_at(c"/etc/passwd", libc::O_RDONLY)));
        judge(true, "a folder", &opened(open_at(c"/proc/self", libc::O_RDONLY)));
        let connect = SOCKETS.iter().find(|(name, _)| *name == "connect").unwrap().1;
        if version >= 4 {
            judge(true, "connect", &connect(loot));
        }
        if version >= 6 {
            let kill =
                call(libc::SYS_kill, &[loot.victim.process as usize, libc::SIGCONT as usize]);
            judge(true, "kill", &done(kill));
        }
        judge(true, "a new namespace", &done(call(libc::SYS_unshare, &[0x0400_0000])));
    });
}

/// A C library that is newer than our list asks for calls that we never heard of; it must be told
/// that they do not exist, and fall back.
#[test]
fn calls_that_nobody_knew_do_not_exist() {
    on_a_worker::<EpollDriver>(true, |_, _| {
        for number in [470, 471, 600, 0x4000_0000, 0x4000_0001, i64::from(u32::MAX)] {
            let errno = call(number, &[]).unwrap_err().raw_os_error();
            assert_eq!(errno, Some(libc::ENOSYS), "{number}");
        }
    });
}

fn text(text: &std::ffi::CStr) -> usize {
    text.as_ptr() as usize
}

fn open_at(path: &std::ffi::CStr, flags: i32) -> io::Result<i64> {
    call(libc::SYS_openat, &[HERE, text(path), (flags | libc::O_CLOEXEC) as usize, 0o600])
}

fn done(outcome: io::Result<i64>) -> io::Result<()> {
    outcome.map(drop)
}

fn opened(outcome: io::Result<i64>) -> io::Result<()> {
    outcome.map(close)
}

fn anonymous(protection: i32) -> io::Result<usize> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let memory = call(libc::SYS_mmap, &[0, PAGE, protection as usize, flags, usize::MAX, 0])?;
    Ok(memory as usize)
}

fn mapped(outcome: io::Result<i64>) -> io::Result<()> {
    call(libc::SYS_munmap, &[outcome? as usize, PAGE]).map(drop)
}

fn wait_for(child: i64) -> io::Result<()> {
    let mut status = -1_i32;
    call(libc::SYS_wait4, &[child as usize, &raw mut status as usize, 0, 0])?;
    if status == 0 { Ok(()) } else { Err(io::Error::other("the child failed")) }
}
