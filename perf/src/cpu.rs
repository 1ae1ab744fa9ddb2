//! Processor time of a program: user plus system time of the process and its descendants.
//!
//! This kernel has no separate accounting of soft interrupts: veth and forwarding work done in the
//! context of the gateway is part of its system time. It is the "cost of the gateway core", the
//! same for every program measured.

use std::fs;

/// Ticks per second of the times in `/proc` (`USER_HZ`; fixed in the kernel's interface on x86 and
/// Arm).
const TICKS_PER_SECOND: f64 = 100.0;

/// User plus system seconds of `pid`, its ended children and its living descendants; 0 when it is
/// gone.
#[must_use]
pub fn seconds_of(pid: u32) -> f64 {
    let all = all_processes();
    let family = family_of(pid, &all);
    let ticks: u64 = all.iter().filter(|(pid, _)| family.contains(pid)).map(|(_, s)| s.ticks).sum();
    to_seconds(ticks)
}

/// Seconds that the threads of `pid` with this name could run and had no processor, because others
/// had it; 0 when there are none.
#[must_use]
pub fn waited_s_of(pid: u32, thread: &str) -> f64 {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let waited_ns = |entry: fs::DirEntry| -> Option<u64> {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let times = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let waited = times.split_whitespace().nth(1)?;
        (name.trim_end() == thread).then_some(waited.parse().ok()?)
    };
    let waited_ns: u64 = entries.flatten().filter_map(waited_ns).sum();
    std::time::Duration::from_nanos(waited_ns).as_secs_f64()
}

/// Resident memory of `pid` in bytes; 0 when it is gone.
#[must_use]
pub fn resident_bytes_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    kib * 1024
}

/// Resident memory of `pid` and its living descendants in bytes, what they share counted for each.
#[must_use]
pub fn resident_bytes_of_family(pid: u32) -> u64 {
    family_of(pid, &all_processes()).into_iter().map(resident_bytes_of).sum()
}

/// A process and its living descendants.
fn family_of(pid: u32, all: &[(u32, Stat)]) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn all_processes() -> Vec<(u32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&text)?))
        })
        .collect()
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command name is in parentheses and may hold anything; the fields after it are numbered
    // from 3.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        ticks: (14..=17).filter_map(number).sum(), // utime, stime, cutime, cstime
    })
}

#[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
fn to_seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = parse_stat("7 (a) b) c) S 3 7 7 0 -1 0 0 0 0 0 11 22 33 44 20 0 1").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 110));
    }

    #[test]
    fn the_own_process_has_memory_and_a_line_that_parses() {
        let pid = std::process::id();
        assert!(resident_bytes_of(pid) > 0);
        assert!(all_processes().iter().any(|(other, _)| *other == pid));
    }
}
