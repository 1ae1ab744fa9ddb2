//! The program `ringway`; everything it does is in the library.

use std::process::ExitCode;

use ringway_alloc::guard::{Counting, Mimalloc};

/// The same library that session heaps come from; counts what the process holds.
#[global_allocator]
static ALLOCATOR: Counting<Mimalloc> = Counting::new(Mimalloc);

fn main() -> ExitCode {
    ringway_control::cli::main(std::env::args_os())
}
