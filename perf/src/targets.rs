//! What the gateway has to reach, beside what was measured.
//!
//! A target is judged by the median of the run. Where it is a ratio, the other side is the best
//! peer of the same run, so that the machine has no say in it.

use std::fmt::Write as _;

use crate::programs::Program;
use crate::report::{Better, Results, is_rival};

/// Where more than this share of what was offered arrived, the load was the limit, however busy the
/// core: with little to do at a time a packet costs more, so that a core is full long before its
/// rate is reached.
const ARRIVED_MAX: f64 = 0.98;

/// How a figure is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// As it is.
    Itself,
    /// A packet rate or cost, which is the gateway's only if it was offered more than it took.
    Saturated,
    /// Divided by the best peer's.
    OfBestPeer,
    /// Divided by our own in another scenario, which shows whether a cost stays what it is.
    OfOwn(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Target {
    what: &'static str,
    scenario: &'static str,
    figure: &'static str,
    better: Better,
    measure: Measure,
    must: f64,
    goal: f64,
}

const fn at_most(
    what: &'static str,
    (scenario, figure): (&'static str, &'static str),
    must: f64,
    goal: f64,
) -> Target {
    Target { what, scenario, figure, better: Better::Lower, measure: Measure::Itself, must, goal }
}

const fn at_least(
    what: &'static str,
    (scenario, figure): (&'static str, &'static str),
    must: f64,
    goal: f64,
) -> Target {
    Target { better: Better::Higher, ..at_most(what, (scenario, figure), must, goal) }
}

const fn saturated(what: &'static str, scenario: &'static str, must: f64, goal: f64) -> Target {
    let measure = Measure::Saturated;
    Target { measure, ..at_least(what, (scenario, "kpps"), must, goal) }
}

const fn of_best(what: &'static str, figure: &'static str) -> Target {
    Target { measure: Measure::OfBestPeer, ..at_most(what, ("rr-tcp", figure), 0.8, 0.6) }
}

/// What a packet may cost with very many sessions, of what it costs with `few`.
const fn of_few(what: &'static str, scenario: &'static str, few: &'static str) -> Target {
    let measure = Measure::OfOwn(few);
    Target { measure, ..at_most(what, (scenario, "µs/packet"), 1.3, 1.1) }
}

const TARGETS: [Target; 25] = [
    at_most("TCP, 4 streams up, CPU-s/GB", ("tcp-4-up", "CPU-s/GB"), 1.2, 0.9),
    at_most("TCP, 4 streams down, CPU-s/GB", ("tcp-4-down", "CPU-s/GB"), 1.2, 0.9),
    saturated("decrypt 1360 B merged, kpps", "flood-1360-merged", 600.0, 900.0),
    saturated("decrypt 1360 B single, kpps", "flood-1360-single", 450.0, 600.0),
    saturated("decrypt 64 B merged, kpps", "flood-64-merged", 1_100.0, 1_800.0),
    saturated("decrypt 64 B single, kpps", "flood-64-single", 600.0, 700.0),
    Target {
        measure: Measure::Saturated,
        ..at_most(
            "encrypt 64 B, one per TUN read, µs",
            ("encrypt-64-single", "µs/packet"),
            1.8,
            1.4,
        )
    },
    of_best("TCP_RR idle, p50 / best peer", "p50 µs"),
    of_best("TCP_RR idle, p99 / best peer", "p99 µs"),
    at_least("handshakes per s and core", ("handshakes", "per core and s"), 7_500.0, 9_000.0),
    at_most("RSS per idle peer, kB", ("memory-10000", "kB per peer"), 3.0, 1.5),
    at_most("RSS after TCP up, one peer, MB", ("tcp-4-up", "RSS after MB"), 64.0, 48.0),
    at_most("RSS after TCP down, one peer, MB", ("tcp-4-down", "RSS after MB"), 64.0, 48.0),
    at_most("late datagrams, up", ("order-up", "late"), 0.0, 0.0),
    at_most("late datagrams, down", ("order-down", "late"), 0.0, 0.0),
    at_most("doubled datagrams, up", ("order-up", "doubles"), 0.0, 0.0),
    at_most("doubled datagrams, down", ("order-down", "doubles"), 0.0, 0.0),
    at_most("TCP retransmits, 4 streams up", ("tcp-4-up", "retransmits"), 0.0, 0.0),
    at_most("TCP retransmits, 4 streams down", ("tcp-4-down", "retransmits"), 0.0, 0.0),
    at_most("retransmits of a paced stream, up", ("paced-up", "retransmits"), 0.0, 0.0),
    at_most("retransmits of a paced stream, down", ("paced-down", "retransmits"), 0.0, 0.0),
    of_few(
        "decrypt, cost at 100,000 sessions / at 1",
        "flood-sessions-100000-single",
        "flood-sessions-1-single",
    ),
    of_few(
        "decrypt, cost at 100,000 sessions / at 100",
        "flood-sessions-100000-single",
        "flood-sessions-100-single",
    ),
    of_few(
        "encrypt, cost at 100,000 sessions / at 1",
        "encrypt-sessions-100000",
        "encrypt-sessions-1",
    ),
    of_few(
        "encrypt, cost at 100,000 sessions / at 100",
        "encrypt-sessions-100000",
        "encrypt-sessions-100",
    ),
];

/// The table of all targets, also of those that were not measured.
#[must_use]
pub fn table(results: &Results) -> String {
    let mut text = String::from(
        "## Targets\n\n| target | ringway | best peer | must | goal | met |\n|---|---|---|---|---|---|\n",
    );
    for target in &TARGETS {
        target.write(results, &mut text);
    }
    text.push_str(
        "\nJudged by the median. The absolute ones were set for a two-core Sapphire Rapids machine and \
         a client that sends and takes merged datagrams; on another processor only the ratios to \
         the best peer carry over. \"load's limit\": all but 2 % of what was offered arrived, so the \
         rate is the load's, and is judged divided by the share of the core that it took; a cost is \
         an upper bound then. Retransmits count whoever caused them, \
         client and ends included. \"of N\": so many peers were measured; the best of fewer is no \
         best. Peers are those that speak WireGuard. Costs by sessions are divided by our own.\n\n",
    );
    text
}

impl Target {
    fn write(&self, results: &Results, text: &mut String) {
        let Self { what, scenario, figure, better, must, goal, .. } = *self;
        let sign = if better == Better::Lower { "≤" } else { "≥" };
        let ours = results.spread(scenario, Program::Ringway, figure);
        let best = results.best_peer(scenario, figure, better);
        let programs = results.programs();
        let peers = programs.iter().filter(|one| is_rival(**one));
        let has_it = |peer: &&Program| results.spread(scenario, **peer, figure).is_some();
        let measured = peers.filter(has_it).count();
        let peer = best.map_or_else(
            || "not measured".to_owned(),
            |(program, spread)| format!("{spread} ({program}, of {measured})"),
        );
        let bounded = self.measure == Measure::Saturated && is_bounded(results, scenario);
        let (found, value) = match (ours, self.measure) {
            (None, _) => ("not measured".to_owned(), None),
            (Some(ours), Measure::Itself | Measure::Saturated) => {
                let rate = bounded.then(|| of_full_core(results, scenario, figure)).flatten();
                let note = match rate {
                    Some(rate) => format!(", load's limit; {rate:.0} of a full core"),
                    None if bounded => ", load's limit".to_owned(),
                    None => String::new(),
                };
                (format!("{ours}{note}"), Some(rate.unwrap_or(ours.median)))
            }
            (Some(ours), Measure::OfBestPeer) => match best {
                Some((_, peer)) if peer.median > 0.0 => {
                    let ratio = ours.median / peer.median;
                    (format!("{ratio:.2} ({ours})"), Some(ratio))
                }
                Some(_) | None => (format!("{ours}, no peer"), None),
            },
            (Some(ours), Measure::OfOwn(other)) => {
                match results.spread(other, Program::Ringway, figure) {
                    Some(one) if one.median > 0.0 => {
                        let ratio = ours.median / one.median;
                        (format!("{ratio:.2} ({ours} / {one} µs)"), Some(ratio))
                    }
                    Some(_) | None => (format!("{ours}, nothing to compare with"), None),
                }
            }
        };
        let met = value.map_or("unknown", |value| self.verdict(value, bounded));
        let _ =
            writeln!(text, "| {what} | {found} | {peer} | {sign} {must} | {sign} {goal} | {met} |");
    }

    /// What a value reaches. One that the load bounded may in truth be better.
    fn verdict(&self, value: f64, bounded: bool) -> &'static str {
        let reaches = |bound: f64| match self.better {
            Better::Lower => value <= bound,
            Better::Higher | Better::Neither => value >= bound,
        };
        match (reaches(self.must), reaches(self.goal), bounded) {
            (_, true, _) => "goal",
            (true, false, false) => "must",
            (true, false, true) => "must, or better",
            (false, false, false) => "**not met**",
            (false, false, true) => "unknown",
        }
    }
}

/// A rate that was the load's, by the share of the core that it took: what a full core carries at
/// the least, since a packet costs more where there is little to do at a time.
fn of_full_core(results: &Results, scenario: &str, figure: &str) -> Option<f64> {
    let median = |figure| Some(results.spread(scenario, Program::Ringway, figure)?.median);
    let used = median("core used").filter(|used| *used > 0.0)?;
    (figure == "kpps").then_some(median(figure)? / used.min(1.0))
}

/// Whether all that was offered to ours arrived.
fn is_bounded(results: &Results, scenario: &str) -> bool {
    let median = |figure| results.spread(scenario, Program::Ringway, figure);
    let all = median("kpps").zip(median("offered kpps"));
    all.is_some_and(|(arrived, offered)| arrived.median > offered.median * ARRIVED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Figure, Sample};

    fn results(samples: &[(&str, Program, &[Figure])]) -> Results {
        let mut results = Results::default();
        for (scenario, program, figures) in samples {
            results.push(Sample {
                scenario: (*scenario).to_owned(),
                program: *program,
                repetition: 1,
                figures: figures.to_vec(),
            });
        }
        results
    }

    fn line_of<'a>(table: &'a str, what: &str) -> &'a str {
        table.lines().find(|line| line.contains(what)).unwrap_or_default()
    }

    #[test]
    fn must_and_goal_are_told_apart_and_what_was_not_measured_is_unknown() {
        let table = table(&results(&[
            ("tcp-4-up", Program::Ringway, &[Figure::lower("CPU-s/GB", 1.0)]),
            ("tcp-4-down", Program::Ringway, &[Figure::lower("CPU-s/GB", 1.3)]),
            ("tcp-4-up", Program::Boringtun, &[Figure::lower("CPU-s/GB", 4.0)]),
        ]));
        assert!(
            line_of(&table, "4 streams up")
                .ends_with("| 4.00 (boringtun, of 1) | ≤ 1.2 | ≤ 0.9 | must |")
        );
        assert!(line_of(&table, "4 streams down").ends_with("| **not met** |"));
        assert!(line_of(&table, "handshakes").ends_with("| unknown |"));
    }

    #[test]
    fn a_ratio_needs_a_peer_and_a_rate_an_overload() {
        let rr = [Figure::lower("p50 µs", 120.0), Figure::lower("p99 µs", 300.0)];
        let peer = [Figure::lower("p50 µs", 240.0), Figure::lower("p99 µs", 310.0)];
        let flood = [Figure::higher("kpps", 700.0), Figure::told("offered kpps", 701.0)];
        let some = [
            Figure::higher("kpps", 590.0),
            Figure::told("offered kpps", 591.0),
            Figure::told("core used", 0.8),
        ];
        let table = table(&results(&[
            ("flood-64-single", Program::Ringway, &some),
            ("rr-tcp", Program::Ringway, &rr),
            ("rr-tcp", Program::Gotatun, &peer),
            ("flood-1360-merged", Program::Ringway, &flood),
            ("flood-sessions-100-single", Program::Ringway, &[Figure::lower("µs/packet", 4.0)]),
            ("flood-sessions-100000-single", Program::Ringway, &[Figure::lower("µs/packet", 5.0)]),
        ]));
        assert!(line_of(&table, "p50 / best").contains("| 0.50 (120) |"), "{table}");
        assert!(line_of(&table, "p50 / best").ends_with("| goal |"));
        assert!(line_of(&table, "p99 / best").ends_with("| **not met** |"));
        let many = line_of(&table, "decrypt, cost at 100,000 sessions / at 100");
        assert!(many.contains("| 1.25 (5.00 / 4.00 µs) | not measured |"), "{many}");
        assert!(many.ends_with("| must |"));
        let merged = line_of(&table, "1360 B merged");
        assert!(merged.contains("700, load's limit") && merged.ends_with("| must, or better |"));
        let single = line_of(&table, "64 B single");
        assert!(single.contains("590, load's limit; 738 of a full core"), "{single}");
    }
}
