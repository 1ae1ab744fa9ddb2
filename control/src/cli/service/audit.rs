//! `ringway audit`: who changed what, and whether that record is whole.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Desk, Noun, now};
use crate::cli::client::path;
use crate::cli::given::{self, When};
use crate::cli::show::{plain, word};
use crate::cli::table::Table;
use crate::cli::{print, say};
use crate::failure::{Failure, Status};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// List changes, the oldest first
    List(ListArgs),
    /// Follow the chain of the log from its beginning; ends with 1 if it is broken
    Verify,
}

/// `ringway audit list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// By whom: user:NAME, token:ID, local:UID or gateway
    #[arg(long)]
    actor: Option<String>,
    /// What was done, such as user.created
    #[arg(long)]
    action: Option<String>,
    /// To what: a name or an identifier
    #[arg(long)]
    object: Option<String>,
    /// Not before: a date, a time, or a distance back such as 7d
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    from: Option<When>,
    /// Before
    #[arg(long, value_name = "WHEN", value_parser = given::when)]
    until: Option<When>,
    /// The latest first
    #[arg(long)]
    newest_first: bool,
}

/// Does it.
pub(crate) fn run(noun: Noun<AuditVerb>) -> Result<Status, Failure> {
    let desk = noun.common.desk()?;
    match noun.verb {
        AuditVerb::List(args) => list(&desk, &args),
        AuditVerb::Verify => verify(&desk),
    }
}

fn list(desk: &Desk, args: &ListArgs) -> Result<Status, Failure> {
    let time = |when: Option<When>| when.map(|when| when.back(now()).to_string());
    let query = [
        ("actor", args.actor.clone()),
        ("action", args.action.clone()),
        ("object", args.object.clone()),
        ("from", time(args.from)),
        ("until", time(args.until)),
        ("newest_first", args.newest_first.then(|| "true".to_owned())),
    ];
    let rows = desk.list(&path(&["audit"]), &query, |entry| word(entry, "/sequence"))?;
    let Some(rows) = rows else { return Ok(Status::Done) };
    let mut table = Table::new(&[">NUMBER", "AT", "ACTOR", "ACTION", "OBJECT", "DETAIL"]);
    for entry in &rows {
        table.push(vec![
            word(entry, "/sequence"),
            word(entry, "/at"),
            word(entry, "/actor"),
            word(entry, "/action"),
            word(entry, "/object"),
            plain(&entry["detail"].to_string()),
        ]);
    }
    desk.table(&table)
}

fn verify(desk: &Desk) -> Result<Status, Failure> {
    let answer = desk.client.get(&path(&["audit", "verify"]), &[])?;
    let state = answer.json()?;
    let intact = state["intact"] == json!(true);
    if desk.show.json {
        desk.raw(&answer)?;
    } else if desk.show.quiet {
        print(&format!("{}\n", word(&state, "/head_hash")))?;
    } else {
        desk.facts(&[
            ("Whole", word(&state, "/intact")),
            ("Entries", word(&state, "/entries")),
            ("Broken at", word(&state, "/broken_at")),
            ("Why", word(&state, "/why")),
            ("Last entry", word(&state, "/head_sequence")),
            ("Its hash", word(&state, "/head_hash")),
        ])?;
        say(
            "Keep number and hash of the last entry elsewhere: later they prove that nothing is gone",
        );
    }
    Ok(if intact { Status::Done } else { Status::Findings })
}
