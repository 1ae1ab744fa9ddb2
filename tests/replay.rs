//! Runs every fuzz target over its committed corpus.
//!
//! The corpus holds what fuzzing found interesting and every input that once broke something, so a
//! bug that was mended stays mended. Growing it is `tools/fuzz`.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::PathBuf;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_target_keeps_its_promises_over_its_corpus() {
    for target in targets::ALL {
        let folder = corpus().join(target.name);
        let entries = std::fs::read_dir(&folder).expect("a target has a corpus");
        let mut inputs: Vec<PathBuf> =
            entries.map(|entry| entry.expect("readable").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for input in inputs {
            let bytes = std::fs::read(&input).expect("readable");
            // Shown only if the test fails.
            eprintln!("{} over {}", target.name, input.display());
            (target.run)(&bytes);
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let names: BTreeSet<&str> = targets::ALL.iter().map(|target| target.name).collect();
    for entry in std::fs::read_dir(corpus()).expect("the corpus is there") {
        let name = entry.expect("readable").file_name();
        assert!(name.to_str().is_some_and(|name| names.contains(name)), "{}", name.display());
    }
}

#[test]
fn every_target_survives_short_and_random_inputs() {
    let mut state = 1_u64;
    let mut byte = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    for target in targets::ALL {
        for len in 0..128 {
            let bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
            (target.run)(&bytes);
            (target.run)(&vec![0; len]);
            (target.run)(&vec![0xff; len]);
        }
    }
}
