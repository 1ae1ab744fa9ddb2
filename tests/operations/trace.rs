//! Watches a thread of another process instruction by instruction: what it locks, where it stores,
//! what it calls.
//!
//! The thread says by signals when it is to be watched: SIGUSR1 begins a section, SIGUSR2 ends it.
//! This file must not know what the thread does.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use iced_x86::{Code, Mnemonic, OpAccess, Register};
use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory};
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Bytes of the longest instruction.
const INSTRUCTION_BYTES_MAX: usize = 15;

/// What a thread did in a section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations {
    /// Instructions, each round of a repeated one counted.
    pub(crate) instructions: u64,
    /// Instructions with a lock: what other cores wait for.
    pub(crate) locked: u64,
    /// Full fences.
    pub(crate) fences: u64,
    /// Stores to memory that other threads look at.
    pub(crate) shared_stores: u64,
    /// System calls.
    pub(crate) calls: u64,
}

impl Operations {
    fn less(self, empty: Self) -> Self {
        Self {
            instructions: self.instructions - empty.instructions,
            locked: self.locked - empty.locked,
            fences: self.fences - empty.fences,
            shared_stores: self.shared_stores - empty.shared_stores,
            calls: self.calls - empty.calls,
        }
    }
}

/// What was seen: the sections, and where something was locked or stored that others look at.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// One per section, without what an empty one takes.
    pub(crate) sections: Vec<Operations>,
    /// Functions by address, with how often.
    pub(crate) places: HashMap<u64, u64>,
}

/// What is known of an instruction, so that it is decoded once.
#[derive(Clone)]
struct Known {
    instruction: Instruction,
    locks: bool,
    fences: bool,
    calls: bool,
    /// Whether it stores to memory at all.
    stores: bool,
}

/// A thread to be watched, in a process that waits to be told to go on.
pub(crate) struct Tracer {
    child: Child,
    /// Kept open, for the program may have more to say.
    _out: Lines<BufReader<ChildStdout>>,
    thread: Pid,
    memory: File,
    shared: Vec<Range<u64>>,
    known: HashMap<u64, Known>,
    factory: InstructionInfoFactory,
}

impl Tracer {
    /// Starts the program, which tells on standard output its thread (`thread ID`), the memory that
    /// other threads look at (`shared START END`, any number) and that it is `ready`.
    pub(crate) fn start(mut program: Command) -> anyhow::Result<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().expect("it was piped");
        let (mut thread, mut shared) = (Pid::from_raw(0), Vec::new());
        let mut out = BufReader::new(out).lines();
        while let Some(line) = out.next().transpose()? {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["thread", id] => thread = Pid::from_raw(id.parse()?),
                ["shared", start, end] => shared.push(start.parse()?..end.parse()?),
                ["ready"] => break,
                _ => {}
            }
        }
        // Static memory belongs to all threads.
        shared.extend(statics(child.id())?);
        ptrace::seize(thread, Options::empty())?;
        let memory = File::open(format!("/proc/{}/mem", child.id()))?;
        child.stdin.take().expect("it was piped").write_all(b"go\n")?;
        let factory = InstructionInfoFactory::new();
        Ok(Self { child, _out: out, thread, memory, shared, known: HashMap::new(), factory })
    }

    /// Watches until the thread ends. Its first section is empty: what that takes is the price of
    /// beginning and ending one.
    pub(crate) fn watch(mut self) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let mut empty = None;
        loop {
            match waitpid(self.thread, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Stopped(_, Signal::SIGUSR1) => {
                    let section = self.section(&mut seen)?;
                    match empty {
                        None => empty = Some(section),
                        Some(empty) => seen.sections.push(section.less(empty)),
                    }
                    ptrace::cont(self.thread, None)?;
                }
                WaitStatus::Stopped(_, signal) => ptrace::cont(self.thread, signal)?,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
                WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive => ptrace::cont(self.thread, None)?,
            }
        }
        anyhow::ensure!(self.child.wait()?.success(), "the watched program failed");
        Ok(seen)
    }

    fn section(&mut self, seen: &mut Seen) -> anyhow::Result<Operations> {
        let mut operations = Operations::default();
        loop {
            ptrace::step(self.thread, None)?;
            let status = waitpid(self.thread, Some(WaitPidFlag::__WALL))?;
            if status == WaitStatus::Stopped(self.thread, Signal::SIGUSR2) {
                return Ok(operations);
            }
            let stepped = status == WaitStatus::Stopped(self.thread, Signal::SIGTRAP);
            anyhow::ensure!(stepped, "the watched thread came to {status:?}");
            // The registers as they are before the instruction at `rip`.
            let registers = ptrace::getregs(self.thread)?;
            let known = self.known(registers.rip)?;
            operations.instructions += 1;
            operations.locked += u64::from(known.locks);
            operations.fences += u64::from(known.fences);
            operations.calls += u64::from(known.calls);
            let shared = known.stores && self.stores_to_shared(&known.instruction, &registers);
            operations.shared_stores += u64::from(shared);
            if known.locks || shared {
                *seen.places.entry(registers.rip).or_default() += 1;
            }
        }
    }

    fn known(&mut self, at: u64) -> anyhow::Result<Known> {
        if let Some(known) = self.known.get(&at) {
            return Ok(known.clone());
        }
        let mut bytes = [0; INSTRUCTION_BYTES_MAX];
        let len = self.memory.read_at(&mut bytes, at)?;
        let mut decoder = Decoder::with_ip(64, &bytes[..len], at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        anyhow::ensure!(instruction.code() != Code::INVALID, "no instruction at {at:#x}");
        let info = self.factory.info(&instruction);
        let writes = |access| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        let stores = info.used_memory().iter().any(|memory| writes(memory.access()));
        // What compilers write for a full fence: a locked nothing on the own stack.
        let on_stack = instruction.memory_base() == Register::RSP;
        let fences =
            instruction.mnemonic() == Mnemonic::Mfence || instruction.has_lock_prefix() && on_stack;
        let known = Known {
            instruction,
            // An exchange with memory locks without a prefix.
            locks: instruction.has_lock_prefix() && !fences
                || instruction.mnemonic() == Mnemonic::Xchg && stores,
            fences,
            calls: instruction.mnemonic() == Mnemonic::Syscall,
            stores,
        };
        self.known.insert(at, known.clone());
        Ok(known)
    }

    fn stores_to_shared(&mut self, instruction: &Instruction, at: &user_regs_struct) -> bool {
        let info = self.factory.info(instruction);
        info.used_memory().iter().any(|memory| {
            let read_only = matches!(memory.access(), OpAccess::Read | OpAccess::CondRead);
            let address = memory.virtual_address(0, |name, _, _| register(name, at));
            !read_only
                && address
                    .is_some_and(|address| self.shared.iter().any(|span| span.contains(&address)))
        })
    }
}

/// The value of a register that addresses are made of.
#[expect(clippy::wildcard_enum_match_arm, reason = "of 256 registers these make addresses")]
fn register(name: Register, at: &user_regs_struct) -> Option<u64> {
    let value = match name.full_register() {
        Register::RAX => at.rax,
        Register::RBX => at.rbx,
        Register::RCX => at.rcx,
        Register::RDX => at.rdx,
        Register::RSI => at.rsi,
        Register::RDI => at.rdi,
        Register::RBP => at.rbp,
        Register::RSP => at.rsp,
        Register::R8 => at.r8,
        Register::R9 => at.r9,
        Register::R10 => at.r10,
        Register::R11 => at.r11,
        Register::R12 => at.r12,
        Register::R13 => at.r13,
        Register::R14 => at.r14,
        Register::R15 => at.r15,
        Register::FS => at.fs_base,
        Register::GS => at.gs_base,
        // Other segments begin at zero; vectors of addresses are not looked into.
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => return None,
    };
    Some(match name.size() {
        4 => value & 0xffff_ffff,
        _ => value,
    })
}

/// Writable memory of the program itself: what is mapped from its file, and what follows it.
fn statics(process: u32) -> anyhow::Result<Vec<Range<u64>>> {
    let program = std::fs::read_link(format!("/proc/{process}/exe"))?;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let (mut found, mut end_before) = (Vec::new(), 0);
    for line in maps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((start, end)) = words[0].split_once('-') else { continue };
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let from_program = words.get(5).is_some_and(|path| program == std::path::Path::new(path));
        if words[1].starts_with("rw") && (from_program || start == end_before && words.len() == 5) {
            found.push(start..end);
        }
        if from_program {
            end_before = end;
        }
    }
    anyhow::ensure!(!found.is_empty(), "the program has no static memory: {maps}");
    Ok(found)
}
