//! A snapshot as one JSON object: `about`, `total`, and `cores` in order.

use serde_json::{Map, Value as Json, json};

use ringway_dataplane::counters::Field;
use ringway_proto::DropReason;

use super::snapshot::{Histogram, Snapshot, Value, largest_of, values};

/// Writes all of it on one line.
#[must_use]
pub fn write(snapshot: &Snapshot) -> String {
    let cores: Vec<_> =
        snapshot.cores.iter().map(|words| object(&snapshot.layout, words)).collect();
    let total = object(&snapshot.layout, &snapshot.total());
    let mut text = json!({ "about": about(snapshot), "total": total, "cores": cores }).to_string();
    text.push('\n');
    text
}

fn about(snapshot: &Snapshot) -> Json {
    let about = &snapshot.about;
    let mut object = Map::new();
    object.insert("interface".into(), json!(about.interface));
    object.insert("version".into(), json!(about.version));
    object.insert("public_key".into(), json!(about.public_key));
    object.insert("listen_port".into(), json!(about.listen_port));
    let parts = about
        .parts
        .iter()
        .map(|part| (part.name.to_owned(), json!({ "state": part.state, "why": part.why })));
    object.insert("parts".into(), Json::Object(parts.collect()));
    for field in about.fields() {
        object.insert(field.name.into(), json!(field.value));
    }
    Json::Object(object)
}

fn object(layout: &[Field], words: &[u64]) -> Json {
    let members = values(layout, words).map(|(field, value)| {
        let value = match value {
            Value::Number(value) => json!(value),
            Value::Histogram(histogram) => histogram_object(histogram),
            Value::ByReason(counts) => DropReason::ALL
                .iter()
                .zip(counts)
                .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
                .collect::<Map<_, _>>()
                .into(),
        };
        (field.name.to_owned(), value)
    });
    Json::Object(members.collect())
}

/// Buckets are `[largest value, count]`, empty ones left out.
fn histogram_object(histogram: Histogram<'_>) -> Json {
    let buckets: Vec<_> = histogram
        .counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(bucket, count)| json!([largest_of(bucket), count]))
        .collect();
    json!({
        "count": histogram.count(),
        "sum": histogram.sum,
        "mean": histogram.mean(),
        "p50": histogram.quantile(500),
        "p99": histogram.quantile(990),
        "p999": histogram.quantile(999),
        "buckets": buckets,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::stats::snapshot::samples;

    #[test]
    fn programs_see_every_number_per_core_and_summed() {
        let text = write(&samples::snapshot());
        assert_eq!(text.lines().count(), 1);
        let object: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(object["about"]["interface"], "wg0");
        assert_eq!(object["about"]["uptime_seconds"], 61);
        assert_eq!(object["about"]["parts"]["driver"]["state"], "uring");
        assert_eq!(object["total"]["to_exit_bytes"], 150);
        assert_eq!(object["total"]["drops"]["mac1_wrong"], 150);
        assert_eq!(object["total"]["drops"]["peer_gone"], 0);
        assert_eq!(object["cores"][1]["turn_ns"]["buckets"], json!([[0, 1], [2047, 2]]));
        assert_eq!(object["cores"][1]["turn_ns"]["p50"], 2047);
    }
}
