//! A snapshot as OpenMetrics text (version 1.0.0).
//!
//! Every sample carries its core; sums are the reader's business (`sum without (core)`).
//! Nanoseconds become seconds, the base unit of the format. Histogram bounds are the largest whole
//! values of the buckets.

use std::fmt::Write;

use ringway_dataplane::counters::Kind;
use ringway_proto::DropReason;

use super::snapshot::{Histogram, Snapshot, Value, largest_of, values};

/// Media type of the text, for whoever serves it over HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all of it, with the end mark.
#[must_use]
pub fn write(snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(64 << 10);
    about(&mut out, snapshot);
    let cores: Vec<Vec<_>> = (0..snapshot.cores.len())
        .map(|core| values(&snapshot.layout, &snapshot.cores[core]).collect())
        .collect();
    for (at, field) in snapshot.layout.iter().enumerate() {
        let family = Family::new(field.name);
        family.head(&mut out, field.kind, field.help);
        for (core, fields) in cores.iter().enumerate() {
            match fields[at].1 {
                Value::Number(value) => {
                    let suffix = if field.kind == Kind::Counter { "_total" } else { "" };
                    let value = family.scale(value);
                    line(
                        &mut out,
                        format_args!("{}{suffix}{{core=\"{core}\"}} {value}", family.name),
                    );
                }
                Value::Histogram(histogram) => family.histogram(&mut out, core, histogram),
                Value::ByReason(counts) => {
                    for (reason, count) in DropReason::ALL.iter().zip(counts) {
                        let (name, reason) = (&family.name, reason.name());
                        line(
                            &mut out,
                            format_args!(
                                "{name}_total{{core=\"{core}\",reason=\"{reason}\"}} {count}"
                            ),
                        );
                    }
                }
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn about(out: &mut String, snapshot: &Snapshot) {
    let about = &snapshot.about;
    out.push_str("# TYPE ringway_build info\n# HELP ringway_build Version of the program.\n");
    line(out, format_args!("ringway_build_info{{version=\"{}\"}} 1", escape(about.version)));
    if !about.parts.is_empty() {
        out.push_str("# TYPE ringway_part info\n# HELP ringway_part What depends on the kernel.\n");
    }
    for part in &about.parts {
        let (name, state, why) = (part.name, part.state, escape(&part.why));
        line(
            out,
            format_args!("ringway_part_info{{part=\"{name}\",state=\"{state}\",why=\"{why}\"}} 1"),
        );
    }
    for field in about.fields() {
        let family = Family::new(field.name);
        family.head(out, field.kind, field.help);
        let suffix = if field.kind == Kind::Counter { "_total" } else { "" };
        line(out, format_args!("{}{suffix} {}", family.name, field.value));
    }
}

/// A metric family: its name, and whether its values are nanoseconds to be written as seconds.
struct Family {
    name: String,
    seconds: bool,
}

impl Family {
    fn new(name: &str) -> Self {
        name.strip_suffix("_ns").map_or_else(
            || Self { name: format!("ringway_{name}"), seconds: false },
            |stem| Self { name: format!("ringway_{stem}_seconds"), seconds: true },
        )
    }

    fn head(&self, out: &mut String, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter | Kind::ByReason => "counter",
            Kind::Gauge | Kind::Peak => "gauge",
            Kind::Histogram => "histogram",
        };
        line(out, format_args!("# TYPE {} {kind}", self.name));
        if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| self.name.ends_with(**unit)) {
            line(out, format_args!("# UNIT {} {unit}", self.name));
        }
        line(out, format_args!("# HELP {} {}", self.name, escape(help)));
    }

    fn histogram(&self, out: &mut String, core: usize, histogram: Histogram<'_>) {
        let name = &self.name;
        let mut sum = 0;
        for (bucket, count) in histogram.counts.iter().enumerate() {
            sum += count;
            let bound = if bucket + 1 == histogram.counts.len() {
                "+Inf".to_owned()
            } else if self.seconds {
                format!("{:?}", largest_of(bucket) as f64 / 1e9)
            } else {
                format!("{:?}", largest_of(bucket) as f64)
            };
            line(out, format_args!("{name}_bucket{{core=\"{core}\",le=\"{bound}\"}} {sum}"));
        }
        line(out, format_args!("{name}_count{{core=\"{core}\"}} {sum}"));
        line(out, format_args!("{name}_sum{{core=\"{core}\"}} {}", self.scale(histogram.sum)));
    }

    fn scale(&self, value: u64) -> String {
        if self.seconds { format!("{:?}", value as f64 / 1e9) } else { value.to_string() }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
#[path = "openmetrics_tests.rs"]
mod tests;
