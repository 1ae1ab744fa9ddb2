//! Capabilities of the thread, and getting new ones.

#![allow(unsafe_code, reason = "capset and prctl of the calling thread have no wrapper in std")]

use std::io;

use super::Gap;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`; thread 0 is the calling one.
#[repr(C)]
struct Header {
    version: u32,
    thread: libc::c_int,
}

/// `struct __user_cap_data_struct`: one word of each set. Version 3 takes two.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties all capability sets of the calling thread; other threads keep theirs.
pub(super) fn drop_capabilities() -> Result<(), Gap> {
    let header = Header { version: VERSION, thread: 0 };
    let none = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both pointers are to locals of the layout the call wants; it only reads them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    checked(done, "Capabilities cannot be dropped")
}

/// From now on nothing that this thread does can give it privileges; filters and Landlock want
/// that.
pub(super) fn forbid_new() -> Result<(), Gap> {
    // SAFETY: no pointers are passed.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    checked(done.into(), "New privileges cannot be forbidden")
}

fn checked(done: libc::c_long, what: &str) -> Result<(), Gap> {
    if done == 0 {
        return Ok(());
    }
    Err(Gap::refused(what, &io::Error::last_os_error()))
}
