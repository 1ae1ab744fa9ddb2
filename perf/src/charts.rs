//! Which plots a run has: each takes some figures of some scenarios. What was not measured is left
//! out, and a plot without values is not drawn.

use crate::plot::{Chart, Points, Series};
use crate::programs::Program;
use crate::report::{Better, Results, Spread};
use crate::scenarios::SPREAD_COUNTS;

/// A plot as a file.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Its file name.
    pub file: &'static str,
    /// Its headline.
    pub title: String,
    /// The picture.
    pub svg: String,
}

/// Label, scenario, figure.
type Point = (&'static str, &'static str, &'static str);

struct Plan {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    log: bool,
    points: &'static [Point],
}

const LATENCY: &str = "Round trips of one byte: idle, beside a 0.4 Gbit/s stream, beside 50 kpps";

const PLANS: &[Plan] = &[
    Plan {
        file: "throughput.svg",
        title: "TCP through the gateway (client and ends share one core)",
        unit: "Gbit/s",
        better: Better::Higher,
        log: false,
        points: &[
            ("1 stream up", "tcp-1-up", "Gbit/s"),
            ("1 stream down", "tcp-1-down", "Gbit/s"),
            ("4 streams up", "tcp-4-up", "Gbit/s"),
            ("4 streams down", "tcp-4-down", "Gbit/s"),
        ],
    },
    Plan {
        file: "cost.svg",
        title: "What TCP costs the gateway",
        unit: "CPU seconds per gigabyte",
        better: Better::Lower,
        log: false,
        points: &[
            ("1 stream up", "tcp-1-up", "CPU-s/GB"),
            ("1 stream down", "tcp-1-down", "CPU-s/GB"),
            ("4 streams up", "tcp-4-up", "CPU-s/GB"),
            ("4 streams down", "tcp-4-down", "CPU-s/GB"),
        ],
    },
    Plan {
        file: "packets-merged.svg",
        title: "Decryption, saturated: datagrams arrive merged",
        unit: "1,000 packets per second",
        better: Better::Higher,
        log: false,
        points: &[
            ("64 B", "flood-64-merged", "kpps"),
            ("256 B", "flood-256-merged", "kpps"),
            ("512 B", "flood-512-merged", "kpps"),
            ("1360 B", "flood-1360-merged", "kpps"),
            ("IMIX", "imix-merged", "kpps"),
        ],
    },
    Plan {
        file: "packets-single.svg",
        title: "Decryption, saturated: datagrams arrive one by one",
        unit: "1,000 packets per second",
        better: Better::Higher,
        log: false,
        points: &[
            ("64 B", "flood-64-single", "kpps"),
            ("256 B", "flood-256-single", "kpps"),
            ("512 B", "flood-512-single", "kpps"),
            ("1360 B", "flood-1360-single", "kpps"),
            ("IMIX", "imix-single", "kpps"),
        ],
    },
    Plan {
        file: "packet-cost.svg",
        title: "What a packet costs the gateway",
        unit: "CPU µs per packet",
        better: Better::Lower,
        log: false,
        points: &[
            ("decrypt 64 merged", "flood-64-merged", "µs/packet"),
            ("64 single", "flood-64-single", "µs/packet"),
            ("1360 merged", "flood-1360-merged", "µs/packet"),
            ("1360 single", "flood-1360-single", "µs/packet"),
            ("encrypt 64", "encrypt-64-single", "µs/packet"),
            ("encrypt 1360", "encrypt-1360-single", "µs/packet"),
        ],
    },
    Plan {
        file: "latency-tcp.svg",
        title: LATENCY,
        unit: "µs, TCP",
        better: Better::Lower,
        log: true,
        points: &[
            ("idle p50", "rr-tcp", "p50 µs"),
            ("idle p99", "rr-tcp", "p99 µs"),
            ("stream p50", "rr-tcp-stream", "p50 µs"),
            ("stream p99", "rr-tcp-stream", "p99 µs"),
            ("flood p50", "rr-tcp-flood", "p50 µs"),
            ("flood p99", "rr-tcp-flood", "p99 µs"),
        ],
    },
    Plan {
        file: "latency-udp.svg",
        title: LATENCY,
        unit: "µs, UDP",
        better: Better::Lower,
        log: true,
        points: &[
            ("idle p50", "rr-udp", "p50 µs"),
            ("idle p99", "rr-udp", "p99 µs"),
            ("stream p50", "rr-udp-stream", "p50 µs"),
            ("stream p99", "rr-udp-stream", "p99 µs"),
            ("flood p50", "rr-udp-flood", "p50 µs"),
            ("flood p99", "rr-udp-flood", "p99 µs"),
        ],
    },
    Plan {
        file: "handshakes.svg",
        title: "Connecting",
        unit: "per second of one core's time, or per second",
        better: Better::Higher,
        log: false,
        points: &[
            ("handshakes per core", "handshakes", "per core and s"),
            ("churn: connect and go", "churn", "per s"),
        ],
    },
    Plan {
        file: "memory.svg",
        title: "Resident memory after TCP load, one peer",
        unit: "MB",
        better: Better::Lower,
        log: true,
        points: &[
            ("1 stream up", "tcp-1-up", "RSS after MB"),
            ("1 stream down", "tcp-1-down", "RSS after MB"),
            ("4 streams up", "tcp-4-up", "RSS after MB"),
            ("4 streams down", "tcp-4-down", "RSS after MB"),
        ],
    },
    Plan {
        file: "memory-peers.svg",
        title: "Resident memory of 10,000 configured peers without traffic",
        unit: "kB per peer",
        better: Better::Lower,
        log: false,
        points: &[("10,000 peers", "memory-10000", "kB per peer")],
    },
];

const COUNTS: [u32; 6] = [1, 10, 100, 1_000, 10_000, 100_000];

/// All plots that have something to show.
#[must_use]
pub fn all(results: &Results) -> Vec<Drawn> {
    let mut drawn: Vec<Drawn> = PLANS.iter().filter_map(|plan| plan.draw(results)).collect();
    drawn.extend(SPREADS.iter().filter_map(|plan| plan.draw(results)));
    drawn
}

/// A figure by the number of sessions.
struct SpreadPlan {
    file: &'static str,
    title: &'static str,
    /// The scenario is called so, with the count between.
    name: (&'static str, &'static str),
    figure: &'static str,
    log: bool,
    counts: &'static [u32],
}

const SPREADS: [SpreadPlan; 4] = [
    SpreadPlan {
        file: "sessions-cost.svg",
        title: "100,000 single datagrams of 1,360 bytes per second, spread over so many sessions",
        name: ("sessions-", ""),
        figure: "µs/packet",
        log: false,
        counts: &COUNTS,
    },
    SpreadPlan {
        file: "sessions-memory.svg",
        title: "Resident memory with so many live sessions",
        name: ("sessions-", ""),
        figure: "RSS MB",
        log: true,
        counts: &COUNTS,
    },
    SpreadPlan {
        file: "sessions-decrypt.svg",
        title: "Decryption, saturated: single datagrams of 1,360 bytes of so many sessions in turn",
        name: ("flood-sessions-", "-single"),
        figure: "µs/packet",
        log: false,
        counts: &SPREAD_COUNTS,
    },
    SpreadPlan {
        file: "sessions-encrypt.svg",
        title: "Encryption, saturated: single packets of 1,360 bytes to so many clients in turn",
        name: ("encrypt-sessions-", ""),
        figure: "µs/packet",
        log: false,
        counts: &SPREAD_COUNTS,
    },
];

impl Plan {
    fn draw(&self, results: &Results) -> Option<Drawn> {
        let points = self.points.iter();
        let measured: Vec<&Point> =
            points.filter(|(_, scenario, _)| !results.rows(scenario).is_empty()).collect();
        let series = series(results, |program| {
            measured.iter().map(|(_, at, figure)| results.spread(at, program, figure)).collect()
        });
        let names = measured.iter().map(|(label, ..)| (*label).to_owned()).collect();
        let points = Points::Categories(names);
        let Self { file, title, unit, better, log, .. } = *self;
        let chart = Chart { title: title.to_owned(), unit, better, log, points, series };
        drawn(file, chart)
    }
}

impl SpreadPlan {
    fn scenario(&self, count: u32) -> String {
        format!("{}{count}{}", self.name.0, self.name.1)
    }

    fn draw(&self, results: &Results) -> Option<Drawn> {
        let Self { file, title, figure, log, counts, .. } = *self;
        let series = series(results, |program| {
            let at = |count: &u32| results.spread(&self.scenario(*count), program, figure);
            counts.iter().map(at).collect()
        });
        let points = Points::Counts("sessions", counts.to_vec());
        let (title, better) = (title.to_owned(), Better::Lower);
        drawn(file, Chart { title, unit: figure, better, log, points, series })
    }
}

fn drawn(file: &'static str, chart: Chart) -> Option<Drawn> {
    let title = format!("{} ({})", chart.title, chart.unit);
    (!chart.series.is_empty()).then(|| Drawn { file, title, svg: chart.svg() })
}

/// A series for each program that has a value.
fn series(results: &Results, values: impl Fn(Program) -> Vec<Option<Spread>>) -> Vec<Series> {
    let programs = results.programs().into_iter();
    let all = programs.map(|program| Series { program, values: values(program) });
    all.filter(|series| series.values.iter().any(Option::is_some)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Figure, Sample};
    use crate::scenarios::Scenario;

    #[test]
    fn every_point_names_a_scenario_that_exists() {
        let names: Vec<String> = Scenario::all().iter().map(Scenario::name).collect();
        for (_, scenario, _) in PLANS.iter().flat_map(|plan| plan.points) {
            assert!(names.iter().any(|name| name == scenario), "{scenario}");
        }
        for plan in SPREADS {
            for count in plan.counts {
                let name = plan.scenario(*count);
                assert!(names.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn only_plots_with_values_are_drawn() {
        let mut results = Results::default();
        let figures = vec![Figure::higher("Gbit/s", 3.0)];
        let scenario = "tcp-4-up".to_owned();
        results.push(Sample { scenario, program: Program::Ringway, repetition: 1, figures });
        let files: Vec<&str> = all(&results).iter().map(|drawn| drawn.file).collect();
        assert_eq!(files, ["throughput.svg"]);
    }
}
