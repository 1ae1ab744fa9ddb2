//! `ringway node`: exits, in service or out of it.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::{Desk, Noun};
use crate::cli::ask::SureArgs;
use crate::cli::client::{Body, path};
use crate::cli::show::{moment, word};
use crate::cli::table::Table;
use crate::failure::{Failure, Status};

/// What to do with exits.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List exits
    List,
    /// Take an exit back into service
    Enable(NodeName),
    /// Take an exit out of service
    Disable(DisableArgs),
}

/// An exit.
#[derive(Args, Debug)]
pub(crate) struct NodeName {
    /// Its name
    node: String,
}

/// `ringway node disable`.
#[derive(Args, Debug)]
pub(crate) struct DisableArgs {
    #[command(flatten)]
    name: NodeName,
    #[command(flatten)]
    sure: SureArgs,
}

/// Does it.
pub(crate) fn run(noun: Noun<NodeVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        NodeVerb::List => list(&desk),
        NodeVerb::Enable(name) => set(&desk, &name.node, "enable"),
        NodeVerb::Disable(args) => {
            let node = &args.name.node;
            args.sure.confirm(&format!("This takes the exit \"{node}\" out of service"))?;
            set(&desk, node, "disable")
        }
    }
}

fn set(desk: &Desk, node: &str, verb: &str) -> Result<Status, Failure> {
    let at = path(&["nodes", node, verb]);
    let answer = desk.send(Method::POST, &at, Body::Empty, None)?;
    let now = word(&answer.json()?, "/status");
    desk.done(&answer, "/id", &format!("The exit \"{node}\" is {now} now"))
}

fn list(desk: &Desk) -> Result<Status, Failure> {
    let nodes = desk.short_list(&path(&["nodes"]), "/items", |node| word(node, "/id"))?;
    let Some(nodes) = nodes else { return Ok(Status::Done) };
    let mut table =
        Table::new(&["NAME", "KIND", "STATUS", ">SESSIONS", ">LOAD", "ADDRESSES", "LAST SEEN"]);
    for node in &nodes {
        let load = node["load"].as_f64().map_or_else(|| "-".to_owned(), percent);
        table.push(vec![
            word(node, "/id"),
            word(node, "/kind"),
            word(node, "/status"),
            word(node, "/sessions"),
            load,
            word(node, "/addresses"),
            moment(node, "/last_seen"),
        ]);
    }
    desk.table(&table)
}

fn percent(load: f64) -> String {
    format!("{:.0} %", load * 100.0)
}
