//! Why something could not be set up, in one sentence with what helps.

use std::io;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel has none.
    #[error("The kernel has no io_uring; run Linux 6.1 or newer with CONFIG_IO_URING=y")]
    Missing,
    /// The system-wide switch forbids it.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {setting}); allow it with `sysctl -w \
         kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// Value of the switch: 1 for members of a group only, 2 for nobody.
        setting: u32,
    },
    /// A filter on system calls forbids it.
    #[error(
        "io_uring is forbidden to this process, usually by a container's seccomp profile; run with \
         a profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// No descriptors left.
    #[error(
        "No file descriptors left for {what} (limit {limit}); raise it with `ulimit -n` or \
         LimitNOFILE= in the unit"
    )]
    Descriptors {
        /// What the descriptor was for.
        what: &'static str,
        /// The soft limit of this process.
        limit: u64,
    },
    /// No locked memory left.
    #[error(
        "Not enough lockable memory for {what}; raise it with `ulimit -l` or LimitMEMLOCK= in the \
         unit"
    )]
    Memory {
        /// What the memory was for.
        what: &'static str,
    },
    /// The kernel lacks something that has no substitute.
    #[error("The kernel is too old for {what}; run Linux 6.1 or newer ({source})")]
    TooOld {
        /// What is lacking.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("Cannot set up {what}: {source}")]
    Other {
        /// What was being set up.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RingError {
    pub(crate) fn setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => match uring_switch() {
                Some(setting) if setting > 0 => Self::Disabled { setting },
                _ => Self::Forbidden,
            },
            _ => Self::while_making("the io_uring", error),
        }
    }

    pub(crate) fn while_making(what: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors { what, limit: file_limit() },
            Some(libc::ENOMEM) => Self::Memory { what },
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Self::TooOld { what, source },
            _ => Self::Other { what, source },
        }
    }
}

/// The system-wide switch: 0 allowed, 1 for members of a group, 2 for nobody. `None` where there is
/// no such switch.
pub(crate) fn uring_switch() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn file_limit() -> u64 {
    // Soft limit, from the line "Max open files  1024  524288  files".
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_says_what_helps() {
        let table = [
            (libc::ENOSYS, "CONFIG_IO_URING"),
            (libc::EMFILE, "LimitNOFILE="),
            (libc::ENFILE, "LimitNOFILE="),
            (libc::ENOMEM, "LimitMEMLOCK="),
            (libc::EINVAL, "Linux 6.1 or newer"),
            (libc::EIO, "Cannot set up the io_uring"),
        ];
        for (errno, remedy) in table {
            let text = RingError::setup(io::Error::from_raw_os_error(errno)).to_string();
            assert!(text.contains(remedy), "{errno}: {text}");
            assert!(!text.contains('\n'), "{errno}: {text}");
        }
        let text = RingError::setup(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        let switched_off = uring_switch().is_some_and(|setting| setting > 0);
        let remedy = if switched_off { "kernel.io_uring_disabled=0" } else { "seccomp" };
        assert!(text.contains(remedy), "{text}");
    }

    #[test]
    fn the_descriptor_limit_is_read() {
        assert!(file_limit() > 0);
    }
}
