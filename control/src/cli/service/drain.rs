//! `ringway drain`: no new sessions, and the old ones leave until a deadline.

use std::thread;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Desk, Verb};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Answer, Body, path};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::cli::{given, print, say};
use crate::failure::{Failure, Status};

/// How often `--wait` looks who is left.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// `ringway drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// How long sessions may stay, up to 1d [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = given::seconds)]
    #[arg(conflicts_with_all = ["stop", "status"])]
    deadline: Option<u32>,
    /// Take new sessions again
    #[arg(long, conflicts_with = "status")]
    stop: bool,
    /// Say whether the gateway drains, who is left, and why
    #[arg(long)]
    status: bool,
    /// Wait until nobody is left
    #[arg(long, conflicts_with = "stop")]
    wait: bool,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(verb: &Verb<DrainArgs>) -> Result<Status, Failure> {
    let desk = verb.common.desk()?;
    let (args, at) = (&verb.args, path(&["drain"]));
    let answer = if args.stop {
        let answer = desk.send(Method::DELETE, &at, Body::Empty, None)?;
        return desk.done(&answer, "/left", "The gateway takes new sessions again");
    } else if args.status {
        desk.client.get(&at, &[])?
    } else {
        args.sure.confirm("This refuses new sessions, and ends those that are left in the end")?;
        let body = args.deadline.map_or_else(|| json!({}), |time| json!({ "within_s": time }));
        desk.send(Method::POST, &at, Body::Json(body), None)?
    };
    let answer = if args.wait { wait(&desk, answer)? } else { answer };
    show(&desk, &answer)
}

/// Waits until nobody is left, or the drain ends.
fn wait(desk: &Desk, mut answer: Answer) -> Result<Answer, Failure> {
    loop {
        let drain = answer.json()?;
        if drain["left"] == json!(0) || drain["draining"] != json!(true) {
            return Ok(answer);
        }
        thread::sleep(LOOK_PAUSE);
        answer = desk.client.get(&path(&["drain"]), &[])?;
    }
}

fn show(desk: &Desk, answer: &Answer) -> Result<Status, Failure> {
    if desk.show.json {
        desk.raw(answer)?;
        return Ok(Status::Done);
    }
    let drain = answer.json()?;
    let rows: &[Value] = drain["sessions"].as_array().map_or(&[], Vec::as_slice);
    if desk.show.quiet {
        let ids: String = rows.iter().map(|row| format!("{}\n", word(row, "/id"))).collect();
        print(&ids)?;
        return Ok(Status::Done);
    }
    if drain["draining"] != json!(true) {
        say("The gateway takes new sessions");
        return Ok(Status::Done);
    }
    let (left, deadline) = (word(&drain, "/left"), moment(&drain, "/deadline"));
    say(&format!("No new sessions are taken; {left} are left and end at {deadline}"));
    if rows.is_empty() {
        return Ok(Status::Done);
    }
    let mut table = Table::new(&[">ID", "USER", "WHY"]);
    for row in rows {
        table.push(vec![word(row, "/id"), word(row, "/user"), word(row, "/why")]);
    }
    desk.table(&table)
}
