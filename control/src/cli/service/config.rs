//! `ringway config`: the configuration of the running gateway: read, tried, kept, taken back.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Desk, Noun};
use crate::cli::args::ImportArgs;
use crate::cli::ask::SureArgs;
use crate::cli::client::{Answer, Body, Extra, path};
use crate::cli::show::{moment, plain, word};
use crate::cli::table::Table;
use crate::cli::{commands, given, print, print_json, print_lines, say};
use crate::failure::{Failure, Status};

/// Longest configuration, in bytes; the API takes as much.
const BYTES_MAX: u64 = 1 << 20;

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Print the configuration in force, without secrets
    Show(ShowArgs),
    /// Say what a file would change, and whether the gateway would take it
    Diff(FileArgs),
    /// Make the gateway take a file; all of it or nothing
    Apply(ApplyArgs),
    /// Keep the change that is on trial
    Confirm,
    /// Take the change on trial back, or go back to a version of the history
    Rollback(RollbackArgs),
    /// List the versions that were in force, or print one
    History(HistoryArgs),
    /// Print the configuration of another program as one for this; asks no gateway
    Import(ImportArgs),
}

/// `ringway config show`.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Every option with its value and where it comes from, as "ringway check" prints it
    #[arg(long)]
    effective: bool,
}

/// `ringway config diff`.
#[derive(Args, Debug)]
pub(crate) struct FileArgs {
    /// The new configuration, or - for standard input
    file: PathBuf,
}

/// `ringway config apply`.
#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The new configuration, or - for standard input
    file: PathBuf,
    /// Take it back after this time, 10s to 1h, unless "ringway config confirm" comes
    #[arg(long, value_name = "TIME", value_parser = given::seconds)]
    confirm_within: Option<u32>,
    /// Only if this is still the version in force, as "config diff" and "config history" show it
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway config rollback`.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// A version of the history; without it, what was before the change on trial
    version: Option<u64>,
    #[command(flatten)]
    sure: SureArgs,
}

/// `ringway config history`.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Print this version
    version: Option<u64>,
}

/// Does it.
pub(crate) fn run(noun: Noun<ConfigVerb>) -> Result<Status, Failure> {
    if let ConfigVerb::Import(args) = &noun.verb {
        return commands::config_import(args);
    }
    let desk = noun.common.desk()?;
    match noun.verb {
        ConfigVerb::Show(args) => show(&desk, &args),
        ConfigVerb::Diff(args) => diff(&desk, &args),
        ConfigVerb::Apply(args) => apply(&desk, &args),
        ConfigVerb::Confirm => {
            let at = path(&["config", "confirm"]);
            let answer = desk.send(Method::POST, &at, Body::Empty, None)?;
            desk.done(&answer, "/etag", "The configuration stays")
        }
        ConfigVerb::Rollback(args) => rollback(&desk, &args),
        ConfigVerb::History(args) => history(&desk, &args),
        ConfigVerb::Import(args) => commands::config_import(&args),
    }
}

fn show(desk: &Desk, args: &ShowArgs) -> Result<Status, Failure> {
    let effective = args.effective.then(|| "true".to_owned());
    let answer = desk.client.get(&path(&["config"]), &[("effective", effective)])?;
    let tag = answer.etag.as_deref().map(|tag| tag.trim_matches('"').to_owned());
    if desk.show.json {
        print_json(&json!({ "text": answer.text, "etag": tag }).to_string())?;
        return Ok(Status::Done);
    }
    if desk.show.quiet {
        print(&format!("{}\n", tag.unwrap_or_default()))?;
        return Ok(Status::Done);
    }
    print_lines(&answer.text)?;
    let trial = desk.client.get_json(&path(&["config", "trial"])).unwrap_or_default();
    if let Some(tag) = tag {
        say(&format!("# This is {tag}"));
    }
    if trial["on_trial"].is_object() {
        let (until, actor) = (moment(&trial, "/on_trial/until"), word(&trial, "/on_trial/actor"));
        say(&format!(
            "# It is on trial until {until} ({actor}): keep it with \"ringway config confirm\""
        ));
    }
    Ok(Status::Done)
}

fn read(file: &Path) -> Result<String, Failure> {
    let (what, text) = if file.as_os_str() == "-" {
        (Path::new("standard input"), bounded(&mut io::stdin().lock()))
    } else {
        (file, fs::File::open(file).and_then(|mut open| bounded(&mut open)))
    };
    text.map_err(|error| Failure::file("read the configuration", what, &error))
}

fn bounded(from: &mut dyn io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// Puts a configuration, or asks what it would change.
fn put(
    desk: &Desk,
    text: String,
    query: &[(&str, Option<String>)],
    version: &str,
) -> Result<Answer, Failure> {
    let extra = Extra { query, if_match: Some(version) };
    desk.client.send(Method::PUT, &path(&["config"]), &extra, Body::Toml(text))
}

fn diff(desk: &Desk, args: &FileArgs) -> Result<Status, Failure> {
    let text = read(&args.file)?;
    let answer = put(desk, text, &[("dry_run", Some("true".to_owned()))], "*")?;
    if desk.show.json {
        desk.raw(&answer)?;
        return Ok(Status::Done);
    }
    let outcome = answer.json()?;
    if desk.show.quiet {
        print(&format!("{}\n", word(&outcome, "/etag")))?;
        return Ok(Status::Done);
    }
    tell(&outcome)?;
    say(&format!("The version in force is {}", word(&outcome, "/etag")));
    Ok(Status::Done)
}

/// Prints what changes, and says what is to be known about it.
fn tell(outcome: &Value) -> Result<(), Failure> {
    let diff = outcome["diff"].as_str().unwrap_or_default();
    let diff: String = diff.lines().map(|line| format!("{}\n", plain(line))).collect();
    print(&diff)?;
    if diff.is_empty() {
        say("Nothing is different");
    }
    let peers = ["added", "changed", "removed"]
        .map(|how| format!("{} {how}", word(outcome, &format!("/peers_{how}"))));
    if peers.iter().any(|part| !part.starts_with("0 ")) {
        say(&format!("Peers: {}", peers.join(", ")));
    }
    for option in outcome["needs_restart"].as_array().into_iter().flatten() {
        say(&format!("{} cannot change while the gateway runs", word(option, "")));
    }
    for warning in outcome["warnings"].as_array().into_iter().flatten() {
        say(&format!("Warning: {}", word(warning, "")));
    }
    Ok(())
}

fn apply(desk: &Desk, args: &ApplyArgs) -> Result<Status, Failure> {
    let text = read(&args.file)?;
    let version = match &args.if_match {
        Some(version) => format!("\"{}\"", version.trim_matches('"')),
        // What it is now, so that a change by somebody else in between is found.
        None => {
            let current = desk.client.get(&path(&["config"]), &[])?;
            current.etag.unwrap_or_else(|| "*".to_owned())
        }
    };
    if args.confirm_within.is_none() {
        args.sure.confirm("This changes the running gateway, without a way back by itself")?;
    }
    let within = args.confirm_within.map(|seconds| seconds.to_string());
    let answer = put(desk, text, &[("confirm_within", within)], &version)?;
    finish(desk, &answer)
}

fn rollback(desk: &Desk, args: &RollbackArgs) -> Result<Status, Failure> {
    let what = args.version.map_or_else(
        || "what was before the change on trial".to_owned(),
        |version| format!("version {version}"),
    );
    args.sure.confirm(&format!("This goes back to {what}"))?;
    let at = path(&["config", "rollback"]);
    let body = args.version.map_or_else(|| json!({}), |version| json!({ "version": version }));
    let answer = desk.send(Method::POST, &at, Body::Json(body), None)?;
    finish(desk, &answer)
}

fn finish(desk: &Desk, answer: &Answer) -> Result<Status, Failure> {
    let outcome = answer.json()?;
    if desk.show.json || desk.show.quiet {
        return desk.done(answer, "/etag", "");
    }
    tell(&outcome)?;
    say(&format!("The gateway runs on {} now", word(&outcome, "/etag")));
    if !outcome["confirm_by"].is_null() {
        let until = moment(&outcome, "/confirm_by");
        say(&format!(
            "It takes itself back at {until} unless \"ringway config confirm\" comes before"
        ));
    }
    Ok(Status::Done)
}

fn history(desk: &Desk, args: &HistoryArgs) -> Result<Status, Failure> {
    if let Some(version) = args.version {
        let at = path(&["config", "versions", &version.to_string()]);
        let Some(found) = desk.one(&at, "/version")? else { return Ok(Status::Done) };
        print_lines(found["text"].as_str().unwrap_or_default())?;
        return Ok(Status::Done);
    }
    let at = path(&["config", "versions"]);
    let versions = desk.list(&at, &[], |version| word(version, "/version"))?;
    let Some(versions) = versions else { return Ok(Status::Done) };
    let mut table = Table::new(&[">VERSION", "SINCE", "BY", "HASH"]);
    for version in &versions {
        table.push(vec![
            word(version, "/version"),
            moment(version, "/at"),
            word(version, "/actor"),
            word(version, "/hash").chars().take(16).collect(),
        ]);
    }
    desk.table(&table)
}
