#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::scratch::Scratch;
use std::fs;
use std::path::Path;
use tracing::{debug, error, info, trace, warn};

/// Logs to a file while `say` runs, and returns the file.
fn logged(name: &str, settings: Settings, say: impl FnOnce()) -> String {
    let scratch = Scratch::new(name);
    let path = scratch.path().join("log");
    let output = Output::File(FileSettings { path: path.clone(), bytes_max: 0, old_files: 0 });
    let (layer, log) = make(&Settings { output, ..settings }).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
    assert!(log.writer.flush(Duration::from_secs(20)));
    fs::read_to_string(path).unwrap()
}

fn objects(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_said_becomes_lines_of_json() {
    let json = Settings { format: Format::Json, ..Settings::default() };
    let text = logged("log_json", json, || {
        warn!(reason = "quota_exceeded", user = "al\nice", bytes = 7_u64, "Told to {}", "go");
        error!(share = 0.5, last = true, why = ?Some("x"), shown = %Path::new("/a b").display(), "Bad");
        debug!("Not said");
    });
    let said = objects(&text);
    assert_eq!(said.len(), 2, "{text}");
    assert_eq!(said[0]["message"], "Told to go");
    assert_eq!(said[0]["reason"], "quota_exceeded");
    assert_eq!(said[0]["fields"]["user"], "al\nice");
    assert_eq!(said[0]["fields"]["bytes"], 7);
    assert_eq!(said[0]["target"], "ringway_control::logs::tests");
    assert_eq!(said[1]["level"], "error");
    assert_eq!(said[1]["fields"]["why"], "Some(\"x\")");
    assert_eq!(said[1]["fields"]["shown"], "/a b");
    let time = said[0]["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert!(time.parse::<crate::store::ids::Timestamp>().is_ok());
}

#[test]
fn the_level_decides_what_is_said() {
    let say = || {
        error!("e");
        warn!("w");
        info!("i");
        debug!("d");
        trace!("t");
    };
    let levels = [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::TRACE];
    for (level, lines) in levels.into_iter().zip([0, 1, 3, 5]) {
        let text = logged("log_level", Settings { level, ..Settings::default() }, say);
        assert_eq!(text.lines().count(), lines, "{level}: {text}");
    }
}

#[test]
fn a_flood_of_one_refusal_leaves_others_their_lines() {
    let repeats = Allowance { lines: 3, period: Duration::from_secs(3600) };
    let settings = Settings { repeats, format: Format::Json, ..Settings::default() };
    let before = |reason: &str| info!(reason, "Refused");
    let text = logged("log_flood", settings, || {
        (0..1000).for_each(|_| before("mac1_wrong"));
        before("quota_exceeded");
    });
    let said = objects(&text);
    assert_eq!(said.len(), 4, "{text}");
    assert_eq!(said[3]["reason"], "quota_exceeded");
}

#[test]
fn without_a_log_of_clients_no_line_of_any_level_has_an_address() {
    let privacy = Privacy { mode: privacy::Mode::NoLog, ..Privacy::default() };
    let settings = Settings {
        level: LevelFilter::TRACE,
        privacy,
        own: vec!["10.77.0.0/24".parse().unwrap()],
        ..Settings::default()
    };
    let endpoint: std::net::SocketAddr = "203.0.113.77:4567".parse().unwrap();
    let text = logged("log_private", settings, || {
        trace!("Datagram of {endpoint}");
        debug!(%endpoint, from = ?endpoint, bytes = ?[203, 0, 113, 77], "Moved");
        info!("Client {} has 10.77.0.2", endpoint.ip());
        warn!(who = "203.0.113.77", "Refused");
        error!("Cannot send to {endpoint:?}");
        trace!(target: "hyper::proto", "accepted {endpoint}");
        warn!(target: "rustls::conn", "bad message from {endpoint}");
    });
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(!text.contains("203") && text.contains("has 10.77.0.2"), "{text}");
    assert_eq!(text.matches("not-kept").count(), 8, "{text}");
}

#[test]
fn a_log_that_cannot_be_opened_is_a_failure_that_says_where() {
    let output =
        Output::File(FileSettings { path: "/proc/nowhere/log".into(), bytes_max: 0, old_files: 0 });
    let failure = make(&Settings { output, ..Settings::default() }).err().unwrap();
    assert_eq!(failure.status, Status::State);
    assert!(failure.message.contains("/proc/nowhere/log"), "{failure}");
}
