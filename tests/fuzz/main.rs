//! libFuzzer over one target, which the environment variable `RINGWAY_FUZZ` names.

#![no_main]

mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("RINGWAY_FUZZ").unwrap_or_default();
    let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    let found = targets::ALL.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("RINGWAY_FUZZ is one of {}", names.join(" "))).run
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
