//! A snapshot as OpenMetrics text (version 1.0.0), with what control says of itself.
//!
//! Counters of cores carry their core; sums are the reader's business (`sum without (core)`).
//! Nanoseconds and milliseconds become seconds, the base unit of the format. Histogram bounds are
//! the largest whole values of the buckets. Families that are no counter of a core are written by
//! [`super::about`].

use ringway_dataplane::counters::Kind;
use ringway_proto::DropReason;

use super::about;
use super::exposition::{Type, head, line, real, sample};
use super::service::ServiceStats;
use super::snapshot::{Histogram, Snapshot, Value, largest_of, values};

/// Media type of the text, for whoever serves it over HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all of it, with the end mark. What is said was true at one moment, that of `service`.
#[must_use]
pub fn write(snapshot: &Snapshot, service: &ServiceStats) -> String {
    let mut out = String::with_capacity((64 << 10) + 400 * service.live.sessions.len());
    gateway(&mut out, snapshot);
    about::write(&mut out, snapshot, service);
    let cores: Vec<Vec<_>> = (0..snapshot.cores.len())
        .map(|core| values(&snapshot.layout, &snapshot.cores[core]).collect())
        .collect();
    for (at, field) in snapshot.layout.iter().enumerate() {
        let family = Family::new(field.name);
        family.head(&mut out, field.kind, field.help);
        for (core, fields) in cores.iter().enumerate() {
            family.core(&mut out, field.kind, core, fields[at].1);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn gateway(out: &mut String, snapshot: &Snapshot) {
    let about = &snapshot.about;
    head(out, "ringway_build", Type::Info, "Version of the program.");
    sample(out, "ringway_build", "_info", &[("version", about.version)], 1);
    if !about.parts.is_empty() {
        head(out, "ringway_part", Type::Info, "What depends on the kernel.");
    }
    for part in &about.parts {
        let labels = [("part", part.name), ("state", part.state), ("why", &part.why)];
        sample(out, "ringway_part", "_info", &labels, 1);
    }
    for field in about.fields() {
        let family = Family::new(field.name);
        family.head(out, field.kind, field.help);
        let suffix = if field.kind == Kind::Counter { "_total" } else { "" };
        sample(out, &family.name, suffix, &[], field.value);
    }
}

/// A metric family: its name, and how many of its units are one of the format's.
struct Family {
    name: String,
    per_unit: Option<f64>,
}

impl Family {
    fn new(name: &str) -> Self {
        let seconds = |stem: &str, per_unit: f64| Self {
            name: format!("ringway_{stem}_seconds"),
            per_unit: Some(per_unit),
        };
        if let Some(stem) = name.strip_suffix("_ns") {
            return seconds(stem, 1e9);
        }
        if let Some(stem) = name.strip_suffix("_ms") {
            return seconds(stem, 1e3);
        }
        Self { name: format!("ringway_{name}"), per_unit: None }
    }

    fn head(&self, out: &mut String, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter | Kind::ByReason => Type::Counter,
            Kind::Gauge | Kind::Peak => Type::Gauge,
            Kind::Histogram => Type::Histogram,
        };
        head(out, &self.name, kind, help);
    }

    fn core(&self, out: &mut String, kind: Kind, core: usize, value: Value<'_>) {
        let name = &self.name;
        match value {
            Value::Number(value) => {
                let suffix = if kind == Kind::Counter { "_total" } else { "" };
                let value = self.scale(value);
                line(out, format_args!("{name}{suffix}{{core=\"{core}\"}} {value}"));
            }
            Value::Histogram(histogram) => self.histogram(out, core, histogram),
            Value::ByReason(counts) => {
                for (reason, count) in DropReason::ALL.iter().zip(counts) {
                    let core = core.to_string();
                    let labels = [("core", core.as_str()), ("reason", reason.name())];
                    sample(out, name, "_total", &labels, count);
                }
            }
        }
    }

    fn histogram(&self, out: &mut String, core: usize, histogram: Histogram<'_>) {
        let name = &self.name;
        let mut sum = 0;
        for (bucket, count) in histogram.counts.iter().enumerate() {
            sum += count;
            let bound = if bucket + 1 == histogram.counts.len() {
                "+Inf".to_owned()
            } else {
                real(largest_of(bucket) as f64 / self.per_unit.unwrap_or(1.0))
            };
            line(out, format_args!("{name}_bucket{{core=\"{core}\",le=\"{bound}\"}} {sum}"));
        }
        line(out, format_args!("{name}_count{{core=\"{core}\"}} {sum}"));
        line(out, format_args!("{name}_sum{{core=\"{core}\"}} {}", self.scale(histogram.sum)));
    }

    fn scale(&self, value: u64) -> String {
        match self.per_unit {
            Some(per_unit) => real(value as f64 / per_unit),
            None => value.to_string(),
        }
    }
}

#[cfg(test)]
#[path = "openmetrics_tests.rs"]
mod tests;
