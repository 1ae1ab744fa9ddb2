//! Commands about the gateway as a whole: `status`, `health`, `backup`, `setup`.

use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Desk, Nothing, Verb};
use crate::cli::ask;
use crate::cli::client::{Body, path};
use crate::cli::show::{self, moment, size, word};
use crate::cli::table::Table;
use crate::cli::{print, print_json};
use crate::failure::{Failure, Status};

/// `ringway backup`.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// A file of the gateway's host that does not exist yet
    path: PathBuf,
}

/// `ringway setup`.
#[derive(Args, Debug)]
pub(crate) struct SetupArgs {
    /// Name of the first administrator: 1 to 64 of a-z 0-9 . _ @ -
    name: String,
    /// File with the one-time secret, such as setup-secret in the state folder
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with the password, or - for standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// `ringway status`.
pub(crate) fn status(verb: &Verb<Nothing>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let Some(status) = desk.one(&path(&["status"]), "/state")? else { return Ok(Status::Done) };
    let uptime = show::number(&status, "/uptime_s").map_or_else(|| "-".to_owned(), show::age);
    let doors = status["api"].as_array().map(Vec::as_slice).unwrap_or_default();
    let doors: Vec<String> = doors.iter().map(door).collect();
    desk.facts(&[
        ("State", word(&status, "/state")),
        ("Version", word(&status, "/version")),
        ("Interface", word(&status, "/interface")),
        ("Public key", word(&status, "/public_key")),
        ("Port", word(&status, "/listen_port")),
        ("Running since", format!("{} ({uptime})", moment(&status, "/started_at"))),
        ("Cores", word(&status, "/cores")),
        ("Sessions", word(&status, "/sessions")),
        ("Peers", word(&status, "/peers")),
        ("Sessions at most", word(&status, "/max_clients")),
        ("From clients", size(&status, "/bytes_received")),
        ("To clients", size(&status, "/bytes_sent")),
        ("API", if doors.is_empty() { "-".to_owned() } else { doors.join(", ") }),
    ])
}

/// Where the API answers, or would; why it does not is what `health` says.
fn door(door: &Value) -> String {
    let address = word(door, "/address");
    if door["open"] == json!(true) {
        return address;
    }
    format!("{address} (closed: {})", word(door, "/reason"))
}

/// `ringway health`: 1 if something is wrong.
pub(crate) fn health(verb: &Verb<Nothing>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let (_, answer) = desk.client.get_any(&path(&["health"]))?;
    let read: Option<Value> = serde_json::from_str(&answer.text).ok();
    let Some(health) = read.filter(|health| health["healthy"].is_boolean()) else {
        let message = format!("{} does not say how it is: check the address", desk.client.place());
        return Err(Failure::new(Status::NotRunning, message));
    };
    let healthy = health["healthy"] == json!(true);
    show_health(&desk, &answer.text, &health, healthy)?;
    Ok(if healthy { Status::Done } else { Status::Findings })
}

fn show_health(desk: &Desk, text: &str, health: &Value, healthy: bool) -> Result<(), Failure> {
    if desk.show.json {
        return print_json(text);
    }
    let whole = if healthy { "healthy" } else { "unhealthy" };
    if desk.show.quiet {
        return print(&format!("{whole}\n"));
    }
    let mut table = Table::new(&["PART", "HEALTHY", "WHY"]);
    table.push(vec!["gateway".to_owned(), word(health, "/healthy"), "-".to_owned()]);
    for part in health["parts"].as_array().into_iter().flatten() {
        table.push(vec![word(part, "/name"), word(part, "/healthy"), word(part, "/why")]);
    }
    desk.table(&table).map(|_| ())
}

/// `ringway backup`.
pub(crate) fn backup(verb: &Verb<BackupArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let file = &verb.args.path;
    // The gateway has another folder.
    let file = std::path::absolute(file).map_err(|error| Failure::file("find", file, &error))?;
    let text = |file: &Path| file.to_str().map(str::to_owned);
    let Some(text) = text(&file) else {
        let message = format!("{} is not UTF-8: choose another name", file.display());
        return Err(Failure::new(Status::Usage, message));
    };
    let body = Body::Json(json!({ "path": text }));
    let answer = desk.send(Method::POST, &path(&["backup"]), body, None)?;
    desk.done(&answer, "", &format!("The records are copied to {text}"))
}

/// `ringway setup`.
pub(crate) fn setup(verb: &Verb<SetupArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let args = &verb.args;
    let secret = ask::secret("One-time secret", args.secret_file.as_deref(), false)?;
    let what = format!("Password of {}", args.name);
    let password = ask::secret(&what, args.password_file.as_deref(), true)?;
    let body = json!({ "secret": *secret, "name": args.name, "password": *password });
    let answer = desk.send(Method::POST, &path(&["setup"]), Body::Json(body), None)?;
    desk.done(&answer, "/name", &format!("\"{}\" is the first administrator", args.name))
}
