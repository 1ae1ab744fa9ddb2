//! The cases of the instruction counts by time, in nanoseconds per operation.
//!
//! ```text
//! cargo bench --package ringway-benches --bench time -- [PART OF A NAME]
//! ```
//!
//! Counts gate changes, times gate nothing: they say whether fewer instructions are also faster on
//! this machine. Rounds of all cases are interleaved, so that a busy moment falls on each of them;
//! the median and the range are told.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::time::{Duration, Instant};

use ringway_benches::cases::{self, Case, Work};

const ROUNDS: usize = 9;

/// Length of a round of one case.
const ROUND: Duration = Duration::from_millis(20);

struct Timed {
    case: Case,
    work: Work,
    ns_each: Vec<f64>,
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let all = cases::all().into_iter();
    let chosen =
        all.filter(|case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word)));
    let mut timed: Vec<Timed> =
        chosen.map(|case| Timed { work: (case.prepare)(), case, ns_each: Vec::new() }).collect();
    for one in &mut timed {
        let _warm_up = one.round(); // of caches and branch predictors
    }
    for _ in 0..ROUNDS {
        for one in &mut timed {
            let ns = one.round();
            one.ns_each.push(ns);
        }
    }
    println!("{:<32}{:>12}   range of {ROUNDS} rounds", "case", "ns each");
    for one in &mut timed {
        one.ns_each.sort_by(f64::total_cmp);
        let (least, most) = (one.ns_each[0], one.ns_each[ROUNDS - 1]);
        println!("{:<32}{:>12.1}   {least:.1}–{most:.1}", one.case.name, one.ns_each[ROUNDS / 2]);
    }
}

impl Timed {
    /// Runs it for a while; nanoseconds per operation.
    fn round(&mut self) -> f64 {
        let (start, mut runs) = (Instant::now(), 0_u32);
        // The clock costs some 20 ns: it is looked at every few runs.
        while runs == 0 || start.elapsed() < ROUND {
            for _ in 0..16 {
                (self.work)();
            }
            runs += 16;
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(runs) / f64::from(self.case.operations)
    }
}
