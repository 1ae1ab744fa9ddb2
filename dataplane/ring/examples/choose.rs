//! Which driver this machine would get, several times: how far the measurement can be trusted.
//!
//! `cargo run --release -p ringway-ring --example choose`

#![allow(clippy::print_stdout, reason = "it prints its result")]

use ringway_ring::{DriverChoice, Features, choose};

fn main() {
    let features = Features::probe();
    for _ in 0..10 {
        println!("{}", choose(DriverChoice::Auto, &features));
    }
}
