//! The configuration of the running gateway, and versions of records.

use std::fs;

use super::gateway::{CONFIG, Gateway};

#[test]
fn the_configuration_is_shown_compared_applied_and_taken_back() {
    let gateway = Gateway::new("config");
    assert_eq!(gateway.ok("config show"), CONFIG);
    assert!(gateway.ok("config show --effective").contains("listen_port = 51820"));
    let tag = gateway.ok("config show -q").trim().to_owned();
    assert_eq!(gateway.json("config show")["etag"], tag);
    let file = gateway.file("new.toml", &format!("{CONFIG}keepalive = \"25s\"\n"));
    let diff = gateway.run(&format!("config diff {file}"));
    assert_eq!(diff.code, 0, "{}", diff.err);
    assert!(diff.out.contains("+keepalive = \"25s\"") && diff.err.contains(&tag), "{diff:?}");
    gateway.fails(&format!("config apply {file}"), 2, &["--yes"]);
    let applied = gateway.run(&format!("config apply {file} --confirm-within 5m"));
    assert_eq!(applied.code, 0, "{}", applied.err);
    assert!(applied.err.contains("takes itself back at"), "{}", applied.err);
    assert!(gateway.run("config show").err.contains("on trial until"));
    gateway.fails(&format!("config apply {file} --yes"), 12, &["on trial", "(conflict)"]);
    gateway.ok("config rollback --yes");
    assert_eq!(gateway.ok("config show"), CONFIG);
    gateway.ok(&format!("config apply {file} --confirm-within 60s"));
    gateway.ok("config confirm");
    gateway.fails("config confirm", 12, &["No change is on trial"]);
    assert!(fs::read_to_string(gateway.folder.join("ringway.toml")).unwrap().contains("25s"));
    let history = gateway.ok("config history");
    assert!(history.contains("local:0") && history.contains("gateway"), "{history}");
    assert_eq!(gateway.ok("config history 1"), CONFIG);
    gateway.fails("config history 99", 11, &["no version 99"]);
    gateway.ok("config rollback 1 --yes");
    assert_eq!(gateway.ok("config show"), CONFIG);
}

#[test]
fn a_configuration_that_is_shown_can_be_applied_again_and_does_not_command_the_terminal() {
    let gateway = Gateway::new("config_evil");
    let evil = format!("{CONFIG}# \u{9b}2J\u{9d}0;mine\u{9c} \u{202e}\n");
    let file = gateway.file("evil.toml", &evil);
    gateway.ok(&format!("config apply {file} --yes"));
    assert_eq!(gateway.ok("config show"), evil, "a pipe gets what is there");
    let newest = gateway.json("config history")["items"].as_array().unwrap().len().to_string();
    assert_eq!(gateway.ok(&format!("config history {newest}")), evil);
    assert_eq!(gateway.json("config show")["text"], evil, "programs are told what it is");
    for verb in ["config show".to_owned(), format!("config history {newest}")] {
        let shown = gateway.on_terminal(&verb);
        assert!(shown.contains("# \\u009b2J\\u009d0;mine\\u009c \\u202e"), "{shown}");
        assert!(!shown.contains(['\u{9b}', '\u{9d}', '\u{202e}']), "{shown}");
    }
}

#[test]
fn a_wrong_or_stale_configuration_changes_nothing() {
    let gateway = Gateway::new("config_wrong");
    let wrong = gateway.file("wrong.toml", "[interface]\nlisten_port = 99999\nmtu = 1\n");
    for verb in ["diff", "apply --yes"] {
        let line = format!("config {verb} {wrong}");
        gateway.fails(&line, 3, &["(config-invalid)", "\n  2:15: ", "\n  3:7: "]);
    }
    let file = gateway.file("new.toml", &format!("{CONFIG}keepalive = \"25s\"\n"));
    let line = format!("config apply {file} --yes --if-match v1-0000000000000000");
    gateway.fails(&line, 12, &["(stale-version)"]);
    let port = gateway.file("port.toml", &CONFIG.replace("51820", "51821"));
    gateway.fails(&format!("config apply {port} --yes"), 12, &["listen_port", "(needs-restart)"]);
    let diff = gateway.run(&format!("config diff {port}"));
    assert!(diff.err.contains("cannot change while the gateway runs"), "{}", diff.err);
    gateway.fails("config diff /nowhere.toml", 8, &["/nowhere.toml"]);
    assert_eq!(gateway.ok("config show"), CONFIG);
    let same = gateway.run_with("config diff -", CONFIG);
    assert_eq!((same.code, same.out.as_str()), (0, ""), "{}", same.err);
    assert!(same.err.contains("Nothing is different"), "{}", same.err);
}

#[test]
fn a_record_that_somebody_else_changed_is_left_alone() {
    let gateway = Gateway::new("stale");
    gateway.ok("user add ada");
    gateway.ok("user set ada --display-name Ada");
    for line in [
        "user set ada --display-name Eve --if-version 1",
        "user rm ada --yes --if-version 1",
        "user erase ada --yes --if-version 1",
    ] {
        gateway.fails(line, 12, &["(stale-version)", "read it again"]);
    }
    assert_eq!(gateway.json("user show ada")["user"]["display_name"], "Ada");
    gateway.ok("user set ada --display-name Countess --if-version 2");
    gateway.ok("user rm ada --yes --if-version 3");
}

#[test]
fn names_that_are_taken_and_values_that_are_wrong_are_refused_by_name() {
    let gateway = Gateway::new("refused");
    gateway.ok("user add ada");
    gateway.fails("user add ada", 12, &["\"ada\"", "(name-taken)"]);
    gateway.fails("user add \"a b\"", 9, &["/name", "may not be in a name", "(invalid)"]);
    let two = "user add \"a b\" --rate-up 1bit --rate-down 2bit";
    gateway.fails(two, 9, &["3", "\n  /name: ", "\n  /rate/up_bps: ", "\n  /rate/down_bps: "]);
    gateway.fails("user show bob", 11, &["There is no user \"bob\""]);
    gateway.fails("user set ada", 2, &["ringway user set --help"]);
    gateway.fails("user list --role king", 2, &["administrator"]);
    gateway.fails("user list --json -q", 2, &["cannot be used with"]);
}
