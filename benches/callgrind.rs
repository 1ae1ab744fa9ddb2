//! Counting the instructions of a case: this program runs itself under callgrind, once per case,
//! and only what happens inside `measured_section` is counted.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cases::Case;

/// Runs of a case before it is counted: caches of the allocator fill, memory is touched.
const WARM_UP_RUNS: u32 = 2;

/// Instructions per operation of `case`. `program` is this executable.
///
/// # Errors
/// If valgrind is missing or fails.
pub fn count(program: &Path, case: &Case) -> anyhow::Result<f64> {
    let folder = std::env::temp_dir();
    let out = folder.join(format!("ringway-callgrind-{}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--toggle-collect=*measured_section*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg("--case")
        .arg(case.name)
        .stdin(Stdio::null())
        .output()
        .context(
            "Cannot run valgrind; install it with `tools/setup` or `apt-get install valgrind`",
        )?;
    let profile = std::fs::read_to_string(&out);
    if out.exists() {
        std::fs::remove_file(&out)?;
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {} under valgrind:\n{said}", case.name, output.status);
    }
    let instructions = total(&profile?).context("valgrind wrote no total")?;
    if instructions == 0 {
        bail!("{}: nothing was counted; does the program have symbols?", case.name);
    }
    Ok(instructions as f64 / f64::from(case.operations))
}

/// What the child does: prepares the case and runs it once where it is counted.
pub fn run_counted(case: &Case) {
    let mut work = (case.prepare)();
    for _ in 0..WARM_UP_RUNS {
        work();
    }
    measured_section(&mut *work);
}

/// Callgrind counts between entry and exit of this function, which it finds by its name.
#[inline(never)]
fn measured_section(work: &mut dyn FnMut()) {
    work();
    std::hint::black_box(());
}

/// The sum line of a profile.
fn total(profile: &str) -> Option<u64> {
    let line = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_in_a_profile() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1)\n3 4\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("summary: 77\n"), Some(77));
        assert_eq!(total("events: Ir\n"), None);
    }
}
