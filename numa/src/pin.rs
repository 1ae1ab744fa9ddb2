//! Binding the calling thread to one CPU, and looking whether it is bound.

use crate::list::CpuList;

/// Why a thread is not where it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The kernel refused: the CPU is absent, offline, or outside the cpuset of the process.
    #[error(
        "Cannot run on CPU {cpu} (available: {available}): it is offline or outside the cpuset of \
         this process; choose other CPUs with --cpus"
    )]
    Refused {
        /// The CPU that was wanted.
        cpu: u32,
        /// Where the thread may run.
        available: CpuList,
    },
    /// The kernel accepted but the thread may run elsewhere.
    #[error("Bound to CPU {cpu}, but may run on {found}")]
    NotBound {
        /// The CPU that was wanted.
        cpu: u32,
        /// Where the thread may run.
        found: CpuList,
    },
}

/// Binds the calling thread to `cpu` and verifies it. Memory it touches first from now on comes
/// from the node of that CPU.
///
/// # Errors
/// If the kernel refuses, or the thread may still run elsewhere.
pub fn pin_to(cpu: u32) -> Result<(), PinError> {
    let id = core_affinity::CoreId { id: cpu as usize };
    // The mask of the library has 1,024 bits; a larger number would be out of its bounds.
    let accepted = cpu < 1024 && core_affinity::set_for_current(id);
    let found = allowed_cpus();
    if !accepted {
        return Err(PinError::Refused { cpu, available: found });
    }
    if found.as_slice() != [cpu] {
        return Err(PinError::NotBound { cpu, found });
    }
    Ok(())
}

/// CPUs the calling thread may run on, as numactl, taskset, systemd or the container left them.
#[must_use]
pub fn allowed_cpus() -> CpuList {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().filter_map(|core| u32::try_from(core.id).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_thread_is_bound_to_each_cpu_it_may_use() {
        for cpu in allowed_cpus().as_slice() {
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    pin_to(*cpu).unwrap();
                    assert_eq!(allowed_cpus().as_slice(), [*cpu]);
                });
            });
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_with_those_that_are() {
        for cpu in [1000, 5000, u32::MAX] {
            let available = allowed_cpus();
            assert_eq!(pin_to(cpu), Err(PinError::Refused { cpu, available }));
        }
    }
}
