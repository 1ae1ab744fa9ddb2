//! How the program ends: exit codes and the one sentence that goes with them.
//!
//! Everything that can stop the program becomes a [`Failure`]: which code, what happened where and
//! why, and what to do about it. The table of codes is the table in `control/manual/exit_codes.md`;
//! a test compares the two.

use std::fmt;
use std::io;
use std::path::Path;

macro_rules! statuses {
    ($($variant:ident $code:literal $doc:literal,)*) => {
        /// Exit code of the program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Status { $(#[doc = $doc] $variant = $code,)* }

        impl Status {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What the code tells a script.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

statuses! {
    Done 0 "Everything that was asked for was done.",
    Findings 1 "`doctor`, `health` or `audit verify` found something, or something failed that has no other code.",
    Usage 2 "The command line is wrong.",
    Config 3 "The configuration, or a key in it, is wrong; nothing was changed.",
    Unsupported 4 "A capability, a kernel feature or a program is missing.",
    PortBusy 5 "The UDP port is taken.",
    InterfaceExists 6 "The network interface exists already and belongs to somebody else.",
    NotRunning 7 "No gateway answers on its socket, or at the address of its API.",
    State 8 "A file or folder of the gateway could not be read or written.",
    Refused 9 "The running gateway refused what it was asked for and goes on unchanged.",
    Crashed 10 "A core stopped by itself.",
    NotFound 11 "What was named does not exist.",
    Conflict 12 "It does not fit the present state: a name is taken, something is in use, a limit is reached, or somebody else changed it in between.",
    Denied 13 "The API did not accept the credentials, or they do not allow this.",
    Unavailable 14 "The gateway cannot do it now; try again later.",
}

impl Status {
    /// The number given to the operating system.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why the program ends, in one sentence with the fix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub status: Status,
    /// What, where, why, and what to do. May have several lines if several things are wrong.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// A file or folder that could not be read or written. `doing` completes "Cannot … PATH".
    #[must_use]
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let hints = [
            (io::ErrorKind::PermissionDenied, ": run as root, or as the user that owns it"),
            (io::ErrorKind::NotFound, ": check the path"),
            (io::ErrorKind::ReadOnlyFilesystem, ": choose another place with --state-dir"),
            (io::ErrorKind::StorageFull, ": make room on the disk"),
        ];
        let hint =
            hints.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, hint)| hint);
        Self::new(Status::State, format!("Cannot {doing} {} ({error}){hint}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<u8> = Status::ALL.iter().map(|status| status.code()).collect();
        let expected: Vec<u8> = (0..Status::ALL.len()).map(|code| code as u8).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn the_manual_lists_every_code_with_its_meaning() {
        let manual = include_str!("../manual/exit_codes.md");
        for status in Status::ALL {
            let line = format!("| {} | {} |", status.code(), status.meaning());
            assert!(manual.contains(&line), "control/manual/exit_codes.md lacks: {line}");
        }
    }
}
