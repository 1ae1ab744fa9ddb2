//! Which fast paths are left out, told to whoever has them.
//!
//! A path of the kernel is left out by not knowing of it: its driver sees a kernel that lacks it,
//! and does what it would do there. So leaving out is no case of its own on any packet's way.

use ringway_numa::region::Pages;
use ringway_proto::crypto::Batch;
use ringway_ring::{Features, RingMode, TunOffloads, ZeroCopyMode};

use super::Setup;
use crate::config::{FastPath, FastPaths};
use crate::stats::snapshot::Part;

impl Setup {
    /// The same without the fast paths that its workers are to do without.
    #[must_use]
    pub fn leave_out(mut self) -> Self {
        let without = self.workers.without;
        self.udp.gro &= !without.has(FastPath::Gro);
        // What is merged is written as a super-packet, which is one of the offloads.
        let merge = !without.has(FastPath::Coalescing) && !without.has(FastPath::TunOffload);
        self.policy.merge &= merge;
        if without.has(FastPath::ZeroCopy) {
            self.workers.zero_copy = ZeroCopyMode::Off;
        }
        self
    }
}

/// Makes the kernel look as if it lacked what is left out, and this process do without the rest.
pub(crate) fn hide(features: &mut Features, without: FastPaths) {
    features.udp_gro &= !without.has(FastPath::Gro);
    if without.has(FastPath::Gso) {
        features.udp_segments_max = 1;
    }
    if let Ok(uring) = &mut features.uring {
        uring.read_multishot &= !without.has(FastPath::Multishot);
        uring.send_zero_copy &= !without.has(FastPath::ZeroCopy);
        if without.has(FastPath::Deferred) {
            uring.mode = RingMode::Plain;
        }
    }
    if without.has(FastPath::Avx512) {
        Batch::forbid();
    }
}

/// What the TUN is asked for.
pub(crate) const fn offloads(without: FastPaths) -> TunOffloads {
    if without.has(FastPath::TunOffload) { TunOffloads::NONE } else { TunOffloads::ALL }
}

/// What packet memory lies in.
pub(super) const fn pages(without: FastPaths) -> Pages {
    if without.has(FastPath::HugePages) { Pages::Small } else { Pages::Transparent }
}

/// How the fast paths stand, for whoever looks at the gateway.
pub(super) fn part(without: FastPaths, features: &Features) -> Part {
    let state = match without {
        FastPaths::ALL => "none",
        some if !some.is_empty() => "some",
        _ => "all",
    };
    Part { name: "fast_paths", state, why: format!("left out: {without}; {features}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;
    use crate::run::workers_by_flags;

    fn masked(words: &str) -> Features {
        let mut features = Features::probe();
        hide(&mut features, FastPaths::from_words(words).unwrap());
        features
    }

    #[test]
    fn a_kernel_of_which_nothing_is_left_out_stays_as_it_is() {
        assert_eq!(masked("none"), Features::probe());
        assert_eq!(masked("tun-offload,coalescing,huge-pages"), Features::probe());
    }

    #[test]
    fn each_path_hides_what_it_is_made_of_and_nothing_else() {
        let known = Features::probe();
        let gso = Features { udp_segments_max: 1, ..known.clone() };
        assert_eq!(masked("gso"), gso);
        assert_eq!(masked("gro"), Features { udp_gro: false, ..known.clone() });
        let Ok(uring) = &known.uring else { return };
        for (word, expected) in [
            ("multishot", (uring.mode, false, uring.send_zero_copy)),
            ("zero-copy", (uring.mode, uring.read_multishot, false)),
            ("deferred", (RingMode::Plain, uring.read_multishot, uring.send_zero_copy)),
        ] {
            let found = masked(word).uring.unwrap();
            let found = (found.mode, found.read_multishot, found.send_zero_copy);
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn the_state_says_whether_all_some_or_none_are_used_and_names_those_that_are_not() {
        let features = Features::probe();
        for (words, state, names) in [
            ("none", "all", "left out: none;"),
            ("gso,gro", "some", "left out: gro, gso;"),
            ("all", "none", "left out: gro, gso, tun-offload, coalescing,"),
        ] {
            let part = part(FastPaths::from_words(words).unwrap(), &features);
            assert_eq!(part.state, state, "{words}");
            assert!(part.why.starts_with(names), "{part:?}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_reach_the_workers() {
        let text = "[workers]\nwithout = [\"gro\", \"gso\"]\nzero_copy = \"on\"\n";
        let read = |without: Option<&str>| {
            let without = without.map(|words| FastPaths::from_words(words).unwrap());
            let flags = Overrides { without, ..Overrides::default() };
            crate::config::Config::parse(text, "t", Path::new("/"), &flags).unwrap().workers
        };
        assert_eq!(read(None).without.to_string(), "gro, gso");
        assert_eq!(read(Some("avx512")).without.to_string(), "avx512");
        assert!(read(Some("none")).without.is_empty());
        let flags = Overrides { without: Some(FastPaths::ALL), ..Overrides::default() };
        assert_eq!(workers_by_flags(&flags).unwrap().without, FastPaths::ALL);
    }
}
