//! A worker of the real gateway, hijacked from outside: a tracer makes its thread call what an
//! attacker would.
//!
//! ```text
//!   cli: stock client ── gw: ringway run, its workers traced ── dst
//! ```
//!
//! What an attacker could submit to the ring is tried in the crate of the ring.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use ringway_perf::ping;
use ringway_perf::topology::{Family, Line, Place};

use crate::product::Product;
use crate::setup::{LATER, stock_client};

#[test]
fn privileged_workers_are_seen_in_their_sandbox_from_outside() {
    for flags in drivers() {
        let product = Product::start_with(Line::new(1500).unwrap(), Family::V4, &flags);
        let workers = workers(&product);
        assert!(!workers.is_empty());
        for worker in workers {
            for (key, value) in [
                ("Seccomp", "2"),
                ("NoNewPrivs", "1"),
                ("CapInh", NOTHING),
                ("CapPrm", NOTHING),
                ("CapEff", NOTHING),
                ("CapAmb", NOTHING),
            ] {
                assert_eq!(status(&product, worker, key), value, "{key}");
            }
        }
    }
}

#[test]
fn privileged_a_hijacked_worker_is_refused_and_carries_traffic_on() {
    for flags in drivers() {
        let product = Product::start_with(Line::new(1500).unwrap(), Family::V4, &flags);
        let _client = product.client(stock_client(), "laptop");
        for worker in workers(&product) {
            for (name, error) in attack(&product, worker) {
                assert_eq!(error, Some(libc::EPERM), "{flags:?}: {name}");
            }
        }
        let to = Place::Destination.address(Family::V4);
        ping::until_answered(&product.line.cli, to, LATER).unwrap();
    }
}

/// Otherwise the attacks would prove nothing.
#[test]
fn privileged_without_a_sandbox_a_hijacked_worker_may_do_all_that() {
    let flags = ["--sandbox", "off"];
    let product = Product::start_with(Line::new(1500).unwrap(), Family::V4, &flags);
    let worker = workers(&product)[0];
    assert_eq!(status(&product, worker, "Seccomp"), "0");
    for (name, error) in attack(&product, worker) {
        // Some are made so that they cannot be carried out, and fail as such.
        assert!(!matches!(error, Some(libc::EPERM | libc::EACCES)), "{name}: {error:?}");
    }
}

const NOTHING: &str = "0000000000000000";

/// Flags of each driver, or none if the matrix says which one.
fn drivers() -> Vec<Vec<&'static str>> {
    match std::env::var("RINGWAY_LAB_DRIVER") {
        Ok(word) if !word.is_empty() => vec![Vec::new()],
        _ => vec![vec!["--driver", "uring"], vec!["--driver", "epoll"]],
    }
}

/// The threads of the gateway that carry packets.
fn workers(product: &Product) -> Vec<Pid> {
    let folder = format!("/proc/{}/task", product.process.pid());
    let threads = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).unwrap();
    threads
        .filter(|path| name(path).starts_with("ringway-"))
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .map(Pid::from_raw)
        .collect()
}

fn status(product: &Product, thread: Pid, key: &str) -> String {
    let path = format!("/proc/{}/task/{thread}/status", product.process.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(":\t"));
    lines.find(|(found, _)| *found == key).unwrap().1.to_owned()
}

/// What each call of the hijacked thread was answered: the error number, `None` for success.
fn attack(product: &Product, thread: Pid) -> Vec<(&'static str, Option<i32>)> {
    let mut hijacked = Hijacked::new(product.process.pid(), thread).unwrap();
    let (path, here) = (hijacked.put(b"/etc/passwd\0"), libc::AT_FDCWD as u64);
    let (nowhere, room) = (hijacked.put(b"/nonexistent\0"), hijacked.put(&[0; 160]));
    let how = hijacked.put(&[0; 24]);
    // BPF_MAP_CREATE: an array with one entry.
    let map = [[2_u32, 4, 4, 1].as_slice(), &[0; 14]].concat();
    let map = hijacked.put(&map.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>());
    let vector = hijacked.put(&[room.to_ne_bytes(), 8_u64.to_ne_bytes()].concat());
    let process = u64::from(product.process.pid());
    let (inet, stream) = (libc::AF_INET as u64, libc::SOCK_STREAM as u64);
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let (code, nobody) = (libc::PROT_EXEC as u64, i32::MAX as u64);
    let calls: [(&'static str, i64, &[u64]); 20] = [
        ("openat", libc::SYS_openat, &[here, path, 0]),
        ("openat2", libc::SYS_openat2, &[here, path, how, 24]),
        ("memfd_create", libc::SYS_memfd_create, &[path, 0]),
        ("socket", libc::SYS_socket, &[inet, stream, 0]),
        ("socketpair", libc::SYS_socketpair, &[libc::AF_UNIX as u64, stream, 0, room]),
        ("connect", libc::SYS_connect, &[nobody, room, 16]),
        ("execve", libc::SYS_execve, &[nowhere, 0, 0]),
        // A combination that the kernel refuses as invalid: a child would run the gateway's code.
        ("clone", libc::SYS_clone, &[libc::CLONE_SIGHAND as u64, 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, &[room, 0]),
        ("ptrace", libc::SYS_ptrace, &[0x4206, nobody, 0, 0]),
        ("kill", libc::SYS_kill, &[process, 0]),
        ("pidfd_open", libc::SYS_pidfd_open, &[process, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[process, vector, 1, vector, 1, 0]),
        ("bpf", libc::SYS_bpf, &[0, map, 72]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[4, room]),
        ("io_uring_register", libc::SYS_io_uring_register, &[nobody, 8, room, 0]),
        ("mmap of code", libc::SYS_mmap, &[0, 4096, code, anonymous, u64::MAX, 0]),
        ("mprotect to code", libc::SYS_mprotect, &[1 << 46, 4096, code]),
        ("unshare", libc::SYS_unshare, &[libc::CLONE_NEWUTS as u64]),
        ("setns", libc::SYS_setns, &[nobody, 0]),
    ];
    calls.map(|(name, number, words)| (name, hijacked.call(number, words))).to_vec()
}

/// A thread of another process that calls what it is told. It goes on where it was when this is
/// dropped.
struct Hijacked {
    thread: Pid,
    memory: File,
    /// Where it was stopped, right behind a system call.
    stopped: libc::user_regs_struct,
    /// Where the next bytes go, far below what it has on its stack.
    room: u64,
}

/// Bytes below the stack that are left alone.
const DISTANCE: u64 = 16 << 10;

impl Hijacked {
    fn new(process: u32, thread: Pid) -> io::Result<Self> {
        ptrace::seize(thread, Options::empty())?;
        let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"))?;
        loop {
            ptrace::interrupt(thread)?;
            waitpid(thread, Some(WaitPidFlag::__WALL))?;
            let stopped = ptrace::getregs(thread)?;
            let mut before = [0; 2];
            memory.read_exact_at(&mut before, stopped.rip - 2)?;
            if before == [0x0f, 0x05] {
                let room = stopped.rsp - DISTANCE;
                return Ok(Self { thread, memory, stopped, room });
            }
            ptrace::cont(thread, None)?; // it was at work; it will sleep again
        }
    }

    /// Writes bytes to its memory; their address there.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.room -= bytes.len().next_multiple_of(16) as u64;
        self.room &= !15;
        self.memory.write_all_at(bytes, self.room).unwrap();
        self.room
    }

    /// Makes it call; the error number, if it failed.
    fn call(&mut self, number: i64, words: &[u64]) -> Option<i32> {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let mut registers = self.stopped;
        registers.rip -= 2; // the instruction that it was stopped behind
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX; // nothing is to be restarted
        (registers.rdi, registers.rsi, registers.rdx) = (word(0), word(1), word(2));
        (registers.r10, registers.r8, registers.r9) = (word(3), word(4), word(5));
        ptrace::setregs(self.thread, registers).unwrap();
        ptrace::step(self.thread, None).unwrap();
        waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap();
        let answer = ptrace::getregs(self.thread).unwrap().rax as i64;
        (-4095..0).contains(&answer).then_some(-answer as i32)
    }
}

impl Drop for Hijacked {
    fn drop(&mut self) {
        // Whatever happened, the thread goes on, or is gone with its process.
        let _ = ptrace::setregs(self.thread, self.stopped);
        let _ = ptrace::detach(self.thread, None);
    }
}
