//! A snapshot for people: one line per counter that counted anything, drops by reason, histograms
//! as quantiles.

use std::fmt::Write;

use super::snapshot::{Histogram, Snapshot, Value, reasons, values};

/// Width of the column of names: the longest drop reason, indented.
const NAME_WIDTH: usize = 36;

/// Writes all of it: totals, and a column per core if there are several.
#[must_use]
pub fn write(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    about(&mut out, snapshot);
    let total = snapshot.total();
    let columns: Vec<Vec<(_, Value<'_>)>> = std::iter::once(&total)
        .chain(snapshot.cores.iter().filter(|_| snapshot.cores.len() > 1))
        .map(|words| values(&snapshot.layout, words).collect())
        .collect();
    if columns.len() > 1 {
        row(&mut out, "", &heads(columns.len()));
    }
    for (at, field) in snapshot.layout.iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|column| column[at].1).collect();
        match cells[0] {
            Value::Number(_) => numbers(&mut out, field.name, &cells),
            Value::Histogram(_) => histograms(&mut out, field.name, &cells),
            Value::ByReason(_) => by_reason(&mut out, field.name, &cells),
        }
    }
    out
}

fn about(out: &mut String, snapshot: &Snapshot) {
    let about = &snapshot.about;
    let state = if about.up { "up" } else { "down" };
    let key = about.public_key.as_deref().unwrap_or("none");
    let (interface, version) = (&about.interface, about.version);
    let (port, mtu, cores) = (about.listen_port, about.inner_mtu, snapshot.cores.len());
    line(out, format_args!("interface {interface} ({state}), ringway {version}, {cores} core(s)"));
    line(out, format_args!("public key {key}, port {port}, inner mtu {mtu}"));
    for part in &about.parts {
        line(out, format_args!("{} {} ({})", part.name, part.state, part.why));
    }
    for field in about.fields().iter().filter(|field| field.value > 0) {
        row(out, field.name, &[field.value.to_string()]);
    }
}

fn heads(count: usize) -> Vec<String> {
    let cores = (0..count - 1).map(|core| format!("core {core}"));
    std::iter::once("all".to_owned()).chain(cores).collect()
}

fn numbers(out: &mut String, name: &str, cells: &[Value<'_>]) {
    let cells: Vec<u64> = cells
        .iter()
        .map(|cell| match cell {
            Value::Number(value) => *value,
            Value::Histogram(_) | Value::ByReason(_) => 0,
        })
        .collect();
    if cells.iter().any(|value| *value > 0) {
        row(out, name, &cells.iter().map(u64::to_string).collect::<Vec<_>>());
    }
}

fn by_reason(out: &mut String, name: &str, cells: &[Value<'_>]) {
    let columns: Vec<&[u64]> = cells
        .iter()
        .filter_map(|cell| match cell {
            Value::ByReason(counts) => Some(*counts),
            Value::Number(_) | Value::Histogram(_) => None,
        })
        .collect();
    let sums: Vec<_> =
        columns.iter().map(|counts| counts.iter().sum::<u64>().to_string()).collect();
    row(out, name, &sums);
    for (reason, _) in reasons(columns[0]) {
        let counts: Vec<_> =
            columns.iter().map(|column| column[reason as usize].to_string()).collect();
        row(out, &format!("  {}", reason.name()), &counts);
    }
}

fn histograms(out: &mut String, name: &str, cells: &[Value<'_>]) {
    let columns: Vec<Histogram<'_>> = cells
        .iter()
        .filter_map(|cell| match cell {
            Value::Histogram(histogram) => Some(*histogram),
            Value::Number(_) | Value::ByReason(_) => None,
        })
        .collect();
    if columns.iter().all(|histogram| histogram.count() == 0) {
        return;
    }
    let cell = |of: &dyn Fn(&Histogram<'_>) -> String| columns.iter().map(of).collect::<Vec<_>>();
    row(out, name, &cell(&|histogram| histogram.count().to_string()));
    row(out, "  mean", &cell(&|histogram| format!("{:.1}", histogram.mean())));
    for (label, permille) in
        [("  p50 at most", 500), ("  p99 at most", 990), ("  p99.9 at most", 999)]
    {
        row(out, label, &cell(&|histogram| histogram.quantile(permille).to_string()));
    }
}

fn row(out: &mut String, name: &str, cells: &[String]) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{name:<NAME_WIDTH$}");
    for cell in cells {
        let _ = write!(out, " {cell:>16}");
    }
    out.push('\n');
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::snapshot::samples;

    #[test]
    fn people_see_totals_cores_reasons_and_quantiles() {
        let text = write(&samples::snapshot());
        for expected in [
            "interface wg0 (up), ringway 0.1.0, 2 core(s)\npublic key KEY=, port 51820, inner mtu 1420\ndriver uring (it was asked for)\n",
            "to_exit_bytes                                     150              100               50\n",
            "  mac1_wrong                                      150              100               50\n",
            "  p99 at most                                    2047             2047             2047\n",
            "ring_high_water                                     9                7                9\n",
        ] {
            assert!(text.contains(expected), "missing:\n{expected}\nin:\n{text}");
        }
        assert!(!text.contains("peer_gone"), "reasons that counted nothing are left out");
    }
}
