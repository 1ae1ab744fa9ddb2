//! The WireGuard configuration protocol: what `wg` and `wg-quick` speak on a Unix socket per
//! interface.
//!
//! [`parse`] turns bytes into requests, [`mod@write`] turns peers into text; both are pure.
//! [`serve`] talks to clients on the control thread. Answers carry the error numbers that
//! wireguard-go gives. Two differences are deliberate: a request with a bad line changes nothing at
//! all (there, the lines before it stay applied), and a request whose sender goes away before the
//! empty line is refused (there, a cut-off prefix may be applied).
//!
//! It must not know cores, channels or packets.

pub mod parse;
pub mod serve;
pub mod write;

use std::path::{Path, PathBuf};

/// Folder of the sockets, one per interface, as `wg` expects it.
pub const FOLDER: &str = "/var/run/wireguard";

/// Where `wg` looks for the socket of an interface.
#[must_use]
pub fn socket_path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.sock"))
}

/// An error number as the protocol writes it: negative, 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Success.
    pub const OK: Self = Self(0);
    /// A change of a gateway that has a configuration file (EPERM).
    pub const NOT_PERMITTED: Self = Self(-libc::EPERM);
    /// Input that cannot be read as lines (EIO).
    pub const IO: Self = Self(-libc::EIO);
    /// A request larger than [`parse::REQUEST_BYTES_MAX`] (E2BIG).
    pub const TOO_BIG: Self = Self(-libc::E2BIG);
    /// A key or value that means nothing (EINVAL).
    pub const INVALID: Self = Self(-libc::EINVAL);
    /// More peers than the gateway may hold (ENOSPC).
    pub const NO_SPACE: Self = Self(-libc::ENOSPC);
    /// A line that is no `key=value` (EPROTO).
    pub const PROTOCOL: Self = Self(-libc::EPROTO);
    /// The port is taken (EADDRINUSE).
    pub const PORT_IN_USE: Self = Self(-libc::EADDRINUSE);
    /// The gateway is stopping (ESHUTDOWN).
    pub const STOPPING: Self = Self(-libc::ESHUTDOWN);
}
