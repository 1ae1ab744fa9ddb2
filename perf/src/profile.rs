//! Where the time of a measured program goes, by the stacks that `perf record` samples.
//!
//! A sample belongs to the first stage that is named on its way from the innermost frame outwards:
//! a copy inside a receive is receiving; a soft interrupt inside a write to the TUN is not the
//! write but the network behind it. Stages are named by functions of the kernel, so that all
//! programs can be asked, and by the libraries that do cryptography.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::process::{Launch, Process, scratch};

/// A part of the work.
struct Stage {
    name: &'static str,
    /// Functions of the kernel that begin it.
    kernel: &'static [&'static str],
    /// Parts of names of a program's functions.
    program: &'static [&'static str],
}

/// In the order in which they are told. What no stage claims is told last.
const STAGES: &[Stage] = &[
    Stage {
        name: "datagrams in: copy, addresses, freeing",
        kernel: &["udp_recvmsg", "udpv6_recvmsg"],
        program: &[],
    },
    Stage {
        name: "packets from the TUN: copy, virtio header",
        kernel: &["tun_chr_read_iter", "tun_recvmsg"],
        program: &[],
    },
    Stage {
        name: "cryptography",
        kernel: &[],
        program: &["ringway_simd", "aws_lc", "chacha20", "ChaCha20", "poly1305", "ring_core"],
    },
    Stage {
        name: "packets to the TUN: copy, checks",
        kernel: &["tun_chr_write_iter", "tun_sendmsg"],
        program: &[],
    },
    Stage {
        name: "datagrams out: headers, routing",
        kernel: &["udp_sendmsg", "udpv6_sendmsg"],
        program: &[],
    },
    Stage {
        name: "the network behind: forwarding, and the other ends in the same interrupt",
        kernel: &["process_backlog", "__napi_poll", "net_rx_action", "netif_receive_skb"],
        program: &[],
    },
    Stage {
        name: "sleeping and being woken",
        kernel: &["schedule", "try_to_wake_up", "finish_task_switch"],
        program: &[],
    },
];

const KERNEL_REST: &str = "system calls, rings, polling";
const PROGRAM_REST: &str = "the program's own code";

/// Samples per second: odd, so that it keeps step with nothing.
const HERTZ: &str = "1499";

/// What is being recorded now, if a profile is wanted at all.
static RECORDER: Mutex<Recorder> =
    Mutex::new(Recorder { wanted: false, running: None, done: None });

struct Recorder {
    wanted: bool,
    running: Option<(Process, PathBuf)>,
    done: Option<PathBuf>,
}

/// Profiles every measured window from now on.
pub fn want() {
    lock().wanted = true;
}

/// The profile of the window measured last.
///
/// # Errors
/// When nothing was recorded, or `perf script` fails.
pub fn last() -> Result<Profile> {
    let file = lock().done.take().context("Nothing was recorded: is linux-perf installed?")?;
    let script = Launch::new("perf").args(["script", "--fields", "ip,sym,dso", "--input"]);
    let text = script.arg(&file).output(Duration::from_secs(120)).context("Reading a profile")?;
    if let Some(folder) = file.parent() {
        std::fs::remove_dir_all(folder).context("Removing a profile")?;
    }
    Profile::read(&text)
}

/// Begins a window of a process.
pub(crate) fn begin(pid: u32) {
    let mut recorder = lock();
    // A client may be weighed in the same window: the first is the server.
    if recorder.wanted && recorder.running.is_none() {
        recorder.running = record(pid).ok();
    }
}

/// Ends the window.
pub(crate) fn end() {
    let mut recorder = lock();
    if let Some((mut process, file)) = recorder.running.take() {
        // It writes its file when it is interrupted.
        let told = process.signal(Signal::SIGINT).is_ok();
        if told && process.wait(Duration::from_secs(30)).is_ok() {
            recorder.done = Some(file);
        }
    }
}

fn record(pid: u32) -> Result<(Process, PathBuf)> {
    let file = scratch()?.join("perf.data");
    let words = format!("record --quiet -g -F {HERTZ} --pid {pid} --output");
    Ok((Launch::new("perf").words(&words).arg(&file).on_cpus(Some("0")).spawn()?, file))
}

fn lock() -> std::sync::MutexGuard<'static, Recorder> {
    RECORDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Samples by stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Names and samples, in the order in which they are told.
    pub stages: Vec<(&'static str, u64)>,
}

impl Profile {
    /// Reads what `perf script` printed: a line per frame, a blank line after each sample.
    fn read(text: &str) -> Result<Self> {
        let mut counts = vec![0_u64; STAGES.len() + 2];
        for stack in text.split("\n\n").filter(|stack| !stack.trim().is_empty()) {
            counts[stage_of(stack)] += 1;
        }
        ensure!(counts.iter().sum::<u64>() > 0, "The profile has no samples");
        let names = STAGES.iter().map(|stage| stage.name).chain([KERNEL_REST, PROGRAM_REST]);
        Ok(Self { stages: names.zip(counts).collect() })
    }

    /// As rows of a table: share, and what it is of a `cost` in some `unit`.
    #[must_use]
    pub fn table(&self, cost: f64, unit: &str) -> String {
        let all: u64 = self.stages.iter().map(|(_, samples)| samples).sum();
        let mut text = format!("| where | share | {unit} |\n|---|---|---|\n");
        for (name, samples) in &self.stages {
            let share = to_float(*samples) / to_float(all);
            let _infallible =
                writeln!(text, "| {name} | {:.0} % | {:.2} |", 100.0 * share, cost * share);
        }
        let _infallible = writeln!(text, "| all ({all} samples) | 100 % | {cost:.2} |");
        text
    }
}

fn stage_of(stack: &str) -> usize {
    let mut frames = stack.lines().filter(|line| !line.trim().is_empty());
    let named = frames.clone().find_map(|frame| {
        STAGES.iter().position(|stage| match function_of_kernel(frame) {
            Some(function) => stage.kernel.contains(&function),
            None => stage.program.iter().any(|part| frame.contains(part)),
        })
    });
    let in_program = frames.next().is_some_and(|leaf| function_of_kernel(leaf).is_none());
    named.unwrap_or_else(|| STAGES.len() + usize::from(in_program))
}

/// The name of a function of the kernel, without what the compiler appended.
fn function_of_kernel(frame: &str) -> Option<&str> {
    let name = frame.split_whitespace().nth(1)?;
    frame.contains("[kernel").then(|| name.split('.').next().unwrap_or(name))
}

#[expect(clippy::cast_precision_loss, reason = "samples of a minute stay far below 2^52")]
const fn to_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "
\tffffffff81 _copy_to_iter ([kernel.kallsyms])
\tffffffff82 udp_recvmsg ([kernel.kallsyms])
\tffffffff83 schedule ([kernel.kallsyms])

\tffffffff81 tcp_v4_rcv ([kernel.kallsyms])
\tffffffff82 process_backlog ([kernel.kallsyms])
\tffffffff83 tun_chr_write_iter ([kernel.kallsyms])
\t      1234 syscall (/usr/lib/libc.so.6)

\t      5678 ringway_simd::avx512::chacha::sixteen_blocks (/usr/bin/ringway)

\t      5679 ringway_dataplane::opening::open_waiting (/usr/bin/ringway)

\tffffffff84 finish_task_switch.isra.0 ([kernel.kallsyms])

\tffffffff85 do_syscall_64 ([kernel.kallsyms])
\t      1234 syscall (/usr/lib/libc.so.6)
";

    #[test]
    fn a_sample_belongs_to_the_first_stage_on_its_way_outwards() {
        let profile = Profile::read(SCRIPT).expect("six samples");
        let counts: Vec<u64> = profile.stages.iter().map(|(_, samples)| *samples).collect();
        //                   in, from TUN, crypto, to TUN, out, behind, sleeping, kernel, program
        assert_eq!(counts, [1, 0, 1, 0, 0, 1, 1, 1, 1]);
        assert!(profile.table(6.0, "us").contains("| cryptography | 17 % | 1.00 |"));
        assert!(Profile::read("\n\n").is_err());
    }
}
