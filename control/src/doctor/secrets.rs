//! Whether secrets can leave the memory of the gateway or their files: core dumps, swap, modes of
//! files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Files, Finding};
use crate::config::Config;

const AREA: &str = "secrets";

pub(super) fn examine(files: &Files, config: &Config) -> Vec<Finding> {
    let mut findings = vec![core_dumps(files), swap(files)];
    let key = &config.interface.private_key_file;
    findings.extend(key_file("private key", key));
    let preshared = config.peers.iter().filter_map(|peer| peer.preshared_file.as_deref());
    findings.extend(preshared.filter_map(|path| key_file("preshared key", path)).filter(is_wrong));
    findings
}

/// The doctor is the same program and has given dumps up in the same way.
fn core_dumps(files: &Files) -> Finding {
    const NAME: &str = "core dumps";
    let limits = files.text("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("0") => Finding::ok(AREA, NAME, "off: no key reaches a dump"),
        Some(limit) => Finding::advice(
            AREA,
            NAME,
            format!("may be {limit} bytes, and would hold keys"),
            "LimitCORE=0 in the unit, or ulimit -c 0",
        ),
        None => Finding::ok(AREA, NAME, "the kernel does not say"),
    }
}

/// Memory that is written to a disk stays there when the key is long erased.
fn swap(files: &Files) -> Finding {
    const NAME: &str = "swap";
    let swaps = files.text("/proc/swaps").unwrap_or_default();
    let devices = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    // Compressed memory is memory.
    let disks: Vec<&str> = devices.filter(|device| !device.starts_with("/dev/zram")).collect();
    if disks.is_empty() {
        return Finding::ok(AREA, NAME, "none on a disk: no key reaches one");
    }
    if group_cannot_swap(files) {
        return Finding::ok(AREA, NAME, "not for this group of processes (memory.swap.max is 0)");
    }
    let text = format!("{}: memory with keys may be written there", disks.join(", "));
    let fix = "MemorySwapMax=0 in the unit, lock_memory = true in [security], or an encrypted swap";
    Finding::advice(AREA, NAME, text, fix)
}

/// Whether the control group of this process, or one above it, allows no swap.
fn group_cannot_swap(files: &Files) -> bool {
    let groups = files.text("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let above = Path::new(own).ancestors();
    above.into_iter().any(|group| {
        let path = Path::new("/sys/fs/cgroup").join(group).join("memory.swap.max");
        files.number(&path.display().to_string()) == Some(0)
    })
}

/// None if the file is not there yet: it is made with the right mode.
fn key_file(what: &str, path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let name = format!("{what} {}", path.display());
    Some(if mode & 0o077 == 0 {
        Finding::ok(AREA, name, format!("mode {mode:04o}: only its owner reads it"))
    } else {
        let text = format!("mode {mode:04o}: others may read it");
        Finding::missing(AREA, name, text, format!("chmod 600 {}", path.display()))
    })
}

fn is_wrong(finding: &Finding) -> bool {
    finding.fix.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use crate::scratch::Scratch;

    fn files(name: &str, entries: &[(&str, &str)]) -> (Scratch, Files) {
        let folder = Scratch::new(name);
        for (path, text) in entries {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = Files { root: folder.path().to_owned() };
        (folder, files)
    }

    const SWAPS: &str = "Filename Type Size Used Priority\n";

    #[test]
    fn swap_on_a_disk_is_advised_against_unless_the_group_has_none() {
        let disk = format!("{SWAPS}/dev/vda2 partition 1 0 -2\n");
        let (_folder, bare) = files("secrets_swap", &[("proc/swaps", &disk)]);
        assert_eq!(swap(&bare).state, State::Advice);
        let zram = format!("{SWAPS}/dev/zram0 partition 1 0 -2\n");
        let (_folder, compressed) = files("secrets_zram", &[("proc/swaps", &zram)]);
        assert_eq!(swap(&compressed).state, State::Ok);
        let (_folder, grouped) = files(
            "secrets_group",
            &[
                ("proc/swaps", &disk),
                ("proc/self/cgroup", "0::/system.slice/ringway.service\n"),
                ("sys/fs/cgroup/system.slice/ringway.service/memory.swap.max", "max\n"),
                ("sys/fs/cgroup/system.slice/memory.swap.max", "0\n"),
            ],
        );
        assert_eq!(swap(&grouped).state, State::Ok);
    }

    #[test]
    fn a_limit_of_core_dumps_above_zero_is_named() {
        for (limit, state) in [("0", State::Ok), ("unlimited", State::Advice)] {
            let text = format!("Max core file size        {limit}    unlimited    bytes\n");
            let (_folder, files) = files("secrets_core", &[("proc/self/limits", &text)]);
            assert_eq!(core_dumps(&files).state, state);
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_wrong_and_the_command_mends_it() {
        let folder = Scratch::new("secrets_key");
        let path = folder.path().join("private.key");
        assert_eq!(key_file("private key", &path), None);
        fs::write(&path, "x").unwrap();
        for (mode, state) in [(0o600, State::Ok), (0o400, State::Ok), (0o640, State::Missing)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(key_file("private key", &path).unwrap().state, state, "{mode:o}");
        }
    }
}
