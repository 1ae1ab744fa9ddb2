//! Which nodes this process may take memory from, and how much it has.
//!
//! Two masks apply: the cpuset of the process, and the policy that `numactl --membind` left.

#![allow(unsafe_code, reason = "asks the kernel for the memory policy")]

use crate::list::CpuList;

/// Nodes this process may take memory from, as its cpuset and numactl left them. On a kernel that
/// does not tell, node 0.
#[must_use]
pub fn allowed_nodes() -> CpuList {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpuset = mems_allowed(&status).unwrap_or_else(|| CpuList::from_iter([0]));
    match bound_nodes() {
        Some(bound) => cpuset.as_slice().iter().copied().filter(|it| bound.contains(*it)).collect(),
        None => cpuset,
    }
}

/// Bytes of this process that are in memory; 0 where `/proc` does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    resident(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// The line of `/proc/self/status`, which counts in KiB whatever the size of a page.
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The list in `/proc/self/status`.
fn mems_allowed(status: &str) -> Option<CpuList> {
    let line = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
    line.parse().ok().filter(|list: &CpuList| !list.is_empty())
}

/// The nodes of a binding policy of this thread, if it has one.
fn bound_nodes() -> Option<CpuList> {
    let mut mode: libc::c_int = 0;
    let mut mask = [0_u64; 16];
    // SAFETY: the kernel writes one number to `mode` and at most as many bits as told to `mask`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            mask.as_mut_ptr(),
            64 * mask.len(),
            std::ptr::null_mut::<libc::c_void>(),
            0,
        )
    };
    // Flags of the policy are in the upper bits.
    if result != 0 || mode & 0xff != libc::MPOL_BIND {
        return None;
    }
    let set = |node: &u32| mask[*node as usize / 64] >> (node % 64) & 1 == 1;
    Some((0..64 * mask.len() as u32).filter(set).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_cpuset_is_read_from_the_status_of_the_process() {
        let status = "Name:\tx\nMems_allowed:\t00000000,00000003\nMems_allowed_list:\t0-1\nx:\t0\n";
        assert_eq!(mems_allowed(status).unwrap().as_slice(), [0, 1]);
        assert_eq!(mems_allowed("Name:\tx\n"), None);
        assert_eq!(mems_allowed("Mems_allowed_list:\tno\n"), None);
    }

    #[test]
    fn resident_memory_is_read_from_the_status_of_the_process() {
        assert_eq!(resident("VmSize:\t  9 kB\nVmRSS:\t    1234 kB\n"), 1234 << 10);
        assert_eq!(resident("VmRSS:\t    1234 MB\n"), 0);
        assert!(resident_bytes() > 64 << 10);
    }

    #[test]
    fn this_process_may_use_at_least_one_node() {
        assert!(!allowed_nodes().is_empty());
    }
}
