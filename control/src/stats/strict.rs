//! A reader of OpenMetrics text that takes nothing but the format: for tests of what is written.
//!
//! Stricter than readers in the field: heads in their order, families and series in one piece,
//! suffixes and values by type, escapes, the end mark. Written from the specification (version
//! 1.0.0) and not from the writer, so that both cannot be wrong together.

use std::collections::{BTreeMap, BTreeSet};

/// A family as it was read.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: Option<String>,
    /// Name, labels in order, value.
    pub(crate) samples: Vec<Sample>,
}

/// Names and values.
type Labels = Vec<(String, String)>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) type Families = BTreeMap<String, Family>;

/// Reads all of it.
pub(crate) fn read(text: &str) -> Result<Families, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no end mark")?;
    let mut reader = Reader::default();
    if !body.is_empty() {
        let body = body.strip_suffix('\n').ok_or("the end mark is not on a line of its own")?;
        for (number, line) in body.split('\n').enumerate() {
            reader.line(line).map_err(|why| format!("line {}: {why}: {line:?}", number + 1))?;
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    families: Families,
    current: String,
    series: BTreeSet<String>,
    /// Metrics (labels without those of points) that have ended, by family.
    metrics: BTreeSet<String>,
    metric: Option<String>,
    names: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some(head) => self.head(head),
            None => self.sample(line),
        }
    }

    fn head(&mut self, head: &str) -> Result<(), String> {
        let (what, rest) = head.split_once(' ').ok_or("a head without a name")?;
        let (name, value) = rest.split_once(' ').ok_or("a head without a value")?;
        check_name(name, true)?;
        if what == "TYPE" {
            if self.families.contains_key(name) {
                return Err("a family that comes twice".to_owned());
            }
            if !["counter", "gauge", "histogram", "summary", "info"].contains(&value) {
                return Err("an unknown type".to_owned());
            }
            self.current = name.to_owned();
            self.metric = None;
            self.metrics.clear();
            let family = Family { kind: value.to_owned(), ..Family::default() };
            self.families.insert(name.to_owned(), family);
            return Ok(());
        }
        if name != self.current {
            return Err("a head of another family, or before its TYPE".to_owned());
        }
        let family = self.families.get_mut(name).ok_or("no TYPE")?;
        if !family.samples.is_empty() || family.help.is_some() {
            return Err("a head after HELP or a sample".to_owned());
        }
        match what {
            "UNIT" if family.unit.is_none() => {
                if !name.ends_with(&format!("_{value}")) {
                    return Err("a name that does not end in its unit".to_owned());
                }
                family.unit = Some(value.to_owned());
            }
            "HELP" => family.help = Some(unescape(value)?),
            _ => return Err("an unknown or repeated head".to_owned()),
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
        let name = &line[..end];
        check_name(name, true)?;
        let (labels, rest) = match line[end..].strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), &line[end..]),
        };
        let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
        let sample = Sample { name: name.to_owned(), labels, value: number(value)? };
        let family = self.families.get_mut(&self.current).ok_or("a sample without a family")?;
        let suffix = name.strip_prefix(&*self.current).ok_or("a sample of another family")?;
        check_value(&family.kind, suffix, value, &sample)?;
        let owner = self.names.entry(name.to_owned()).or_insert_with(|| self.current.clone());
        if *owner != self.current {
            return Err(format!("a name that belongs to {owner}"));
        }
        if !self.series.insert(format!("{name} {:?}", sorted(&sample.labels))) {
            return Err("a series that comes twice".to_owned());
        }
        let point = |(label, _): &&(String, String)| label != "le" && label != "quantile";
        let own: Vec<_> = sample.labels.iter().filter(point).cloned().collect();
        let metric = format!("{:?}", sorted(&own));
        if self.metric.as_ref() != Some(&metric) {
            if !self.metrics.insert(metric.clone()) {
                return Err("a metric in two pieces".to_owned());
            }
            self.metric = Some(metric);
        }
        family.samples.push(sample);
        Ok(())
    }

    fn finish(self) -> Result<Families, String> {
        for (name, family) in &self.families {
            if family.help.is_none() {
                return Err(format!("{name} has no help"));
            }
            if family.kind == "histogram" {
                check_histograms(family).map_err(|why| format!("{name}: {why}"))?;
            }
            // A family must not look like a sample of another one.
            if let Some(owner) = self.names.get(name)
                && owner != name
            {
                return Err(format!("{name} is also a sample of {owner}"));
            }
        }
        Ok(self.families)
    }
}

fn check_value(kind: &str, suffix: &str, text: &str, sample: &Sample) -> Result<(), String> {
    let allowed: &[&str] = match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_count", "_sum"],
        "summary" => &["", "_count", "_sum"],
        _ => &["_info"],
    };
    if !allowed.contains(&suffix) {
        return Err(format!("a {kind} with the suffix {suffix:?}"));
    }
    if sample.label("le").is_some() != (suffix == "_bucket") {
        return Err("le belongs to buckets".to_owned());
    }
    if sample.label("quantile").is_some() != (kind == "summary" && suffix.is_empty()) {
        return Err("quantile belongs to quantiles of summaries".to_owned());
    }
    if let Some(quantile) = sample.label("quantile")
        && !(0.0..=1.0).contains(&number(quantile)?)
    {
        return Err("a quantile outside 0 to 1".to_owned());
    }
    let whole = ["_bucket", "_count"].contains(&suffix);
    if whole && !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a count that is not whole".to_owned());
    }
    if kind != "gauge" && (sample.value.is_nan() || sample.value < 0.0) {
        return Err("a negative count, or none".to_owned());
    }
    if kind == "info" && text != "1" {
        return Err("an info that is not 1".to_owned());
    }
    Ok(())
}

/// Bounds rise, counts do not fall, the last bucket is all, and there are count and sum.
fn check_histograms(family: &Family) -> Result<(), String> {
    let mut metrics: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for sample in &family.samples {
        let own: Vec<_> = sample.labels.iter().filter(|(name, _)| name != "le").cloned().collect();
        metrics.entry(format!("{:?}", sorted(&own))).or_default().push(sample);
    }
    for samples in metrics.values() {
        let mut bounds = Vec::new();
        for sample in samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let bound = sample.label("le").ok_or("no le")?;
            if bound != "+Inf" && !bound.contains(['.', 'e']) {
                return Err(format!("the bound {bound} is not written as a real number"));
            }
            bounds.push((number(bound)?, sample.value));
        }
        if !bounds.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Err("bounds that do not rise, or counts that fall".to_owned());
        }
        let (last, all) = bounds.last().ok_or("no buckets")?;
        let find = |suffix: &str| samples.iter().find(|sample| sample.name.ends_with(suffix));
        let count = find("_count").ok_or("no count")?.value;
        find("_sum").ok_or("no sum")?;
        if !last.is_infinite() || (count - all).abs() > 0.0 {
            return Err("the last bucket is not all".to_owned());
        }
    }
    Ok(())
}

/// Labels up to the closing brace, and what follows.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels: Labels = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        check_name(name, false)?;
        if labels.iter().any(|(known, _)| known == name) {
            return Err("a label that comes twice".to_owned());
        }
        let mut escaped = false;
        let closing = |c: char| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        };
        let end = value.find(closing).ok_or("a value that does not end")?;
        labels.push((name.to_owned(), unescape(&value[..end])?));
        rest = &value[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some(escaped @ ('\\' | '"')) => out.push(escaped),
                _ => return Err("an unknown escape".to_owned()),
            },
            '"' => return Err("a quote that is not escaped".to_owned()),
            plain => out.push(plain),
        }
    }
    Ok(out)
}

fn check_name(name: &str, colons: bool) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    let valid = name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
    if valid { Ok(()) } else { Err(format!("{name:?} is no name")) }
}

fn number(text: &str) -> Result<f64, String> {
    let plain = |c: char| c.is_ascii_digit() || "+-.e".contains(c);
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text.chars().all(plain) => text.parse().map_err(|_| format!("{text:?} is no number")),
        _ => Err(format!("{text:?} is no number")),
    }
}

fn sorted(labels: &[(String, String)]) -> Vec<(String, String)> {
    let mut labels = labels.to_vec();
    labels.sort();
    labels
}

mod tests {
    use super::read;

    #[test]
    fn the_reader_takes_what_the_format_allows() {
        let text = "# TYPE a counter\n# HELP a An \\\"a\\\".\na_total{x=\"1\\n\\\\\"} 5\n\
                    # TYPE b_seconds histogram\n# UNIT b_seconds seconds\n# HELP b_seconds B.\n\
                    b_seconds_bucket{le=\"1.0\"} 1\nb_seconds_bucket{le=\"+Inf\"} 2\n\
                    b_seconds_count 2\nb_seconds_sum 1e-3\n# EOF\n";
        let families = read(text).unwrap();
        assert_eq!(families["a"].samples[0].label("x"), Some("1\n\\"));
        assert_eq!(families["a"].help.as_deref(), Some("An \"a\"."));
        assert!(read("# EOF\n").unwrap().is_empty());
    }

    #[test]
    fn the_reader_refuses_everything_else() {
        let good = "# TYPE a gauge\n# HELP a A.\na 1\n# EOF\n";
        assert!(read(good).is_ok());
        for (what, from, to) in [
            ("no end", "# EOF\n", ""),
            ("text after the end", "# EOF\n", "# EOF\na 2\n"),
            ("an empty line", "a 1\n", "a 1\n\n"),
            ("no newline", "a 1\n", "a 1"),
            ("no help", "# HELP a A.\n", ""),
            ("help before type", "# TYPE a gauge\n# HELP a A.\n", "# HELP a A.\n# TYPE a gauge\n"),
            ("unit after help", "A.\n", "A.\n# UNIT a a\n"),
            ("a wrong unit", "gauge\n", "gauge\n# UNIT a seconds\n"),
            ("an unknown type", "gauge", "gouge"),
            ("an unknown head", "HELP", "HULP"),
            ("a suffix that is none of its type", "gauge", "counter"),
            ("a repeated series", "a 1\n", "a 1\na 2\n"),
            (
                "the same labels in another order",
                "a 1\n",
                "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n",
            ),
            ("a metric in two pieces", "a 1\n", "a{x=\"1\"} 1\na{x=\"2\"} 1\na{x=\"1\"} 3\n"),
            ("a label twice", "a 1\n", "a{x=\"1\",x=\"2\"} 1\n"),
            ("a trailing comma", "a 1\n", "a{x=\"1\",} 1\n"),
            ("a quote in a value", "a 1\n", "a{x=\"1\"2\"} 1\n"),
            ("an unknown escape", "a 1\n", "a{x=\"\\t\"} 1\n"),
            ("a name with a dash", "a 1\n", "a-b 1\n"),
            ("two spaces", "a 1\n", "a  1\n"),
            ("a hexadecimal number", "a 1\n", "a 0x1\n"),
            ("a word", "a 1\n", "a inf\n"),
            ("another family", "a 1\n", "b 1\n"),
            ("a bucket of a gauge", "a 1\n", "a{le=\"1.0\"} 1\n"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{what}");
            assert!(read(&bad).is_err(), "{what}: {bad}");
        }
    }

    #[test]
    fn the_reader_adds_histograms_up() {
        let text = |buckets: &str, count: u32| {
            format!("# TYPE h histogram\n# HELP h H.\n{buckets}h_count {count}\nh_sum 1\n# EOF\n")
        };
        let bucket = |bound: &str, count: u32| format!("h_bucket{{le=\"{bound}\"}} {count}\n");
        let good = bucket("1.0", 1) + &bucket("+Inf", 2);
        assert!(read(&text(&good, 2)).is_ok());
        assert!(read(&text(&good, 3)).is_err(), "a count that differs");
        assert!(read(&text(&bucket("1.0", 2), 2)).is_err(), "no last bucket");
        assert!(read(&text(&(bucket("1", 1) + &bucket("+Inf", 2)), 2)).is_err(), "a whole bound");
        assert!(read(&text(&(bucket("1.0", 3) + &bucket("+Inf", 2)), 2)).is_err(), "it falls");
        let swapped = bucket("2.0", 1) + &bucket("1.0", 1) + &bucket("+Inf", 2);
        assert!(read(&text(&swapped, 2)).is_err(), "bounds fall");
        let clash = "# TYPE a counter\n# HELP a A.\na_total 1\n# TYPE a_total gauge\n\
                     # HELP a_total B.\na_total{x=\"1\"} 1\n# EOF\n";
        assert!(read(clash).is_err(), "two families with one name of samples");
    }
}
