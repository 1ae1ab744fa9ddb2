//! What is counted: one file per area, each giving its cases.
//!
//! Only scalar code and what LLVM makes of it: valgrind knows no AVX-512, so cryptography is
//! measured by time in `perf`. Every case works on fixed data, so that a count does not depend on
//! the run.

mod alloc;
mod checksum;
mod classify;
mod coalesce;
mod link;
mod lookup;
mod packets;
mod replay;
mod segment;

/// A function with everything it needs to run.
pub type Work = Box<dyn FnMut()>;

/// Something whose instructions are counted.
pub struct Case {
    /// `area/what`, as in `baseline.toml`.
    pub name: &'static str,
    /// Operations that one run of the work does; counts are given per operation.
    pub operations: u32,
    /// Makes the data. Not counted.
    pub prepare: fn() -> Work,
}

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    let areas: [&[Case]; 8] = [
        checksum::CASES,
        segment::CASES,
        coalesce::CASES,
        lookup::CASES,
        replay::CASES,
        classify::CASES,
        link::CASES,
        alloc::CASES,
    ];
    let copy = |case: &Case| Case { ..*case };
    areas.into_iter().flatten().map(copy).collect()
}
