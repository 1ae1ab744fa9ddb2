#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::Value;

use super::usage::{Moved, Session};
use super::*;
use crate::stats::history::{History, Totals};
use crate::stats::signals::Signals;

const HOUR_MS: i64 = 3_600_000;

fn at(ms: i64) -> Timestamp {
    Timestamp(1_796_000_400_000 + ms)
}

fn day() -> Period {
    Period::new(at(0), at(24 * HOUR_MS)).unwrap()
}

fn moved(user: &str, device: &str, up_bytes: u64, down_bytes: u64) -> Moved {
    Moved { user: user.to_owned(), device: device.to_owned(), up_bytes, down_bytes }
}

/// A day in which 8 Mbit/s are moved, and 80 in the 100th minute.
fn history() -> History {
    let mut history = History::default();
    let mut bytes = 0;
    for minute in 0..=24 * 60_u64 {
        let now = Totals {
            sessions: minute % 50,
            to_exit_bytes: bytes / 4,
            to_client_bytes: bytes - bytes / 4,
            packets: minute * 1000,
            lost: minute * 30,
            handshakes: minute * 3,
            refused: minute,
            turns: minute * 100,
            turns_ns: minute * 100 * 20_000,
        };
        history.feed(at(minute as i64 * 60_000), now);
        bytes += if minute == 100 { 600_000_000 } else { 60_000_000 };
    }
    history
}

fn usage_input() -> usage::Input {
    let reason = |reason: &str| Some(reason.to_owned());
    usage::Input {
        moved: vec![
            moved("ann", "phone", 100, 900),
            moved("bob", "laptop", 5, 5000),
            moved("ann", "laptop", 2000, 3000),
            moved("idle", "phone", 0, 0),
        ],
        sessions: vec![
            Session {
                user: "ann".into(),
                from: at(0),
                to: Some(at(HOUR_MS)),
                reason: reason("killed"),
            },
            Session { user: "bob".into(), from: at(-HOUR_MS), to: None, reason: None },
            Session {
                user: "bob".into(),
                from: at(HOUR_MS),
                to: Some(at(3 * HOUR_MS)),
                reason: reason("quota_exceeded"),
            },
        ],
        refused: vec![("wrong_password", 3), ("not_asked", 0), ("handshake_peer_unknown", 1)],
        accepted: 36,
        points: history().between(day().from, day().to),
        no_log: false,
    }
}

fn json_of(report: &Report) -> Value {
    serde_json::from_str(&json::write(report)).unwrap()
}

#[test]
fn the_usage_report_adds_up() {
    let report = usage::report(day(), at(25 * HOUR_MS), &usage_input());
    let json = json_of(&report);
    assert_eq!(json["report"], "usage");
    assert_eq!(json["period"]["from"], at(0).to_string());
    assert_eq!(json["total_sessions"], 3);
    assert_eq!(json["users"], 2);
    assert_eq!(json["total_bandwidth_bytes"], 11_005);
    assert_eq!(
        (json["received_bytes"].clone(), json["sent_bytes"].clone()),
        (2105.into(), 8900.into())
    );
    // Bytes are known by the day: this time touches two, from an hour before it until now.
    let days = json["average_bandwidth_bps"].as_f64().unwrap();
    assert!((days - 11_005.0 * 8.0 / (26.0 * 3600.0)).abs() < 1e-9, "{days}");
    assert_eq!(json["usage_from"], at(-HOUR_MS).to_string());
    assert_eq!(json["usage_to"], at(25 * HOUR_MS).to_string());
    assert!((json["success_rate"].as_f64().unwrap() - 0.9).abs() < 1e-9);
    assert!((json["average_latency_s"].as_f64().unwrap() - 20e-6).abs() < 1e-12);
    // An hour, a whole day, two hours.
    assert!((json["mean_session_s"].as_f64().unwrap() - 9.0 * 3600.0).abs() < 1e-6);
    assert_eq!(json["top_users"][0]["user"], "ann");
    assert_eq!(json["top_users"][0]["sent_bytes"], 3900);
    assert_eq!(json["top_devices"][0]["device"], "laptop");
    assert_eq!(json["top_devices"][0]["user"], "bob");
    assert_eq!(json["top_devices"].as_array().unwrap().len(), 3, "who moved nothing is left out");
    assert_eq!(json["ended"].as_array().unwrap().len(), 2);
    assert_eq!(json["refused"][0]["reason"], "wrong_password");
    assert_eq!(json["peak_usage"][0]["at"], at(101 * 60_000).to_string());
    assert!((json["peak_usage"][0]["bandwidth_bps"].as_f64().unwrap() - 80e6).abs() < 1.0);
    assert_eq!(json["peak_usage"][1]["sessions"], 49);
    for unknown in ["top_countries", "top_applications"] {
        assert!(json[unknown].is_null() && json["absent"][unknown].is_string());
    }
    let codes: Vec<_> = report.issues.iter().map(|issue| issue.code).collect();
    assert_eq!(codes, ["low_success_rate", "quotas_exceeded"]);
}

#[test]
fn an_empty_time_says_what_is_not_known_instead_of_zero() {
    let report = usage::report(day(), at(0), &usage::Input { no_log: true, ..Default::default() });
    let json = json_of(&report);
    assert_eq!(json["total_sessions"], 0);
    for unknown in ["average_latency_s", "success_rate", "mean_session_s", "peak_usage"] {
        assert!(json[unknown].is_null() && json["absent"][unknown].is_string(), "{unknown}");
    }
    let codes: Vec<_> = report.issues.iter().map(|issue| issue.code).collect();
    assert_eq!(codes, ["history_incomplete", "no_log"]);
}

#[test]
fn the_performance_report_adds_up() {
    let input = performance::Input {
        points: history().between(day().from, day().to),
        now: Signals { active: 3, latency_s: Some([1e-6, 2e-6, 4e-6]), ..Signals::default() },
        drops: vec![("mac1_wrong", 7), ("peer_gone", 0), ("index_unknown", 9)],
        cores: 2,
        sign_in_s: Some(0.25),
        api_s: None,
    };
    let report = performance::report(day(), at(0), &input);
    let json = json_of(&report);
    let near = |name: &str, expected: f64| {
        let value = json[name].as_f64().unwrap_or_else(|| panic!("{name}: {json}"));
        assert!((value - expected).abs() < 1e-3 * expected, "{name}: {value} {expected}");
    };
    // The first point lacks its first reading, so the mean is of a day less a minute.
    let mean = (60e6 * 1438.0 + 600e6) / 1439.0 * 8.0 / 60.0;
    near("throughput_to_exit_bps", mean / 4.0);
    near("throughput_to_client_bps", mean * 3.0 / 4.0);
    near("throughput_peak_bps", 80e6);
    near("latency_mean_s", 20e-6);
    near("utilisation", 100.0 * 20e-6 / 60.0 / 2.0);
    near("packet_loss_rate", 30.0 / 1030.0);
    near("error_rate", 0.25);
    near("sign_in_mean_s", 0.25);
    assert!(json["api_mean_s"].is_null());
    assert_eq!(json["drops"].as_array().unwrap().len(), 2);
    assert_eq!(json["drops"][0]["reason"], "index_unknown");
    let course = json["course"].as_array().unwrap();
    assert!((40..=49).contains(&course.len()), "{}", course.len());
    assert_eq!(report.issues.iter().map(|issue| issue.code).collect::<Vec<_>>(), ["packet_loss"]);
}

#[test]
fn periods_that_cannot_be_are_refused() {
    assert_eq!(Period::new(at(1), at(1)), Err(PeriodError::Empty));
    assert_eq!(Period::new(at(1), at(0)), Err(PeriodError::Empty));
    assert_eq!(Period::new(Timestamp(0), Timestamp(i64::MAX)), Err(PeriodError::TooLong));
    assert!((day().seconds() - 86_400.0).abs() < 1e-9);
}

#[test]
fn values_for_people_have_units() {
    for (cell, text) in [
        (Cell::Bytes(1023), "1023 B"),
        (Cell::Bytes(5 << 20), "5.0 MiB"),
        (Cell::BitsPerSecond(1_500_000.0), "1.5 Mbit/s"),
        (Cell::Seconds(0.000_02), "20.0 us"),
        (Cell::Seconds(0.25), "250.0 ms"),
        (Cell::Share(0.951), "95.10 %"),
        (Cell::Absent("nobody tried"), "- (nobody tried)"),
    ] {
        assert_eq!(cell.to_string(), text);
    }
}

/// Reads CSV as RFC 4180 has it.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' => {
                assert!(field.is_empty(), "a quote in a field that is not quoted");
                quoted = true;
            }
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {
                assert_eq!(characters.next(), Some('\n'));
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\n' if !quoted => panic!("a bare line feed"),
            other => field.push(other),
        }
    }
    assert!(!quoted && field.is_empty() && row.is_empty());
    rows
}

#[test]
fn a_spreadsheet_reads_every_value_and_runs_none() {
    let mut input = usage_input();
    for name in ["=HYPERLINK(\"x\")", "+1", "-2", "@SUM(A1)", "\t=1", " =1", "a,b\"c\r\nd", "|x"] {
        input.moved.push(moved(name, name, 1 << 40, 1));
    }
    let rows = read_csv(&csv::write(&usage::report(day(), at(0), &input)));
    let number = |text: &str| text.parse::<f64>().is_ok();
    for field in rows.iter().flatten().filter(|field| !number(field)) {
        let begins = field.trim_start();
        assert!(!begins.starts_with(['=', '+', '-', '@', '\t', '\r', '|']), "{field:?}");
    }
    let fields: Vec<&String> = rows.iter().flatten().collect();
    assert!(fields.iter().any(|field| *field == "a,b\"c\r\nd"), "{fields:?}");
    assert!(fields.iter().any(|field| *field == "'=HYPERLINK(\"x\")"));
    assert!(rows.contains(&vec!["total_sessions".to_owned(), "3".to_owned()]));
}

proptest! {
    #[test]
    fn names_of_people_are_text_in_every_form(
        names in proptest::collection::vec(
            (any::<String>(), "[<>&\"'=+@,;\r\n\ta-z-]{0,20}"),
            1..10,
        )
    ) {
        let mut input = usage_input();
        input.moved = names.iter().map(|(user, device)| moved(user, device, 9, 9)).collect();
        input.sessions[0].reason = Some(names[0].1.clone());
        let report = usage::report(day(), at(0), &input);
        let json = json_of(&report);
        let top = json["top_users"].as_array().unwrap();
        prop_assert!(top.iter().all(|row| names.iter().any(|(user, _)| row["user"] == **user)));
        for row in read_csv(&csv::write(&report)) {
            for field in row.iter().filter(|field| field.parse::<f64>().is_err()) {
                prop_assert!(!field.trim_start().starts_with(['=', '+', '-', '@']), "{:?}", field);
            }
        }
        let plain = html::write(&usage::report(day(), at(0), &usage_input()));
        let page = html::write(&report);
        let tags = |page: &str| page.split('<').skip(1)
            .map(|tag| tag.split(['>', ' ']).next().unwrap_or_default().to_owned())
            .collect::<std::collections::BTreeSet<_>>();
        prop_assert!(tags(&page).is_subset(&tags(&plain)), "{:?}", tags(&page));
    }
}

#[test]
fn the_page_needs_nothing_from_anywhere_and_runs_nothing() {
    let page = html::write(&usage::report(day(), at(0), &usage_input()));
    for word in
        ["<script", "http://", "https://", "src=", "href=", "url(", "@import", "javascript:"]
    {
        assert!(!page.contains(word), "{word}");
    }
    for tag in
        ["table", "tr", "td", "th", "h1", "h2", "p", "body", "html", "head", "thead", "tbody"]
    {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("Not known: traffic is not looked")
    );
}
