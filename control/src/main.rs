//! The program `ringway`; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway_control::cli::main(std::env::args_os())
}
