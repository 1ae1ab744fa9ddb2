//! The running gateway: status, health, sessions, exits, drain, reports, events, the first start.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::Ordering;

use ringway_control::events::Kind;
use serde_json::{Value, json};

use super::gateway::{Gateway, now, program, session, split, squeeze};

const DOORS: &str =
    "API:              /run/ringway/rw0.api, 192.0.2.1:443 (closed: address_missing)";

#[test]
fn status_and_health_are_said_and_health_is_an_exit_code() {
    let gateway = Gateway::new("status");
    let status = gateway.ok("status");
    for part in ["State:            running", "(1h 1m)", "From clients:     3 GiB", DOORS] {
        assert!(status.contains(part), "lacks {part}:\n{status}");
    }
    assert_eq!(gateway.json("status")["listen_port"], 51820);
    assert_eq!(gateway.ok("status -q"), "running\n");
    assert_eq!(gateway.ok("health -q"), "healthy\n");
    gateway.live.ill.store(true, Ordering::SeqCst);
    let ill = gateway.run("health");
    assert_eq!(ill.code, 1, "{}", ill.err);
    assert!(ill.out.contains("store    no       it does not answer"), "{}", ill.out);
    assert_eq!(gateway.run("health --json").code, 1);
    gateway.live.away.store(true, Ordering::SeqCst);
    assert_eq!(gateway.run("health").code, 1);
    gateway.fails("status", 14, &["does not answer", "(gateway-unavailable)", "try again in"]);
}

#[test]
fn sessions_are_listed_filtered_shown_and_ended() {
    let gateway = Gateway::new("sessions");
    *gateway.live.sessions.lock().unwrap() = vec![session(1, "ada"), session(2, "bob")];
    let list = gateway.ok("session list");
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("ID  USER  DEVICE  STATE   CLIENT"), "{list}");
    assert!(lines[2].contains(" 2  bob   laptop  active  192.0.2.7  10.9.0.5"), "{list}");
    assert!(lines[2].contains("2h 5m  2 MiB  1 GiB  2 kbit/s   2 Mbit/s  local"), "{list}");
    assert_eq!(gateway.ok("session list --user ada -q"), "1\n");
    assert_eq!(gateway.ok("session list --state active -q"), "2\n");
    let shown = squeeze(&gateway.ok("session show 2"));
    assert!(shown.contains("Client: 192.0.2.7:4711"), "{shown}");
    gateway.fails("session kill 2", 2, &["--yes"]);
    gateway.ok("session kill 2 --yes --reason \"asked to\"");
    assert_eq!(gateway.ok("session list -q"), "1\n");
    gateway.fails("session kill 2 --yes", 11, &["There is no session 2"]);
    gateway.fails("session show 2", 11, &["ringway session list"]);
}

#[test]
fn sessions_are_watched_until_somebody_ends_it() {
    let gateway = Gateway::new("watch");
    *gateway.live.sessions.lock().unwrap() = vec![session(1, "ada")];
    let mut arguments = split("session list --watch --interval 1s -q --socket");
    arguments.push(gateway.socket().display().to_string());
    let mut child = program(&arguments, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    *gateway.live.sessions.lock().unwrap() = vec![session(2, "bob")];
    // A look that was under way may still see the first.
    assert!(lines.any(|line| line.unwrap() == "2"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn all_pages_of_a_list_are_one_page() {
    let gateway = Gateway::new("pages");
    *gateway.live.sessions.lock().unwrap() = (0..2_345).map(|id| session(id, "ada")).collect();
    let all = gateway.json("session list");
    assert_eq!(all["items"].as_array().unwrap().len(), 2_345);
    assert!(all["next"].is_null());
    assert_eq!(gateway.ok("session list -q").lines().count(), 2_345);
}

#[test]
fn tables_fit_the_terminal_unless_all_is_asked_for() {
    let gateway = Gateway::new("width");
    let name = "a-very-long-name-of-somebody-who-has-a-very-long-name";
    gateway.ok(&format!("user add {name}"));
    let run = |more: &str| {
        let socket = gateway.socket();
        let line = format!("user list {more} --socket {}", socket.display());
        super::gateway::ringway(&split(&line), "", &[("COLUMNS", "80")]).out
    };
    let cut = run("");
    assert!(cut.lines().all(|line| line.chars().count() <= 80), "{cut}");
    assert!(cut.contains('…') && !cut.contains(name), "{cut}");
    assert!(run("--no-trunc").contains(name));
}

#[test]
fn exits_are_listed_and_taken_out_of_service() {
    let gateway = Gateway::new("nodes");
    assert!(gateway.ok("node list").contains("local  local  healthy         3  25 %  192.0.2.1"));
    gateway.fails("node disable local", 2, &["--yes"]);
    gateway.ok("node disable local --yes");
    assert_eq!(gateway.json("node list")["items"][0]["status"], "disabled");
    gateway.fails("node disable local --yes", 12, &["(conflict)"]);
    gateway.ok("node enable local");
    gateway.fails("node enable moon", 11, &["node moon"]);
}

#[test]
fn a_drain_begins_shows_who_is_left_and_ends() {
    let gateway = Gateway::new("drain");
    *gateway.live.sessions.lock().unwrap() = vec![session(7, "ada")];
    gateway.fails("drain", 2, &["refuses new sessions", "--yes"]);
    let begun = gateway.run("drain --deadline 10m --yes");
    assert_eq!(begun.code, 0, "{}", begun.err);
    assert!(begun.err.contains("1 are left") && begun.out.contains("7  ada   active"), "{begun:?}");
    let deadline = gateway.json("drain --status")["deadline"].as_str().unwrap().to_owned();
    let deadline: ringway_control::store::ids::Timestamp = deadline.parse().unwrap();
    assert!((deadline.since(now()) - 600_000).abs() < 60_000);
    gateway.live.sessions.lock().unwrap().clear();
    assert!(gateway.run("drain --status --wait").err.contains("0 are left"));
    gateway.ok("drain --stop");
    assert!(gateway.run("drain --status").err.contains("takes new sessions"));
    gateway.fails("drain --deadline 2d --yes", 9, &["/within_s"]);
}

#[test]
fn reports_are_printed_or_written() {
    let gateway = Gateway::new("reports");
    let csv = gateway.ok("report usage --from 2026-01-01 --to 2026-02-01");
    assert_eq!(csv, "usage Csv 2026-01-01T00:00:00.000Z to 2026-02-01T00:00:00.000Z\n");
    assert_eq!(gateway.ok("report performance --format html"), "performance Html\n");
    assert_eq!(gateway.ok("report performance --json"), "performance Json\n");
    let file = gateway.folder.join("report.csv");
    gateway.ok(&format!("report usage --from 7d --out {}", file.display()));
    assert!(fs::read_to_string(&file).unwrap().starts_with("usage Csv "));
    gateway.fails("report usage --from 2026-02-01 --to 2026-01-01", 9, &["from is not before to"]);
}

#[test]
fn events_are_followed_across_a_restart_of_the_gateway() {
    let mut gateway = Gateway::new("events");
    let publish = |gateway: &Gateway, subject: &str| {
        gateway.hub.publish(now(), Kind::SessionStarted, subject, json!({"core": 1}));
        gateway.hub.publish(now(), Kind::SessionEnded, subject, json!({}));
    };
    publish(&gateway, "first");
    let socket = gateway.socket().to_str().unwrap().to_owned();
    let line = "events --since 0 --count 2 --kind session.started --json --socket";
    let mut arguments = split(line);
    arguments.push(socket.clone());
    let mut child = program(&arguments, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["subject"], "first");
    gateway.stop();
    gateway.start();
    publish(&gateway, "second");
    let second = next();
    assert_eq!(
        (&second["subject"], &second["kind"]),
        (&json!("second"), &json!("session.started"))
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let text = gateway.ok("events --since 0 --count 1 --kind session.started");
    assert!(text.contains("session.started") && text.contains("first  {\"core\":1}"), "{text}");
    gateway.fails("events --kind nonsense", 9, &["no kind of event"]);
}

#[test]
fn the_first_administrator_is_made_once_with_the_secret() {
    let gateway = Gateway::with("setup", false);
    let secret = gateway.folder.join("setup-secret");
    let password = gateway.file("password", "correct horse battery\n");
    let wrong = gateway.file("wrong", "0123456789abcdef\n");
    let line =
        |secret: &str| format!("setup chief --secret-file {secret} --password-file {password}");
    gateway.fails(&line(&wrong), 13, &["(setup-secret-wrong)"]);
    let line = line(secret.to_str().unwrap());
    let text = fs::read_to_string(&secret).unwrap();
    let made = gateway.run(&line);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(!made.err.contains(text.trim()), "{}", made.err);
    assert_eq!(gateway.json("user show chief")["user"]["role"], "administrator");
    let kept = gateway.file("kept", &text);
    let again = format!("setup chief --secret-file {kept} --password-file {password}");
    gateway.fails(&again, 12, &["(gone)"]);
}
