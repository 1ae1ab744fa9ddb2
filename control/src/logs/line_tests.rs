#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

fn line(message: &str) -> Line {
    let mut line = Line {
        at: Timestamp(1_796_000_000_123),
        level: Level::WARN,
        target: "ringway_control::uapi".into(),
        message: String::new(),
        reason: None,
        fields: Vec::new(),
    };
    line.add("message", Value::Text(message.into()));
    line
}

const JSON: Dress = Dress { format: Format::Json, colours: false, journal: false };
const TEXT: Dress = Dress { format: Format::Text, colours: false, journal: false };

#[test]
fn people_read_time_level_place_sentence_reason_and_fields() {
    let mut line = line("Refused: it is read only");
    line.add("reason", Value::Text("config_read_only".into()));
    line.add("count", Value::Number(7));
    line.add("who", Value::Text("a b".into()));
    line.add("share", Value::Float(0.5));
    line.add("again", Value::Bool(true));
    assert_eq!(
        line.render(TEXT),
        "2026-11-30T00:53:20.123Z  WARN ringway_control::uapi: Refused: it is read only \
         reason=config_read_only count=7 who=\"a b\" share=0.5 again=true\n"
    );
}

#[test]
fn programs_read_one_object_with_the_reason_at_its_place() {
    let mut line = line("Refused");
    line.add("reason", Value::Text("quota_exceeded".into()));
    line.add("count", Value::Number(u64::MAX.into()));
    line.add("count", Value::Number(2));
    line.add("rate", Value::Float(f64::NAN));
    let text = line.render(JSON);
    let object: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(object["time"], "2026-11-30T00:53:20.123Z");
    assert_eq!(object["level"], "warn");
    assert_eq!(object["target"], "ringway_control::uapi");
    assert_eq!(object["message"], "Refused");
    assert_eq!(object["reason"], "quota_exceeded");
    assert_eq!(object["fields"]["count"], u64::MAX);
    assert_eq!(object["fields"]["rate"], "NaN");
    assert_eq!(text.matches("\"count\"").count(), 1, "{text}");
}

#[test]
fn the_journal_gets_its_prefix_and_no_time() {
    let dress = Dress { journal: true, ..TEXT };
    assert_eq!(line("Hello").render(dress), "<4> WARN ringway_control::uapi: Hello\n");
    let coloured = line("Hello").render(Dress { colours: true, ..TEXT });
    assert!(coloured.contains("\x1b[33m WARN\x1b[0m"), "{coloured:?}");
}

#[test]
fn what_is_longer_than_it_may_be_is_cut_between_characters() {
    let long = "é".repeat(MESSAGE_BYTES_MAX);
    let mut line = line(&long);
    assert!(line.message.len() <= MESSAGE_BYTES_MAX && line.message.ends_with("é…"));
    for _ in 0..2 * FIELDS_MAX {
        line.add("x", Value::Text(long.clone()));
    }
    assert_eq!(line.fields.len(), FIELDS_MAX);
    assert!(line.render(TEXT).len() < MESSAGE_BYTES_MAX + FIELDS_MAX * (VALUE_BYTES_MAX + 16));
}

#[test]
fn a_forged_line_stays_a_part_of_its_line() {
    let forged = "x\n2026-11-30T00:00:00.000Z ERROR ringway: all is lost\r\u{85}\u{2028}\u{1b}[2J";
    let mut line = line(forged);
    line.add("name", Value::Text("a\" level=error b=\"".into()));
    for dress in [TEXT, JSON] {
        let text = line.render(dress);
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end_matches('\n').contains(is_dangerous), "{text:?}");
    }
    assert!(line.render(TEXT).ends_with("name=\"a\\\" level=error b=\\\"\"\n"));
}

proptest! {
    #[test]
    fn whatever_is_said_is_one_line_and_reads_back(
        message in any::<String>(),
        value in any::<String>(),
        reason in proptest::option::of(any::<String>()),
    ) {
        let mut line = line(&message);
        line.add("value", Value::Text(value.clone()));
        if let Some(reason) = &reason {
            line.add("reason", Value::Text(reason.clone()));
        }
        for dress in [TEXT, JSON, Dress { journal: true, ..TEXT }] {
            let text = line.render(dress);
            prop_assert_eq!(text.find(is_dangerous), Some(text.len() - 1));
        }
        let object: Json = serde_json::from_str(&line.render(JSON)).unwrap();
        prop_assert_eq!(object["message"].as_str(), Some(&*cut(&message, MESSAGE_BYTES_MAX)));
        prop_assert_eq!(object["fields"]["value"].as_str(), Some(&*cut(&value, VALUE_BYTES_MAX)));
        prop_assert_eq!(object["reason"].as_str().map(str::to_owned), reason);
    }
}
