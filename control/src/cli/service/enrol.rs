//! `ringway enrol`: one-time links by which people add devices themselves.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal as _};
use zeroize::Zeroizing;

use super::names::Names;
use super::{Desk, Verb};
use crate::cli::client::{Body, path};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::cli::{given, print, say};
use crate::failure::{Failure, Status};
use crate::peers::qr;

/// `ringway enrol`.
#[derive(Args, Debug)]
pub(crate) struct EnrolArgs {
    /// Name or identifier of the user whose device it will be
    #[arg(required_unless_present_any = ["list", "rm"])]
    user: Option<String>,
    /// What the device will be called
    #[arg(default_value = "device", conflicts_with = "rm")]
    device: String,
    /// How long the link is good, 1m to 30d [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = given::seconds)]
    valid: Option<u32>,
    /// Draw the link as a QR code, on standard error
    #[arg(long)]
    qr: bool,
    /// List the links there are, of one user or of all
    #[arg(long, conflicts_with_all = ["valid", "qr"])]
    list: bool,
    /// Take this link back
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "list", "valid", "qr"])]
    rm: Option<String>,
}

/// Does it.
pub(crate) fn run(verb: &Verb<EnrolArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let args = &verb.args;
    if let Some(id) = &args.rm {
        let at = path(&["enrolments", id]);
        let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
        return desk.done(&answer, "", &format!("The link {id} is worth nothing now"));
    }
    if args.list {
        return list(&desk, args.user.as_ref());
    }
    make(&desk, args, args.user.as_deref().unwrap_or_default())
}

fn make(desk: &Desk, args: &EnrolArgs, user: &str) -> Result<Status, Failure> {
    let mut body = Map::new();
    body.insert("device_name".to_owned(), json!(args.device));
    if let Some(seconds) = args.valid {
        body.insert("valid_s".to_owned(), json!(seconds));
    }
    let at = path(&["users", user, "enrolments"]);
    let answer = desk.send(Method::POST, &at, Body::Json(body.into()), None)?;
    if desk.show.json {
        desk.raw(&answer)?;
        return Ok(Status::Done);
    }
    let made = answer.json()?;
    // Without an address of the API there is no link; what stands in one is worth the same.
    let link = made["link"].as_str().or_else(|| made["secret"].as_str()).unwrap_or_default();
    let link = Zeroizing::new(link.to_owned());
    print(&Zeroizing::new(format!("{}\n", *link)))?;
    if args.qr {
        say(&Zeroizing::new(qr::draw(&link, io::stderr().is_terminal())?));
    }
    if !desk.show.quiet {
        if made["link"].is_null() {
            say("This is the secret alone: url in [api] makes a link of it");
        }
        let until = moment(&made, "/enrolment/expires_at");
        say(&format!("Good once until {until}, for the device \"{}\" of \"{user}\"", args.device));
    }
    Ok(Status::Done)
}

fn list(desk: &Desk, user: Option<&String>) -> Result<Status, Failure> {
    let at = path(&["enrolments"]);
    let links = desk.list(&at, &[("user", user.cloned())], |link| word(link, "/id"))?;
    let Some(links) = links else { return Ok(Status::Done) };
    let users = Names::of(desk, "users", &links, "/user");
    let mut table = Table::new(&["ID", "USER", "DEVICE", "GOOD UNTIL", "USED"]);
    for link in &links {
        let used = if link["used_by"] == Value::Null { "no" } else { "yes" };
        table.push(vec![
            word(link, "/id"),
            users.at(link, "/user"),
            word(link, "/device_name"),
            moment(link, "/expires_at"),
            used.to_owned(),
        ]);
    }
    desk.table(&table)
}
