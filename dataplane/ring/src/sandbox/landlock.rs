//! Landlock: all rights that this kernel can take away are handled, and none is granted.
//!
//! Descriptors that are open keep what they can do. Each version of the interface handled more; a
//! right that the kernel does not know is not asked for.

#![allow(unsafe_code, reason = "the Landlock calls have no wrapper in std")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Gap;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: libc::c_uint = 1;

/// `struct landlock_ruleset_attr`. An older kernel accepts fields that it does not know if they are
/// zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handled {
    files: u64,
    network: u64,
    scopes: u64,
}

impl Handled {
    /// Everything that this version of the interface can take away.
    const fn all(version: u32) -> Self {
        let files = match version {
            0 => 0,
            1 => (1 << 13) - 1, // execute, read, write, list, remove, make of each kind
            2 => (1 << 14) - 1, // and move to other folders
            3 | 4 => (1 << 15) - 1, // and truncate
            _ => (1 << 16) - 1, // and ioctl of devices
        };
        let network = if version >= 4 { 0b11 } else { 0 }; // TCP: bind, connect
        let scopes = if version >= 6 { 0b11 } else { 0 }; // abstract sockets, signals
        Self { files, network, scopes }
    }
}

/// Restricts the calling thread, which must have forbidden itself new privileges; the version of
/// the interface.
pub(super) fn restrict() -> Result<u32, Gap> {
    let version = version().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            let fix = "run Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK=y";
            Gap::new("The kernel has no Landlock", fix)
        }
        Some(libc::EOPNOTSUPP) => {
            let fix = "add `landlock` to lsm= on the kernel's command line";
            Gap::new("Landlock is switched off", fix)
        }
        _ => Gap::refused("Landlock is forbidden to this process", &error),
    })?;
    let enter = || restrict_self(&ruleset(&Handled::all(version))?);
    enter().map_err(|error| Gap::refused("Landlock cannot be entered", &error))?;
    Ok(version)
}

fn version() -> io::Result<u32> {
    let (nothing, none) = (std::ptr::null::<Handled>(), 0_usize);
    let call = libc::SYS_landlock_create_ruleset;
    // SAFETY: with this flag the call takes no attributes and returns a number.
    checked(unsafe { libc::syscall(call, nothing, none, ASK_VERSION) })
        .map(|version| version as u32)
}

fn ruleset(handled: &Handled) -> io::Result<OwnedFd> {
    let attributes: *const Handled = handled;
    let (call, len) = (libc::SYS_landlock_create_ruleset, size_of::<Handled>());
    // SAFETY: the pointer is to attributes of this length; the call only reads them.
    let fd = checked(unsafe { libc::syscall(call, attributes, len, 0_u32) })?;
    // SAFETY: the descriptor was just made by the kernel for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn restrict_self(ruleset: &OwnedFd) -> io::Result<()> {
    let (call, fd) = (libc::SYS_landlock_restrict_self, ruleset.as_raw_fd());
    // SAFETY: no pointers are passed.
    checked(unsafe { libc::syscall(call, fd, 0_u32) }).map(drop)
}

fn checked(done: libc::c_long) -> io::Result<libc::c_long> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_takes_away_what_it_knows_and_no_more() {
        assert_eq!(Handled::all(1), Handled { files: 0x1fff, network: 0, scopes: 0 });
        assert_eq!(Handled::all(2).files, 0x3fff);
        assert_eq!(Handled::all(3), Handled { files: 0x7fff, network: 0, scopes: 0 });
        assert_eq!(Handled::all(4), Handled { files: 0x7fff, network: 3, scopes: 0 });
        assert_eq!(Handled::all(5), Handled { files: 0xffff, network: 3, scopes: 0 });
        assert_eq!(Handled::all(7), Handled { files: 0xffff, network: 3, scopes: 3 });
    }
}
